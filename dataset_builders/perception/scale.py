"""Depth and poses in metres: from a depth model where there are none, and for poses in a unit of their own."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dataset_builders.geometry import Array, valid_depth
from dataset_builders.perception import DepthEstimate, Reconstruction
from dataset_builders.scene import DropItem, Intrinsics, Scene, View

MIN_READINGS = 30  # pixels of a view that have depth in both units
MAX_SPREAD = 0.15  # median relative difference of the views' scales: more, and the metres are a guess
MAX_ERROR = 0.1  # relative disagreement of the depths of overlapping views: more, and the poses are wrong
MAD_TO_DEVIATION = 1.4826  # median absolute deviation to standard deviation, of a normal distribution


def fill_depth(scene: Scene, estimates: Sequence[DepthEstimate], noise: float, scale_source: str) -> Scene:
    """Give the views of a scene of plain images their depth, and intrinsics where they are unknown.

    Args:
        scene: without depth.
        estimates: one per view, of its size.
        noise: relative standard deviation of the estimates.
        scale_source: "model:<id>".

    Returns:
        The scene in metres; an unknown camera gets the model's focal length and the principal point in the centre.

    Raises:
        DropItem: "no_focal_length" where neither the scene nor the model knows it.
    """
    views = []
    for number, (view, estimate) in enumerate(zip(scene.views, estimates), start=1):
        intrinsics = view.intrinsics
        if not intrinsics.known:
            focal = estimate.focal_length_px
            if focal is None:
                raise DropItem("no_focal_length", f"{scene.id}: neither data nor model tells it for view {number}")
            height, width = estimate.depth_m.shape
            intrinsics = Intrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2)
        views.append(replace(view, depth_m=estimate.depth_m.astype(np.float32), intrinsics=intrinsics))
    return replace(scene, views=tuple(views), depth_noise=noise, metric=True, scale_source=scale_source)


def apply_reconstruction(scene: Scene, reconstruction: Reconstruction) -> Scene:
    """Give the views of a scene their poses, and what else the reconstruction knows; leave out those without a pose.

    Returns:
        The posed scene, its `depth_noise` no less than the reconstruction's error. It is not in metres where the
        reconstruction is not, unless its views had depth in metres before: that then sets the scale.

    Raises:
        DropItem: "not_reconstructed" where fewer than two views connect or their depths disagree; else as `to_metres`.
    """
    error = reconstruction.error or 0.0
    poses = {index: pose for index, pose in enumerate(reconstruction.camera_to_world) if pose is not None}
    if len(poses) < 2:
        raise DropItem("not_reconstructed", f"{scene.id}: {len(poses)} of {len(scene.views)} views connect")
    if error > MAX_ERROR:
        raise DropItem("not_reconstructed", f"{scene.id}: depths of overlapping views disagree by {error:.0%}")
    views = []
    for index, pose in poses.items():
        view = replace(scene.views[index], camera_to_world=pose)
        if reconstruction.intrinsics is not None:
            view = replace(view, intrinsics=reconstruction.intrinsics[index])
        if reconstruction.depth_m is not None:
            view = replace(view, depth_m=reconstruction.depth_m[index].astype(np.float32))
        views.append(view)
    noise = max(scene.depth_noise, error)
    posed = replace(scene, views=tuple(views), posed=True, depth_noise=noise, metric=reconstruction.metric)
    if reconstruction.metric:
        return posed
    before = [scene.views[index] for index in poses]
    if scene.metric and all(view.has_depth for view in before):
        measured = [DepthEstimate(view.depth_m, None) for view in before]
        return to_metres(posed, measured, noise, scene.scale_source)
    return replace(posed, scale_source="poses")


def to_metres(scene: Scene, estimates: Sequence[DepthEstimate], noise: float, scale_source: str) -> Scene:
    """Bring a posed scene of unknown unit to metres.

    Each view's scale is the median ratio of the estimated depth to its own; the scene's is the median of these. The
    poses grow by the scene's scale; each view gets the dense estimate, by a factor of its own, so that it agrees with
    the poses.

    Args:
        scene: not metric, with poses and depth (sparse is enough) in one unknown unit.
        estimates: metric depth, one per view, of its size.
        noise: relative standard deviation of the estimates.
        scale_source: "model:<id>".

    Returns:
        The scene in metres. Views with fewer than `MIN_READINGS` common readings are left out; `depth_noise` is at
        least what the estimates differ by from the depths of the scene.

    Raises:
        DropItem: "scale_unknown" where fewer than two views (of several) are left, "scale_unsure" where their scales
            differ by more than `MAX_SPREAD`.
    """
    ratios = [_ratios(view, estimate) for view, estimate in zip(scene.views, estimates)]
    kept = [index for index, one in enumerate(ratios) if len(one) >= MIN_READINGS]
    if len(kept) < min(2, len(scene.views)):
        raise DropItem("scale_unknown", f"{scene.id}: {len(kept)} of {len(scene.views)} views have enough depth")
    factors = np.array([np.median(ratios[index]) for index in kept])
    scale = float(np.exp(np.median(np.log(factors))))
    spread = float(np.median(np.abs(factors / scale - 1)))
    if spread > MAX_SPREAD:
        raise DropItem("scale_unsure", f"{scene.id}: the views' scales differ by {spread:.0%}")
    views, deviations = [], []
    for index, factor in zip(kept, factors):
        pose = scene.views[index].camera_to_world.copy()
        pose[:3, 3] *= scale
        depth_m = (estimates[index].depth_m * (scale / factor)).astype(np.float32)
        views.append(replace(scene.views[index], camera_to_world=pose, depth_m=depth_m))
        deviations.append(MAD_TO_DEVIATION * np.median(np.abs(ratios[index] / factor - 1)))
    noise = max(noise, float(np.median(deviations)))
    return replace(scene, views=tuple(views), depth_noise=noise, metric=True, scale_source=scale_source)


def _ratios(view: View, estimate: DepthEstimate) -> Array:
    """Estimated depth over the view's own, (N,), where both have a reading."""
    known = np.isfinite(view.depth_m) & (view.depth_m > 0) & valid_depth(estimate.depth_m)
    return estimate.depth_m[known].astype(np.float64) / view.depth_m[known]
