"""NYUd in BTS's layout: reading it, its protocol, and probes on it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluators import depth, depth_dpt
from evaluators.comparison import compare
from evaluators.data_sets import nyud
from evaluators.features import load_encoder

REAL = Path(__file__).parents[3] / "shared" / "realdata" / "research_only" / "nyuv2_mini"
CELL_PX = 80


def write_pair(folder, seed):
    """A picture of grey cells, the brighter the farther, 640 x 480, with a border that lies."""
    random = np.random.default_rng(seed)
    depth_m = random.uniform(1, 4, (480 // CELL_PX, 640 // CELL_PX)).repeat(CELL_PX, 0).repeat(CELL_PX, 1)
    grey = (depth_m * 60).astype(np.uint8)
    depth_mm = (depth_m * 1000).astype(np.uint16)
    depth_mm[:45] = 0
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.dstack([grey] * 3)).save(folder / f"rgb_{seed:05}.png")
    Image.fromarray(depth_mm).save(folder / f"sync_depth_{seed:05}.png")
    return f"/{folder.name}/rgb_{seed:05}.png /{folder.name}/sync_depth_{seed:05}.png 518.8579"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("NYU")
    train = [write_pair(folder / "bathroom_0001", seed) for seed in range(6)]
    test = [write_pair(folder / "kitchen", seed) for seed in range(6, 9)]
    (folder / "nyu_train.txt").write_text("\n".join(train) + "\n")
    (folder / "nyu_test.txt").write_text("\n".join(test) + "\n")
    return folder


def config(root, cache_dir, module=depth, **changes):
    fit = dataclasses.replace(module.FIT_PRESETS["cpu"], steps=20, warmup_steps=5, batch_size=4)
    changes = {"width": 8, "resolution": (30, 40), **changes} if module is depth_dpt else changes
    options = {"data_set": "nyud", "data": str(root), "cache_dir": cache_dir, "preset": "cpu", "seeds": (0,)}
    return module.Config(**{**options, "fit": fit, "resolution": (60, 80), **changes})


def test_the_layout_is_read(root):
    data = nyud.load(str(root))
    assert (len(data.train), len(data.test)) == (6, 3) and data.train[0].size == (640, 480)
    depth_m = data.train.dense_map("depth", 0)
    assert depth_m.shape == data.train.image_size(0) == (480, 640) and depth_m.dtype == np.float32
    assert depth_m[0, 0] == 0 and 1 <= depth_m[100, 100] <= 4
    assert np.abs(np.asarray(data.train[0])[100:, :, 0] / 60 - depth_m[100:]).max() < 1 / 60 + 1e-3
    assert data.describe()["warnings"] == [
        "split train has 6 images, the published one 24,231.",
        "split test has 3 images, the published one 654.",
    ]
    assert len(nyud.load(str(root), limit=2).train) == 2
    assert data.train.fingerprint != data.test.fingerprint and data.describe()["images_in_both_splits"] == 0


def test_all_missing_files_are_named_at_once(root, tmp_path):
    lines = [f"/bathroom_0001/rgb_{seed:05}.png /bathroom_0001/sync_depth_{seed:05}.png 1" for seed in range(30)]
    (tmp_path / "nyu_train.txt").write_text("\n".join(lines))
    (tmp_path / "nyu_test.txt").write_text("")
    with pytest.raises(ValueError, match=r"lacks 60 files: .*rgb_00000.png, .*rgb_00009.png.* and 40 more"):
        nyud.load(str(tmp_path))


def test_mistakes_are_told_in_one_sentence(tmp_path, root):
    with pytest.raises(ValueError, match=r"NYUd at .*absent' is no folder: pass one that holds nyu_train.txt"):
        nyud.load(str(tmp_path / "absent"))
    with pytest.raises(ValueError, match=r"NYUd at .* has no nyu_train.txt"):
        nyud.load(str(tmp_path))
    (tmp_path / "nyu_train.txt").write_text("one_column\n")
    (tmp_path / "nyu_test.txt").write_text("")
    with pytest.raises(ValueError, match="nyu_train.txt is not 'RGB DEPTH FOCAL'"):
        nyud.load(str(tmp_path))
    with pytest.raises(ValueError, match="crop 'garg' is not defined for nyud: pass eigen, none"):
        config(root, tmp_path, crop="garg")
    with pytest.raises(ValueError, match="no published augmentation for rooms"):
        depth.Config(data_set="rooms", data="x", cache_dir=tmp_path, augment=True)
    with pytest.raises(ValueError, match="is no folder"):
        depth.check(config(tmp_path / "absent", tmp_path))


def test_broken_files_are_named(tmp_path):
    line = write_pair(tmp_path / "room", 0)
    for name in ("nyu_train.txt", "nyu_test.txt"):
        (tmp_path / name).write_text(line)
    file = tmp_path / "room" / "sync_depth_00000.png"
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"sync_depth_00000.png cannot be read .*: fetch it again"):
        nyud.load(str(tmp_path)).train.dense_map("depth", 0)
    Image.new("L", (640, 480)).save(file)
    with pytest.raises(ValueError, match=r"sync_depth_00000.png: depth must be a 16-bit grey PNG"):
        nyud.load(str(tmp_path)).train.dense_map("depth", 0)
    Image.fromarray(np.ones((48, 64), np.uint16)).save(file)
    with pytest.raises(ValueError, match=r"is \(48, 64\), its image \(480, 640\)"):
        nyud.load(str(tmp_path)).train.dense_map("depth", 0)


def test_the_published_protocol_is_the_default(tmp_path):
    full = depth.Config(data_set="nyud", data="x", cache_dir=tmp_path)
    assert (full.resolution, full.max_depth_m, full.crop, full.flip, full.augment, full.limit) == (
        (480, 640), 10.0, "eigen", True, True, None,
    )  # fmt: skip
    small = depth.Config(data_set="nyud", data="x", cache_dir=tmp_path, preset="cpu")
    assert (small.resolution, small.flip, small.augment, small.limit) == ((240, 320), True, False, 256)
    chosen = dataclasses.replace(full, flip=False, augment=False, crop="none", limit=3)
    assert (chosen.flip, chosen.augment, chosen.crop, chosen.limit) == (False, False, "none", 3)
    assert depth_dpt.Config(data_set="nyud", data="x", cache_dir=tmp_path).width == 256


def test_a_damaged_encoder_is_worse_and_equal_encoders_differ_by_nothing(
    root, encoder_folders, damaged_encoder, tmp_path
):
    fit = dataclasses.replace(depth.FIT_PRESETS["cpu"], steps=120, warmup_steps=20, batch_size=4)
    base, same, damaged = (
        depth.evaluate(load_encoder(folder), config(root, tmp_path, fit=fit, resolution=(96, 128)))
        for folder in (encoder_folders("dinov3"), encoder_folders("dinov3"), damaged_encoder)
    )
    entry = compare(depth.METRICS, depth.aggregate, base, same)
    assert [row["difference"]["mean"] for row in entry["metrics"].values()] == [0, 0, 0]
    assert [row["difference"]["interval"] for row in entry["metrics"].values()] == [[0, 0]] * 3
    assert entry["protocol"]["id"] == "nyud-depth-linear/1" and entry["base"]["resolution_px"] == [96, 128]
    assert "preset cpu" in entry["protocol"]["differs"] and entry["protocol"]["settings"]["crop"] == "eigen"
    scores = [depth.aggregate(result["items"][0])["rmse_m"] for result in (base, damaged)]
    assert scores[1] > 1.1 * scores[0] and scores[0] < base["controls"]["constant"]["rmse_m"]


@pytest.mark.parametrize("module", [depth, depth_dpt])
def test_heads_train_with_augmentation(root, encoder_folders, tmp_path, module):
    changes = {"augment": True, "seeds": (0, 1), "num_workers": 0, "limit": 3, "num_examples": 1}
    fit = dataclasses.replace(module.FIT_PRESETS["cpu"], steps=4, warmup_steps=2, batch_size=2)
    result = module.evaluate(
        load_encoder(encoder_folders("dinov3")), config(root, tmp_path, module, fit=fit, **changes)
    )
    assert [items.shape for items in result["items"]] == [(3, 3)] * 2
    assert not np.array_equal(*result["items"]) and np.isfinite(result["items"]).all()
    assert any("published augmentations" in note for note in result["protocol"]["notes"])
    assert result["examples"][0]["prediction"].shape == (480, 640)


def test_upstream_habits_are_another_protocol(root, encoder_folders, tmp_path):
    encoder = load_encoder(encoder_folders("dinov3"))
    settings = {"limit": 2, "num_examples": 1}
    ours = depth.evaluate(encoder, config(root, tmp_path, **settings))
    theirs = depth.evaluate(encoder, config(root, tmp_path, upstream_compat=True, **settings))
    assert not np.array_equal(ours["items"][0], theirs["items"][0])
    assert "class token" in theirs["protocol"]["notes"][0] and "class token" not in ours["protocol"]["notes"][0]


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/realdata")
@pytest.mark.parametrize("module", [depth, depth_dpt])
def test_real_images(encoder_folders, tmp_path, module):
    data = nyud.load(str(REAL))
    assert (len(data.train), len(data.test)) == (2, 2)
    first = data.train.dense_map("depth", 0)
    assert (round(float(first.min()), 3), round(float(first.max()), 3)) == (1.798, 3.615)  # its manifest
    result = module.evaluate(load_encoder(encoder_folders("dinov3")), config(REAL, tmp_path, module))
    scores = module.aggregate(result["items"][0])
    assert 0.1 < scores["rmse_m"] < 3 and result["items"][0].shape == (2, 3)
    assert any("published one 654" in line for line in result["data"]["warnings"])
