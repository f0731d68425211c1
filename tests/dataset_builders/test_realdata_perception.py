"""Real samples that lack something: depth by a tiny Depth Pro, poses by keypoints, masks by nobody."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from dataset_builders.build import main
from dataset_builders.geometry import invert_pose
from dataset_builders.perception import Models, PerceptionOptions
from dataset_builders.perception.pipeline import perceive
from dataset_builders.schema import validate
from dataset_builders.sources import SourceOptions, open_source
from tests.dataset_builders.perception import tiny_perception_models

REALDATA = Path(__file__).parents[3] / "shared" / "realdata"
pytestmark = pytest.mark.skipif(not REALDATA.is_dir(), reason=f"no real data in {REALDATA}")


def build(folder, output, *more):
    """Build, accepting any share, and read the report and the records of each configuration."""
    from pyarrow import parquet

    arguments = ["--source", "rgbd", "--input", str(folder), "--output", str(output), "--min-kept", "0", *more]
    assert main(arguments) == 0
    report = json.loads((output / "build_report.json").read_text())
    records = {
        config: [row for path in (output / config).glob("*.parquet") for row in parquet.read_table(path).to_pylist()]
        for config in report["rows"]
    }
    return report, records


def reasons(report, config):
    return {one["reason"]: one["count"] for one in report["drops_by_reason"] if one["config"] == config}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """COCO's photographs with its masks, depth and focal length from a Depth Pro of random weights on disk."""
    folder = tmp_path_factory.mktemp("photographs")
    checkpoint = tiny_perception_models.save("depth_pro", folder / "depth_pro")
    found = build(REALDATA / "coco_tiny", folder / "built", "--allow-partial", "--depth-model", checkpoint)
    return *found, f"model:{Path(checkpoint).name}"


def test_masks_without_depth_become_dialogues(photographs):
    report, records, scale_source = photographs
    assert report["items"] == 11
    dialogues = records["single_view"]
    assert len(dialogues) + sum(reasons(report, "single_view").values()) == 11 and len(dialogues) >= 6
    for record in dialogues:
        assert validate(record) == []
        assert record["scale_source"] == scale_source and record["depth_noise"] >= 0.03
        assert record["cameras"][0]["fx"] > 0


def test_objects_of_photographs_are_those_of_the_manifest(photographs):
    """Every object keeps its name and mask; crowds are none."""
    from pycocotools import mask

    for record in photographs[1]["single_view"]:
        folder = REALDATA / "coco_tiny" / record["id"].removeprefix("coco_")
        manifest = json.loads((folder / "manifest.json").read_text())
        listed = {one["value"]: one for one in manifest["instances"] if not one["iscrowd"]}
        for row in record["objects"]:
            assert row["name"] == listed[row["id"]]["class_name"]
            camera = record["cameras"][0]
            size = [camera["height"], camera["width"]]
            x, y, width, height = mask.toBbox({"size": size, "counts": row["mask"].encode()})
            left, top, right, bottom = listed[row["id"]]["bbox_xyxy"]
            assert left - 2 <= x and top - 2 <= y and x + width <= right + 2 and y + height <= bottom + 2


def test_photographs_without_a_depth_model_give_nothing(tmp_path):
    from dataset_builders.scene import InputError

    with pytest.raises(InputError, match="nothing was kept of 11 scenes"):
        build(REALDATA / "coco_tiny", tmp_path / "built")


@pytest.fixture(scope="module")
def unposed(tmp_path_factory):
    """The offices with their depth and without their poses."""
    pytest.importorskip("pycolmap", reason="keypoints:sift needs pycolmap")
    folder = tmp_path_factory.mktemp("unposed") / "office"
    shutil.copytree(REALDATA / "hololens_office", folder)
    for path in folder.rglob("manifest.json"):
        manifest = json.loads(path.read_text())
        for frame in manifest["frames"]:
            del frame["pose_cam_to_world"]
        path.write_text(json.dumps(manifest))
    return folder


def test_found_poses_are_those_of_the_manifest(unposed):
    """Neighbouring views lie some centimetres apart; the stated poses themselves are some millimetres off."""
    folders = REALDATA / "hololens_office", unposed
    given, found = (open_source("rgbd", SourceOptions(input_dir=folder, views=4)) for folder in folders)
    scenes = {item: found.load(item) for item in found.list_items()}
    assert scenes and not any(scene.posed for scene in scenes.values())
    perceived, drops = perceive(scenes, Models(PerceptionOptions(reconstructor="keypoints:sift")), None)
    assert len(perceived) >= 5, drops
    for item, scene in perceived.items():
        assert scene.posed and scene.metric
        stated = [view.camera_to_world for view in given.load(item).views]
        for number in range(1, len(scene.views)):
            ours = invert_pose(scene.views[0].camera_to_world) @ scene.views[number].camera_to_world
            off = invert_pose(invert_pose(stated[0]) @ stated[number]) @ ours
            angle_deg = np.degrees(np.arccos(np.clip((np.trace(off[:3, :3]) - 1) / 2, -1, 1)))
            assert angle_deg < 1.5 and np.linalg.norm(off[:3, 3]) < 0.05, (item, number, angle_deg, off[:3, 3])


def test_views_without_poses_are_no_multi_view_scene(unposed, tmp_path):
    _, records = build(unposed, tmp_path / "built", "--views", "4", "--allow-partial")
    assert set(records) == {"single_view", "dense"} and len(records["single_view"]) == 24


def test_the_build_finds_the_poses(unposed, tmp_path):
    chosen = ["--views", "4", "--num-scenes", "2", "--allow-partial", "--configs", "multi_view"]
    _, records = build(unposed, tmp_path / "built", *chosen, "--reconstructor", "keypoints:sift")
    assert len(records["multi_view"]) == 2
    assert all(validate(record) == [] for record in records["multi_view"])


def test_sparse_depth_without_masks_is_left_out(tmp_path):
    """LiDAR hits every twentieth pixel: no point has steady depth around it, and no mask tells an object."""
    report, records = build(REALDATA / "research_only" / "kitti_object", tmp_path / "built", "--allow-partial")
    assert "single_view" not in records
    assert reasons(report, "single_view") == {"no_steady_points": 3}


def test_filled_depth_without_masks_has_pixel_turns_only(tmp_path):
    report, _ = build(REALDATA / "research_only" / "nyuv2_mini", tmp_path / "whole")
    assert reasons(report, "single_view") == {"no_objects": 4}
    _, records = build(REALDATA / "research_only" / "nyuv2_mini", tmp_path / "partial", "--allow-partial")
    assert len(records["single_view"]) == 4
    for record in records["single_view"]:
        assert not any(turn["object_ids"] for turn in record["turns"])


def test_no_number_is_told_of_transparent_things(tmp_path):
    """Their depth is that of what lies behind them; the opaque twins in their place are kept."""
    report, records = build(REALDATA / "cleargrasp_d435", tmp_path / "built")
    kept = {record["id"] for record in records["single_view"]}
    assert kept == {"cleargrasp_000000080_opaque", "cleargrasp_000000130_opaque"}
    assert sum(reasons(report, "single_view").values()) + sum(reasons(report, "*").values()) == 2
