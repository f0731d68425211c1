"""Solid textures of ray-cast surfaces: checkers, stripes, noise, planks and tiles in a surface's own axes."""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from dataset_builders.sources.ray_caster import Texture, Vector, pick

JOINT = 0.06  # share of a tile that is its joint
NOISE_SIZE = 32  # cells of noise after which it repeats


def albedo(textures: list[Texture], surface: Tensor, local: Vector) -> Vector:
    """Colour of the surfaces in white light, linear RGB, (S, H, W) per channel."""
    mix = torch.zeros_like(local[0])
    periods = torch.tensor([texture.period_m for texture in textures])
    patterns = [texture.pattern for texture in textures]
    functions = {"checker": _checker, "stripes": _stripes, "noise": _noise, "planks": _planks, "tiles": _tiles}
    flat_surface = surface.reshape(-1)
    for name, function in functions.items():
        if name not in patterns:
            continue
        chosen = true_places(pick(torch.tensor([pattern == name for pattern in patterns]), flat_surface))
        worn = pick(flat_surface, chosen)
        cells = [pick(part.reshape(-1), chosen) / pick(periods[:, axis], worn) for axis, part in enumerate(local)]
        mix.view(-1).index_copy_(0, chosen, function(*cells))
    first = torch.tensor([texture.colour for texture in textures])
    change = torch.tensor([texture.second_colour for texture in textures]) - first
    channels = [pick(first[:, channel], surface) + pick(change[:, channel], surface) * mix for channel in range(3)]
    return channels[0], channels[1], channels[2]


def true_places(mask: Tensor) -> Tensor:
    """Indices of the true elements of a flat mask."""
    return torch.from_numpy(np.flatnonzero(mask.numpy()))


def _checker(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return ((x.floor() + y.floor() + z.floor()).to(torch.int32) & 1).float()


def _stripes(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Bands across the axes that have a finite period."""
    total = x + y + z
    return (total - total.floor() < 0.5).float()


def _noise(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Smooth fractal noise, 0..1, read from a periodic volume of which one period is `NOISE_SIZE` cells."""
    wrapped = [component - (component / NOISE_SIZE).floor() * NOISE_SIZE for component in (x, y, z)]
    grid = torch.stack(wrapped, dim=-1) * (2 / NOISE_SIZE) - 1  # (P, 3), -1..1 from corner to corner
    volume = _noise_volume()[None, None]
    return torch.nn.functional.grid_sample(volume, grid[None, :, None, None], align_corners=True).reshape(-1)


def _planks(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Boards one period wide along x, each of another shade, with grain along y and dark joints."""
    board = x.floor()
    shade = _noise(board * 7.3, board * 3.1, (y / 8 + board * 0.37).floor() * 5.7)
    grain = _noise(x * 6, y / 3, board * 5.5)
    joint = (x - board < 0.04).float()
    return (0.6 * shade + 0.4 * grain + 0.6 * joint).clamp(0, 1)


def _tiles(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Plain tiles with joints in the second colour, half a period away from the axes."""
    joint = torch.zeros_like(x, dtype=torch.bool)
    for component in (x, y, z):
        joint |= (component - component.floor() - 0.5).abs() < JOINT / 2
    return joint.float()


@cache
def _noise_volume() -> Tensor:
    """(33, 33, 33): three octaves of random values, stretched to 0..1; the last layer repeats the first."""
    generator = np.random.default_rng(0)
    volume = np.zeros((NOISE_SIZE,) * 3)
    for octave, weight in ((1, 0.25), (2, 0.35), (4, 0.4)):
        coarse = generator.random((NOISE_SIZE // octave,) * 3)
        for axis in range(3):
            coarse = _stretch(coarse, axis, octave)
        volume += weight * coarse
    volume = (volume - volume.min()) / (volume.max() - volume.min())
    return torch.as_tensor(np.pad(volume, (0, 1), mode="wrap"), dtype=torch.float32)


def _stretch(values: np.ndarray, axis: int, factor: int) -> np.ndarray:
    """Lengthen one axis `factor` times by linear interpolation around the circle."""
    following = np.roll(values, -1, axis=axis)
    parts = [values + (following - values) * (step / factor) for step in range(factor)]
    stacked = np.stack(parts, axis=axis + 1)
    return stacked.reshape(*values.shape[:axis], -1, *values.shape[axis + 1 :])
