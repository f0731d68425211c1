"""Depth, point clouds, principal components and rows: checked against what must come out."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spatialboost_space import data, pictures, point_cloud
from spatialboost_space.errors import Refusal


def test_a_depth_png_holds_millimetres(tmp_path, settings):
    depth_m = np.array([[0.0, 1.2345, 70.0, np.nan]])
    assert np.asarray(Image.open(pictures.save_depth_png(depth_m, "depth"))).tolist() == [[0, 1234, 65535, 0]]


def test_results_are_deleted_when_they_are_old(settings, monkeypatch):
    first = pictures.new_file("one.txt")
    first.write_text("x")
    real = pictures.time.time
    monkeypatch.setattr(pictures.time, "time", lambda: real() + settings.cache_seconds + 1)
    pictures.new_file("two.txt")
    assert not first.parent.exists()


def test_equal_features_get_equal_colours_in_both_maps():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(4, 5, 16))
    boosted = np.concatenate([base[:2], rng.normal(size=(3, 5, 16))])
    first, second = pictures.principal_colours(base, boosted)
    assert first.shape == (4, 5, 3) and second.shape == (5, 5, 3)
    assert (first[:2] == second[:2]).all() and (first[2:] != second[2:4]).any()


def test_a_wall_unprojects_to_its_true_width_and_an_object_to_its_size():
    depth_m = np.full((101, 201), 4.0)
    depth_m[40:61, 80:121] = 2.0  # a box in front of the wall
    points_m = point_cloud.unproject(depth_m, 90.0)
    assert np.ptp(points_m[50, :, 0]) == pytest.approx(4.0 * 2 * 200 / 201, rel=0.3)
    assert points_m[50, 100] == pytest.approx([0, 0, 2.0])
    box = point_cloud.find_object(points_m, "box", (0.35, 0.35, 0.65, 0.65))
    pixel_m = 2.0 / (201 / 2)
    assert box.centre_m == pytest.approx([0, 0, 2.0], abs=pixel_m) and box.size_m[2] == pytest.approx(0)
    assert box.size_m[:2] == pytest.approx([40 * pixel_m, 20 * pixel_m], rel=0.1)
    wall = point_cloud.find_point(points_m, "wall", 0.999, 0.5)
    assert point_cloud.distance_m(box, wall) == pytest.approx(np.hypot(2.0, points_m[50, 200, 0]), rel=0.02)


def test_the_gltf_file_holds_points_colours_and_boxes(settings):
    points_m = point_cloud.unproject(np.full((10, 12), 3.0), 60.0)
    colours = np.full((10, 12, 3), 7, np.uint8)
    box = point_cloud.find_object(points_m, "all", (0, 0, 1, 1))
    content = Path(point_cloud.save_glb(points_m, colours, [box])).read_bytes()
    magic, version, length = struct.unpack("<4sII", content[:12])
    assert (magic, version, length) == (b"glTF", 2, len(content))
    size = struct.unpack("<I", content[12:16])[0]
    header = json.loads(content[20 : 20 + size])
    count = 120 + 12 * point_cloud.EDGE_POINTS
    assert [one["count"] for one in header["accessors"]] == [count, count]
    body = content[28 + size :]
    xyz = np.frombuffer(body[: count * 12], "<f4").reshape(-1, 3)
    assert xyz[:, 2] == pytest.approx(-3.0)
    rgba = np.frombuffer(body[count * 12 :][: count * 8], "<u2").reshape(-1, 4)
    assert rgba[0].tolist() == [round(65535 * 7 / 255 / 12.92)] * 3 + [65535]  # in proportion to the light


def test_the_region_of_a_mask_is_that_of_pycocotools():
    coco = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for _ in range(50):
        height, width = rng.integers(3, 60, 2)
        mask = rng.random((height, width)) < rng.choice([0.02, 0.5])
        mask[rng.integers(height), rng.integers(width)] = True
        counts = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
        rows, columns = np.nonzero(mask)
        expected = columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height
        assert data.mask_region(counts, height, width) == pytest.approx(expected)


def test_rows_come_with_their_turns_and_what_these_speak_of(bundle, settings):
    source = str(bundle / "data")
    offered = data.choices(source)
    assert offered[0] == "single_view / train" and not any("dense" in one for one in offered)
    row, total = data.read_row(source, "multi_view / train", 0)
    assert total >= 1 and len(row["images"]) == 2
    turns = data.turns_of(row)
    assert len(turns) == len(row["turns"]) and turns[0][0].startswith("Image 1: [image]")
    for place, turn in enumerate(row["turns"]):
        labels = {mark["label"] for mark in data.turn_marks(row, place) if mark["x1"] is None}
        assert labels == ({str(turn["index"])} if turn["points"] else set())
    assert {mark["x1"] is None for mark in data.turn_marks(row)} == {True, False}


@pytest.mark.parametrize("source", ["/etc", "../outputs", "org/../data", "file:///etc", "hf://x/y", "x", "a/b/c"])
def test_a_visitor_cannot_name_a_path(source, settings):
    with pytest.raises(Refusal, match="no data set"):
        data.choices(source)


def test_what_looks_like_an_id_is_not_looked_for_on_this_disk(bundle, settings, monkeypatch, tmp_path):
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "rooms").symlink_to(bundle / "data")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Refusal):
        data.choices("org/rooms")


@pytest.mark.parametrize(("choice", "index"), [("single_view / train", 10**6), ("nothing / train", 0), ("", 0)])
def test_a_row_that_is_not_there_is_told(bundle, settings, choice, index):
    with pytest.raises(Refusal, match="not there|choose one of"):
        data.read_row(str(bundle / "data"), choice, index)
