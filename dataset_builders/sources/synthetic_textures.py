"""Solid textures of ray-cast surfaces in their own axes: checkers, stripes, noise, planks, tiles and more.

Patterns of the plane run along x on the one hand, along y (on floors) and z (on walls) on the other.
"""

from functools import cache

import numpy as np

from dataset_builders.sources.ray_caster import Array, Texture

JOINT = 0.06  # share of a tile that is its joint
NOISE_SIZE = 32  # cells of noise after which it repeats


def albedo(textures: list[Texture], surface: Array, local: Array) -> Array:
    """Colour in white light, linear RGB (3, S, H, W), of points (3, S, H, W) given in the axes of their surfaces."""
    mix = np.zeros(surface.shape, dtype=np.float32)
    periods = np.array([texture.period_m for texture in textures], dtype=np.float32).T.copy()  # (3, N)
    patterns = np.array([texture.pattern for texture in textures])
    for name, function in PATTERN_FUNCTIONS.items():
        chosen = np.flatnonzero((patterns == name).take(surface))
        if len(chosen):
            worn = surface.take(chosen)
            cells = (part.take(chosen) / period.take(worn) for part, period in zip(local, periods))
            mix.flat[chosen] = function(*cells)
    first = np.array([texture.colour for texture in textures], dtype=np.float32).T.copy()  # (3, N)
    change = np.array([texture.second_colour for texture in textures], dtype=np.float32).T - first
    return first.take(surface, axis=1) + change.take(surface, axis=1) * mix


def _checker(x: Array, y: Array, z: Array) -> Array:
    return (np.floor(x) + np.floor(y) + np.floor(z)).astype(np.int32) & 1


def _stripes(x: Array, y: Array, z: Array) -> Array:
    """Bands across the axes that have a finite period."""
    total = x + y + z
    return total - np.floor(total) < 0.5


def _noise(x: Array, y: Array, z: Array) -> Array:
    """Smooth fractal noise, 0..1, read from a periodic volume of which one period is `NOISE_SIZE` cells."""
    whole = [np.floor(component) for component in (x, y, z)]
    u, v, w = (component - floor for component, floor in zip((x, y, z), whole))
    side = NOISE_SIZE + 1
    i, j, k = (floor.astype(np.int32) % NOISE_SIZE for floor in whole)
    corner = (i * side + j) * side + k
    volume = _noise_volume().ravel()
    edges = []
    for offset in (0, side, side * side, side * side + side):
        low, high = volume.take(corner + offset), volume.take(corner + offset + 1)
        edges.append(low + (high - low) * w)
    near, far = edges[0] + (edges[1] - edges[0]) * v, edges[2] + (edges[3] - edges[2]) * v
    return near + (far - near) * u


def _planks(x: Array, y: Array, z: Array) -> Array:
    """Boards one period wide along x, each of another shade, with grain along y and dark joints."""
    board = np.floor(x)
    shade = _noise(board * 7.3, board * 3.1, np.floor(y / 8 + board * 0.37) * 5.7)
    grain = _noise(x * 6, y / 3, board * 5.5)
    return np.minimum(0.6 * shade + 0.4 * grain + 0.6 * (x - board < 0.04), 1)


def _tiles(x: Array, y: Array, z: Array) -> Array:
    """Plain tiles with joints in the second colour, half a period away from the axes."""
    near = [np.abs(component - np.floor(component) - 0.5) < JOINT / 2 for component in (x, y, z)]
    return near[0] | near[1] | near[2]


def _fraction(component: Array) -> Array:
    return component - np.floor(component)


def _bricks(x: Array, y: Array, z: Array) -> Array:
    """Rows of plain bricks, each shifted by half a brick, with joints in the second colour."""
    across = y + z
    return (_fraction(x + np.floor(across) / 2) < JOINT) | (_fraction(across) < 2 * JOINT)


def _from_middle(x: Array, y: Array, z: Array) -> Array:
    """Squared distance from the middle of a square of the plane, in units of its side."""
    return (_fraction(x) - 0.5) ** 2 + (_fraction(y + z) - 0.5) ** 2


def _dots(x: Array, y: Array, z: Array) -> Array:
    return _from_middle(x, y, z) < 0.08


def _rings(x: Array, y: Array, z: Array) -> Array:
    return _fraction(4 * np.sqrt(_from_middle(x, y, z))) < 0.5


def _marble(x: Array, y: Array, z: Array) -> Array:
    """Soft veins."""
    return 0.5 + 0.5 * np.sin(2 * np.pi * (x + (y + z) / 3 + 2.5 * _noise(3 * x, 3 * y, 3 * z)))


def _parquet(x: Array, y: Array, z: Array) -> Array:
    """Squares of four boards each, lengthwise and crosswise in turn."""
    across = y + z
    crosswise = (np.floor(x) + np.floor(across)).astype(np.int32) & 1 == 1
    return _fraction(4 * np.where(crosswise, across, x)) < 0.15


def _zigzag(x: Array, y: Array, z: Array) -> Array:
    return _fraction(y + z + np.abs(_fraction(x) - 0.5)) < 0.5


def _speckle(x: Array, y: Array, z: Array) -> Array:
    """Hard-edged specks."""
    return _noise(x, y, z) > 0.56


PATTERN_FUNCTIONS = {
    "checker": _checker, "stripes": _stripes, "noise": _noise, "planks": _planks, "tiles": _tiles, "bricks": _bricks,
    "dots": _dots, "marble": _marble, "parquet": _parquet, "zigzag": _zigzag, "speckle": _speckle, "rings": _rings,
}  # fmt: skip


@cache
def _noise_volume() -> Array:
    """(33, 33, 33): three octaves of random values, stretched to 0..1; the last layer repeats the first."""
    generator = np.random.default_rng(0)
    volume = np.zeros((NOISE_SIZE,) * 3)
    for octave, weight in ((1, 0.25), (2, 0.35), (4, 0.4)):
        coarse = generator.random((NOISE_SIZE // octave,) * 3)
        for axis in range(3):
            coarse = _stretch(coarse, axis, octave)
        volume += weight * coarse
    volume = (volume - volume.min()) / (volume.max() - volume.min())
    return np.pad(volume, (0, 1), mode="wrap").astype(np.float32)


def _stretch(values: Array, axis: int, factor: int) -> Array:
    """Lengthen one axis `factor` times by linear interpolation around the circle."""
    following = np.roll(values, -1, axis=axis)
    parts = [values + (following - values) * (step / factor) for step in range(factor)]
    stacked = np.stack(parts, axis=axis + 1)
    return stacked.reshape(*values.shape[:axis], -1, *values.shape[axis + 1 :])
