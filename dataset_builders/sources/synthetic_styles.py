"""Decor of rich rooms: more patterns and colours, rugs and pictures, and other ones of each for the test split."""

import colorsys
import math
from dataclasses import replace
from random import Random

from dataset_builders.sources.ray_caster import Pattern, Primitive, Texture
from dataset_builders.sources.synthetic_decor import POT, WOOD, mixed, scaled
from dataset_builders.sources.synthetic_objects import COLOURS, INFINITE, Colour
from dataset_builders.sources.synthetic_shading import Lighting

# No pattern and no hue of one split is worn by a room or a thing of the other; plain surfaces are in both.
PATTERNS: dict[str, tuple[Pattern, ...]] = {
    "train": ("checker", "stripes", "noise", "planks", "tiles", "bricks", "dots", "marble"),
    "test": ("parquet", "zigzag", "speckle", "rings"),
}
HUES = 6  # equal parts of the colour circle, of each of which one split has the first share and the other the rest
HUE_SHARES = {"train": (0.0, 0.6), "test": (0.65, 0.95)}
PANEL_M = 0.02  # thickness of a picture; of a rug half as much


def rich_object_texture(rng: Random, name: str, split: str) -> Texture:
    """A texture in the colour that `name` begins with; patterned more often than not."""
    base = COLOURS.get(name.split()[0], WOOD if name == "table" else POT)
    colour = mixed(base, base, rng, jitter=0.12)
    gloss = rng.choice([0.0, 0.0, 0.3, 0.6])
    if rng.random() < 0.4:
        return Texture(colour, gloss=gloss)
    second = scaled(colour, rng.uniform(0.4, 0.65) if max(base) > 0.3 else rng.uniform(1.6, 2.2))
    return _patterned(rng, rng.choice(PATTERNS[split]), (colour, second), (0.04, 0.2), gloss)


def rich_room_textures(rng: Random, split: str) -> tuple[Texture, Texture, Texture]:
    """Floor, walls and ceiling, of any colour and pattern of the split."""
    return _surface(rng, split, 0.15), _surface(rng, split, 0.3), replace(_surface(rng, split, 0.6), gloss=0.0)


def rich_lighting(rng: Random, size_m: tuple[float, float, float]) -> Lighting:
    """A lamp anywhere under the ceiling or sunlight from afar; from dim to glaring, from candle to sky."""
    warm = rng.uniform(-0.22, 0.22)
    strength, around = rng.uniform(0.4, 1.5), rng.uniform(0.3, 0.85)
    colour = (strength * (1 + warm), strength, strength * (1 - warm))
    ambient = (around * (1 - warm / 2), around, around * (1 + warm / 2))
    if rng.random() < 0.4:
        angle, height = rng.uniform(0, math.tau), rng.uniform(5, 18)
        position = (12 * math.cos(angle), 12 * math.sin(angle), height)
        return Lighting(position, rng.uniform(0.05, 0.6), colour, ambient, reference_m=math.hypot(12, height))
    place = (rng.uniform(-0.45, 0.45) * size_m[0], rng.uniform(-0.45, 0.45) * size_m[1])
    height = rng.uniform(0.6, 0.97) * size_m[2]
    return Lighting((*place, height), rng.uniform(0.02, 0.4), colour, ambient, reference_m=size_m[2])


def rugs_and_pictures(rng: Random, size_m: tuple[float, float, float], split: str) -> list[Primitive]:
    """Flat pieces on floor and walls, which belong to them: edges that are no edges of space."""
    width, depth, height = size_m
    pieces = []
    for _ in range(rng.randint(0, 2)):
        half = (rng.uniform(0.3, 0.25 * width), rng.uniform(0.3, 0.25 * depth), PANEL_M / 4)
        reach = math.hypot(half[0], half[1])
        if reach < min(width, depth) / 2:
            place = (rng.uniform(-1, 1) * (width / 2 - reach), rng.uniform(-1, 1) * (depth / 2 - reach), half[2])
            yaw = rng.uniform(0, math.tau)
            pieces.append(Primitive("box", place, half, _surface(rng, split, 0.1), yaw, class_id=0, shadow=False))
    for _ in range(rng.randint(0, 6)):
        side = rng.randrange(4)
        along, away = (width, depth) if side % 2 == 0 else (depth, width)
        half_x, half_z = rng.uniform(0.1, min(0.8, 0.3 * along)), rng.uniform(0.1, min(0.9, 0.3 * height))
        x = rng.uniform(-1, 1) * (along / 2 - half_x)
        y, z = -away / 2 + PANEL_M / 2, rng.uniform(half_z, height - half_z)
        yaw = side * math.pi / 2
        place = (x * math.cos(yaw) - y * math.sin(yaw), x * math.sin(yaw) + y * math.cos(yaw), z)
        texture = _surface(rng, split, 0.3)
        pieces.append(Primitive("box", place, (half_x, PANEL_M / 2, half_z), texture, yaw, class_id=1, shadow=False))
    return pieces


def _surface(rng: Random, split: str, plain_share: float) -> Texture:
    """A surface of the room, plain or with a pattern from a finger's to an arm's length."""
    colour = _colour(rng, split)
    gloss = rng.choice([0.0, 0.0, 0.1, 0.25])
    if rng.random() < plain_share:
        return Texture(colour, gloss=gloss)
    second = _colour(rng, split) if rng.random() < 0.4 else scaled(colour, rng.uniform(0.5, 0.85))
    return _patterned(rng, rng.choice(PATTERNS[split]), (colour, second), (0.06, 1.0), gloss)


def _patterned(
    rng: Random, pattern: Pattern, colours: tuple[Colour, Colour], length_m: tuple[float, float], gloss: float
) -> Texture:
    """A pattern whose repetition has any of the lengths, small ones as often as large ones, and any proportion."""
    period = length_m[0] * (length_m[1] / length_m[0]) ** rng.random()
    across = period * rng.uniform(0.6, 1.6)
    if pattern in ("noise", "speckle"):
        period = across = period / 4
    level = rng.random() < 0.5  # of stripes: which way they run
    periods = (period, across, across)
    if pattern == "stripes":
        periods = (INFINITE, INFINITE, period) if level else (period, period, INFINITE)
    return Texture(*colours, pattern, periods, gloss=gloss)


def _colour(rng: Random, split: str) -> Colour:
    """A colour whose hue is the split's own."""
    low, high = HUE_SHARES[split]
    hue = (rng.randrange(HUES) + rng.uniform(low, high)) / HUES
    return colorsys.hsv_to_rgb(hue, rng.uniform(0.12, 0.6), rng.uniform(0.2, 0.85))
