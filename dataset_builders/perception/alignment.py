"""Alignment of matched 3D points, and of several cameras at once (numpy; the same result on every run).

A pose here is a similarity: a (4, 4) matrix whose upper left is `scale * rotation`. The scale is 1 between cameras
whose depth is measured; depth that a model guessed image by image is off by a factor of its own in each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dataset_builders.geometry import Array, transform

TRIALS = 4096  # triples of matches that are drawn; those that are no copy of each other are not looked at further
HYPOTHESES = 256  # of them that are scored
MAX_SCALE = 1.6  # between two views of one place
MIN_INLIERS = 12
MIN_INLIER_SHARE = 0.25
BEARING_NOISE = 0.002  # standard deviation of a matched direction: one pixel at a focal length of 500
DEPTH_NOISE = 0.01  # relative standard deviation of a depth, the view's common factor aside
FAR_RESIDUALS = (30.0, 10.0, 3.0)  # in standard deviations, beyond which a match soon stops to count; wide first
ROUNDS = 20  # of the refinement with each of them, at most
Side = tuple[int, int, Array, Array]  # two cameras, points (N, 3) that the first sees, the same (N, 3) in the second


@dataclass(frozen=True)
class Fit:
    """Pose (4, 4) that takes the source to the target, its inliers (N,), their distances in the target's unit."""

    pose: Array
    inliers: Array
    residuals: Array

    @property
    def median_residual(self) -> float:
        """Over the inliers."""
        return float(np.median(self.residuals))


@dataclass(frozen=True)
class Link:
    """Two views that see the same points.

    Attributes:
        first: index of a view.
        second: index of the other.
        first_points: (N, 3), in the camera axes of the first.
        second_points: (N, 3), the same points in the camera axes of the second.
        pose: (4, 4), from the second camera to the first.
    """

    first: int
    second: int
    first_points: Array
    second_points: Array
    pose: Array


def scale_of(pose: Array) -> float:
    """The factor by which a pose (4, 4) stretches."""
    return float(np.cbrt(np.linalg.det(pose[:3, :3])))


def fit_pose(source: Array, target: Array, weights: Array | None = None, *, scaled: bool) -> Array:
    """Poses (..., 4, 4) that take points (..., N, 3) to (..., N, 3) with the least weighted squares (Kabsch; Umeyama).

    Args:
        source: N >= 3 points that are not on one line.
        target: where they should come to lie.
        weights: (..., N), not negative; None = all alike.
        scaled: a similarity, else rigid.
    """
    weights = np.ones(source.shape[:-1]) if weights is None else weights
    weights = (weights / weights.sum(axis=-1, keepdims=True))[..., None]
    centres = [(weights * points).sum(axis=-2, keepdims=True) for points in (source, target)]
    before, after = source - centres[0], target - centres[1]
    left, stretch, right = np.linalg.svd(np.einsum("...ni,...nj->...ij", weights * after, before))
    turn = np.ones(stretch.shape)
    turn[..., 2] = np.sign(np.linalg.det(left) * np.linalg.det(right))  # a rotation, never a reflection
    rotation = np.einsum("...ik,...k,...kj->...ij", left, turn, right)
    if scaled:
        size = np.maximum((weights * before**2).sum(axis=(-2, -1)), 1e-300)
        rotation = rotation * ((stretch * turn).sum(axis=-1) / size)[..., None, None]
    pose = np.zeros((*rotation.shape[:-2], 4, 4))
    pose[..., :3, :3] = rotation
    pose[..., :3, 3] = centres[1][..., 0, :] - np.einsum("...ij,...j->...i", rotation, centres[0][..., 0, :])
    pose[..., 3, 3] = 1
    return pose


