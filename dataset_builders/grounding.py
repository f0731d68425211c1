"""Builds the grounding set: questions in two dimensions that teach a model to point (for stage 2).

A single image, its masks, and coordinates in the format of the 12-turn dialogues: what is at a point, where a thing
is, whether a point is on it, which of two points is, its bounding box, what is higher or further left in the image.
Nothing in it tells depth or size, so that stage 3 remains the first to speak of space.
"""

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from dataset_builders.facts import RecordFacts, Row
from dataset_builders.geometry import Array
from dataset_builders.grammar import be, sentences
from dataset_builders.grounding_phrasings import GROUNDING_ANSWERS, GROUNDING_QUESTIONS
from dataset_builders.grounding_verification import ORDERS, clear_order
from dataset_builders.mentions import coordinates, may_be_called
from dataset_builders.multi_view_vqa import question_messages, turn_row
from dataset_builders.objects import measure_objects
from dataset_builders.phrasings import RESERVED_NAMES
from dataset_builders.pointing import object_rows, point_at
from dataset_builders.scene import DropItem, Scene, View
from dataset_builders.spatial_reasoning import base_record, check_located
from dataset_builders.vqa_questions import Question

MAX_TURNS = 8
MIN_THINGS = 2
BESIDE = 0.03  # of the image width: how far from a mask a point must be that is not on the thing
TRIES = 60
LOCATING = ("named_point", "pointed_thing", "which_point", "thing_box", "point_on_thing")


@dataclass(frozen=True)
class Thing:
    """Something in view with a name of its own: its mask (H, W) and pixels (K, 2), columns u, v, well inside it."""

    id: int
    name: str
    mask: Array
    pixels: Array

    @property
    def the(self) -> str:
        """With its article."""
        return f"the {self.name}"

    @property
    def box(self) -> tuple[int, int, int, int]:
        """First and last column, first and last row, of its mask."""
        rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        return int(columns[0]), int(columns[-1]), int(rows[0]), int(rows[-1])


@dataclass(frozen=True)
class Ground:
    """What questions are drawn from: a view with its things, and the source of all draws."""

    view: View
    facts: RecordFacts
    things: list[Thing]
    rng: random.Random

    def say(self, texts: tuple[str, ...], **slots: str) -> str:
        """One of several wordings, filled."""
        return sentences(self.rng.choice(texts).format_map(slots))

    def point(self, u: int, v: int) -> Row | None:
        """The point of a pixel; None where the image has no depth there, without which no point is stored."""
        point = point_at(self.view, 0, u, v)
        return None if point is None else point | {"position_m": self.facts.position(point, 0).tolist()}

    def point_on(self, thing: Thing) -> Row | None:
        """A point well inside a thing."""
        for _ in range(TRIES):
            u, v = thing.pixels[self.rng.randrange(len(thing.pixels))].tolist()
            point = self.point(u, v)
            if point is not None and thing.mask[self.facts.pixel(point)[::-1]]:
                return point
        return None

    def point_off(self, thing: Thing) -> Row | None:
        """A point that is clearly not on a thing: on another one, or around it, as often as not."""
        height, width = thing.mask.shape
        reach = max(1, round(BESIDE * width))
        forbidden = ndimage.binary_dilation(thing.mask, iterations=reach)
        left, right, top, bottom = thing.box
        around = max(right - left, bottom - top) + 2 * reach
        others = [one for one in self.things if one is not thing]
        other = self.rng.choice(others) if others and self.rng.random() < 0.5 else None
        for _ in range(TRIES):
            if other is not None:
                u, v = other.pixels[self.rng.randrange(len(other.pixels))].tolist()
            else:
                u = self.rng.randrange(max(0, left - around), min(width, right + around + 1))
                v = self.rng.randrange(max(0, top - around), min(height, bottom + around + 1))
            point = None if forbidden[v, u] else self.point(u, v)
            if point is not None and not forbidden[self.facts.pixel(point)[::-1]]:
                return point
        return None


