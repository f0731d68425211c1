import re
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_builders.geometry import (
    Box,
    Placed,
    canonical_pose,
    compare,
    format_length,
    invert_pose,
    is_level,
    is_rigid,
    oriented_box,
    plane_normal,
    surface_distance,
    transform,
    unproject,
    up_from_support,
    valid_depth,
)
from dataset_builders.objects import measure_objects
from dataset_builders.scene import Intrinsics, SceneObject
from tests.dataset_builders.scenes_for_tests import BREAKFAST, TABLE, UP, Solid, camera_pose, render, scene_of

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("length_m", "text"),
    [
        (0.0, "0.0 cm"), (0.0123, "1.2 cm"), (0.312, "31.2 cm"), (0.4994, "49.9 cm"), (0.4996, "0.500 m"),
        (0.5, "0.500 m"), (0.73449, "0.734 m"), (-0.25, "25.0 cm"), (2.0, "2.000 m"), (65.536, "65.536 m"),
        (10000.0, "10000.000 m"),
    ],
)  # fmt: skip
def test_numbers_are_written_one_way(length_m, text):
    assert format_length(length_m) == text


@given(st.floats(0, 200))
def test_written_numbers_read_back_to_half_a_millimetre(length_m):
    number, unit = format_length(length_m).split()
    assert abs(float(number) * (0.01 if unit == "cm" else 1) - length_m) <= 0.00051
    assert (unit == "cm") == (round(length_m * 1000) < 500)


def test_validity_knows_holes_sky_and_nonsense():
    depth = np.array([0, 0.001, 0.002, -1, np.nan, np.inf, 1e4, 100.1, 0.01, 0.5, 65.536, 100])
    assert valid_depth(depth).tolist() == [False] * 8 + [True] * 4


def test_unproject_inverts_projection():
    intrinsics = Intrinsics(500, 510, 319.5, 240)
    points = RNG.uniform([-1, -1, 0.5], [1, 1, 5], (100, 3))
    u = intrinsics.fx * points[:, 0] / points[:, 2] + intrinsics.cx
    v = intrinsics.fy * points[:, 1] / points[:, 2] + intrinsics.cy
    np.testing.assert_allclose(unproject(u, v, points[:, 2], intrinsics), points, atol=1e-12)


@pytest.mark.parametrize("pitch", [-30, 0, 40])
@pytest.mark.parametrize("roll", [-20, 0, 20])
def test_canonical_frame_is_level_whatever_the_tilt(pitch, roll):
    canonical = canonical_pose(camera_pose((1, 2, 3), yaw=30, pitch=pitch, roll=roll), UP)
    ahead = np.array([-np.sin(np.pi / 6), np.cos(np.pi / 6), 0])
    right = np.array([np.cos(np.pi / 6), np.sin(np.pi / 6), 0])
    landmarks = np.array([1, 2, 3]) + np.stack([right, UP, ahead])
    np.testing.assert_allclose(transform(landmarks, canonical), np.eye(3), atol=1e-12)
    np.testing.assert_allclose(invert_pose(canonical) @ canonical, np.eye(4), atol=1e-12)


def test_canonical_frame_without_gravity_is_the_image():
    np.testing.assert_allclose(canonical_pose(np.eye(4), None)[:3, :3], np.diag([1, -1, 1]))


@pytest.mark.parametrize("pitch", [90, -90])
def test_canonical_frame_of_a_vertical_view_keeps_right_on_the_right(pitch):
    pose = camera_pose(pitch=pitch)
    canonical = canonical_pose(pose, UP)
    np.testing.assert_allclose(canonical[:3, :3] @ pose[:3, 0], [1, 0, 0], atol=1e-9)
    assert not is_level(pose, UP) and not is_level(np.eye(4), None) and is_level(camera_pose(pitch=40), UP)


@pytest.mark.parametrize("spoil", ["nan", "inf", "scale", "mirror", "row", "shape"])
def test_poses_that_are_not_rigid_are_found(spoil):
    pose = camera_pose((1, 2, 3), yaw=20)
    assert is_rigid(pose)
    if spoil in ("nan", "inf"):
        pose[0, 3] = float(spoil)
    elif spoil == "scale":
        pose[:3, :3] *= 1.01
    elif spoil == "mirror":
        pose[:3, 0] *= -1
    elif spoil == "row":
        pose[3, 0] = 1
    else:
        pose = pose[:3]
    assert not is_rigid(pose)