def align_points(source: Array, target: Array, tolerance: Array, *, scaled: bool) -> Fit | None:
    """Alignment of matched points of which many may be wrong (deterministic RANSAC, then refined on the inliers).

    Args:
        source: (N, 3).
        target: (N, 3).
        tolerance: (N,), how far a right match may be off, in the unit of the points: grows with depth.
        scaled: a similarity with a factor up to `MAX_SCALE`, else rigid.

    Returns:
        None where fewer than `MIN_INLIERS` or `MIN_INLIER_SHARE` of the matches agree, or those lie on one line.
    """
    if len(source) < MIN_INLIERS:
        return None
    triples = _alike_triples(source, target, tolerance, scaled)
    if not len(triples):
        return None
    poses = fit_pose(source[triples], target[triples], scaled=scaled)
    moved = np.einsum("kij,nj->kni", poses[:, :3, :3], source) + poses[:, None, :3, 3]  # (K, N, 3)
    off = np.linalg.norm(moved - target, axis=-1) / tolerance
    pose = poses[np.minimum(off**2, 1).sum(axis=1).argmin()]
    inliers = np.zeros(len(source), dtype=bool)
    for _ in range(10):
        before, inliers = inliers, np.linalg.norm(transform(source, pose) - target, axis=1) < tolerance
        if inliers.sum() < max(MIN_INLIERS, MIN_INLIER_SHARE * len(source)):
            return None
        if (before == inliers).all():
            break
        pose = fit_pose(source[inliers], target[inliers], tolerance[inliers] ** -2.0, scaled=scaled)
    offsets = source[inliers] - source[inliers].mean(axis=0)
    width = np.sqrt(np.linalg.eigvalsh(np.einsum("ni,nj->ij", offsets, offsets) / inliers.sum())[1])
    if width < np.median(tolerance[inliers]):  # a line: any turn about it would do
        return None
    return Fit(pose, inliers, np.linalg.norm(transform(source, pose) - target, axis=1)[inliers])


def _alike_triples(source: Array, target: Array, tolerance: Array, scaled: bool) -> Array:
    """Triples (K, 3) of matches that span a triangle of the same sides, or the same shape, in source and target."""
    triples = np.random.default_rng(0).integers(0, len(source), (TRIALS, 3))
    others = np.roll(triples, 1, axis=1)
    sides, copies = (np.linalg.norm(points[triples] - points[others], axis=2) for points in (source, target))  # (T, 3)
    allowed = tolerance[triples] + tolerance[others]
    way_round = sides.sum(axis=1)
    triangle = (sides.min(axis=1) > 2 * allowed.max(axis=1)) & (way_round > 2.05 * sides.max(axis=1))
    if scaled:
        scale = np.clip(copies.sum(axis=1) / np.maximum(way_round, 1e-12), 1 / MAX_SCALE, MAX_SCALE)
        sides = sides * scale[:, None]
    return triples[triangle & (np.abs(sides - copies) < allowed).all(axis=1)][:HYPOTHESES]


def chain_poses(count: int, links: Sequence[Link]) -> list[Array | None]:
    """Cameras of views in one world, along the links with the most points (a maximum spanning tree).

    Args:
        count: number of views.
        links: between pairs of them.

    Returns:
        Pose (4, 4) of each view, camera to world; the world is the first camera of the largest group of views that
        hang together, those outside it are None. All None where there is no link.
    """
    best: list[Array | None] = [None] * count
    reached: set[int] = set()
    for root in range(count):
        if root in reached:
            continue
        poses: list[Array | None] = [None] * count
        poses[root] = np.eye(4)
        while True:
            leading_on = [one for one in links if (poses[one.first] is None) != (poses[one.second] is None)]
            if not leading_on:
                break
            link = max(leading_on, key=lambda one: len(one.first_points))
            first, second = poses[link.first], poses[link.second]
            if first is not None:
                poses[link.second] = first @ link.pose
            elif second is not None:
                poses[link.first] = second @ np.linalg.inv(link.pose)
        group = {view for view in range(count) if poses[view] is not None}
        reached |= group
        if len(group) > max(1, sum(pose is not None for pose in best)):
            best = poses
    return best


def refine_poses(poses: Sequence[Array | None], links: Sequence[Link], *, scaled: bool) -> list[Array | None]:
    """Move all cameras together so that matched points fall onto each other in every view (Levenberg-Marquardt).

    A point of one view, brought into the camera of another, is compared with its match in direction (sharp) and in
    depth (noisy); residuals of some standard deviations lose their weight (Geman and McClure).

    Args:
        poses: camera to world, (4, 4) or None per view; the first that is given stays where it is.
        links: matched points between views.
        scaled: also change the scales.

    Returns:
        The refined poses, None where there was none.
    """
    found = [view for view, pose in enumerate(poses) if pose is not None]
    place = {view: number for number, view in enumerate(found)}
    world = [pose for pose in poses if pose is not None]
    sides: list[Side] = []
    for link in links:
        if link.first in place and link.second in place:
            sides.append((place[link.first], place[link.second], link.first_points, link.second_points))
            sides.append((place[link.second], place[link.first], link.second_points, link.first_points))
    for far in FAR_RESIDUALS if sides else ():
        world = _descend(world, sides, far, 7 if scaled else 6)
    return [world[place[view]] if view in place else None for view in range(len(poses))]