def build_record(scene: Scene, *, seed: int) -> dict[str, Any]:
    """The grounding record of a single view, a pure function of its arguments.

    Args:
        scene: with one view, whose masks are known.
        seed: decides what is asked and how.

    Raises:
        DropItem: "no_masks", "fewer_than_two_objects" or "too_few_questions", and those of `check_located`.
    """
    (view,) = scene.views
    if view.instances is None:
        raise DropItem("no_masks", f"scene {scene.id!r} has no masks to point at")
    check_located(scene)
    measured = measure_objects(scene)
    record = base_record(scene, seed, "forward") | {"objects": object_rows(scene, measured, seed)}
    pixels = {one.item.id: one.best.pixels for one in measured}
    things = [
        Thing(row["id"], row["name"], view.mask_of(row["id"]), pixels[row["id"]])
        for row in record["objects"]
        if not row["is_support"] and _has_own_name(row, scene)
    ]
    if len(things) < MIN_THINGS:
        raise DropItem(
            "fewer_than_two_objects", f"scene {scene.id!r} shows {len(things)} things with names of their own"
        )
    asked = draw_questions(Ground(view, RecordFacts(record), things, random.Random(f"{seed}:{scene.id}:grounding")))
    if len(asked) <= MIN_THINGS:
        raise DropItem("too_few_questions", f"scene {scene.id!r}: only {len(asked)} questions can be asked")
    turns = [turn_row(index, kind, question) for index, (kind, question) in enumerate(asked, start=1)]
    return record | {"messages": question_messages(asked, 1), "turns": turns}


def _has_own_name(row: Row, scene: Scene) -> bool:
    """Whether the name of an object fits it alone of all things of the place."""
    alone = sum(may_be_called(row["name"], item.name) for item in scene.objects) == 1
    return alone and bool(row["name"]) and row["name"].lower() not in RESERVED_NAMES


def draw_questions(ground: Ground) -> list[tuple[str, Question]]:
    """Kind and question of every turn; no thing is located twice, so that no answer can be copied from another.

    Five turns about two things, eight about five or more.
    """
    rng, templates = ground.rng, {one.__name__: one for one in (named_point, pointed_thing, which_point, thing_box)}
    things = rng.sample(ground.things, len(ground.things))[: MAX_TURNS - 3]
    start = rng.randrange(len(LOCATING))
    drawn: list[tuple[str, Question | None]] = []
    for place, thing in enumerate(things):
        kind = LOCATING[(start + place) % len(LOCATING)]
        drawn.append((kind, templates.get(kind, point_on_thing)(ground, thing)))
    drawn.append(("point_order", point_order(ground)))
    drawn += [("thing_order", thing_order(ground, axis)) for axis in (0, 1)]
    asked = [(kind, question) for kind, question in drawn if question is not None]
    return rng.sample(asked, len(asked))


def named_point(ground: Ground, thing: Thing) -> Question | None:
    """Name the thing at a point."""
    point = ground.point_on(thing)
    if point is None:
        return None
    slots = {"p": _named(point), "the": thing.the, "is": be(thing.name)}
    return _question(ground, "named_point", slots, thing.name, [thing], [point])


def pointed_thing(ground: Ground, thing: Thing) -> Question | None:
    """Point to a thing."""
    point = ground.point_on(thing)
    if point is None:
        return None
    slots = {"p": _named(point), "the": thing.the, "is": be(thing.name)}
    return _question(ground, "pointed_thing", slots, coordinates(point, 1), [thing], [point])


def point_on_thing(ground: Ground, thing: Thing) -> Question | None:
    """Whether a point is on a thing; a coin decides."""
    on, off = ground.point_on(thing), ground.point_off(thing)
    if on is None or off is None:
        return None
    yes = ground.rng.random() < 0.5
    point = on if yes else off
    slots = {"p": _named(point), "the": thing.the}
    answer = "yes" if yes else "no"
    return _question(ground, "point_on_thing", slots, answer, [thing], [point], reply=answer)


