"""Metres: from a depth model where there are none, and for scenes whose unit is unknown."""

from dataclasses import replace

import numpy as np
import pytest

from dataset_builders.geometry import invert_pose
from dataset_builders.perception import DepthEstimate, Reconstruction
from dataset_builders.perception.scale import apply_reconstruction, fill_depth, to_metres
from dataset_builders.scene import UNKNOWN_INTRINSICS, DropItem, Intrinsics
from tests.dataset_builders.scenes_for_tests import BREAKFAST, camera_pose, scene_of

POSES = [camera_pose((0.2 * k, 0, 0.5), yaw=5 * k, pitch=20) for k in range(4)]
SMALL = {"width": 80, "height": 60, "focal": 65.0}


@pytest.fixture(scope="module")
def truth():
    return scene_of(BREAKFAST, POSES, **SMALL)


def in_unit(scene, unit, keep=1.0):
    """The scene in a unit of so many metres, with a share of its depth readings."""
    views = []
    for number, view in enumerate(scene.views):
        pose = view.camera_to_world.copy()
        pose[:3, 3] /= unit
        kept = np.random.default_rng(number).random(view.depth_m.shape) < keep
        depth = np.where(kept, view.depth_m / unit, 0).astype(np.float32)
        views.append(replace(view, camera_to_world=pose, depth_m=depth))
    return replace(scene, views=tuple(views), metric=False, scale_source="poses")


def estimates_of(scene, factors=(1, 1, 1, 1), noise=0.0):
    random = np.random.default_rng(0)
    return [
        DepthEstimate(view.depth_m * factor * random.normal(1, noise, view.depth_m.shape), None)
        for view, factor in zip(scene.views, factors)
    ]


@pytest.mark.parametrize("unit", [0.3, 7.0])
def test_a_scene_of_unknown_unit_comes_to_metres(truth, unit):
    found = to_metres(in_unit(truth, unit), estimates_of(truth), 0.02, "model:test")
    assert found.metric and found.scale_source == "model:test" and found.depth_noise == 0.02
    for view, true in zip(found.views, truth.views):
        assert np.allclose(view.camera_to_world, true.camera_to_world, atol=1e-5)
        assert np.allclose(view.depth_m, true.depth_m, rtol=1e-5)
        assert view.depth_m.dtype == np.float32


def test_sparse_depth_is_enough_and_the_result_is_dense(truth):
    found = to_metres(in_unit(truth, 2.0, keep=0.03), estimates_of(truth), 0.02, "model:test")
    assert np.allclose(found.views[1].depth_m, truth.views[1].depth_m, rtol=1e-5)


def test_the_scale_is_the_median_and_each_depth_agrees_with_the_poses(truth):
    found = to_metres(in_unit(truth, 2.0), estimates_of(truth, (1.0, 1.1, 1.1, 2.0)), 0.02, "model:test")
    for view, true in zip(found.views, truth.views):  # one estimate is far off, yet all views agree
        assert np.allclose(view.depth_m, 1.1 * true.depth_m, rtol=1e-5)
        assert np.allclose(view.camera_to_world[:3, 3], 1.1 * true.camera_to_world[:3, 3], atol=1e-5)


def test_the_noise_is_at_least_what_is_seen(truth):
    found = to_metres(in_unit(truth, 2.0), estimates_of(truth, noise=0.08), 0.02, "model:test")
    assert found.depth_noise == pytest.approx(0.08, rel=0.2)


def test_views_that_disagree_are_dropped(truth):
    with pytest.raises(DropItem) as caught:
        to_metres(in_unit(truth, 2.0), estimates_of(truth, (0.7, 0.8, 1.2, 1.4)), 0.02, "model:test")
    assert caught.value.reason == "scale_unsure"


def test_views_without_readings_are_left_out_and_a_scene_of_them_dropped(truth):
    scene = in_unit(truth, 2.0)
    empty = replace(scene.views[0], depth_m=np.zeros_like(scene.views[0].depth_m))
    some = replace(scene, views=(empty, *scene.views[1:]))
    found = to_metres(some, estimates_of(truth), 0.02, "model:test")
    assert len(found.views) == 3
    assert np.allclose(found.views[0].camera_to_world, truth.views[1].camera_to_world, atol=1e-5)
    few = replace(scene, views=(empty, empty, empty, scene.views[3]))
    with pytest.raises(DropItem) as caught:
        to_metres(few, estimates_of(truth), 0.02, "model:test")
    assert caught.value.reason == "scale_unknown"


def test_readings_that_are_no_numbers_do_not_count(truth):
    scene = in_unit(truth, 2.0)
    for view in scene.views:
        view.depth_m[:5], view.depth_m[5:10], view.depth_m[10:15] = np.nan, np.inf, -1
    found = to_metres(scene, estimates_of(truth), 0.02, "model:test")
    assert np.allclose(found.views[0].depth_m, truth.views[0].depth_m, rtol=1e-5)


