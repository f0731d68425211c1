"""What the questions of the multi-view VQA set are drawn from: clearly visible things, points that match, colours.

An object counts as seen in a view only where it is clearly visible, and as absent only where no pixel shows it;
between the two nothing is asked about that view.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from dataset_builders.facts import RecordFacts, Row
from dataset_builders.filters import SAME_DEPTH, project
from dataset_builders.geometry import valid_depth
from dataset_builders.grammar import COUNT_WORDS, be, is_plural, listed, sentences
from dataset_builders.mentions import coordinates, may_be_called
from dataset_builders.objects import MeasuredObject
from dataset_builders.pointing import point_at
from dataset_builders.scene import Scene
from dataset_builders.vqa_phrasings import VQA_ANSWERS, VQA_QUESTIONS

LOOKALIKES = {  # every colour word, with those that light and shade may confuse it with
    "red": {"orange", "brown", "pink"},
    "orange": {"red", "yellow", "brown"},
    "yellow": {"orange", "white"},
    "green": {"blue"},
    "blue": {"green", "purple"},
    "purple": {"blue", "pink"},
    "pink": {"red", "purple", "white"},
    "brown": {"red", "orange", "black", "grey"},
    "white": {"grey", "yellow", "pink"},
    "grey": {"white", "black", "brown"},
    "black": {"grey", "brown"},
}
CLEARLY_NEARER = 0.85  # ratio of two distances below which one is clearly the smaller
MIN_SIDESTEP_M = 0.15  # and half of the way between the cameras
APART = 0.12  # least distance, as a share of the image, between points that are to be told apart
APART_M = 0.25
MIN_CONTRAST = 10.0  # grey levels, standard deviation around a point that can be found again in another view
PATCH = 0.03  # half side of that neighbourhood, as a share of the image width
TRIES = 60


@dataclass(frozen=True)
class Thing:
    """An object that has a name of its own; `colour` is the first word of the name if that is a colour."""

    id: int
    name: str
    colour: str | None
    noun: str
    seen: frozenset[int]
    absent: frozenset[int]

    @property
    def slots(self) -> dict[str, str]:
        """What fills the slots of a template that speaks of it."""
        verbs = {"is": be(self.name), "does": "do" if is_plural(self.name) else "does"}
        return verbs | {"the": f"the {self.name}", "noun": self.noun, "colour": str(self.colour)}

    def wrong_colours(self) -> list[str]:
        """Colours that nobody would take its own for."""
        assert self.colour is not None
        return [colour for colour in LOOKALIKES if colour != self.colour and colour not in LOOKALIKES[self.colour]]


@dataclass
class Ground:
    """Everything that questions are drawn from, and what has been given away so far.

    Attributes:
        scene: its views are the images of the record.
        facts: of the record's columns.
        measured: measured objects by id.
        things: those in view that may be asked about.
        strangers: things that no view shows, with ids below 0; empty where not every object of the place is known.
        rng: source of all draws.
        used: ids of the things that earlier questions gave away.
    """

    scene: Scene
    facts: RecordFacts
    measured: dict[int, MeasuredObject]
    things: list[Thing]
    strangers: list[Thing]
    rng: random.Random
    used: set[int] = field(default_factory=set)

    @property
    def views(self) -> list[int]:
        """Indices of the views."""
        return list(range(len(self.scene.views)))

    @property
    def everywhere(self) -> str:
        """The images together: "both images", "all four images"."""
        count = len(self.scene.views)
        return "both images" if count == 2 else f"all {COUNT_WORDS[count]} images"

    @property
    def nowhere(self) -> str:
        """None of the images, as the subject of a sentence."""
        return "neither image" if len(self.scene.views) == 2 else "none of the images"

    def draw(self, test: Callable[[Thing], bool]) -> Thing | None:
        """A random thing in view that passes a test and has not been given away."""
        fitting = [thing for thing in self.things if thing.id not in self.used and test(thing)]
        return self.rng.choice(fitting) if fitting else None

    def draw_absent(self, view: int) -> Thing | None:
        """A random thing that a view does not show; as often as not one that other views show, if there are both."""
        elsewhere = self.draw(lambda one: view in one.absent and self.definite(one))
        nowhere = [thing for thing in self.strangers if thing.id not in self.used]
        if nowhere and (elsewhere is None or self.rng.random() < 0.5):
            return self.rng.choice(nowhere)
        return elsewhere

    def draw_coloured(self) -> Thing | None:
        """A thing of known colour that is the only one of its kind in the whole place and was not yet mentioned."""
        nouns = [_parted(item.name)[1] for item in self.scene.objects]
        return self.draw(lambda one: one.colour is not None and bool(one.seen) and nouns.count(one.noun) == 1)

    def ask(self, template: str, **slots: str) -> str:
        """A question in one of its wordings."""
        return sentences(self.rng.choice(VQA_QUESTIONS[template]).format_map(slots))

    def reply(self, template: str, **slots: str) -> str:
        """An answer in one of its wordings."""
        return sentences(self.rng.choice(VQA_ANSWERS[template]).format_map(slots))

    def named(self, point: Row) -> str:
        """A point as the texts write it."""
        return f"the point {coordinates(point, len(self.scene.views))}"

    def definite(self, thing: Thing) -> bool:
        """Whether each view either clearly shows the thing or does not show it at all."""
        return len(thing.seen) + len(thing.absent) == len(self.scene.views)

    def pinned(self, point: Row, frame: int) -> Row:
        """A point with its position in the camera frame of `frame`."""
        return point | {"position_m": self.facts.position(point, frame).tolist()}

    def point_on(self, thing: Thing, view: int) -> Row:
        """A point well inside a thing, with its position in the frame of the view."""
        sighting = self.measured[thing.id].seen_in(view)
        assert sighting is not None
        offsets = np.linalg.norm(sighting.pixels - sighting.pixels.mean(axis=0), axis=1)
        inner = sighting.pixels[offsets <= np.median(offsets)]
        u, v = inner[self.rng.randrange(len(inner))].tolist()
        point = point_at(self.scene.views[view], view, u, v)
        assert point is not None, "a pixel of a cleaned mask has depth"
        return self.pinned(point, view)

    def match(self, first: int, second: int) -> tuple[Row, Row] | None:
        """Two points, one in each view, that show the same well-marked spot; None if none is found."""
        for _ in range(TRIES):
            point = self._marked_point(first)
            other = self._seen_from(point, second) if point is not None else None
            if point is not None and other is not None:
                return self.pinned(point, second), other
        return None

    def other_spot(self, view: int, taken: list[Row], near: Row | None = None) -> Row | None:
        """A well-marked point of a view, far from those taken both in the image and in space.

        With `near`, of all points tried the one at the most similar coordinates: it keeps "the option with about the
        same numbers" from being the right one.
        """
        best, least = None, np.inf
        for _ in range(TRIES):
            point = self._marked_point(view)
            if point is None:
                continue
            point = self.pinned(point, view)
            far = (max(abs(point["x"] - one["x"]), abs(point["y"] - one["y"])) > APART for one in taken)
            gaps = (np.linalg.norm(np.subtract(point["position_m"], one["position_m"])) > APART_M for one in taken)
            if all(far) and all(gaps):
                if near is None:
                    return point
                gap = abs(point["x"] - near["x"]) + abs(point["y"] - near["y"])
                best, least = (point, gap) if gap < least else (best, least)
        return best

    def _marked_point(self, view_index: int) -> Row | None:
        """A random point of a view around which the picture has contrast; on a thing as often as not."""
        view = self.scene.views[view_index]
        height, width = view.depth_m.shape
        radius = max(1, round(PATCH * width))
        shown = [sighting for one in self.measured.values() if (sighting := one.seen_in(view_index)) is not None]
        if shown and self.rng.random() < 0.7:
            pixels = self.rng.choice(shown).pixels
            u, v = pixels[self.rng.randrange(len(pixels))].tolist()
        else:
            u, v = self.rng.randrange(width), self.rng.randrange(height)
        if not (radius <= u < width - radius and radius <= v < height - radius):
            return None
        patch = view.image[v - radius : v + radius + 1, u - radius : u + radius + 1]
        return point_at(view, view_index, u, v) if patch.mean(axis=2).std() > MIN_CONTRAST else None

    def _seen_from(self, point: Row, view_index: int) -> Row | None:
        """The same spot in another view, None where it is hidden, outside or on a depth edge there."""
        view = self.scene.views[view_index]
        position = self.facts.position(point, view_index)
        column, row, inside = project(position[None], view)
        if not inside[0]:
            return None
        u, v = int(column[0]), int(row[0])
        window = view.depth_m[max(0, v - 1) : v + 2, max(0, u - 1) : u + 2]
        tolerance = (SAME_DEPTH + 2 * self.scene.depth_noise) * position[2]
        if not valid_depth(window).all() or np.abs(window - position[2]).max() > tolerance:
            return None
        other = point_at(view, view_index, u, v)
        return None if other is None else self.pinned(other, view_index)


def things_of(scene: Scene, rows: list[Row]) -> list[Thing]:
    """The usable objects whose name fits no other object of the scene, with the views that show them."""
    things = []
    for row in rows:
        if not row["usable"] or sum(may_be_called(row["name"], item.name) for item in scene.objects) > 1:
            continue
        absent = {
            index
            for index, view in enumerate(scene.views)
            if view.instances is not None and not (view.instances == row["id"]).any()
        }
        colour, noun = _parted(row["name"])
        things.append(Thing(row["id"], row["name"], colour, noun, frozenset(row["visible_in"]), frozenset(absent)))
    return things


def strangers_of(scene: Scene, rng: random.Random) -> list[Thing]:
    """Things that no view of a fully known scene shows: others of its place, and its kinds in other colours.

    A colour is only given to a kind of thing of which nothing in the place has a colour like it.
    """
    if scene.scale_source != "renderer":
        return []
    names = [" ".join(item.name.lower().split()) for item in scene.objects]
    shown = {
        name
        for item, name in zip(scene.objects, names)
        if any(view.instances is not None and (view.instances == item.id).any() for view in scene.views)
    }
    parted = [_parted(name) for name in names]
    invented = []
    for colour, _ in parted:
        for noun in {noun: None for owner, noun in parted if owner is not None}:
            owned = {own for own, other in parted if other == noun and own is not None}
            if colour is not None and all(colour != own and colour not in LOOKALIKES[own] for own in owned):
                invented.append(f"{colour} {noun}")
    chosen = [name for name in names if name not in shown and names.count(name) == 1]
    invented = list(dict.fromkeys(invented))
    chosen += rng.sample(invented, min(len(invented), max(len(chosen), 3)))
    everywhere = frozenset(range(len(scene.views)))
    return [
        Thing(-place, name, *_parted(name), seen=frozenset(), absent=everywhere)
        for place, name in enumerate(chosen, start=1)
    ]


def _parted(name: str) -> tuple[str | None, str]:
    """The colour that a name begins with, if any, and the rest."""
    first, *rest = name.lower().split() or [""]
    return (first, " ".join(rest)) if rest and first in LOOKALIKES else (None, " ".join([first, *rest]))


def nearer_view(facts: RecordFacts, name: int, first: int, second: int) -> int | None:
    """The view whose camera is clearly nearer to the centre of an object (by id), None where they are alike."""
    row = facts.objects[name]
    distances = [float(np.linalg.norm(facts.box(row, view).centre)) for view in (first, second)]
    if min(distances) > CLEARLY_NEARER * max(distances):
        return None
    return first if distances[0] < distances[1] else second


def nearest_thing(facts: RecordFacts, names: list[int], view: int) -> int | None:
    """The object (by id) whose centre is clearly nearest to a camera, None where two are about as near."""
    distances = sorted((float(np.linalg.norm(facts.box(facts.objects[name], view).centre)), name) for name in names)
    return distances[0][1] if distances[0][0] < CLEARLY_NEARER * distances[1][0] else None


def sidestep(facts: RecordFacts, first: int, second: int) -> str | None:
    """Where camera `second` stands for a viewer at camera `first`: "left", "right", or None for neither."""
    step = facts.canonical[first] @ facts.poses[second][:, 3]
    if abs(step[0]) < max(MIN_SIDESTEP_M, 0.5 * float(np.linalg.norm(step[:3]))):
        return None
    return "left" if step[0] < 0 else "right"


def images(views: frozenset[int] | set[int]) -> str:
    """Views in words: "image 1", "image 1 and image 3"."""
    return listed([f"image {view + 1}" for view in sorted(views)])
