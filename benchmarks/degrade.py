"""Rendered scenes made as bad as real ones: loose masks, flying pixels, holes, a sky, noisy and blurred depth."""

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from dataset_builders.scene import Scene, View

Array = np.ndarray
EDGE_STEP = 0.04  # relative step between neighbours that real sensors and depth models smear


@dataclass(frozen=True)
class Degradation:
    """How bad it gets.

    Attributes:
        bleed_px: masks grow into what is beside them by 1 to so many pixels, each by its own.
        noise: range of the relative standard deviation of the depth, drawn per scene; the scene states what was drawn.
        white_share: of that deviation, what differs from pixel to pixel; the rest is a slowly varying scale error.
        flying_share: of all pixels, drawn from those beside depth edges, given a depth between near and far.
        hole_share: of all pixels, anywhere, without a reading.
        edge_hole_share: of the pixels beside depth edges, without a reading.
        blur_px: standard deviation of the blur across depth edges.
        sky_m: what a window in the background reads.
    """

    bleed_px: int = 3
    noise: tuple[float, float] = (0.01, 0.02)
    white_share: float = 0.4
    flying_share: float = 0.01
    hole_share: float = 0.01
    edge_hole_share: float = 0.2
    blur_px: float = 1.0
    sky_m: float = 1e4


def degrade(scene: Scene, seed: int, how: Degradation = Degradation()) -> Scene:
    """The scene as a sensor or a depth model would see it; the same for the same seed.

    Args:
        scene: with exact depth and masks.
        seed: of everything that is drawn.
        how: how bad it gets.

    Returns:
        The scene with other depths and instances; `depth_noise` is the noise that was drawn.
    """
    generator = np.random.default_rng([seed, *scene.id.encode()])
    noise = float(generator.uniform(*how.noise))
    views = tuple(_degraded_view(view, generator, noise, how) for view in scene.views)
    return replace(scene, views=views, depth_noise=noise)


def _degraded_view(view: View, generator: np.random.Generator, noise: float, how: Degradation) -> View:
    height, width = view.depth_m.shape
    depth_m = _with_sky(view, generator, how.sky_m)
    beside = ndimage.binary_dilation(_edges(depth_m), iterations=1)
    near, far = ndimage.minimum_filter(depth_m, 5), np.minimum(ndimage.maximum_filter(depth_m, 5), 20.0)
    blurred = ndimage.gaussian_filter(np.minimum(depth_m, 20.0), how.blur_px)
    smeared = ndimage.binary_dilation(beside, iterations=1) & (depth_m < how.sky_m)
    depth_m = np.where(smeared, blurred, depth_m)
    depth_m *= 1 + noise * _noise_field((height, width), generator, how.white_share)
    rows, columns = np.nonzero(beside)
    flying = generator.permutation(len(rows))[: round(how.flying_share * height * width)]
    places = rows[flying], columns[flying]
    depth_m[places] = near[places] + (far - near)[places] * generator.uniform(0, 1, len(flying))
    holes = generator.random((height, width))
    depth_m[holes < np.where(beside, how.edge_hole_share, how.hole_share)] = 0
    return replace(
        view, depth_m=depth_m.astype(np.float32), instances=_bleeding(view.instances, generator, how.bleed_px)
    )


def _with_sky(view: View, generator: np.random.Generator, sky_m: float) -> Array:
    """The depth with a window in the background, about a third of the image wide, that reads `sky_m`."""
    depth_m = view.depth_m.astype(np.float64)
    height, width = depth_m.shape
    left = int(generator.integers(0, width - width // 3))
    window = np.s_[: height // 3, left : left + width // 3]
    assert view.instances is not None, "a rendered view has masks"
    depth_m[window][view.instances[window] == 0] = sky_m
    return depth_m


def _edges(depth_m: Array) -> Array:
    """Pixels (H, W) on either side of a depth jump."""
    edges = np.zeros(depth_m.shape, dtype=bool)
    for before, after in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        jump = np.abs(np.log(depth_m[before] / depth_m[after])) > EDGE_STEP
        edges[before] |= jump
        edges[after] |= jump
    return edges


def _noise_field(shape: tuple[int, int], generator: np.random.Generator, white_share: float) -> Array:
    """Noise (H, W) of unit variance: about four bumps along the longer side, and grain."""
    coarse = generator.standard_normal((5, 6))
    rows, columns = np.meshgrid(np.linspace(0.5, 3.5, shape[0]), np.linspace(0.5, 4.5, shape[1]), indexing="ij")
    smooth = ndimage.map_coordinates(coarse, [rows, columns], order=3)
    smooth *= np.sqrt(1 - white_share**2) / max(float(smooth.std()), 1e-9)
    return smooth + white_share * generator.standard_normal(shape)


def _bleeding(instances: Array | None, generator: np.random.Generator, bleed_px: int) -> Array:
    """Instances (H, W) grown in random order, each by 1 to `bleed_px` pixels over whatever is there."""
    assert instances is not None, "a rendered view has masks"
    grown = instances.copy()
    for name in generator.permutation(np.unique(instances[instances > 0])):
        reach = int(generator.integers(1, bleed_px + 1))
        grown[ndimage.binary_dilation(instances == name, iterations=reach)] = name
    return grown
