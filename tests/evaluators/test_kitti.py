"""KITTI with Eigen's split: reading it, its crops, and a probe on it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluators import depth
from evaluators.data_sets import kitti
from evaluators.features import load_encoder

REAL = Path(__file__).parents[3] / "shared" / "realdata" / "research_only" / "kitti_object"
DRIVE = "2011_09_26/2011_09_26_drive_0002_sync"


def write_pair(root, seed):
    """An image whose brightness falls with the row, sparse depth, 1242 x 375."""
    rows = np.linspace(60, 5, 375)[:, None].repeat(1242, 1)
    sparse = np.random.default_rng(seed).random(rows.shape) < 0.05
    image = root / "input" / DRIVE / "image_02" / "data" / f"{seed:010}.png"
    target = root / "gt_depth" / DRIVE.split("/")[1] / "proj_depth" / "groundtruth" / "image_02" / f"{seed:010}.png"
    for file, values in (
        (image, np.dstack([(rows * 4).astype(np.uint8)] * 3)),
        (target, (rows * 256 * sparse).astype(np.uint16)),
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(file)
    return f"{image.relative_to(root / 'input')} {target.relative_to(root / 'gt_depth')} 721.5377"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("KITTI")
    lines = [write_pair(folder, seed) for seed in range(4)]
    (folder / "kitti_eigen_train.txt").write_text("\n".join(lines[:2]) + "\n")
    without = f"{DRIVE}/image_02/data/0000000099.png None 721.5377"
    (folder / "kitti_eigen_test.txt").write_text("\n".join([lines[2], without, lines[3]]) + "\n")
    return folder


def config(root, cache_dir, **changes):
    fit = dataclasses.replace(depth.FIT_PRESETS["cpu"], steps=30, warmup_steps=10, batch_size=2)
    options = {"data_set": "kitti", "data": str(root), "cache_dir": cache_dir, "preset": "cpu", "seeds": (0,)}
    return depth.Config(**{**options, "fit": fit, "resolution": (88, 304), **changes})


def test_the_layout_is_read_cut_and_lines_without_depth_are_dropped(root):
    data = kitti.load(str(root))
    assert (len(data.train), len(data.test)) == (2, 2)
    assert data.test.dropped == {"without_depth": 1} and data.train.dropped == {}
    assert data.train[0].size == (1216, 352) and data.train.image_size(0) == (352, 1216)
    depth_m = data.train.dense_map("depth", 0)
    assert depth_m.shape == (352, 1216) and 0.03 < (depth_m > 0).mean() < 0.07
    brightness = np.asarray(data.train[0])[:, :, 0] / 4
    assert np.abs(brightness - depth_m)[depth_m > 0].max() < 0.3
    assert "published one 652" in data.warnings[1]


def test_the_benchmark_crop_keeps_the_bottom_and_the_middle():
    assert kitti.benchmark_crop(375, 1242) == (23, 13, 352, 1216)
    assert kitti.benchmark_crop(370, 1224) == (18, 4, 352, 1216)
    assert kitti.benchmark_crop(100, 200) == (0, 0, 100, 200)


def test_mistakes_are_told_in_one_sentence(tmp_path, root):
    with pytest.raises(ValueError, match="KITTI at .* has no kitti_eigen_train.txt: pass a folder that holds"):
        kitti.load(str(tmp_path))
    (tmp_path / "kitti_eigen_train.txt").write_text("a.png b.png 1\n")
    (tmp_path / "kitti_eigen_test.txt").write_text("c.png None 1\n")
    with pytest.raises(ValueError, match=r"lacks 2 files: .*input/a.png, .*gt_depth/b.png"):
        kitti.load(str(tmp_path))
    (tmp_path / "kitti_eigen_train.txt").write_text("a.png None 1\n")
    with pytest.raises(ValueError, match="has no image in split 'train'"):
        kitti.load(str(tmp_path))
    (tmp_path / "kitti_eigen_train.txt").write_text("a.png\n")
    with pytest.raises(ValueError, match="kitti_eigen_train.txt is not 'RGB DEPTH FOCAL'"):
        kitti.load(str(tmp_path))


def test_the_published_protocol_is_the_default_and_crops_can_be_chosen(tmp_path):
    full = depth.Config(data_set="kitti", data="x", cache_dir=tmp_path)
    assert (full.resolution, full.max_depth_m, full.crop, full.flip, full.augment) == (
        (352, 1216), 80.0, "garg", True, True,
    )  # fmt: skip
    assert depth.Config(data_set="kitti", data="x", cache_dir=tmp_path, crop="eigen").crop == "eigen"


def test_a_probe_that_sees_beats_the_constant_and_the_crop_matters(root, encoder_folders, tmp_path):
    encoder = load_encoder(encoder_folders("dinov3"))
    garg = depth.evaluate(encoder, config(root, tmp_path, num_examples=1))
    none = depth.evaluate(encoder, config(root, tmp_path, num_examples=1, crop="none"))
    constant = garg["controls"]["constant"]["rmse_m"]
    assert depth.aggregate(garg["items"][0])["rmse_m"] < constant < none["controls"]["constant"]["rmse_m"]
    assert garg["data"]["splits"]["test"]["dropped"] == {"without_depth": 1}
    depth.draw(tmp_path / "picture.png", garg, none)
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.width > 600


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/realdata")
def test_real_images(encoder_folders, tmp_path):
    data = kitti.load(str(REAL))
    assert (len(data.train), len(data.test)) == (2, 1) and data.train[0].size == (1216, 352)
    depth_m = data.train.dense_map("depth", 0)
    assert 0.01 < (depth_m > 0).mean() < 0.2 and depth_m[depth_m > 0].min() > 1 and depth_m.max() < 130
    result = depth.evaluate(load_encoder(encoder_folders("dinov3")), config(REAL, tmp_path))
    assert 1 < depth.aggregate(result["items"][0])["rmse_m"] < 40
