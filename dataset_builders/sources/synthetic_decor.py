"""What a synthetic room looks like: the textures of its surfaces and things, and its light."""

import math
from random import Random

from dataset_builders.sources.ray_caster import Pattern, Texture
from dataset_builders.sources.synthetic_objects import COLOURS, INFINITE, Colour
from dataset_builders.sources.synthetic_shading import Lighting

POT: Colour = (0.42, 0.16, 0.08)  # of things whose name says no colour
WOOD: Colour = (0.30, 0.15, 0.06)


def object_texture(rng: Random, name: str, patterned: bool) -> Texture:
    """A texture in the colour that `name` begins with; its second colour is a shade of the first."""
    base = COLOURS.get(name.split()[0], WOOD if name == "table" else POT)
    colour = mixed(base, base, rng, jitter=0.12)
    if not patterned or rng.random() < 0.5:
        return Texture(colour, gloss=rng.choice([0.0, 0.0, 0.3]))
    second = scaled(colour, 0.5 if max(base) > 0.3 else 1.8)
    pattern: Pattern = rng.choice(["checker", "stripes", "noise"])
    period = rng.uniform(0.01, 0.03) if pattern == "noise" else rng.uniform(0.06, 0.16)
    level = INFINITE if pattern == "stripes" else period
    return Texture(colour, second, pattern, (level, level, period))


def room_textures(rng: Random) -> tuple[Texture, Texture, Texture]:
    """Floor, walls and ceiling."""
    return _floor_texture(rng), _wall_texture(rng), Texture((0.78, 0.78, 0.76))


def room_lighting(rng: Random, size_m: tuple[float, float, float]) -> Lighting:
    """A lamp under the ceiling or sunlight from afar, warm or cool, strong or weak."""
    warm = rng.uniform(-0.12, 0.12)
    strength, around = rng.uniform(0.8, 1.3), rng.uniform(0.45, 0.75)
    colour = (strength * (1 + warm), strength, strength * (1 - warm))
    ambient = (around * (1 - warm / 2), around, around * (1 + warm / 2))
    if rng.random() < 0.3:
        angle, height = rng.uniform(0, math.tau), rng.uniform(8, 16)
        position = (12 * math.cos(angle), 12 * math.sin(angle), height)
        return Lighting(position, 0.25, colour, ambient, reference_m=math.hypot(12, height))
    position = (rng.uniform(-0.3, 0.3) * size_m[0], rng.uniform(-0.3, 0.3) * size_m[1], size_m[2] - 0.1)
    return Lighting(position, rng.uniform(0.08, 0.3), colour, ambient, reference_m=size_m[2])


def scaled(colour: Colour, factor: float) -> Colour:
    """A lighter or darker colour, at most white."""
    red, green, blue = (min(1.0, channel * factor) for channel in colour)
    return red, green, blue


def mixed(low: Colour, high: Colour, rng: Random, jitter: float = 0.0) -> Colour:
    """A colour between two, each channel varied by up to `jitter` of itself."""
    share = rng.random()
    red, green, blue = (
        min(0.9, (a + (b - a) * share) * rng.uniform(1 - jitter, 1 + jitter)) for a, b in zip(low, high)
    )
    return red, green, blue


def _floor_texture(rng: Random) -> Texture:
    style = rng.choice(["planks", "tiles", "checker", "noise"])
    if style == "planks":
        colour = mixed((0.42, 0.24, 0.11), (0.22, 0.10, 0.045), rng)
        width = rng.uniform(0.09, 0.2)
        return Texture(colour, scaled(colour, 0.55), "planks", (width, width, INFINITE), gloss=0.08)
    if style == "noise":
        colour = mixed((0.1, 0.1, 0.1), (0.4, 0.38, 0.36), rng, jitter=0.25)
        period = rng.uniform(0.01, 0.05)
        return Texture(colour, scaled(colour, 0.6), "noise", (period, period, period))
    colour = mixed((0.62, 0.58, 0.52), (0.34, 0.2, 0.14), rng)
    side, second = rng.uniform(0.25, 0.6), scaled(colour, rng.uniform(0.45, 0.7))
    return Texture(colour, second, "tiles" if style == "tiles" else "checker", (side, side, INFINITE), gloss=0.2)


def _wall_texture(rng: Random) -> Texture:
    tint = (rng.uniform(0.42, 0.82), rng.uniform(0.42, 0.8), rng.uniform(0.4, 0.8))
    style = rng.choice(["plain", "noise", "stripes", "tiles"])
    if style == "noise":
        period = rng.uniform(0.03, 0.3)
        return Texture(tint, scaled(tint, 0.86), "noise", (period, period, period))
    if style == "stripes":
        period = rng.uniform(0.15, 0.5)
        return Texture(tint, scaled(tint, rng.uniform(0.7, 0.88)), "stripes", (period, INFINITE, INFINITE))
    if style == "tiles":
        brick = rng.uniform(0.2, 0.5)
        return Texture(tint, scaled(tint, 0.75), "tiles", (brick, INFINITE, brick * rng.uniform(0.4, 1)))
    return Texture(tint)
