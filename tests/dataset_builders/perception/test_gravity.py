"""Up from named supports and from cameras held upright; None wherever that is not sure."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataset_builders.perception.gravity import (
    BACKGROUND,
    LEVEL_SUPPORTS,
    estimate_up,
    is_level_support,
    is_support_name,
    up_from_cameras,
)
from dataset_builders.scene import SceneObject
from dataset_builders.sources import SourceOptions, open_source
from tests.dataset_builders.scenes_for_tests import BREAKFAST, UP, Solid, camera_pose, scene_of

REALDATA = Path(__file__).parents[4] / "shared" / "realdata"
TURNING = [camera_pose((0.2 * k, 0, 0.5), yaw=12 * k - 30, pitch=20) for k in range(6)]


def degrees_off(up, truth):
    return np.rad2deg(np.arccos(np.clip(up @ np.asarray(truth) / np.linalg.norm(truth), -1, 1)))


@pytest.mark.parametrize(
    ("name", "level", "support"),
    [
        ("floor", True, True),
        ("Wooden Floors", True, True),
        ("dining table", True, True),
        ("table top", False, False),
        ("table lamp", False, False),
        ("floor of the room", True, True),
        ("wall", False, True),
        ("clear blue sky", False, True),
        ("grass", True, True),
        ("glass", False, False),
        ("", False, False),
        ("of", False, False),
    ],
)
def test_names_of_supports(name, level, support):
    assert is_level_support(name) == level
    assert is_support_name(name) == support


def test_the_sets_share_no_name():
    assert not LEVEL_SUPPORTS & BACKGROUND
    assert {"floor", "ground", "carpet", "rug", "table", "desk", "counter", "road"} <= LEVEL_SUPPORTS
    assert {"wall", "ceiling", "sky"} <= BACKGROUND


@pytest.mark.parametrize(("pitch", "roll"), [(0, 0), (25, 0), (40, 15), (50, -20)])
def test_a_table_tells_up_however_the_camera_is_tilted(pitch, roll):
    scene = scene_of(BREAKFAST, [camera_pose((0, 0.4, 0.9), pitch=pitch, roll=roll)], up=None)
    assert degrees_off(estimate_up(scene), UP) < 0.5


def test_a_thing_that_is_no_level_support_tells_nothing():
    for name in ("box", "wall", "table lamp"):
        solids = [replace(BREAKFAST[0], name=name), *BREAKFAST[1:]]
        assert estimate_up(scene_of(solids, up=None)) is None


def test_a_wall_beside_the_camera_that_is_called_a_table_is_not_believed():
    beside = Solid("table", (1.0, 2.0, 0.0), (0.02, 3.0, 3.0))
    assert estimate_up(scene_of([beside], [camera_pose()], up=None)) is None


def test_a_rug_on_the_wall_is_not_believed():
    hanging = Solid("rug", (0, 2.6, 0.5), (2.0, 0.02, 1.0))
    assert estimate_up(scene_of([hanging], [camera_pose((0, 0, 0.5), pitch=15)], up=None)) is None
    assert degrees_off(estimate_up(scene_of([*BREAKFAST, hanging], up=None)), UP) < 0.5


def test_most_supports_must_agree():
    """Three views of one table, under another name in each; the last one's pose leans by 15 degrees."""
    scene = scene_of(BREAKFAST[:1], [camera_pose((x, 0, 0.5), pitch=20) for x in (0.0, 0.1, 0.2)], up=None)
    lean = camera_pose(roll=15) @ np.linalg.inv(camera_pose())
    views = [replace(view, instances=view.instances * number) for number, view in enumerate(scene.views, start=1)]
    views[2] = replace(views[2], camera_to_world=lean @ views[2].camera_to_world)
    names = [SceneObject(number, name) for number, name in enumerate(("table", "desk", "floor"), start=1)]
    three = replace(scene, views=tuple(views), objects=tuple(names))
    assert degrees_off(estimate_up(three), UP) < 0.5
    assert estimate_up(replace(three, objects=tuple(names[1:]))) is None


