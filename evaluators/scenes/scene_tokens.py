"""A scene as tokens: fused features pooled in cubes of space, or per object."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from evaluators.encoders import Encoder
from evaluators.scenes.fusion import Job, fused_features, is_seen
from evaluators.scenes.scene import Points, Scene, draw_points, spread

FIRST_VOXEL_M, GROWTH = 0.2, 1.2


class Tokens(NamedTuple):
    """What a language model reads of a scene.

    Attributes:
        features: (T, C) float32.
        places: (T, P): centres in metres; of objects with their sizes. The scene's middle is the origin.
        object_ids: (T,), empty for cubes.
        boxes_m: (T, 2, 3) lower and upper corners, empty for cubes.
    """

    features: torch.Tensor
    places: torch.Tensor
    object_ids: np.ndarray
    boxes_m: np.ndarray


def read_points(scenes: Sequence[Scene], count: int) -> list[Points]:
    """At most `count` points of every scene."""
    return [draw_points(scene.points(), count, scene.id) for scene in scenes]


def fuse_points(
    encoder: Encoder,
    scenes: Sequence[Scene],
    points: Sequence[Points],
    max_views: int | None,
    resolution: tuple[int, int],
    cache_dir: Path,
) -> list[torch.Tensor]:
    """The fused features of the points of every scene."""
    jobs = [Job(one, spread(one.num_views, max_views), part.xyz_m) for one, part in zip(scenes, points)]
    return fused_features(encoder, jobs, resolution, cache_dir)


def cube_tokens(points: Points, features: torch.Tensor, num_tokens: int) -> Tokens:
    """Mean feature and mean place in cubes of the smallest size that gives at most `num_tokens` of them."""
    seen = is_seen(features).numpy()
    xyz, values = points.xyz_m[seen], features[torch.from_numpy(seen)].float()
    voxel_m = FIRST_VOXEL_M
    while True:
        _, cube = np.unique(np.floor(xyz / voxel_m).astype(np.int64), axis=0, return_inverse=True)
        if cube.max(initial=0) < num_tokens:
            break
        voxel_m *= GROWTH
    pooled = _mean_by(values, cube.ravel())
    centres = _mean_by(torch.from_numpy(xyz - _middle(points)), cube.ravel())
    return Tokens(pooled, centres, np.empty(0, np.int32), np.empty((0, 2, 3)))


def object_tokens(points: Points, features: torch.Tensor) -> Tokens:
    """Mean feature, centre and size of every object that a view sees."""
    seen = is_seen(features).numpy()
    ids = np.unique(points.object_ids[seen & (points.object_ids >= 0)])
    boxes = np.array([object_box(points, number) for number in ids]).reshape(-1, 2, 3)
    kept = seen & np.isin(points.object_ids, ids)
    values = features[torch.from_numpy(kept)].float()
    pooled = _mean_by(values, np.searchsorted(ids, points.object_ids[kept]))
    places = np.concatenate([boxes.mean(1) - _middle(points), boxes[:, 1] - boxes[:, 0]], axis=1)
    return Tokens(pooled, torch.from_numpy(places).float(), ids, boxes)


def object_box(points: Points, object_id: int) -> np.ndarray:
    """(2, 3) lower and upper corner along the axes; NaN where no point is of the object."""
    own = points.xyz_m[points.object_ids == object_id].astype(np.float64)
    return np.stack([own.min(0), own.max(0)]) if len(own) else np.full((2, 3), np.nan)


def box_iou(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two (2, 3) boxes; 0 where one is not known."""
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        return 0.0
    overlap = np.prod((np.minimum(one[1], other[1]) - np.maximum(one[0], other[0])).clip(0))
    union = np.prod(one[1] - one[0]) + np.prod(other[1] - other[0]) - overlap
    return float(overlap / union) if union > 0 else 0.0


def _middle(points: Points) -> np.ndarray:
    return (points.xyz_m.min(0) + points.xyz_m.max(0)) / 2


def _mean_by(values: torch.Tensor, groups: np.ndarray) -> torch.Tensor:
    """(G, C) means of (N, C) values by their group 0 ... G - 1."""
    index = torch.from_numpy(groups)
    count = torch.bincount(index).clamp(min=1)
    total = torch.zeros(len(count), values.shape[1]).index_add_(0, index, values.float())
    return total / count[:, None]
