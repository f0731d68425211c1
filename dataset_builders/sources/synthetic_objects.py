"""The things that furnish a synthetic room: 14 everyday classes, each assembled from a few ray-cast solids.

A maker draws a size and returns the parts of one object that stands on z = 0 at the origin and faces -y.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from dataset_builders.sources.ray_caster import Primitive, Texture

Colour = tuple[float, float, float]
INFINITE = math.inf
# Linear RGB. Far enough apart to be told apart in shade.
COLOURS: dict[str, Colour] = {
    "red": (0.60, 0.03, 0.03),
    "orange": (0.85, 0.25, 0.02),
    "yellow": (0.85, 0.62, 0.04),
    "green": (0.06, 0.36, 0.07),
    "blue": (0.03, 0.12, 0.55),
    "purple": (0.24, 0.05, 0.42),
    "pink": (0.85, 0.28, 0.42),
    "brown": (0.20, 0.085, 0.03),
    "white": (0.82, 0.82, 0.80),
    "grey": (0.24, 0.24, 0.25),
    "black": (0.018, 0.018, 0.02),
}
DARK: Colour = (0.03, 0.025, 0.02)
PAPER: Colour = (0.80, 0.77, 0.68)
SOIL: Colour = (0.06, 0.035, 0.02)
LEAF: Colour = (0.05, 0.24, 0.04)
METAL: Colour = (0.35, 0.35, 0.36)

Parts = list[Primitive]
Maker = Callable[[Random, Texture], Parts]


@dataclass(frozen=True)
class ObjectClass:
    """A kind of object: how it is made, which colours it comes in, and where it may stand.

    Attributes:
        make: draws one specimen; its main parts wear the given texture.
        colours: names from `COLOURS`; empty = its colour is not part of its name, so a room has at most one.
        on_table: whether it is small enough to stand on a table.
        is_support: whether it is a place for other things; supports are not asked about.
        patterned: whether its main texture may have a pattern.
    """

    make: Maker
    colours: tuple[str, ...] = tuple(COLOURS)
    on_table: bool = False
    is_support: bool = False
    patterned: bool = True


def box(size: tuple[float, float, float], centre: tuple[float, float, float], texture: Texture) -> Primitive:
    """A box by its full `size` in metres and its centre."""
    return Primitive("box", centre, (size[0] / 2, size[1] / 2, size[2] / 2), texture)


def frustum(
    radius_m: float,
    height_m: float,
    bottom_m: float,
    texture: Texture,
    taper: float = 1.0,
    place: tuple[float, float] = (0.0, 0.0),
) -> Primitive:
    """A cylinder or frustum whose foot is at height `bottom_m` over `place`."""
    centre = (*place, bottom_m + height_m / 2)
    return Primitive("frustum", centre, (radius_m, radius_m, height_m / 2), texture, taper=taper)


def tinted(texture: Texture, factor: float) -> Texture:
    """The same colour, plain, darker or lighter."""
    red, green, blue = (min(1.0, channel * factor) for channel in texture.colour)
    return replace(texture, colour=(red, green, blue), pattern="plain")


def plain(colour: Colour, gloss: float = 0.0, glow: float = 0.0) -> Texture:
    """A texture of one colour."""
    return Texture(colour, gloss=gloss, glow=glow)


def legs(half_x_m: float, half_y_m: float, height_m: float, thickness_m: float, texture: Texture) -> Parts:
    """Four square legs at the corners of a rectangle."""
    size = (thickness_m, thickness_m, height_m)
    places = [(x, y) for x in (-half_x_m, half_x_m) for y in (-half_y_m, half_y_m)]
    return [box(size, (x, y, height_m / 2), texture) for x, y in places]


def make_box(rng: Random, texture: Texture) -> Parts:
    """A carton with tape across its lid."""
    size = (rng.uniform(0.12, 0.6), rng.uniform(0.12, 0.5), rng.uniform(0.1, 0.5))
    tape_width = min(0.06, size[0] / 4)
    tape = box((tape_width, size[1] * 1.001, 0.004), (0, 0, size[2] + 0.002), tinted(texture, 0.6))
    return [box(size, (0, 0, size[2] / 2), texture), tape]


def make_ball(rng: Random, texture: Texture) -> Parts:
    """A ball."""
    radius = rng.uniform(0.04, 0.28)
    return [Primitive("ellipsoid", (0, 0, radius), (radius,) * 3, replace(texture, gloss=0.5))]


def make_lamp(rng: Random, texture: Texture) -> Parts:
    """A floor lamp: foot, pole and glowing shade."""
    height, shade_radius = rng.uniform(0.9, 1.7), rng.uniform(0.14, 0.26)
    shade_height = rng.uniform(0.2, 0.34)
    metal = plain(METAL if rng.random() < 0.5 else DARK, gloss=0.6)
    shade = replace(texture, glow=0.35)
    return [
        frustum(shade_radius * 0.75, 0.03, 0, metal),
        frustum(0.015, height - 0.03 - shade_height * 0.5, 0.03, metal),
        frustum(shade_radius, shade_height, height - shade_height, shade, taper=rng.uniform(0.45, 0.9)),
    ]


def make_cup(rng: Random, texture: Texture) -> Parts:
    """A cup of coffee or milk with a handle."""
    radius, height = rng.uniform(0.032, 0.05), rng.uniform(0.07, 0.13)
    drink = plain(rng.choice([(0.06, 0.025, 0.01), (0.7, 0.66, 0.58)]))
    glazed = replace(texture, gloss=0.6)
    handle_height = height * 0.5
    arm = (radius * 0.7, 0.012, 0.012)
    return [
        frustum(radius * 0.85, height, 0, glazed, taper=1 / 0.85),
        frustum(radius * 0.88, 0.002, height - 0.001, drink),
        box(arm, (radius * 1.25, 0, height * 0.75), glazed),
        box(arm, (radius * 1.25, 0, height * 0.75 - handle_height), glazed),
        box((0.012, 0.012, handle_height + 0.012), (radius * 1.6, 0, height * 0.75 - handle_height / 2), glazed),
    ]


def make_stool(rng: Random, texture: Texture) -> Parts:
    """A stool with a round seat on three or four legs."""
    radius, height = rng.uniform(0.15, 0.22), rng.uniform(0.4, 0.78)
    count, wood = rng.choice([3, 4]), tinted(texture, 0.55)
    angles = [math.tau * (leg + 0.5) / count for leg in range(count)]
    places = [(radius * 0.75 * math.cos(angle), radius * 0.75 * math.sin(angle)) for angle in angles]
    return [
        frustum(radius, 0.045, height - 0.045, texture),
        *[frustum(0.018, height - 0.045, 0, wood, place=place) for place in places],
    ]


def make_cabinet(rng: Random, texture: Texture) -> Parts:
    """A cabinet with two doors, or with drawers, and knobs."""
    width, depth, height = rng.uniform(0.45, 1.0), rng.uniform(0.3, 0.5), rng.uniform(0.5, 1.8)
    knob, front = plain(METAL, gloss=0.7), tinted(texture, 1.25)
    columns, rows = (2, 1) if rng.random() < 0.5 else (1, rng.choice([2, 3, 4]))
    panel_width, panel_height = width / columns, (height - 0.06) / rows
    parts = [box((width, depth, height), (0, 0, height / 2), texture)]
    for column in range(columns):
        for row in range(rows):
            x = (column + 0.5) * panel_width - width / 2
            z = 0.06 + (row + 0.5) * panel_height - 0.01
            parts.append(box((panel_width - 0.02, 0.018, panel_height - 0.02), (x, -depth / 2 - 0.009, z), front))
            knob_x = x if columns == 1 else x - math.copysign(panel_width * 0.4, x)
            parts.append(Primitive("ellipsoid", (knob_x, -depth / 2 - 0.03, z), (0.018,) * 3, knob))
    return parts


def make_vase(rng: Random, texture: Texture) -> Parts:
    """A bellied vase with a neck and a dark mouth."""
    height = rng.uniform(0.18, 0.6)
    radius = height * rng.uniform(0.24, 0.36)
    neck, glazed = radius * rng.uniform(0.35, 0.6), replace(texture, gloss=0.7)
    belly = height * 0.36
    return [
        frustum(radius * 0.6, height * 0.06, 0, glazed),
        Primitive("ellipsoid", (0, 0, belly), (radius, radius, belly), glazed),
        frustum(neck, height * 0.42, height * 0.58, glazed, taper=rng.uniform(0.8, 1.5)),
        frustum(neck * 0.75, 0.002, height - 0.001, plain(DARK)),
    ]


def make_cone(rng: Random, texture: Texture) -> Parts:
    """A traffic cone: square foot, one pale band."""
    height, radius = rng.uniform(0.28, 0.75), rng.uniform(0.1, 0.17)
    band = plain((0.8, 0.8, 0.78) if max(texture.colour) < 0.8 or min(texture.colour) < 0.5 else (0.3, 0.3, 0.3))
    low, high = 0.45, 0.65  # of the height

    def slice_of_cone(start: float, end: float, surface: Texture) -> Primitive:
        bottom, top = radius * (1 - start * 0.88), radius * (1 - end * 0.88)
        body = height - 0.03
        return frustum(bottom, (end - start) * body, 0.03 + start * body, surface, taper=top / bottom)

    return [
        box((radius * 2.3, radius * 2.3, 0.03), (0, 0, 0.015), tinted(texture, 0.8)),
        slice_of_cone(0, low, texture),
        slice_of_cone(low, high, band),
        slice_of_cone(high, 1, texture),
    ]


def make_barrel(rng: Random, texture: Texture) -> Parts:
    """A barrel with three hoops."""
    radius, height = rng.uniform(0.2, 0.34), rng.uniform(0.5, 0.95)
    hoop = plain(METAL if max(texture.colour) < 0.2 else tuple(c * 0.4 for c in texture.colour), gloss=0.3)  # type: ignore[arg-type]
    hoops = [frustum(radius * 1.03, 0.04, height * at - 0.02, hoop) for at in (0.08, 0.5, 0.92)]
    return [frustum(radius, height, 0, texture), *hoops]


def make_book(rng: Random, texture: Texture) -> Parts:
    """A book that lies flat: two covers, a spine and the pages."""
    width, length, thickness = rng.uniform(0.12, 0.22), rng.uniform(0.17, 0.3), rng.uniform(0.02, 0.06)
    cover = 0.004
    return [
        box((width, length, cover), (0, 0, cover / 2), texture),
        box((width, length, cover), (0, 0, thickness - cover / 2), texture),
        box((cover, length, thickness - 2 * cover), (-width / 2 + cover / 2, 0, thickness / 2), texture),
        box((width - 0.012, length - 0.012, thickness - 2 * cover), (0, 0, thickness / 2), plain(PAPER)),
    ]


def make_chair(rng: Random, texture: Texture) -> Parts:
    """A chair with a back."""
    width, seat, height = rng.uniform(0.38, 0.5), rng.uniform(0.4, 0.5), rng.uniform(0.78, 1.05)
    wood, half = tinted(texture, 0.6), width / 2 - 0.025
    posts = [box((0.04, 0.04, height - seat), (x, half, (height + seat) / 2), wood) for x in (-half, half)]
    back = box((width - 0.1, 0.025, (height - seat) * 0.5), (0, half, height - (height - seat) * 0.27), texture)
    return [
        box((width, width, 0.05), (0, 0, seat - 0.025), texture),
        back,
        *posts,
        *legs(half, half, seat - 0.05, 0.04, wood),
    ]


def make_plant(rng: Random, texture: Texture) -> Parts:
    """A potted plant with a crown of leaves."""
    radius, height = rng.uniform(0.08, 0.18), rng.uniform(0.14, 0.3)
    crown = radius * rng.uniform(1.1, 1.7)
    leaves = Texture(LEAF, (0.12, 0.42, 0.06), "noise", (0.035, 0.035, 0.035))
    parts = [
        frustum(radius * 0.75, height, 0, texture, taper=1 / 0.75),
        frustum(radius * 0.9, 0.004, height - 0.002, plain(SOIL)),
    ]
    for blob in range(5):
        angle, spread = math.tau * blob / 5 + rng.uniform(-0.4, 0.4), crown * 0.45 * (blob > 0)
        size = (crown * rng.uniform(0.5, 0.75),) * 2 + (crown * rng.uniform(0.5, 0.9),)
        centre = (spread * math.cos(angle), spread * math.sin(angle), height + crown * rng.uniform(0.6, 1.1))
        parts.append(Primitive("ellipsoid", centre, size, leaves))
    return parts


def make_bucket(rng: Random, texture: Texture) -> Parts:
    """A bucket with a rim, dark inside."""
    radius, height = rng.uniform(0.1, 0.16), rng.uniform(0.2, 0.34)
    glossy = replace(texture, gloss=0.4)
    return [
        frustum(radius * 0.75, height, 0, glossy, taper=1 / 0.75),
        frustum(radius * 1.05, 0.02, height - 0.02, tinted(texture, 0.7)),
        frustum(radius * 0.92, 0.002, height - 0.001, plain(DARK)),
    ]


def make_bottle(rng: Random, texture: Texture) -> Parts:
    """A bottle with a paper label."""
    radius, height = rng.uniform(0.03, 0.05), rng.uniform(0.2, 0.34)
    glass = replace(texture, gloss=0.9)
    return [
        frustum(radius, height * 0.58, 0, glass),
        frustum(radius * 1.02, height * 0.25, height * 0.18, plain(PAPER)),
        frustum(radius, height * 0.17, height * 0.58, glass, taper=0.4),
        frustum(radius * 0.4, height * 0.25, height * 0.75, glass),
    ]


def make_table(rng: Random, texture: Texture) -> Parts:
    """A table; its first part is the top, on which other things stand."""
    width, depth, height = rng.uniform(0.8, 1.5), rng.uniform(0.6, 0.9), rng.uniform(0.45, 0.78)
    top = box((width, depth, 0.04), (0, 0, height - 0.02), texture)
    return [top, *legs(width / 2 - 0.05, depth / 2 - 0.05, height - 0.04, 0.06, tinted(texture, 0.7))]


BRIGHT = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black")
CLASSES: dict[str, ObjectClass] = {
    "box": ObjectClass(make_box),
    "ball": ObjectClass(make_ball, BRIGHT, on_table=True),
    "lamp": ObjectClass(make_lamp, ("red", "orange", "yellow", "green", "blue", "pink", "white"), patterned=False),
    "cup": ObjectClass(make_cup, BRIGHT, on_table=True, patterned=False),
    "stool": ObjectClass(make_stool, patterned=False),
    "cabinet": ObjectClass(make_cabinet, ("red", "green", "blue", "brown", "white", "grey", "black"), patterned=False),
    "vase": ObjectClass(make_vase, BRIGHT, on_table=True),
    "cone": ObjectClass(make_cone, ("red", "orange", "yellow", "green", "blue", "pink"), patterned=False),
    "barrel": ObjectClass(make_barrel, ("red", "yellow", "green", "blue", "brown", "grey", "black"), patterned=False),
    "book": ObjectClass(make_book, BRIGHT, on_table=True, patterned=False),
    "chair": ObjectClass(make_chair, patterned=False),
    "plant": ObjectClass(make_plant, (), on_table=True, patterned=False),
    "bucket": ObjectClass(make_bucket, BRIGHT, patterned=False),
    "bottle": ObjectClass(make_bottle, ("red", "green", "blue", "brown", "purple"), on_table=True, patterned=False),
    "table": ObjectClass(make_table, (), is_support=True, patterned=False),
}
SEGMENTATION_CLASSES = ("floor", "wall", "ceiling", *CLASSES)  # class id = place in this list; all are scored
