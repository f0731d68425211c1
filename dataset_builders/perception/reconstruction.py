"""Cameras of several views of one place: from matched pixels and depth, or by VGGT through its own package.

Matched pixels become 3D points by each view's depth, pairs of views are aligned on them, and all cameras are refined
together. Measured on real rooms with sensor depth by `python -m benchmarks.reconstruction`.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from PIL import Image

from dataset_builders.filters import project
from dataset_builders.geometry import Array, invert_pose, transform, unproject, valid_depth, view_points
from dataset_builders.perception import PerceptionOptions, Reconstruction, split_revision
from dataset_builders.perception.alignment import Link, align_points, chain_poses, refine_poses, scale_of
from dataset_builders.perception.loading import choose_device, choose_dtype
from dataset_builders.perception.matching import Matcher, SiftMatcher, TransformersMatcher
from dataset_builders.scene import DropItem, InputError, Intrinsics, View

TOLERANCE = 0.03  # relative to depth: how far apart a point may lie as two views see it
SAME_SCALE = 1.03  # factors between the views' depths nearer to 1 than this are noise: the depth was measured
ALL_PAIRS = 8  # up to so many views every pair is matched, of more only those near in order
GRID = 64  # points per side that the views' depths are compared on
VGGT_PIXELS = 518  # width that VGGT was trained with, a multiple of its patches
VGGT_PATCH = 14
VGGT_INSTALL = "pip install git+https://github.com/facebookresearch/vggt"


class KeypointReconstructor:
    """Keypoint matching and depth: `keypoints:sift`, or `keypoints:` and an id or folder for transformers.

    The views need depth and intrinsics. Depth that a model guessed image by image has another scale in each; the
    views' depths are then brought to one common scale, their median, and returned with the poses.
    """

    def __init__(self, name: str, options: PerceptionOptions) -> None:
        """Load the matcher.

        Raises:
            InputError: it cannot be loaded.
        """
        self._matcher: Matcher = SiftMatcher() if name == "sift" else TransformersMatcher(name, options)

    def reconstruct(self, views: Sequence[View]) -> Reconstruction:
        """See `Reconstructor`."""
        pairs = pairs_to_match(len(views))
        return reconstruct_from_matches(views, pairs, self._matcher.match([view.image for view in views], pairs))


def pairs_to_match(count: int) -> list[tuple[int, int]]:
    """Every pair of up to `ALL_PAIRS` views; of more only neighbours and next neighbours."""
    reach = count if count <= ALL_PAIRS else 2
    return [(first, second) for first, second in combinations(range(count), 2) if second - first <= reach]


def reconstruct_from_matches(
    views: Sequence[View], pairs: Sequence[tuple[int, int]], matches: Sequence[Array]
) -> Reconstruction:
    """Align views on matched pixels.

    Args:
        views: with depth and intrinsics.
        pairs: of indices of views.
        matches: per pair (N, 4): u, v in the first view, u, v in the second, in pixels; many may be wrong.

    Raises:
        DropItem: "not_reconstructed" where no two views connect.
    """
    tried = [link_views(views, pair, found, scaled=True) for pair, found in zip(pairs, matches)]
    links = [link for link in tried if link is not None]
    poses = chain_poses(len(views), links)
    if not any(pose is not None for pose in poses):
        raise DropItem("not_reconstructed", f"no two of {len(views)} views share enough points that agree in depth")
    poses = refine_poses(poses, links, scaled=True)
    scales = [1.0 if pose is None else scale_of(pose) for pose in poses]
    found_scales = [scale for scale, pose in zip(scales, poses) if pose is not None]
    unit = float(np.median(found_scales))
    measured = max(abs(np.log(scale / unit)) for scale in found_scales) < np.log(SAME_SCALE)
    rigid = [None if pose is None else _without_scale(pose, 1.0 if measured else unit) for pose in poses]
    if measured:
        rigid = refine_poses(rigid, links, scaled=False)
        depths = [view.depth_m for view in views]
    else:
        depths = [(view.depth_m * (scale / unit)).astype(np.float32) for view, scale in zip(views, scales)]
    placed = [replace(view, depth_m=depth) for view, depth in zip(views, depths)]
    error = depth_disagreement(placed, rigid, [(link.first, link.second) for link in links])
    return Reconstruction(rigid, None, None if measured else depths, metric=True, error=error)


def _without_scale(pose: Array, unit: float) -> Array:
    rigid = pose.copy()
    rigid[:3, :3] /= scale_of(pose)
    rigid[:3, 3] /= unit
    return rigid


def link_views(views: Sequence[View], pair: tuple[int, int], matches: Array, *, scaled: bool) -> Link | None:
    """Align two views on matched pixels (N, 4); None where too few agree."""
    sides, valid = [], np.ones(len(matches), dtype=bool)
    for view, (u, v) in zip((views[pair[0]], views[pair[1]]), (matches.T[:2], matches.T[2:])):
        height, width = view.depth_m.shape
        row, column = np.clip(np.rint(v), 0, height - 1).astype(int), np.clip(np.rint(u), 0, width - 1).astype(int)
        depth = view.depth_m[row, column].astype(np.float64)
        sides.append(unproject(u, v, depth, view.intrinsics))
        valid &= valid_depth(depth)
    first, second = (points[valid] for points in sides)
    fit = align_points(second, first, TOLERANCE * (first[:, 2] + second[:, 2]) / 2, scaled=scaled)
    if fit is None:
        return None
    return Link(*pair, first[fit.inliers], second[fit.inliers], fit.pose)


def depth_disagreement(
    views: Sequence[View], poses: Sequence[Array | None], pairs: Sequence[tuple[int, int]]
) -> float | None:
    """Median relative difference between the depth of a point and what the other view reads there.

    Args:
        views: with depth, in the unit of the poses.
        poses: camera_to_world (4, 4) or None per view.
        pairs: of views to compare, in both directions; None where nothing of one is seen in the other.
    """
    differences = []
    for first, second in [*pairs, *(pair[::-1] for pair in pairs)]:
        from_pose, to_pose = poses[first], poses[second]
        if from_pose is None or to_pose is None:
            continue
        height, width = views[first].depth_m.shape
        rows, columns = (np.linspace(0, size - 1, min(GRID, size)).astype(int) for size in (height, width))
        v, u = (axis.ravel() for axis in np.meshgrid(rows, columns, indexing="ij"))
        valid = valid_depth(views[first].depth_m[v, u])
        points = view_points(replace(views[first], camera_to_world=from_pose), u[valid], v[valid])
        seen = transform(points, invert_pose(to_pose))
        column, row, inside = project(seen, views[second])
        there = views[second].depth_m[row, column]
        inside &= valid_depth(there)
        differences.append(np.abs(there[inside] / seen[inside, 2] - 1))
    together = np.concatenate(differences) if differences else np.empty(0)
    return float(np.median(together)) if together.size else None


class VggtReconstructor:
    """VGGT (`facebook/VGGT-1B`, weights CC BY-NC; a commercial checkpoint exists) through the package `vggt`.

    Gives cameras, focal lengths and depth of all views in one unit of its own, not metres. Images are placed in the
    middle of a white canvas, as the package's own loader does it in its mode "pad".
    """

    def __init__(self, name: str, options: PerceptionOptions) -> None:
        """Load by id or folder.

        Raises:
            InputError: the package is not installed, or the model cannot be loaded.
        """
        try:
            from vggt.models.vggt import VGGT
        except ImportError as error:
            raise InputError(f"reconstructor {name!r} needs the package vggt; run {VGGT_INSTALL}.") from error
        self._device = choose_device(options.device)
        self._dtype = choose_dtype(options.dtype, self._device)
        identifier, revision = split_revision(name)
        try:
            model = VGGT.from_pretrained(identifier, revision=revision)
        except Exception as error:  # the package and the Hub raise many kinds
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise InputError(
                f"reconstructor model {name!r} cannot be loaded: {reason}; pass facebook/VGGT-1B or a folder of it."
            ) from error
        self._model = model.to(self._device).eval()

    def reconstruct(self, views: Sequence[View]) -> Reconstruction:
        """See `Reconstructor`."""
        import torch
        from vggt.utils.pose_enc import pose_encoding_to_extri_intri

        canvas, boxes = _on_canvas([view.image for view in views])
        images = torch.from_numpy(canvas).to(self._device)  # (V, 3, H, W), 0 to 1
        half = self._dtype != torch.float32
        with torch.inference_mode(), torch.autocast(self._device.type, self._dtype, enabled=half):
            found = self._model(images)
        extrinsics, cameras = pose_encoding_to_extri_intri(found["pose_enc"].float(), images.shape[-2:])
        to_camera, cameras = _as_numpy(extrinsics[0]), _as_numpy(cameras[0])  # (V, 3, 4), (V, 3, 3)
        world_to_camera = [np.vstack([one, (0, 0, 0, 1)]) for one in to_camera]
        poses = [world_to_camera[0] @ invert_pose(one) for one in world_to_camera]
        intrinsics, depths = [], []
        for view, box, camera, depth in zip(views, boxes, cameras, _as_numpy(found["depth"][0, ..., 0])):
            intrinsics.append(_in_image(camera, box, view.image))
            depths.append(_cut(depth, box, view.image))
        placed = [replace(view, depth_m=depth, intrinsics=one) for view, depth, one in zip(views, depths, intrinsics)]
        error = depth_disagreement(placed, poses, pairs_to_match(len(views)))
        return Reconstruction(poses, intrinsics, depths, metric=False, error=error)


Corners = tuple[int, int, int, int]  # left, top, right, bottom of an image on the canvas


def _as_numpy(tensor: Any) -> Array:
    return tensor.float().cpu().numpy().astype(np.float64)


def _on_canvas(images: Sequence[Array]) -> tuple[Array, list[Corners]]:
    """All images (V, 3, H, W), float32, 0 to 1, in the middle of white canvases of one size, and where they lie."""
    resized = []
    for image in images:
        factor = VGGT_PIXELS / max(image.shape[:2])
        height, width = (max(1, round(size / VGGT_PATCH * factor)) * VGGT_PATCH for size in image.shape[:2])
        resized.append(np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)))
    height = max(image.shape[0] for image in resized)
    canvas = np.ones((len(images), 3, height, VGGT_PIXELS), dtype=np.float32)
    boxes = []
    for number, image in enumerate(resized):
        top, left = (height - image.shape[0]) // 2, (VGGT_PIXELS - image.shape[1]) // 2
        boxes.append((left, top, left + image.shape[1], top + image.shape[0]))
        canvas[number, :, top : boxes[-1][3], left : boxes[-1][2]] = image.transpose(2, 0, 1) / 255
    return canvas, boxes


def _in_image(camera: Array, box: Corners, image: Array) -> Intrinsics:
    """A camera matrix (3, 3) of the canvas, whose pixels are counted from the corner, as one of the image."""
    across, down = image.shape[1] / (box[2] - box[0]), image.shape[0] / (box[3] - box[1])
    return Intrinsics(
        fx=float(camera[0, 0] * across),
        fy=float(camera[1, 1] * down),
        cx=float((camera[0, 2] - box[0]) * across - 0.5),
        cy=float((camera[1, 2] - box[1]) * down - 0.5),
    )


def _cut(depth: Array, box: Corners, image: Array) -> Array:
    """Depth (H, W) of the canvas at the size of an image; the nearest reading, so that no edge is smeared."""
    part = Image.fromarray(depth[box[1] : box[3], box[0] : box[2]].astype(np.float32))
    return np.asarray(part.resize((image.shape[1], image.shape[0]), Image.Resampling.NEAREST))
