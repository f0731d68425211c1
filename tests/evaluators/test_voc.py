"""Pascal VOC 2012 in its own layout: reading it, and a probe on it."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluators import segmentation
from evaluators.data_sets import voc
from evaluators.features import load_encoder

REAL = Path(__file__).parents[3] / "shared" / "realdata" / "research_only" / "coco_tiny"
COCO_NAMES = {"airplane": "aeroplane", "motorcycle": "motorbike", "couch": "sofa", "tv": "tvmonitor"}


def write_layout(folder, train, val):
    """Write {name: (image, class ids)} of both splits as the release has them."""
    for kind in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for split, items in (("train", train), ("val", val)):
        (folder / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("".join(f"{name}\n" for name in items))
        for name, (image, ids) in items.items():
            image.save(folder / "JPEGImages" / f"{name}.jpg", quality=95)
            palette = Image.fromarray(ids.astype(np.uint8), "P")
            palette.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
            palette.save(folder / "SegmentationClass" / f"{name}.png")
    return folder


def draw_item(seed):
    ids = np.zeros((48, 64), np.uint8)
    top, left = np.random.default_rng(seed).integers(0, 3, 2) * 8
    ids[top : top + 24, left : left + 24] = 15
    ids[top : top + 24, left] = 255
    return Image.fromarray(np.dstack([np.where(ids == 15, 220, 40)] * 3).astype(np.uint8)), ids


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    items = {f"2007_{seed:06}": draw_item(seed) for seed in range(9)}
    train, val = dict(list(items.items())[:6]), dict(list(items.items())[6:])
    return write_layout(tmp_path_factory.mktemp("voc") / "VOCdevkit" / "VOC2012", train, val)


def config(root, cache_dir, **changes):
    fit = dataclasses.replace(segmentation.FIT_PRESETS["cpu"], steps=40, warmup_steps=10, batch_size=6)
    options = {"data_set": "voc", "data": str(root), "cache_dir": cache_dir, "preset": "cpu", "seeds": (0,)}
    return segmentation.Config(**{**options, "fit": fit, "resolution": (48, 48), "num_examples": 1, **changes})


def test_the_layout_is_read_and_the_background_is_a_class(root):
    data = voc.load(str(root.parents[1]))  # where VOCdevkit lies
    assert (len(data.train), len(data.test)) == (6, 3)
    assert len(data.class_names) == 21 and data.class_names[0] == "background" and data.class_names[15] == "person"
    assert set(np.unique(data.train.dense_map("segmentation", 0))) == {0, 15, 255}
    assert "published one 1,464" in data.warnings[0] and voc.load(str(root)).test.pairs == data.test.pairs


def test_mistakes_are_told_in_one_sentence(tmp_path, root):
    with pytest.raises(ValueError, match="VOC 2012 at .* has no ImageSets/Segmentation/train.txt: pass a folder that"):
        voc.load(str(tmp_path))
    folder = write_layout(tmp_path, {"one": draw_item(0)}, {"two": draw_item(1)})
    (folder / "ImageSets" / "Segmentation" / "val.txt").write_text("three\n")
    with pytest.raises(ValueError, match="lacks 2 files: .*JPEGImages/three.jpg, .*SegmentationClass/three.png"):
        voc.load(str(folder))
    folder = write_layout(tmp_path, {"one": (draw_item(0)[0], np.full((48, 64), 21))}, {"two": draw_item(1)})
    with pytest.raises(ValueError, match="one.png: class id 21 is not among 21"):
        voc.load(str(folder)).train.dense_map("segmentation", 0)


def test_the_background_counts_in_the_score(root, encoder_folders, tmp_path):
    result = segmentation.evaluate(load_encoder(encoder_folders("dinov3")), config(root, tmp_path))
    constant = result["controls"]["constant"]  # all background: its share, and nothing of the person
    _, _, true = result["items"][0].sum(0).reshape(3, 21)
    assert constant["mean_iou"] == pytest.approx(100 * true[0] / (true[0] + true[15]) / 2)
    assert segmentation.aggregate(result["items"][0])["mean_iou"] > constant["mean_iou"] + 10
    segmentation.draw(tmp_path / "picture.png", result, result)


def test_weight_decay_is_dinov2s(root, encoder_folders, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(segmentation, "run_probe", lambda encoder, config, fit, *_: seen.append(fit.weight_decay))
    for data_set in ("voc", "ade20k"):
        monkeypatch.setattr(segmentation, "load_data", lambda _: voc.load(str(root)))
        full = segmentation.Config(data_set=data_set, data="x", cache_dir=tmp_path)
        segmentation.evaluate(load_encoder(encoder_folders("dinov3")), full)
    assert seen == [1e-4, 1e-3]


def write_real_photographs(folder):
    """COCO's photographs with outlines, in VOC's layout and classes."""
    items = {}
    for sample in sorted(REAL.iterdir()):
        if not (sample / "instances.png").is_file():
            continue
        values = np.asarray(Image.open(sample / "instances.png"))
        ids = np.zeros(values.shape, np.uint8)
        for instance in json.loads((sample / "manifest.json").read_text())["instances"]:
            name = COCO_NAMES.get(instance["class_name"], instance["class_name"].replace(" ", ""))
            ids[values == instance["value"]] = voc.CLASSES.index(name) if name in voc.CLASSES else 0
        items[sample.name] = Image.open(sample / "rgb.jpg").convert("RGB"), ids
    names = sorted(items)
    assert max(ids.max() for _, ids in items.values()) > 0
    return write_layout(folder, {n: items[n] for n in names[::2]}, {n: items[n] for n in names[1::2]})


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/realdata")
def test_real_photographs(encoder_folders, tmp_path):
    root = write_real_photographs(tmp_path / "VOC2012")
    result = segmentation.evaluate(
        load_encoder(encoder_folders("dinov3")), config(root, tmp_path / "cache", resolution=(64, 64))
    )
    assert 0 < segmentation.aggregate(result["items"][0])["mean_iou"] < 100