def test_gravity_comes_from_the_labelled_support_in_spite_of_clutter():
    table = RNG.uniform([-1, 1, 0], [1, 3, 0.002], (3000, 3))
    clutter = RNG.uniform([-0.2, 1.2, 0], [0.2, 1.6, 0.3], (700, 3))
    up = up_from_support(np.concatenate([table, clutter]), np.array([0, 0, 0.5]))
    assert up @ UP > np.cos(np.deg2rad(0.3))


def test_gravity_is_not_guessed_from_what_is_no_plane():
    assert up_from_support(RNG.normal(size=(3000, 3)) * 0.3 + [0, 2, 0], np.zeros(3)) is None
    assert up_from_support(np.zeros((20, 3)), np.zeros(3)) is None


def test_plane_normal_of_points_without_extent_is_nan():
    assert np.isnan(plane_normal(np.ones((50, 3)), 0.01)[0]).all()


def box_surface(size, yaw=0.0, centre=(0, 0, 0), count=6000):
    """Points on the surface of a box, its sides along rotated axes."""
    points = RNG.uniform(-0.5, 0.5, (count, 3))
    points[np.arange(count), RNG.integers(0, 3, count)] = RNG.choice([-0.5, 0.5], count)
    turn = Solid("", (0, 0, 0), (1, 1, 1), yaw).axes()
    return points * size @ turn + centre


@pytest.mark.parametrize("size", [(0.03, 0.02, 0.01), (0.244, 0.059, 0.143), (25.0, 3.0, 8.0)])
@pytest.mark.parametrize("yaw", [0, 17, 45, 80])
def test_box_of_an_upright_thing_at_any_scale(size, yaw):
    box = oriented_box(box_surface(size, yaw, (1, 2, 3)), UP, tolerance_m=0.01 * max(size))
    np.testing.assert_allclose(box.dimensions, sorted(size, reverse=True), rtol=0.05)
    np.testing.assert_allclose(box.centre, (1, 2, 3), atol=0.01 * max(size))
    np.testing.assert_allclose(box.axes @ box.axes.T, np.eye(3), atol=1e-9)


def test_box_of_a_leaning_thing_follows_its_face_with_and_without_gravity():
    lean = camera_pose(yaw=25, pitch=35)[:3, :3]
    points = box_surface((0.177, 0.03, 0.121)) @ lean.T
    for up in (UP, None):
        np.testing.assert_allclose(oriented_box(points, up, 0.003).dimensions, (0.177, 0.121, 0.03), rtol=0.05)


def test_flat_and_thread_like_things_have_boxes():
    plane = np.column_stack([RNG.uniform(0, 2, 500), RNG.uniform(0, 1, 500), np.zeros(500)])
    np.testing.assert_allclose(oriented_box(plane, None, 0.01).dimensions, (2, 1, 0), atol=0.05)
    line = np.outer(np.linspace(0, 1, 100), [1.0, 0, 0])
    np.testing.assert_allclose(oriented_box(line, UP, 0.01).dimensions, (1, 0, 0), atol=0.02)


@pytest.mark.parametrize("gap", [0.0, 0.01, 0.5])
def test_distance_between_facing_boxes(gap):
    first = box_surface((0.2, 0.2, 0.2))
    second = box_surface((0.3, 0.1, 0.4), centre=(0.25 + gap, 0, 0))
    distance, witness = surface_distance(first, second)
    assert distance == pytest.approx(gap, abs=0.006)
    assert np.linalg.norm(witness[0] - witness[1]) == pytest.approx(distance)
    assert surface_distance(second, first)[0] == pytest.approx(distance)


def test_distance_from_a_big_thing_to_a_small_one_beside_it_is_small_both_ways():
    wall, cup = box_surface((4, 0.1, 2.5), count=200000), box_surface((0.08, 0.08, 0.1), centre=(1, 0.1, 0))
    assert surface_distance(wall, cup)[0] == pytest.approx(0.01, abs=0.01)
    assert surface_distance(cup, wall)[0] == surface_distance(wall, cup)[0]


def test_distance_of_single_points():
    assert surface_distance(np.zeros((1, 3)), np.ones((1, 3)))[0] == pytest.approx(3**0.5)


def test_distance_passes_over_a_few_stray_points():
    first, second = box_surface((0.2, 0.2, 0.2)), box_surface((0.2, 0.2, 0.2), centre=(0.6, 0, 0))
    stray = RNG.uniform([0.15, -0.1, -0.1], [0.45, 0.1, 0.1], (5, 3))
    assert surface_distance(np.concatenate([first, stray]), second)[0] == pytest.approx(0.4, rel=0.05)


def placed(centre, size=(0.2, 0.2, 0.2), whole=True):
    centre, size = np.array(centre, dtype=float), np.array(size, dtype=float)
    order = np.argsort(-size)
    return Placed(Box(centre, np.eye(3)[order], size[order]), float(centre[2]), float(size[1]), whole)


