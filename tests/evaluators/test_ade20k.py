"""ADE20K's SceneParse150 layout: reading it, and probes on it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluators import segmentation, segmentation_multiscale
from evaluators.comparison import compare
from evaluators.data_sets import ade20k
from evaluators.features import load_encoder

REAL = Path(__file__).parents[3] / "shared" / "realdata" / "research_only" / "ade20k_val3"
COLOURS = np.array([[0, 0, 0], [230, 60, 60], [60, 220, 60], [60, 80, 240]], np.uint8)


def write_pair(root, split, name, seed, size=(48, 80)):
    """Blocks of the classes 1 to 3 in their colours; the first rows have no class."""
    ids = np.random.default_rng(seed).integers(1, 4, (size[0] // 16, size[1] // 16)).repeat(16, 0).repeat(16, 1)
    ids[:4] = 0
    for kind, values, suffix in (("images", COLOURS[ids], "jpg"), ("annotations", ids.astype(np.uint8), "png")):
        folder = root / kind / split
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(folder / f"{name}.{suffix}", quality=95)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ade") / "ADEChallengeData2016"
    for seed in range(8):
        write_pair(folder, "training", f"ADE_train_{seed:08}", seed)
    for seed in range(8, 11):
        write_pair(folder, "validation", f"ADE_val_{seed:08}", seed)
    return folder


def config(root, cache_dir, module=segmentation, **changes):
    fit = dataclasses.replace(module.FIT_PRESETS["cpu"], steps=150, warmup_steps=10, batch_size=8)
    options = {"data_set": "ade20k", "data": str(root), "cache_dir": cache_dir, "preset": "cpu", "seeds": (0,)}
    return module.Config(**{**options, "fit": fit, "resolution": (48, 48), "num_examples": 1, **changes})


def test_the_layout_is_read_and_zero_is_no_class(root):
    data = ade20k.load(str(root))
    assert (len(data.train), len(data.test), len(data.class_names)) == (8, 3, 150)
    ids = data.train.dense_map("segmentation", 0)
    assert ids.dtype == np.uint8 and (ids[:4] == 255).all() and set(np.unique(ids[4:])) <= {0, 1, 2}
    assert ade20k.load(str(root.parent)).train.fingerprint == data.train.fingerprint  # the unpacked release
    assert "published one 20,210" in data.warnings[0] and data.class_names[0] == "class 1"
    lines = [f"{index}\t0.1\t1\t1\tthing {index}, object" for index in range(1, 151)]
    (root / "objectInfo150.txt").write_text("\n".join(["Idx\tRatio\tTrain\tVal\tName", *lines]) + "\n")
    assert ade20k.load(str(root)).class_names[149] == "thing 150"
    (root / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tName\n")
    with pytest.raises(ValueError, match="names 0 classes, not 150"):
        ade20k.load(str(root))
    (root / "objectInfo150.txt").unlink()


def test_mistakes_are_told_in_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="ADE20K at .* has no training images: pass a folder that holds images/"):
        ade20k.load(str(tmp_path))
    for split in ("training", "validation"):
        write_pair(tmp_path, split, "one", 0)
    file = tmp_path / "annotations" / "training" / "one.png"
    Image.fromarray(np.full((48, 80), 151, np.uint8)).save(file)
    with pytest.raises(ValueError, match="one.png: class id 151 is not among 150"):
        ade20k.load(str(tmp_path)).train.dense_map("segmentation", 0)
    Image.new("RGB", (80, 48)).save(file)
    with pytest.raises(ValueError, match=r"one.png is \(48, 80, 3\), its image \(48, 80\)"):
        ade20k.load(str(tmp_path)).train.dense_map("segmentation", 0)
    file.unlink()
    with pytest.raises(ValueError, match="lacks 1 files: .*annotations/training/one.png"):
        ade20k.load(str(tmp_path))


def test_the_published_protocol_is_the_default(tmp_path):
    options = {"data_set": "ade20k", "data": "x", "cache_dir": tmp_path}
    assert (segmentation.Config(**options).resolution, segmentation.Config(**options).augment) == ((512, 512), True)
    assert segmentation_multiscale.Config(**options).resolution == (640, 640)
    small = segmentation.Config(**options, preset="cpu")
    assert (small.resolution, small.augment, small.limit) == ((256, 256), False, 256)


@pytest.mark.parametrize("module", [segmentation, segmentation_multiscale])
def test_a_damaged_encoder_is_worse_and_equal_encoders_differ_by_nothing(
    root, encoder_folders, damaged_encoder, tmp_path, module
):
    base, same, damaged = (
        module.evaluate(load_encoder(folder), config(root, tmp_path, module))
        for folder in (encoder_folders("dinov3"), encoder_folders("dinov3"), damaged_encoder)
    )
    entry = compare(module.METRICS, module.aggregate, base, same)
    assert all(row["difference"]["mean"] == 0 for row in entry["metrics"].values())
    scores = [module.aggregate(result["items"][0])["mean_iou"] for result in (base, damaged)]
    assert scores[0] > scores[1] + 5 and scores[0] > base["controls"]["position_only"]["mean_iou"]
    assert base["items"][0].shape == (3, 450) and base["examples"][0]["prediction"].shape == (48, 80)
    settings = base["protocol"]["settings"]
    strides = {segmentation: ("32x32", "1", False), segmentation_multiscale: ("24x24", "1 1.32", True)}
    assert (settings["stride"], settings["scales"], settings["flip"]) == strides[module]
    assert base["protocol"]["id"].startswith("ade20k-segmentation-")


def test_multi_scale_keeps_no_test_features_and_flips(root, encoder_folders, tmp_path):
    encoder = load_encoder(encoder_folders("dinov3"))
    segmentation_multiscale.evaluate(encoder, config(root, tmp_path, segmentation_multiscale))
    files = sorted(np.load(file, mmap_mode="r").shape for file in tmp_path.glob("*.npy"))
    assert files == [(8, 12, 12), (8, 48, 48), (8, 64, 6, 6)]  # targets, controls' maps, training features


def test_heads_train_with_augmentation(root, encoder_folders, tmp_path):
    fit = dataclasses.replace(segmentation.FIT_PRESETS["cpu"], steps=4, warmup_steps=2, batch_size=2)
    settings = {"augment": True, "num_workers": 0, "seeds": (0, 1), "fit": fit}
    result = segmentation.evaluate(load_encoder(encoder_folders("dinov3")), config(root, tmp_path, **settings))
    assert len(result["items"]) == 2 and result["protocol"]["settings"]["augment"] is True


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/realdata")
def test_real_images(encoder_folders, tmp_path):
    data = ade20k.load(str(REAL))
    assert (len(data.train), len(data.test)) == (2, 1)
    ids = data.train.dense_map("segmentation", 0)
    assert (ids == 2).sum() == 134_492 and (ids == 255).sum() == 3_613  # sky and no class, as its manifest counts
    fit = dataclasses.replace(segmentation.FIT_PRESETS["cpu"], steps=5, warmup_steps=2, batch_size=2)
    result = segmentation.evaluate(
        load_encoder(encoder_folders("dinov3")), config(REAL, tmp_path, resolution=(64, 64), fit=fit)
    )
    assert result["examples"][0]["prediction"].shape == result["examples"][0]["truth"].shape