@pytest.mark.parametrize(("roll_degrees", "allowed_degrees"), [(0.0, 1e-4), (2.0, 6.0)])
def test_upright_cameras_tell_up(roll_degrees, allowed_degrees):
    for seed in range(10):
        rolls = np.random.default_rng(seed).normal(0, roll_degrees, 6)
        poses = [camera_pose(yaw=12 * k - 30, pitch=20, roll=roll) for k, roll in enumerate(rolls)]
        up = up_from_cameras(poses)
        if up is not None:
            assert degrees_off(up, UP) < allowed_degrees


def test_cameras_in_a_world_of_their_own_tell_up_in_it():
    turned = camera_pose((1, 2, 3), yaw=40, pitch=70, roll=-35)
    up = up_from_cameras([turned @ pose for pose in TURNING])
    assert degrees_off(up, turned[:3, :3] @ UP) < 1e-4


def test_cameras_that_do_not_turn_or_roll_freely_or_are_two_tell_nothing():
    assert up_from_cameras([camera_pose((0.1 * k, 0, 0), yaw=0.5 * k) for k in range(8)]) is None
    rolling = np.random.default_rng(0).uniform(-40, 40, 6)
    assert up_from_cameras([camera_pose(yaw=12 * k, roll=roll) for k, roll in enumerate(rolling)]) is None
    assert up_from_cameras(TURNING[::5]) is None
    lying = [camera_pose(yaw=12 * k - 30) @ camera_pose(roll=90)[[0, 2, 1, 3]] for k in range(6)]
    assert up_from_cameras(lying) is None


def test_poses_and_supports_must_agree():
    scene = scene_of(BREAKFAST, TURNING, up=None)
    assert degrees_off(estimate_up(scene), UP) < 0.5
    tilted = [Solid("table", (0, 2, 0), (3, 3, 0.1))]
    leaning = np.eye(4)  # the whole scene leans by 15 degrees, the cameras do not
    leaning[:3, :3] = camera_pose(pitch=15)[:3, :3] @ camera_pose()[:3, :3].T
    upright = scene_of(tilted, [np.linalg.inv(leaning) @ pose for pose in TURNING], up=None)
    poses_say = up_from_cameras([view.camera_to_world for view in upright.views])
    assert poses_say is not None and degrees_off(poses_say, UP) > 10
    assert estimate_up(upright) is None


def test_poses_without_a_common_world_tell_nothing():
    objects = (SceneObject(1, "mug"),)
    scene = replace(scene_of(BREAKFAST[:1], TURNING, up=None), objects=objects)
    assert degrees_off(estimate_up(scene), UP) < 1e-3
    assert estimate_up(replace(scene, posed=False)) is None


@pytest.mark.parametrize(("views", "allowed_degrees"), [(1, 1.0), (4, 5.0)])
def test_exact_rooms(views, allowed_degrees):
    """Their cameras are not quite upright; a table whose side fills the picture (room 14) is not taken for level."""
    source = open_source("synthetic", SourceOptions(num_scenes=25, views=views, image_size=(60, 80), seed=3))
    off = [
        degrees_off(up, UP)
        for item in source.list_items()
        if (up := estimate_up(replace(source.load(item), up_world=None))) is not None
    ]
    assert len(off) >= 5 and max(off) < allowed_degrees


@pytest.mark.skipif(not (REALDATA / "mosd_tabletop").is_dir(), reason="shared/realdata/mosd_tabletop is absent")
def test_real_tables_are_level_to_the_other_tables_of_the_same_camera():
    """No truth of gravity is known, but the Kinect stood still for some scenes on end, on the same table."""
    source = open_source("rgbd", SourceOptions(input_dir=REALDATA / "mosd_tabletop"))
    found = [estimate_up(replace(source.load(item), up_world=None)) for item in source.list_items()[:3]]
    assert max(degrees_off(up, found[0]) for up in found) < 0.5


@pytest.mark.skipif(not (REALDATA / "hololens_office").is_dir(), reason="shared/realdata/hololens_office is absent")
@pytest.mark.parametrize("group", ["cabinet", "foosball", "kitchen"])
def test_head_worn_cameras_are_upright(group):
    """The headset's own world has y up, from its accelerometer."""
    manifest = json.loads((REALDATA / "hololens_office" / group / "manifest.json").read_text())
    up = up_from_cameras([np.array(frame["pose_cam_to_world"]) for frame in manifest["frames"]])
    assert (up is None) == (group == "cabinet")  # where the head hardly turned
    assert up is None or degrees_off(up, (0, 1, 0)) < 5