def sign(kind, first, second, noise=0.01, gravity=True, level=True):
    return compare(kind, first, second, noise, gravity, level)[0]


KINDS = ("left_right", "front_behind", "above_below", "taller_shorter", "bigger_smaller")
EXAMPLES = {
    "left_right": (placed((-0.5, 0, 2)), placed((0.5, 0, 2))),
    "front_behind": (placed((0, 0, 1.5)), placed((0, 0, 2.5))),
    "above_below": (placed((0, 0.6, 2)), placed((0, 0, 2))),
    "taller_shorter": (placed((-1, 0, 2), (0.2, 0.6, 0.2)), placed((1, 0, 2))),
    "bigger_smaller": (placed((-1, 0, 2), (0.6, 0.6, 0.6)), placed((1, 0, 2))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_clear_relations_hold_and_swapping_gives_the_opposite(kind):
    first, second = EXAMPLES[kind]
    assert sign(kind, first, second) == 1
    assert sign(kind, second, first) == -1
    assert compare(kind, first, second, 0.01, True, True)[1] == -compare(kind, second, first, 0.01, True, True)[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_millimetre_is_undecidable(kind):
    nudged = placed((0.001, 0.001, 2.001), (0.201, 0.201, 0.201))
    assert sign(kind, nudged, placed((0, 0, 2))) == 0 == sign(kind, placed((0, 0, 2)), nudged)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_widens_the_margin(kind):
    assert sign(kind, *EXAMPLES[kind], noise=0.3) == 0


def test_heights_need_gravity_and_a_level_view():
    assert sign("above_below", *EXAMPLES["above_below"], gravity=False) == 0
    assert sign("taller_shorter", *EXAMPLES["taller_shorter"], level=False) == 0


@pytest.mark.parametrize("kind", ["above_below", "taller_shorter", "bigger_smaller"])
def test_sizes_of_partly_visible_things_are_not_compared(kind):
    first, second = EXAMPLES[kind]
    assert sign(kind, replace(first, whole=False), second) == 0 == sign(kind, first, replace(second, whole=False))


def test_left_in_space_but_right_in_the_image_is_undecidable():
    assert sign("left_right", placed((0.5, 0, 1)), placed((1.0, 0, 5))) == 0


def test_farther_ahead_but_nearer_by_range_is_undecidable():
    assert sign("front_behind", placed((3, 0, 1)), placed((0, 0, 2))) == 0


def test_big_is_not_long_and_thin():
    assert sign("bigger_smaller", placed((0, 0, 2), (1.5, 0.02, 0.02)), placed((0, 0, 2), (0.3, 0.3, 0.3))) == 0


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.lists(st.floats(-1, 1), min_size=4, max_size=4),
    st.lists(st.floats(1, 4), min_size=2, max_size=2),
    st.lists(st.floats(0.05, 1), min_size=6, max_size=6),
    st.sampled_from([0.01, 0.1, 10.0]),
)
def test_scale_changes_no_relation_and_a_mirror_only_left_and_right(kind, sideways, ahead, sizes, scale):
    def pair(factor, flip):
        return [
            placed(
                factor * np.array([flip * sideways[2 * k], sideways[2 * k + 1], ahead[k]]),
                factor * np.array(sizes[3 * k : 3 * k + 3]),
            )
            for k in (0, 1)
        ]

    here = sign(kind, *pair(1, 1))
    assert sign(kind, *pair(scale, 1)) == here
    assert sign(kind, *pair(1, -1)) == (-here if kind == "left_right" else here)


def test_an_unknown_relation_is_an_error():
    with pytest.raises(ValueError, match="sideways"):
        compare("sideways", *EXAMPLES["left_right"], 0.01, True, True)


# Measuring objects in rendered scenes, exact and spoilt


def distance(first, second, scene):
    return surface_distance(first.dense_points(scene.views), second.dense_points(scene.views))[0]


def measure(scene):
    return {one.item.name: one for one in measure_objects(scene)}


def test_sizes_of_rendered_things():
    found = measure(scene_of(BREAKFAST, width=640, height=480, focal=520.0))
    for name, height, longest in [("mug", 0.10, 0.10), ("lamp", 0.50, 0.50), ("cereal box", 0.30, 0.30)]:
        assert found[name].whole
        assert found[name].box.dimensions[0] == pytest.approx(longest, rel=0.05)
        extents = 2 * found[name].box.half_extents()
        assert extents[2] == pytest.approx(height, rel=0.05)


def test_height_is_not_width():
    lamp = measure(
        scene_of([TABLE, Solid("panel", (0, 2, 1), (1.0, 0.3, 2.0))], [camera_pose((0, -1.5, 1.5), pitch=10)])
    )
    box = lamp["panel"].box
    np.testing.assert_allclose(2 * box.half_extents()[[0, 2]], (1, 2), rtol=0.03)


@pytest.mark.parametrize(("size", "distance"), [(0.03, 0.3), (25.0, 60.0)])
def test_things_of_three_centimetres_and_of_twenty_five_metres(size, distance):
    solid = Solid("block", (0, distance, size / 2), (size, size / 2, size), 30)
    block = measure(scene_of([solid], [camera_pose((0, 0, distance / 4), pitch=10)]))["block"]
    assert block.box.dimensions[0] == pytest.approx(size, rel=0.06)


@pytest.mark.parametrize("pitch", [0, 20, 40])
@pytest.mark.parametrize("roll", [0, 20])
def test_tilting_the_camera_flips_no_relation(pitch, roll):
    from dataset_builders.facts import RecordFacts
    from dataset_builders.pointing import object_rows
    from dataset_builders.spatial_reasoning import base_record

    signs = []
    for pose in (camera_pose((0, -1, 0.8), pitch=15), camera_pose((0, -1, 0.8), pitch=pitch, roll=roll)):
        scene = scene_of(BREAKFAST, [pose], focal=180.0)
        rows = object_rows(scene, measure_objects(scene), seed=0)
        facts = RecordFacts(base_record(scene, 0, "forward") | {"objects": rows})
        signs.append(
            {
                (k, a, b): facts.relation(k, a, b, 0)[0]
                for k in KINDS
                for a in range(2, 6)
                for b in range(2, 6)
                if a < b
            }
        )
    assert sum(value != 0 for value in signs[0].values()) > 10
    assert all(signs[0][key] * signs[1][key] >= 0 for key in signs[0])
    assert {key: value for key, value in signs[0].items() if key[0] in ("left_right", "above_below")} == {
        key: value for key, value in signs[1].items() if key[0] in ("left_right", "above_below")
    }


@pytest.mark.parametrize("sky", [0.0, 1e4, np.inf, np.nan, 0.001])
def test_sky_and_holes_inside_a_mask_change_no_size(sky):
    scene = scene_of(BREAKFAST, width=640, height=480, focal=520.0)
    clean = measure(scene)["lamp"].box.dimensions
    view = scene.views[0]
    depth, instances = view.depth_m.copy(), view.instances.copy()
    rows, columns = np.nonzero(instances == 5)
    holes = RNG.choice(len(rows), len(rows) // 50, replace=False)
    depth[rows[holes], columns[holes]] = sky
    instances[: rows.min(), columns.min() : columns.max()] = 5  # the mask reaches into the sky above
    depth[: rows.min(), columns.min() : columns.max()] = sky
    spoilt = measure(replace(scene, views=(replace(view, depth_m=depth, instances=instances),)))["lamp"]
    np.testing.assert_allclose(spoilt.box.dimensions, clean, rtol=0.05, atol=0.01)


def test_one_percent_of_flying_pixels_changes_no_length_by_five_percent():
    scene = scene_of(BREAKFAST[:3] + BREAKFAST[4:], width=640, height=480, focal=520.0)
    clean, view = measure(scene), scene.views[0]
    depth = view.depth_m.copy()
    flying = (view.instances > 1) & (RNG.random(depth.shape) < 0.01)
    depth[flying] *= RNG.uniform(0.6, 1.6, flying.sum())
    noisy = measure(replace(scene, views=(replace(view, depth_m=depth),)))
    for name in ("cereal box", "mug", "lamp"):
        np.testing.assert_allclose(
            noisy[name].box.dimensions[:2], clean[name].box.dimensions[:2], rtol=0.05, err_msg=name
        )
    before, after = (distance(one["mug"], one["lamp"], scene) for one in (clean, noisy))
    assert after == pytest.approx(before, rel=0.05)


def test_a_mask_that_bleeds_over_its_rim_changes_little():
    scene = scene_of(BREAKFAST, width=640, height=480, focal=520.0)
    view, clean = scene.views[0], measure(scene)["lamp"]
    grown = view.instances.copy()
    for shift in (-3, 3):
        beside = np.roll(view.instances == 5, shift, axis=1) & (view.instances < 2)
        grown[beside] = 5
    bled = measure(replace(scene, views=(replace(view, instances=grown),)))["lamp"]
    np.testing.assert_allclose(bled.box.dimensions, clean.box.dimensions, rtol=0.08)


def test_flags_say_what_is_cut_and_what_is_covered():
    solids = [
        TABLE,
        Solid("near crate", (0.0, 1.0, 0.1), (0.2, 0.2, 0.2)),
        Solid("far crate", (0.05, 1.6, 0.2), (0.4, 0.2, 0.4)),
        Solid("edge crate", (-0.72, 1.2, 0.1), (0.3, 0.2, 0.2)),
        Solid("free crate", (0.6, 1.5, 0.1), (0.2, 0.2, 0.2)),
    ]
    found = measure(scene_of(solids, [camera_pose((0, 0, 0.3), pitch=10)]))
    assert found["free crate"].whole and found["near crate"].whole
    assert found["edge crate"].best.truncated and not found["edge crate"].whole
    assert found["far crate"].best.covered and not found["far crate"].whole
    assert found["far crate"].usable


def test_thin_legs_that_cleaning_takes_away_make_the_size_unknown():
    legs = [Solid("leg", (x, 2.0, 0.3), (0.012, 0.012, 0.6)) for x in (-0.2, 0.2)]
    scene = scene_of(
        [TABLE, Solid("stool", (0, 2, 0.62), (0.45, 0.3, 0.15)), *legs], [camera_pose((0, 0, 0.9), pitch=12)]
    )
    view = scene.views[0]
    instances = np.where(view.instances > 2, 2, view.instances)
    stool = replace(scene, views=(replace(view, instances=instances),), objects=scene.objects[:2])
    assert not measure(stool)["stool"].whole
    exact = measure(replace(stool, depth_noise=0.0))["stool"]  # exact depth needs no cleaning, so the legs count
    assert exact.box.half_extents()[2] * 2 == pytest.approx(0.695, rel=0.05)


def test_tiny_empty_and_hidden_things_are_not_usable():
    solids = [TABLE, Solid("crumb", (0, 2, 0.005), (0.01, 0.01, 0.01)), Solid("box", (0, 1, 0.1), (0.2, 0.2, 0.2))]
    scene = scene_of([*solids, Solid("hidden", (0, 1.3, 0.05), (0.05, 0.05, 0.05))])
    scene = replace(scene, objects=(*scene.objects, SceneObject(9, "absent")))
    found = measure(scene)
    assert set(found) == {"box"}


def test_several_views_together_see_the_whole_thing():
    crate = Solid("crate", (0, 2, 0.3), (0.6, 0.4, 0.6), 15)
    poses = [camera_pose((0, 0, 0.8), pitch=15), camera_pose((2.2, 2.2, 0.8), yaw=90, pitch=15)]
    one = measure(scene_of([TABLE, crate], poses[:1], width=640, height=480, focal=400.0))["crate"]
    both = measure(scene_of([TABLE, crate], poses, width=640, height=480, focal=400.0))["crate"]
    assert len(one.sightings) == 1 and len(both.sightings) == 2
    np.testing.assert_allclose(both.box.dimensions, (0.6, 0.6, 0.4), rtol=0.04)


def test_frontal_wall_is_no_floor():
    scene = scene_of(
        [Solid("wall", (0, 3, 0), (6, 0.1, 5)), Solid("box", (0, 2, 0), (0.3, 0.3, 0.3))], [camera_pose()], up=None
    )
    assert np.isfinite(measure(scene)["box"].points).all()


def cpu_milliseconds(function, repeats=7):
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return 1000 * min(times)


def crowd(width, height):
    solids = [TABLE] + [
        Solid(f"box {chr(97 + k)}", (-0.6 + 0.4 * (k % 4), 1.2 + 0.5 * (k // 4), 0.1), (0.2, 0.15, 0.2), 11 * k)
        for k in range(8)
    ]
    return scene_of(solids, width=width, height=height, focal=0.8 * width)


@pytest.mark.parametrize(("width", "height", "budget"), [(640, 480, 30), (1536, 1536, 120)])
def test_time_budget_for_eight_masks(width, height, budget, monkeypatch):
    """The budget is met on an idle machine; here twice that is allowed, as others may be using it."""
    from dataset_builders import spatial_reasoning

    monkeypatch.setattr(spatial_reasoning, "encoded_image", lambda view: None)
    scene = crowd(width, height)
    took = cpu_milliseconds(lambda: spatial_reasoning.build_record(scene, seed=0))
    assert took < 2 * budget


def test_names_in_this_file_have_no_stray_digits():
    assert not any(re.search(r"\d", one.name) for one in BREAKFAST)


def test_rendered_depth_is_exact():
    view = render([Solid("wall", (0, 3, 0), (6, 0.2, 5))], camera_pose())
    np.testing.assert_allclose(view.depth_m, 2.9, atol=1e-6)
