"""Numbers as pictures: depth in colours and as 16-bit PNG, features by their principal components."""

import atexit
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from spatialboost_space.settings import limits

# dark blue, violet, red, orange, yellow: lightness grows evenly, so that it also reads in grey
_STOPS = np.array([(13, 8, 135), (126, 3, 168), (204, 71, 120), (248, 149, 64), (240, 249, 33)], dtype=np.float64)
COLOUR_MAP = (
    np.stack([np.interp(np.linspace(0, 4, 256), np.arange(5), _STOPS[:, channel]) for channel in range(3)], axis=1)
    .round()
    .astype(np.uint8)
)  # (256, 3), near to far


OUTPUTS = Path(tempfile.mkdtemp(prefix="spatialboost_"))
atexit.register(shutil.rmtree, OUTPUTS, ignore_errors=True)


def new_file(name: str) -> Path:
    """Where a result may be written; results older than an upload may be are deleted."""
    for folder in OUTPUTS.iterdir():
        if time.time() - folder.stat().st_mtime > limits().cache_seconds:
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(dir=OUTPUTS)) / name


def depth_range_m(*maps_m: np.ndarray) -> tuple[float, float]:
    """Nearest and farthest depth of the colours: the 1st and 99th percentile over all maps."""
    values = np.concatenate([depth.ravel() for depth in maps_m])
    low, high = np.percentile(values[np.isfinite(values)], [1, 99])
    return float(low), float(max(high, low + 1e-3))


def save_depth_png(depth_m: np.ndarray, name: str) -> str:
    """A 16-bit PNG of (H, W) metres as millimetres, 65.535 m and beyond as 65535; its path."""
    millimetres = np.clip(np.nan_to_num(depth_m) * 1000, 0, 65535).round().astype(np.uint16)
    path = new_file(f"{name}.png")
    Image.fromarray(millimetres).save(path)
    return str(path)


def principal_colours(*features: np.ndarray) -> list[np.ndarray]:
    """Maps (h, w, C) to (h, w, 3) uint8: their first three principal components, found over all of them together.

    One basis for all, so that equal colours mean equal features, base or boosted.
    """
    tokens = np.concatenate([one.reshape(-1, one.shape[-1]) for one in features]).astype(np.float64)
    tokens -= tokens.mean(axis=0)
    directions = np.linalg.svd(tokens, full_matrices=False)[2][:3]
    directions *= np.where(directions.sum(axis=1, keepdims=True) < 0, -1, 1)  # one sign, whatever the solver gives
    components = tokens @ directions.T
    low, high = np.percentile(components, [1, 99], axis=0)
    scaled = np.clip((components - low) / np.maximum(high - low, 1e-9), 0, 1) * 255
    ends = np.cumsum([one.shape[0] * one.shape[1] for one in features])[:-1]
    return [
        part.round().astype(np.uint8).reshape(*one.shape[:2], 3)
        for part, one in zip(np.split(scaled, ends), features, strict=True)
    ]


def enlarge(pixels: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """(h, w, 3) as an image of `size` (width, height), each patch a plain rectangle."""
    return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)
