"""Procedural rooms: which things stand where. Nothing overlaps, and everything rests on the floor or on a table."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

import numpy as np

from dataset_builders.scene import SceneObject
from dataset_builders.sources.ray_caster import Primitive, Room
from dataset_builders.sources.synthetic_decor import object_texture, room_lighting, room_textures
from dataset_builders.sources.synthetic_objects import CLASSES, SEGMENTATION_CLASSES, Parts
from dataset_builders.sources.synthetic_shading import Lighting
from dataset_builders.sources.synthetic_styles import (
    rich_lighting,
    rich_object_texture,
    rich_room_textures,
    rugs_and_pictures,
)
from dataset_builders.sources.synthetic_variety import PLAIN, Variety

GAP_M = 0.03  # least free space between two things
TABLE_ONLY = ("cup", "book", "bottle")  # too small to be made out on the floor
LARGE = 1.2  # times the usual size, from which on even they can be
PLACE_TRIALS = 30


@dataclass(frozen=True)
class Footprint:
    """The rectangle that a thing covers, seen from above, and the height of its top."""

    x_m: float
    y_m: float
    half_x_m: float
    half_y_m: float
    yaw_rad: float
    top_m: float

    def overlaps(self, other: "Footprint", gap_m: float) -> bool:
        """Whether the two come nearer than `gap_m` to each other (separating axis test)."""
        for yaw in (self.yaw_rad, self.yaw_rad + math.pi / 2, other.yaw_rad, other.yaw_rad + math.pi / 2):
            apart = abs((self.x_m - other.x_m) * math.cos(yaw) + (self.y_m - other.y_m) * math.sin(yaw))
            if apart > self.reach(yaw) + other.reach(yaw) + gap_m:
                return False
        return True

    def reach(self, direction_rad: float) -> float:
        """Half its width along a direction, in metres."""
        turn = direction_rad - self.yaw_rad
        return self.half_x_m * abs(math.cos(turn)) + self.half_y_m * abs(math.sin(turn))


@dataclass(frozen=True)
class FurnishedRoom:
    """A room, its named things, where they stand, and its light."""

    room: Room
    objects: tuple[SceneObject, ...]
    footprints: tuple[Footprint, ...]
    lighting: Lighting


def furnish(rng: Random, variety: Variety = PLAIN, split: str = "train") -> FurnishedRoom:
    """Draw a whole room from a random generator.

    Args:
        rng: source of all draws.
        variety: what is drawn from which range.
        split: "train" or "test"; rich rooms of the two share no pattern and no hue.
    """
    size = (rng.uniform(*variety.room_side_m), rng.uniform(*variety.room_side_m), rng.uniform(*variety.room_height_m))
    middle = (rng.uniform(-0.25, 0.25) * size[0], rng.uniform(-0.25, 0.25) * size[1])
    primitives: list[Primitive] = []
    objects: list[SceneObject] = []
    standing: list[Footprint] = []  # on the floor
    table: Footprint | None = None
    on_table: list[Footprint] = []
    for name, kind in _draw_names(rng, variety.things):
        blueprint = CLASSES[kind]
        if variety.rich_decor:
            texture = rich_object_texture(rng, name, split)
        else:
            texture = object_texture(rng, name, blueprint.patterned)
        parts, scale = _scaled(blueprint.make(rng, texture), variety, rng)
        raised = blueprint.on_table and table is not None and (kind in TABLE_ONLY or rng.random() < 0.6)
        if kind in TABLE_ONLY and not raised and scale < LARGE:
            continue
        spread = (variety.spread_m + variety.spread_share * size[0], variety.spread_m + variety.spread_share * size[1])
        spot = _spot_on(table, rng) if raised and table else _spot_on_floor(kind, size, middle, spread, rng)
        place = _find_place(parts, on_table if raised else standing, spot, size[2])
        if place is None:
            continue
        foot_m = table.top_m if raised and table else 0.0
        identity = len(objects) + 1
        primitives += _placed(parts, place, foot_m, identity, SEGMENTATION_CLASSES.index(kind))
        objects.append(SceneObject(identity, name, blueprint.is_support))
        (on_table if raised else standing).append(place)
        table = place if blueprint.is_support else table
    if variety.rich_decor:
        floor, wall, ceiling = rich_room_textures(rng, split)
        primitives += rugs_and_pictures(rng, size, split)
        lighting = rich_lighting(rng, size)
    else:
        floor, wall, ceiling = room_textures(rng)
        lighting = room_lighting(rng, size)
    room = Room(size, floor, wall, ceiling, tuple(primitives))
    return FurnishedRoom(room, tuple(objects), (*standing, *on_table), lighting)


def _scaled(parts: Parts, variety: Variety, rng: Random) -> tuple[Parts, float]:
    """A thing made larger or smaller as a whole, and the factor."""
    if variety.scale is None:
        return parts, 1.0
    low, high = variety.scale
    factor = low * (high / low) ** rng.random()

    def times(lengths: tuple[float, float, float]) -> tuple[float, float, float]:
        return lengths[0] * factor, lengths[1] * factor, lengths[2] * factor

    resized = [replace(one, centre_m=times(one.centre_m), half_size_m=times(one.half_size_m)) for one in parts]
    return resized, factor


def _draw_names(rng: Random, count: tuple[int, int]) -> list[tuple[str, str]]:
    """Distinct names and their classes; a table comes first, because other things may stand on it."""
    kinds = [kind for kind, blueprint in CLASSES.items() if not blueprint.is_support]
    drawn = {"table": "table"} if rng.random() < 0.65 else {}
    for _ in range(rng.randint(*count)):
        kind = rng.choice(kinds)
        colours = CLASSES[kind].colours
        drawn[f"{rng.choice(colours)} {kind}" if colours else kind] = kind
    return list(drawn.items())


Spot = Callable[[float, float, float], Footprint | None]  # (half_x_m, half_y_m, top_m) -> a random place


def _spot_on_floor(
    kind: str,
    size: tuple[float, float, float],
    middle: tuple[float, float],
    spread_m: tuple[float, float],
    rng: Random,
) -> Spot:
    def against_wall(half_x_m: float, half_y_m: float, top_m: float) -> Footprint:
        side = rng.randrange(4)
        width, depth = (size[0], size[1]) if side % 2 == 0 else (size[1], size[0])
        along = rng.uniform(-1, 1) * (width / 2 - half_x_m - GAP_M)
        back = depth / 2 - half_y_m - GAP_M
        yaw = side * math.pi / 2
        x, y = along * math.cos(yaw) - back * math.sin(yaw), along * math.sin(yaw) + back * math.cos(yaw)
        return Footprint(x, y, half_x_m, half_y_m, yaw, top_m)

    def near_middle(half_x_m: float, half_y_m: float, top_m: float) -> Footprint | None:
        x, y = rng.gauss(middle[0], spread_m[0]), rng.gauss(middle[1], spread_m[1])
        place = Footprint(x, y, half_x_m, half_y_m, rng.uniform(0, math.tau), top_m)
        fits_x = abs(place.x_m) + place.reach(0) < size[0] / 2 - GAP_M
        fits_y = abs(place.y_m) + place.reach(math.pi / 2) < size[1] / 2 - GAP_M
        return place if fits_x and fits_y else None

    return against_wall if kind == "cabinet" else near_middle


def _spot_on(table: Footprint, rng: Random) -> Spot:
    def on_top(half_x_m: float, half_y_m: float, top_m: float) -> Footprint | None:
        reach = math.hypot(half_x_m, half_y_m)
        free_x, free_y = table.half_x_m - reach, table.half_y_m - reach
        if min(free_x, free_y) <= 0:
            return None
        along, across = rng.uniform(-free_x, free_x), rng.uniform(-free_y, free_y)
        cosine, sine = math.cos(table.yaw_rad), math.sin(table.yaw_rad)
        x, y = table.x_m + cosine * along - sine * across, table.y_m + sine * along + cosine * across
        return Footprint(x, y, half_x_m, half_y_m, rng.uniform(0, math.tau), table.top_m + top_m)

    return on_top


def _find_place(parts: Parts, taken: list[Footprint], spot: Spot, ceiling_m: float) -> Footprint | None:
    """The first of some random places at which the thing touches nothing."""
    extent = np.array([part.half_extent_m for part in parts])
    centres = np.array([part.centre_m for part in parts])
    half_x, half_y, top = (np.abs(centres) + extent).max(axis=0)
    for _ in range(PLACE_TRIALS):
        place = spot(float(half_x), float(half_y), float(top))
        if place is None or place.top_m > ceiling_m - GAP_M:
            continue
        if not any(place.overlaps(other, GAP_M) for other in taken):
            return place
    return None


def _placed(parts: Parts, place: Footprint, foot_m: float, instance: int, class_id: int) -> Parts:
    """The parts of a thing, turned and moved to its place."""
    cosine, sine = math.cos(place.yaw_rad), math.sin(place.yaw_rad)
    placed = []
    for part in parts:
        x, y, z = part.centre_m
        centre = (place.x_m + cosine * x - sine * y, place.y_m + sine * x + cosine * y, foot_m + z)
        placed.append(replace(part, centre_m=centre, yaw_rad=place.yaw_rad, instance=instance, class_id=class_id))
    return placed