def _descend(world: list[Array], sides: Sequence[Side], far: float, freedom: int) -> list[Array]:
    """The cameras after steps downhill; a step that would lead uphill is shortened."""
    damping, cost = 1e-3, _cost(world, sides, far)
    for _ in range(ROUNDS):
        motions = _motions(world, sides, far, damping, freedom)
        tried = [_moved(pose, motion) for pose, motion in zip(world, motions)]
        tried_cost = _cost(tried, sides, far)
        if tried_cost > cost:
            damping *= 10
            continue
        settled = cost - tried_cost <= 1e-6 * cost
        world, cost, damping = tried, tried_cost, damping / 10
        if settled:
            break
    return world


def _cost(world: Sequence[Array], sides: Sequence[Side], far: float) -> float:
    squares = (np.square(_residuals(world, side)[0]).sum(axis=1) for side in sides)
    return float(sum((one / (1 + one / far**2)).sum() for one in squares))


def _motions(world: Sequence[Array], sides: Sequence[Side], far: float, damping: float, freedom: int) -> Array:
    """The motion (V, 7) of every camera but the first that one damped step proposes."""
    count = len(world)
    hessian, gradient = np.zeros((count, freedom, count, freedom)), np.zeros((count, freedom))
    for side in sides:
        residuals, slopes = _residuals(world, side)
        slopes = slopes[:, :, :freedom]
        weighted = slopes * (1 + (residuals**2).sum(axis=1) / far**2)[:, None, None] ** -2.0
        block, slope = np.einsum("nri,nrj->ij", weighted, slopes), np.einsum("nri,nr->i", weighted, residuals)
        for one, other, sign in ((side[0], side[1], 1.0), (side[1], side[0], -1.0)):
            gradient[one] += sign * slope
            hessian[one, :, one] += block
            hessian[one, :, other] -= block
    size = freedom * (count - 1)
    matrix = hessian[1:, :, 1:].reshape(size, size)
    matrix[np.diag_indices(size)] *= 1 + damping
    motions = np.zeros((count, 7))
    motions[1:, :freedom] = -np.linalg.solve(matrix, gradient[1:].ravel()).reshape(-1, freedom)
    return motions


def _residuals(world: Sequence[Array], side: Side) -> tuple[Array, Array]:
    """Residuals (N, 3) in standard deviations, and their slopes (N, 3, 7) for a motion of the first camera.

    A motion shifts, turns and stretches about the world's origin; for the second camera the slopes are the opposite.
    """
    here, there, points, matches = world[side[0]], np.linalg.inv(world[side[1]]), side[2], side[3]
    at = transform(points, here)  # (N, 3), world
    seen = transform(at, there)
    depth = np.maximum(seen[:, 2], 1e-6)
    bearings = seen[:, :2] / depth[:, None]
    residuals = np.empty_like(seen)
    residuals[:, :2] = (bearings - matches[:, :2] / matches[:, 2:]) / BEARING_NOISE
    residuals[:, 2] = (seen[:, 2] / matches[:, 2] - 1) / (DEPTH_NOISE * np.sqrt(2))
    toward = np.zeros((len(at), 3, 3))  # slopes for a motion of the seen point
    toward[:, 0, 0] = toward[:, 1, 1] = 1 / (depth * BEARING_NOISE)
    toward[:, :2, 2] = -bearings / (depth[:, None] * BEARING_NOISE)
    toward[:, 2, 2] = 1 / (matches[:, 2] * DEPTH_NOISE * np.sqrt(2))
    motion = np.zeros((len(at), 3, 7))
    motion[:, :, :3] = np.eye(3)
    motion[:, 0, 4], motion[:, 0, 5] = at[:, 2], -at[:, 1]
    motion[:, 1, 3], motion[:, 1, 5] = -at[:, 2], at[:, 0]
    motion[:, 2, 3], motion[:, 2, 4] = at[:, 1], -at[:, 0]
    motion[:, :, 6] = at
    return residuals, np.einsum("nij,jk,nkl->nil", toward, there[:3, :3], motion)


def _moved(pose: Array, motion: Array) -> Array:
    """A pose after a shift (3,), a turn (3,) and a stretch (1,) about the world's origin, still a similarity."""
    angle = float(np.linalg.norm(motion[3:6]))
    x, y, z = motion[3:6] / max(angle, 1e-12)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    step = np.eye(4)
    step[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    moved = step @ pose
    left, _, right = np.linalg.svd(moved[:3, :3])
    moved[:3, :3] = left @ right * scale_of(pose)
    moved[:3] *= np.exp(motion[6])
    moved[:3, 3] += motion[:3]
    return moved
