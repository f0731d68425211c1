"""Keep or drop, always with a counted reason: which groups of views of one place make a good multi-view sample."""

import numpy as np

from dataset_builders.geometry import invert_pose, transform, unproject, valid_depth
from dataset_builders.scene import DropItem, Scene, View

GRID = 32  # points per side that an overlap is measured on
SAME_DEPTH = 0.03  # relative; a point seen in both views has the same depth in each, up to this and the noise
MIN_OVERLAP = 0.15  # less: the views have too little in common to ask about both
MAX_OVERLAP = 0.95  # more: the views are nearly the same picture


def overlap(first: View, second: View, depth_noise: float) -> float:
    """Covisibility of two posed views: the share of points that the other view sees, mean of both directions.

    Args:
        first: with a pose in the same world as `second`.
        second: the other view.
        depth_noise: relative standard deviation of the depth.

    Returns:
        0 (nothing in common) to 1.
    """
    return (_seen_share(first, second, depth_noise) + _seen_share(second, first, depth_noise)) / 2


def overlaps(scene: Scene) -> np.ndarray:
    """Overlap of every pair of views, (V, V), ones on the diagonal."""
    count = len(scene.views)
    shares = np.eye(count)
    for first in range(count):
        for second in range(first):
            share = overlap(scene.views[first], scene.views[second], scene.depth_noise)
            shares[first, second] = shares[second, first] = share
    return shares


def check_overlap(scene: Scene) -> float:
    """Drop a group of views of which one shares too little, or nearly everything, with the view closest to it.

    Returns:
        The least overlap of a view with the one that it shares most with.

    Raises:
        DropItem: "views_too_different" or "views_too_similar".
    """
    shares = overlaps(scene)
    nearest = (shares - 2 * np.eye(len(shares))).max(axis=1)
    if nearest.min() < MIN_OVERLAP:
        raise DropItem("views_too_different", f"{scene.id}: overlap {nearest.min():.2f} is below {MIN_OVERLAP}")
    if nearest.max() > MAX_OVERLAP:
        raise DropItem("views_too_similar", f"{scene.id}: overlap {nearest.max():.2f} is above {MAX_OVERLAP}")
    return float(nearest.min())


def _seen_share(first: View, second: View, depth_noise: float) -> float:
    height, width = first.depth_m.shape
    rows = np.linspace(0, height - 1, min(GRID, height)).astype(int)
    columns = np.linspace(0, width - 1, min(GRID, width)).astype(int)
    v, u = (axis.ravel() for axis in np.meshgrid(rows, columns, indexing="ij"))
    valid = valid_depth(first.depth_m[v, u])
    if not valid.any():
        return 0.0
    u, v = u[valid], v[valid]
    points = unproject(u, v, first.depth_m[v, u].astype(np.float64), first.intrinsics)
    points = transform(transform(points, first.camera_to_world), invert_pose(second.camera_to_world))
    column, row, inside = project(points, second)
    there = np.where(inside, second.depth_m[row, column], 0.0)
    agrees = np.abs(there - points[:, 2]) < (SAME_DEPTH + 3 * depth_noise) * points[:, 2]
    return float((inside & agrees).mean())


def project(points: np.ndarray, view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns and rows (N,), int, of points (N, 3) in camera axes, and which of them fall into the image.

    Those that do not are given column and row 0.
    """
    height, width = view.depth_m.shape
    depth = np.maximum(points[:, 2], 1e-6)
    column = np.rint(np.clip(view.intrinsics.fx * points[:, 0] / depth + view.intrinsics.cx, -1, width))
    row = np.rint(np.clip(view.intrinsics.fy * points[:, 1] / depth + view.intrinsics.cy, -1, height))
    inside = (points[:, 2] > 0.01) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return np.where(inside, column, 0).astype(int), np.where(inside, row, 0).astype(int), inside