def which_point(ground: Ground, thing: Thing) -> Question | None:
    """Which of two points is on a thing; the right one comes first as often as second."""
    on, off = ground.point_on(thing), ground.point_off(thing)
    if on is None or off is None:
        return None
    first, second = ground.rng.sample([on, off], 2)
    slots = {"p": _named(first), "q": _named(second), "the": thing.the}
    return _question(ground, "which_point", slots, coordinates(on, 1), [thing], [first, second], {"p": _named(on)})


def thing_box(ground: Ground, thing: Thing) -> Question | None:
    """The corners of the bounding box of what is visible of a thing."""
    left, right, top, bottom = thing.box
    first, last = ground.point(left, top), ground.point(right, bottom)
    if first is None or last is None:
        return None
    slots = {"p": _named(first), "q": _named(last), "the": thing.the}
    answer = f"{coordinates(first, 1)} to {_named(last)}"
    return _question(ground, "thing_box", slots, answer, [thing], [first, last])


def point_order(ground: Ground) -> Question | None:
    """Which of two points is higher, lower, further left or further right."""
    height, width = ground.view.depth_m.shape
    order = ground.rng.choice(sorted(ORDERS))
    for _ in range(TRIES):
        points = [ground.point(ground.rng.randrange(width), ground.rng.randrange(height)) for _ in range(2)]
        first, second = points
        if first is None or second is None:
            continue
        chosen = clear_order(order, (first["x"], first["y"]), (second["x"], second["y"]))
        if chosen is not None:
            right = [first, second][chosen]
            slots = {"p": _named(first), "q": _named(second), "order": order}
            answer, said = coordinates(right, 1), {"p": _named(right)}
            return _question(ground, "point_order", slots, answer, [], [first, second], said)
    return None


def thing_order(ground: Ground, axis: int) -> Question | None:
    """Which of two things is further left or right (axis 0), higher or lower (1), by the middles of their boxes."""
    order = ground.rng.choice([name for name, (along, _) in ORDERS.items() if along == axis])
    height, width = ground.view.depth_m.shape
    middles = [((left + right + 1) / 2 / width, (top + bottom + 1) / 2 / height)
               for left, right, top, bottom in (one.box for one in ground.things)]  # fmt: skip
    for _ in range(TRIES):
        one, other = ground.rng.sample(range(len(middles)), 2)
        chosen = clear_order(order, middles[one], middles[other])
        if chosen is not None:
            things = [ground.things[one], ground.things[other]]
            right = things[chosen]
            slots = {"first": things[0].the, "second": things[1].the, "order": order, "is": be(right.name)}
            return _question(ground, "thing_order", slots, right.name, things, [], {"first": right.the})
    return None


def _named(point: Row) -> str:
    return f"the point {coordinates(point, 1)}"


def _question(
    ground: Ground,
    kind: str,
    slots: dict[str, str],
    answer: str,
    things: list[Thing],
    points: list[Row],
    said: dict[str, str] | None = None,
    reply: str | None = None,
) -> Question:
    """A question of a kind in one of its wordings.

    Args:
        ground: source of the draws.
        kind: key of `GROUNDING_QUESTIONS`.
        slots: of question and answer.
        answer: the shortest form.
        things: that it speaks of.
        points: that it speaks of, in the order of the text.
        said: what the answer's slots hold instead.
        reply: key of `GROUNDING_ANSWERS`, if not the kind.
    """
    text = ground.say(GROUNDING_QUESTIONS[kind], **slots)
    told = ground.say(GROUNDING_ANSWERS[reply or kind], **slots | (said or {}))
    ids = tuple(one.id for one in things)
    return Question(kind, text, told, answer, ids, ids, tuple(points))
