"""Poses from matched points: exact where the points are, robust where they are not, and None rather than a guess."""

import numpy as np
import pytest

from dataset_builders.geometry import invert_pose, is_rigid, transform
from dataset_builders.perception.alignment import (
    Link,
    align_points,
    chain_poses,
    fit_pose,
    refine_poses,
    scale_of,
)
from tests.dataset_builders.scenes_for_tests import camera_pose

POSE = camera_pose((0.4, -0.2, 1.1), yaw=25, pitch=10, roll=5)


def cloud(count=120, seed=0):
    return np.random.default_rng(seed).uniform((-1, -1, 1.5), (1, 1, 4), (count, 3))


def stretched(pose, scale):
    similarity = pose.copy()
    similarity[:3, :3] *= scale
    return similarity


@pytest.mark.parametrize("scale", [1.0, 0.7])
def test_exact_points_give_the_exact_pose(scale):
    points = cloud()
    found = fit_pose(points, transform(points, stretched(POSE, scale)), scaled=True)
    assert np.allclose(found, stretched(POSE, scale), atol=1e-12)
    assert scale_of(found) == pytest.approx(scale)


def test_a_rigid_fit_does_not_stretch():
    points = cloud()
    found = fit_pose(points, 2 * transform(points, POSE), scaled=False)
    assert is_rigid(found)
    assert np.allclose(found[:3, :3], POSE[:3, :3], atol=1e-9)


@pytest.mark.parametrize("scaled", [False, True])
def test_a_mirror_image_is_answered_by_a_rotation(scaled):
    points = cloud()
    found = fit_pose(points, points * (1, 1, -1), scaled=scaled)
    assert np.linalg.det(found[:3, :3]) > 0


def test_weightless_points_do_not_count():
    points, weights = cloud(), np.ones(120)
    target = transform(points, POSE)
    target[:60] += 5
    weights[:60] = 0
    assert np.allclose(fit_pose(points, target, weights, scaled=False), POSE, atol=1e-12)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("wrong_share", [0.0, 0.3, 0.6])
def test_wrong_matches_are_left_out(wrong_share, scaled):
    points = cloud()
    target = transform(points, stretched(POSE, 1.2 if scaled else 1.0))
    wrong = np.arange(120) < wrong_share * 120
    target[wrong] = cloud(seed=1)[wrong]
    fit = align_points(points, target, np.full(120, 0.03), scaled=scaled)
    assert (fit.inliers >= ~wrong).all() and fit.inliers.sum() <= (~wrong).sum() + 2
    assert np.abs(transform(points, fit.pose) - target)[~wrong].max() < 5e-3
    assert fit.median_residual < 5e-3


def test_the_same_points_give_the_same_bytes():
    points = cloud()
    target = transform(points, POSE) + np.random.default_rng(3).normal(0, 0.005, (120, 3))
    first, second = (align_points(points, target, np.full(120, 0.03), scaled=True) for _ in range(2))
    assert first.pose.tobytes() == second.pose.tobytes()


@pytest.mark.parametrize("scaled", [False, True])
def test_chance_is_no_alignment(scaled):
    for seed in range(5):
        pairs = cloud(200, seed=10 + seed), cloud(200, seed=50 + seed)
        assert align_points(*pairs, np.full(200, 0.05), scaled=scaled) is None


def test_few_points_or_a_line_are_no_alignment():
    points = cloud(11)
    assert align_points(points, points, np.full(11, 0.03), scaled=False) is None
    line = np.linspace(0, 1, 60)[:, None] * (1.0, 0.5, 2.0) + np.random.default_rng(0).normal(0, 0.002, (60, 3))
    assert align_points(line, line, np.full(60, 0.03), scaled=False) is None
    spot = np.random.default_rng(0).normal(0, 0.01, (60, 3))
    assert align_points(spot, spot, np.full(60, 0.03), scaled=False) is None


def test_exact_points_count_more_than_loose_ones():
    points, tolerance = cloud(), np.where(np.arange(120) < 60, 0.01, 0.3)
    target = transform(points, POSE)
    target[60:] += np.random.default_rng(4).uniform(0, 0.15, (60, 3))  # all to one side
    fit = align_points(points, target, tolerance, scaled=False)
    assert np.abs(transform(points, fit.pose) - target)[:60].max() < 5e-3


def test_a_line_with_a_point_beside_it_is_no_alignment():
    line = np.linspace(0, 1, 60)[:, None] * (1.0, 0.5, 2.0)
    line = np.concatenate([line, [[0.5, 0.45, 1.0]]])
    assert align_points(line, line, np.full(61, 0.03), scaled=False) is None