def test_plain_images_get_depth_and_a_camera(truth):
    blank = [replace(view, depth_m=view.depth_m * 0, intrinsics=UNKNOWN_INTRINSICS) for view in truth.views]
    plain = replace(truth, views=tuple(blank), metric=False)
    estimates = [DepthEstimate(view.depth_m.astype(np.float64), 65.0) for view in truth.views]
    found = fill_depth(plain, estimates, 0.06, "model:test")
    assert (found.metric, found.depth_noise, found.scale_source) == (True, 0.06, "model:test")
    for view, true in zip(found.views, truth.views):
        assert view.intrinsics == Intrinsics(65.0, 65.0, 39.5, 29.5)
        assert np.array_equal(view.depth_m, true.depth_m) and view.depth_m.dtype == np.float32


def test_a_known_camera_is_kept_and_an_unknowable_one_dropped(truth):
    found = fill_depth(truth, [DepthEstimate(view.depth_m, 999.0) for view in truth.views], 0.06, "model:test")
    assert found.views[0].intrinsics == truth.views[0].intrinsics
    views = (truth.views[0], replace(truth.views[1], intrinsics=UNKNOWN_INTRINSICS))
    with pytest.raises(DropItem, match="view 2") as caught:
        fill_depth(replace(truth, views=views), estimates_of(truth), 0.06, "model:test")
    assert caught.value.reason == "no_focal_length"


def reconstruction_of(scene, unit=1.0, error=0.004, lost=(), own_depth=False):
    first = invert_pose(scene.views[0].camera_to_world)
    poses = [first @ view.camera_to_world for view in scene.views]
    for pose in poses:
        pose[:3, 3] /= unit
    poses = [None if index in lost else pose for index, pose in enumerate(poses)]
    depths = [view.depth_m / unit for view in scene.views] if own_depth else None
    intrinsics = [Intrinsics(65.0, 65.0, 39.0, 29.0)] * len(poses) if own_depth else None
    return Reconstruction(poses, intrinsics, depths, metric=unit == 1.0, error=error)


def unposed(scene, **changes):
    views = tuple(replace(view, camera_to_world=np.eye(4)) for view in scene.views)
    return replace(scene, views=views, posed=False, depth_noise=0.01, **changes)


def test_a_reconstruction_poses_the_views_it_connects(truth):
    found = apply_reconstruction(unposed(truth), reconstruction_of(truth, lost=[1]))
    assert found.posed and found.metric and len(found.views) == 3 and found.depth_noise == 0.01
    expected = invert_pose(truth.views[0].camera_to_world) @ truth.views[2].camera_to_world
    assert np.allclose(found.views[1].camera_to_world, expected)
    assert np.array_equal(found.views[1].image, truth.views[2].image)
    assert found.views[1].intrinsics == truth.views[2].intrinsics


def test_the_error_of_a_reconstruction_becomes_noise(truth):
    assert apply_reconstruction(unposed(truth), reconstruction_of(truth, error=0.03)).depth_noise == 0.03
    assert apply_reconstruction(unposed(truth), reconstruction_of(truth, error=None)).depth_noise == 0.01


@pytest.mark.parametrize("change", [{"lost": [0, 1, 3]}, {"error": 0.2}])
def test_a_bad_reconstruction_is_dropped(truth, change):
    with pytest.raises(DropItem) as caught:
        apply_reconstruction(unposed(truth), reconstruction_of(truth, **change))
    assert caught.value.reason == "not_reconstructed"


def test_a_reconstruction_in_its_own_unit_is_not_in_metres(truth):
    plain = unposed(truth)
    plain = replace(plain, views=tuple(replace(view, depth_m=view.depth_m * 0) for view in plain.views))
    found = apply_reconstruction(plain, reconstruction_of(truth, unit=0.4, own_depth=True))
    assert found.posed and not found.metric and found.scale_source == "poses"
    assert np.allclose(found.views[1].depth_m, truth.views[1].depth_m / 0.4)
    assert found.views[1].intrinsics.cx == 39.0
    metric = to_metres(found, estimates_of(truth), 0.06, "model:test")
    expected = invert_pose(truth.views[0].camera_to_world) @ truth.views[3].camera_to_world
    assert np.allclose(metric.views[3].camera_to_world, expected, atol=1e-4)


def test_sensor_depth_sets_the_scale_of_a_reconstruction(truth):
    reconstruction = reconstruction_of(truth, unit=0.4, own_depth=True, lost=[1], error=0.03)
    found = apply_reconstruction(unposed(truth), reconstruction)
    assert found.metric and found.scale_source == "sensor" and len(found.views) == 3 and found.depth_noise == 0.03
    expected = invert_pose(truth.views[0].camera_to_world) @ truth.views[3].camera_to_world
    assert np.allclose(found.views[2].camera_to_world, expected, atol=1e-4)
    assert np.allclose(found.views[2].depth_m, truth.views[3].depth_m, rtol=1e-4)
