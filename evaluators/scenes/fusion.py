"""Features of 3D points: the mean of what the encoder says of them in all views that see them.

After OpenScene's fusion as Lexicon3D uses it (lexicon3d/fusion_util.py, fusion_scannet_dinov2.py).
"""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import PartialState
from torch.nn import functional
from tqdm import tqdm

from evaluators.array_cache import cached_array, cached_value
from evaluators.encoders import Encoder
from evaluators.scenes.scene import Scene, View

VISIBILITY_THRESHOLD = 0.25  # a point is seen where depth differs from its own by at most so much of the depth
BORDER = 10 / 320  # of the map's width, cut at each side: Lexicon3D's 10 pixels of 320
BATCH_SIZE = 8


class Job(NamedTuple):
    """Points of a scene, and the views that may tell of them."""

    scene: Scene
    views: Sequence[int]
    xyz_m: np.ndarray  # (N, 3)


def seen_points(xyz_m: np.ndarray, view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which points a view sees, and in which pixels.

    Returns:
        (M,) places in xyz_m, and (M,) rows and (M,) columns of the depth map.
    """
    camera, (height, width) = view.camera, view.depth_m.shape
    world_to_camera = np.linalg.inv(camera.camera_to_world)
    x, y, z = world_to_camera[:3, :3] @ xyz_m.T.astype(np.float64) + world_to_camera[:3, 3:]
    ahead = np.flatnonzero(z > 1e-6)
    x, y, z = x[ahead], y[ahead], z[ahead]
    columns = np.rint(x * camera.fx / z + camera.cx)
    rows = np.rint(y * camera.fy / z + camera.cy)
    cut = round(BORDER * width)
    inside = (columns >= cut) & (columns < width - cut) & (rows >= cut) & (rows < height - cut)
    ahead, z, rows, columns = ahead[inside], z[inside], rows[inside].astype(int), columns[inside].astype(int)
    depth_m = view.depth_m[rows, columns]
    seen = np.abs(depth_m - z) <= VISIBILITY_THRESHOLD * depth_m
    return ahead[seen], rows[seen], columns[seen]


def sample_bicubic(
    features: torch.Tensor, rows: np.ndarray, columns: np.ndarray, size: tuple[int, int]
) -> torch.Tensor:
    """What bicubic interpolation of a feature map to `size` gives at some pixels, without the whole map.

    Args:
        features: (C, h, w).
        rows: (M,) of the pixels.
        columns: (M,) of the pixels.
        size: (height, width) of the interpolated map.

    Returns:
        (M, C).
    """
    places = np.stack([(2 * columns + 1) / size[1] - 1, (2 * rows + 1) / size[0] - 1], axis=-1)
    grid = torch.from_numpy(places).to(features.device, torch.float32)[None, None]  # (1, 1, M, 2)
    sampled = functional.grid_sample(
        features[None].float(), grid, mode="bicubic", padding_mode="border", align_corners=False
    )
    return sampled[0, :, 0].T


def fuse(encoder: Encoder, job: Job, resolution: tuple[int, int]) -> np.ndarray:
    """Fuse the features of all views.

    Args:
        encoder: from `load_encoder`.
        job: points and views.
        resolution: (height, width) in pixels of the encoder's input, multiples of its patch size.

    Returns:
        (N, C) float16, NaN for a point that no view sees.

    Raises:
        ValueError: a feature is not finite.
    """
    total = torch.zeros(len(job.xyz_m), encoder.hidden_size, device=encoder.device)
    count = torch.zeros(len(job.xyz_m), 1, device=encoder.device)
    for start in range(0, len(job.views), BATCH_SIZE):
        views = [job.scene.view(index) for index in job.views[start : start + BATCH_SIZE]]
        pixels = torch.stack([encoder.preprocessing(view.image, resolution) for view in views])
        for features, view in zip(encoder.patch_features(pixels), views):
            places, rows, columns = seen_points(job.xyz_m, view)
            height, width = view.depth_m.shape
            found = torch.from_numpy(places).to(encoder.device)
            total[found] += sample_bicubic(features, rows, columns, (height, width))
            count[found] += 1
    fused = (total / count).cpu().numpy()  # 0 / 0 = NaN: unseen
    if not np.isfinite(fused[count.cpu().numpy()[:, 0] > 0]).all():
        raise ValueError(f"encoder {encoder.name!r} gives features that are not finite: load it in float32")
    return fused.astype(np.float16)


def fused_features(
    encoder: Encoder, jobs: Sequence[Job], resolution: tuple[int, int], cache_dir: Path
) -> list[torch.Tensor]:
    """Return `fuse(...)` of every job, memory-mapped; processes under `accelerate launch` share the work.

    Raises:
        ValueError: the encoder does not take images of this resolution.
    """
    if not encoder.any_size and tuple(resolution) != encoder.input_size_px:
        raise ValueError(
            f"encoder {encoder.name!r} takes images of one size only, not {resolution}: pass --resolution "
            f"{'x'.join(map(str, encoder.input_size_px))}"
        )
    state = PartialState()
    keys = [_key(encoder, job, resolution) for job in jobs]
    mine = list(zip(jobs, keys))[state.process_index :: state.num_processes]
    for job, key in tqdm(mine, desc=f"fusion by {encoder.name}", unit="scene", disable=not state.is_main_process):
        cached_value(cache_dir, key, partial(fuse, encoder, job, resolution))
    state.wait_for_everyone()
    return [cached_array(cache_dir, key, lambda _: None) for key in keys]


def is_seen(features: torch.Tensor) -> torch.Tensor:
    """(N,) whether a view sees the point."""
    return features[:, 0].isfinite()


def _key(encoder: Encoder, job: Job, resolution: tuple[int, int]) -> str:
    points = hashlib.sha256(np.ascontiguousarray(job.xyz_m).tobytes()).hexdigest()
    return (
        f"{encoder.weights_hash} {encoder.dtype} {encoder.preprocessing} {tuple(resolution)} fused "
        f"{job.scene.fingerprint} {points} {list(job.views)}"
    )