def test_another_scale_is_no_rigid_alignment():
    points = cloud()
    assert align_points(points, 1.3 * points, np.full(120, 0.03), scaled=False) is None
    assert align_points(points, 3.0 * points, np.full(120, 0.03), scaled=True) is None  # no two views of one place


def link(first, second, poses, count=30, noise=0.0, seed=0):
    """Points of the world that two cameras see, the poses between them spoiled by noise."""
    world = transform(cloud(count, seed=seed), poses[0])
    random = np.random.default_rng(seed)
    seen = [transform(world, np.linalg.inv(poses[view])) for view in (first, second)]
    seen = [points * (1 + random.normal(0, noise, (count, 1))) for points in seen]
    return Link(first, second, *seen, fit_pose(seen[1], seen[0], scaled=False))


CAMERAS = [camera_pose((0.3 * k, 0, 0.02 * k), yaw=-4 * k, pitch=2 * k) for k in range(5)]


def test_a_chain_reaches_all_views_and_none_beyond():
    links = [link(0, 2, CAMERAS), link(2, 1, CAMERAS), link(3, 1, CAMERAS)]
    poses = chain_poses(5, links)
    assert poses[4] is None
    for view in range(4):
        assert np.allclose(poses[view], invert_pose(CAMERAS[0]) @ CAMERAS[view], atol=1e-9)


def test_a_chain_prefers_the_links_with_more_points():
    wrong = link(0, 2, CAMERAS, count=20)
    wrong = Link(0, 2, wrong.first_points, wrong.second_points, np.eye(4))
    poses = chain_poses(3, [wrong, link(0, 1, CAMERAS), link(1, 2, CAMERAS)])
    assert np.allclose(poses[2], invert_pose(CAMERAS[0]) @ CAMERAS[2], atol=1e-9)


def test_the_largest_group_is_the_world():
    poses = chain_poses(5, [link(0, 1, CAMERAS), link(2, 3, CAMERAS), link(3, 4, CAMERAS)])
    assert poses[0] is None and poses[1] is None
    assert np.allclose(poses[2], np.eye(4))
    assert np.allclose(poses[4], invert_pose(CAMERAS[2]) @ CAMERAS[4], atol=1e-9)
    assert chain_poses(3, []) == [None, None, None]


def worst_offset_m(poses):
    truth = [invert_pose(CAMERAS[0]) @ pose for pose in CAMERAS]
    return max(np.linalg.norm(pose[:3, 3] - true[:3, 3]) for pose, true in zip(poses, truth))


def test_refinement_makes_a_noisy_chain_exacter():
    links = [link(k, k + 1, CAMERAS, noise=0.01, seed=k) for k in range(4)]
    links += [link(k, k + 2, CAMERAS, noise=0.01, seed=9 + k) for k in range(3)]
    chained = chain_poses(5, links)
    refined = refine_poses(chained, links, scaled=False)
    assert all(is_rigid(pose, 1e-9) for pose in refined)
    assert np.array_equal(refined[0], np.eye(4))
    assert worst_offset_m(refined) < 0.5 * worst_offset_m(chained)
    assert worst_offset_m(refined) < 0.01


def test_refinement_finds_the_scales_and_leaves_out_what_is_not_connected():
    scales = [1.0, 1.2, 0.9]
    cameras = [stretched(pose, scale) for pose, scale in zip(CAMERAS, scales)]
    links = [link(0, 1, cameras, seed=1), link(1, 2, cameras, seed=2), link(0, 2, cameras, seed=3)]
    start = [np.eye(4), *(invert_pose(CAMERAS[0]) @ stretched(pose, 1.05) for pose in CAMERAS[1:3]), None]
    refined = refine_poses(start, links, scaled=True)
    assert refined[3] is None
    for pose, camera in zip(refined, cameras):
        assert np.allclose(pose, np.linalg.inv(cameras[0]) @ camera, atol=1e-6)


def test_refinement_survives_wrong_matches():
    links = [link(0, 1, CAMERAS, count=60, seed=1), link(1, 2, CAMERAS, count=60, seed=2)]
    for one in links:
        one.second_points[:12] = cloud(12, seed=7)
    start = [invert_pose(CAMERAS[0]) @ pose for pose in CAMERAS[:3]]
    for pose in start[1:]:
        pose[:3, 3] += (0.1, -0.05, 0.08)
    refined = refine_poses(start, links, scaled=False)
    assert worst_offset_m(refined) < 1e-3
