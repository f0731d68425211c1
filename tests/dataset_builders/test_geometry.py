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
    trimmed_range,
    unproject,
    up_from_support,
    valid_depth,
)
from dataset_builders.scene import Intrinsics
from tests.dataset_builders.scenes_for_tests import UP, Solid, camera_pose

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
    """Points spread evenly over the surface of a box, its sides along rotated axes."""
    areas = np.prod(size) / np.array(size)
    points = RNG.uniform(-0.5, 0.5, (count, 3))
    points[np.arange(count), RNG.choice(3, count, p=areas / areas.sum())] = RNG.choice([-0.5, 0.5], count)
    turn = Solid("", (0, 0, 0), (1, 1, 1), yaw).axes()
    return points * size @ turn + centre


@pytest.mark.parametrize("size", [(0.03, 0.02, 0.01), (0.244, 0.059, 0.143), (25.0, 3.0, 8.0)])
@pytest.mark.parametrize("yaw", [0, 17, 45, 80])
def test_box_of_an_upright_thing_at_any_scale(size, yaw):
    box = oriented_box(box_surface(size, yaw, (1, 2, 3)), UP, tolerance_m=0.01 * max(size))
    np.testing.assert_allclose(box.dimensions, sorted(size, reverse=True), rtol=0.05)
    np.testing.assert_allclose(box.centre, (1, 2, 3), atol=0.01 * max(size))
    np.testing.assert_allclose(box.axes @ box.axes.T, np.eye(3), atol=1e-9)


def test_the_ends_of_evenly_spread_values_are_kept_and_stray_ones_are_not():
    values = np.concatenate([np.linspace(-1, 2, 2000), [50.0, -40, 60, 70, -80]])[:, None]
    np.testing.assert_allclose(np.concatenate(trimmed_range(values)), (-1, 2), atol=0.01)
    np.testing.assert_allclose(np.concatenate(trimmed_range(np.array([[3.0], [1.0]]))), (1, 3))


@pytest.mark.parametrize("azimuth", [0, 25, 45, 80])
def test_box_of_a_ball_seen_from_above_has_its_full_width(azimuth):
    """Only the side that faces the camera is seen; a box turned by 45 degrees would be a quarter too small."""
    points = RNG.normal(size=(20000, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    sight = camera_pose(yaw=azimuth, pitch=40)[:3, 2]
    box = oriented_box(points[points @ sight < -0.05], UP, 0.01, sight)
    assert box.dimensions[0] == pytest.approx(2, rel=0.03)
    assert abs(box.axes[0] @ sight) < 0.1


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


def test_farther_ahead_but_as_far_by_range_is_undecidable():
    assert sign("front_behind", placed((1.04, -1.94, 1.12)), placed((0.5, -2.01, 1.35))) == 0


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
