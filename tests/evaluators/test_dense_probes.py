"""The depth and segmentation probes, from images to numbers."""

import dataclasses

import numpy as np
import pytest
import torch

from evaluators import depth, segmentation
from evaluators.features import load_encoder

from .conftest import make_row, png, write_dense


def short(module, steps=120):
    return dataclasses.replace(module.FIT_PRESETS["cpu"], steps=steps, warmup_steps=20)


def depth_config(folder, cache_dir, **changes):
    options = {"data": str(folder), "resolution": (32, 32), "cache_dir": cache_dir, "fit": short(depth)}
    options |= {"data_set": "rooms", "seeds": (0,)}
    return depth.Config(**{**options, **changes})


def segmentation_config(folder, cache_dir, **changes):
    options = {"data": str(folder), "resolution": (32, 32), "cache_dir": cache_dir, "fit": short(segmentation)}
    options |= {"data_set": "rooms", "seeds": (0,)}
    return segmentation.Config(**{**options, **changes})


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def encoder(encoder_folders):
    return load_encoder(encoder_folders("dinov3"))


def test_depth_probe_on_informative_features_beats_the_controls(encoder, dense_folder, cache_dir):
    result = depth.evaluate(encoder, depth_config(dense_folder, cache_dir))
    (items,) = result["items"]
    scores = depth.aggregate(items)
    rmse_m = scores["rmse_m"]
    controls = result["controls"]
    assert rmse_m < 0.6 * min(controls["constant"]["rmse_m"], controls["position_only"]["rmse_m"])
    assert scores["delta1"] > controls["position_only"]["delta1"]
    assert [set(example) for example in result["examples"]] == [{"image", "truth", "prediction", "features"}] * 4
    assert result["examples"][0]["prediction"].shape == (32, 32)
    assert result["encoder"]["resolution_px"] == [32, 32]
    assert {name: split["items"] for name, split in result["data"]["splits"].items()} == {"train": 24, "test": 8}
    assert len(items) == 8


def test_segmentation_probe_on_informative_features_beats_the_controls(encoder, dense_folder, cache_dir):
    result = segmentation.evaluate(encoder, segmentation_config(dense_folder, cache_dir))
    controls = result["controls"]
    scores = segmentation.aggregate(result["items"][0])
    assert scores["mean_iou"] > 70 > controls["position_only"]["mean_iou"]
    assert controls["constant"]["pixel_accuracy"] < scores["pixel_accuracy"]


def test_blind_features_do_not_beat_the_constant(encoder_folders, dense_folder, cache_dir):
    blind = load_encoder(encoder_folders("dinov3"))
    with torch.no_grad():
        blind.model.norm.weight.zero_()  # every token becomes the norm's bias
    blind = dataclasses.replace(blind, weights_hash="blind")
    result = segmentation.evaluate(blind, segmentation_config(dense_folder, cache_dir))
    score = segmentation.aggregate(result["items"][0])["mean_iou"]
    assert score == pytest.approx(result["controls"]["constant"]["mean_iou"])
    result = depth.evaluate(blind, depth_config(dense_folder, cache_dir))
    assert depth.aggregate(result["items"][0])["rmse_m"] > 0.95 * result["controls"]["constant"]["rmse_m"]


def test_seeds_give_one_score_each_and_repeat_exactly(encoder, dense_folder, cache_dir):
    config = segmentation_config(dense_folder, cache_dir, seeds=(3, 4), fit=short(segmentation, 30))
    one, two = segmentation.evaluate(encoder, config), segmentation.evaluate(encoder, config)
    assert all(np.array_equal(a, b) for a, b in zip(one["items"], two["items"]))
    assert len(one["items"]) == 2 and not np.array_equal(*one["items"])


def test_controls_by_hand(tmp_path, encoder):
    left, right = np.zeros((32, 32), np.uint8), np.zeros((32, 32), np.uint8)
    left[:, :16], right[:, 16:] = 1, 1
    depth_left_m = np.where(left == 1, 1000, 3000).astype(np.uint16)
    image = png(np.zeros((32, 32, 3), np.uint8))
    row = {"image": image, "depth": png(depth_left_m), "segmentation": png(left), "id": "left"}
    test_row = {**row, "segmentation": png(right)}
    folder = write_dense(tmp_path / "data", [row, row], [test_row])
    config = depth_config(folder, tmp_path / "cache", fit=short(depth, 30))
    controls = depth.evaluate(encoder, config)["controls"]
    assert controls["constant"]["rmse_m"] == pytest.approx(1.0)  # mean depth 2 m, truth 1 m or 3 m
    assert controls["position_only"]["rmse_m"] == pytest.approx(0.0, abs=1e-6)
    config = segmentation_config(folder, tmp_path / "cache", fit=short(segmentation, 30))
    controls = segmentation.evaluate(encoder, config)["controls"]
    assert controls["constant"]["pixel_accuracy"] == 50.0
    assert controls["position_only"]["pixel_accuracy"] == 0.0  # the test image is the mirror image


def test_scores_are_taken_at_the_truths_own_size(tmp_path, encoder):
    rows = [make_row(seed) for seed in range(8)]
    tall = make_row(9)
    tall.update(image=png(np.zeros((48, 20, 3), np.uint8)), depth=png(np.full((48, 20), 2000, np.uint16)))
    tall["segmentation"] = png(np.ones((48, 20), np.uint8))
    folder = write_dense(tmp_path / "data", rows, [tall])
    result = depth.evaluate(encoder, depth_config(folder, tmp_path / "cache", fit=short(depth, 30)))
    assert result["examples"][0]["prediction"].shape == (48, 20)


def test_depth_without_a_pixel_in_range_names_the_split(dense_folder, cache_dir, encoder, tmp_path):
    with pytest.raises(
        ValueError, match=r"no depth between 0.001 and 0.5 m in split 'train': pass another max_depth_m"
    ):
        depth.evaluate(encoder, depth_config(dense_folder, cache_dir, max_depth_m=0.5))
    far = {**make_row(1), "depth": png(np.full((32, 32), 60_000, np.uint16))}
    folder = write_dense(tmp_path / "far", [make_row(0)], [far])
    with pytest.raises(ValueError, match="in split 'test'"):
        depth.evaluate(encoder, depth_config(folder, tmp_path / "cache"))
    with pytest.raises(ValueError, match="max_depth_m -1"):
        depth_config(dense_folder, cache_dir, max_depth_m=-1)


def test_segmentation_with_ignored_pixels_only_names_the_split(tmp_path, encoder):
    ignored = {**make_row(1), "segmentation": png(np.full((32, 32), 255, np.uint8))}
    one = write_dense(tmp_path / "one", [ignored], [make_row(0)])
    with pytest.raises(ValueError, match=r"only ignored pixels \(255\) in split 'train'"):
        segmentation.evaluate(encoder, segmentation_config(one, tmp_path / "cache"))
    two = write_dense(tmp_path / "two", [make_row(0)], [ignored])
    with pytest.raises(ValueError, match=r"only ignored pixels \(255\) in split 'test'"):
        segmentation.evaluate(encoder, segmentation_config(two, tmp_path / "cache"))
    both = write_dense(tmp_path / "both", [ignored], [ignored], class_names=None)
    with pytest.raises(ValueError, match="only ignored pixels"):
        segmentation.evaluate(encoder, segmentation_config(both, tmp_path / "cache"))
