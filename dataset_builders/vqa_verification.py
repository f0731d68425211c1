"""Answers every VQA question again from a record's columns and the question's own words.

Which template asked is known, but none of its phrasings: what is asked (names, images, colours, options) is read from
the text, and what is true from `objects`, `cameras` and the positions of the points.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dataset_builders.facts import RecordFacts, Row
from dataset_builders.filters import SAME_DEPTH
from dataset_builders.grammar import COUNT_WORDS
from dataset_builders.mentions import coordinates
from dataset_builders.vqa_ground import APART_M, LOOKALIKES, nearer_view, nearest_thing, sidestep

OPTION_PATTERN = re.compile(r"^([A-D])\. (.+)$", re.MULTILINE)
BOX_SLACK = 1.3  # how far outside a measured box a pixel of the object may lie, as a multiple of its half sides
SLACK_M = 0.02


@dataclass(frozen=True)
class Asked:
    """One VQA turn with the facts that decide it."""

    facts: RecordFacts
    turn: Row
    question: str

    @property
    def stem(self) -> str:
        """The question without its options, in lower case."""
        return self.question.split("\n")[0].lower()

    @property
    def views(self) -> list[int]:
        """The images that the question names, from 0, in the order of the text."""
        return [int(number) - 1 for number in re.findall(r"image (\d+)", self.stem)]

    @property
    def all_views(self) -> set[int]:
        """Every view of the record."""
        return set(range(len(self.facts.cameras)))

    @property
    def points(self) -> list[np.ndarray]:
        """Positions of the turn's points, (3,) each."""
        return [np.array(point["position_m"]) for point in self.turn["points"]]

    def named(self, text: str) -> list[Row]:
        """The objects whose names stand in a text, in the order of the record."""
        rows = [row for row in self.facts.objects.values() if not row["is_support"]]
        found = []
        for row in sorted(rows, key=lambda row: -len(row["name"])):
            pattern = rf"(?<!\w){re.escape(row['name'].lower())}(?!\w)"
            if re.search(pattern, text):
                found.append(row)
                text = re.sub(pattern, "_", text)
        return found

    def shown(self, text: str) -> set[int]:
        """The views that clearly show a thing named in a text; none for a thing that the record does not list."""
        return {view for row in self.named(text.lower()) for view in row["visible_in"]}

    def options(self) -> dict[str, str]:
        """Text of each lettered option."""
        return {letter: text.lower() for letter, text in OPTION_PATTERN.findall(self.question)}

    def letter(self, right: Callable[[str], bool]) -> str:
        """The letter of the only option that passes a test; "undecidable" where none or several do."""
        letters = [letter for letter, text in self.options().items() if right(text)]
        return letters[0] if len(letters) == 1 else "undecidable"

    def colour(self) -> str:
        """Colour of the turn's object, which must be the only one of its kind that the record lists."""
        colour, _, noun = self.facts.objects[self.turn["object_ids"][0]]["name"].lower().partition(" ")
        kinds = [row["name"].lower().removeprefix(f"{row['name'].lower().split()[0]} ") for row in self._rows()]
        return colour if kinds.count(noun) == 1 and noun in self.stem else "undecidable"

    def _rows(self) -> list[Row]:
        return list(self.facts.objects.values())

    def on_object(self) -> bool:
        """Whether the turn's point lies on its object's box, or a little around it."""
        row, frame = self.facts.objects[self.turn["object_ids"][0]], self.turn["frame"]
        box = self.facts.box(row, frame)
        world = self.facts.poses[frame] @ np.append(self.points[0], 1.0)
        offset = np.abs(((self.facts.canonical[frame] @ world)[:3] - box.centre) @ box.axes.T)
        return bool((offset <= box.dimensions / 2 * BOX_SLACK + SLACK_M + 3 * self.facts.noise * row["depth_m"]).all())

    def same_spot(self, first: np.ndarray, second: np.ndarray) -> bool | None:
        """Whether two positions are one spot; None in between."""
        gap, reach = float(np.linalg.norm(first - second)), float(np.linalg.norm(first))
        if gap < (2 * SAME_DEPTH + 4 * self.facts.noise) * reach:
            return True
        return False if gap > APART_M / 2 else None


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def _which_images(asked: Asked) -> str:
    shown = asked.shown(asked.stem)
    count = len(asked.all_views)
    if shown == asked.all_views:
        return "both images" if count == 2 else f"all {COUNT_WORDS[count]} images"
    if not shown:
        return "neither image" if count == 2 else "none of the images"
    *others, last = [f"image {view + 1}" for view in sorted(shown)]
    return f"{', '.join(others)} and {last}" if others else f"only {last}"


def _how_many(asked: Asked) -> str:
    return COUNT_WORDS[sum(asked.views[0] in row["visible_in"] for row in asked.named(asked.stem))]


def _wrong_colour(asked: Asked) -> str:
    colour = asked.colour()
    said = [word for word in re.findall(r"\w+", asked.stem) if word in LOOKALIKES]
    return _yes(said == [colour]) if colour != "undecidable" and len(said) == 1 else "undecidable"


def _nearer_in(asked: Asked) -> str:
    nearer = nearer_view(asked.facts, asked.turn["object_ids"][0], *asked.views)
    if nearer is None:
        return "undecidable"
    return f"image {1 + (sum(asked.views) - nearer if 'farther' in asked.stem else nearer)}"


def _camera_side(asked: Asked) -> str:
    first = asked.turn["frame"]
    (second,) = set(asked.views) - {first}
    return sidestep(asked.facts, first, second) or "undecidable"


def _where_is(asked: Asked) -> str:
    return coordinates(asked.turn["points"][0], len(asked.all_views)) if asked.on_object() else "elsewhere"


def _same_spot(asked: Asked) -> str:
    same = asked.same_spot(*asked.points)
    return "undecidable" if same is None else _yes(same)


def _matching_point(asked: Asked) -> str:
    target, *others = asked.points
    same = [asked.same_spot(target, other) for other in others]
    if sorted(same, key=str) != [False] * (len(same) - 1) + [True]:
        return "undecidable"
    match = coordinates(asked.turn["points"][1 + same.index(True)], len(asked.all_views))
    return asked.letter(lambda text: match in text)


def _nearest_in_image(asked: Asked) -> str:
    named = [row["id"] for text in asked.options().values() for row in asked.named(text)]
    nearest = nearest_thing(asked.facts, named, asked.views[0])
    return "undecidable" if nearest is None else _letter_of(asked, nearest)


def _letter_of(asked: Asked, name: int) -> str:
    return asked.letter(lambda text: [row["id"] for row in asked.named(text)] == [name])


EXPECTED: dict[str, Callable[[Asked], str]] = {
    "what_is_at": lambda one: one.facts.objects[one.turn["object_ids"][0]]["name"] if one.on_object() else "elsewhere",
    "where_is": _where_is,
    "in_all": lambda one: _yes(one.shown(one.stem) == one.all_views),
    "in_one": lambda one: _yes(one.views[0] in one.shown(one.stem)),
    "which_images": _which_images,
    "how_many_of": _how_many,
    "what_colour": Asked.colour,
    "nearer_in": _nearer_in,
    "camera_side": _camera_side,
    "no_such_thing": lambda one: _yes(bool(one.shown(one.stem))),
    "wrong_colour": _wrong_colour,
    "hidden_there": lambda one: "visible" if one.views[0] in one.shown(one.stem) else "not visible",
    "same_spot": _same_spot,
    "name_at_point": lambda one: _letter_of(one, one.turn["object_ids"][0]) if one.on_object() else "elsewhere",
    "only_in_one": lambda one: one.letter(lambda text: one.shown(text) == {one.views[0]}),
    "matching_point": _matching_point,
    "which_colour": lambda one: one.letter(lambda text: text == one.colour()),
    "nearest_in_image": _nearest_in_image,
}


def from_chat(turn: Row) -> bool:
    """Whether a chat model wrote a turn, so that nothing in the record's geometry decides its answer."""
    return turn["template"].startswith("chat.")


def vqa_problems(record: dict[str, Any], texts: list[tuple[str, str]]) -> Iterator[str]:
    """Problems of the VQA turns of a record whose columns and points are in order.

    Args:
        record: all of its columns.
        texts: question and answer of each turn, without the preamble.
    """
    facts = RecordFacts(record)
    for turn, (question, reply) in zip(record["turns"], texts):
        if turn["level"] == "vqa":
            asked = Asked(facts, turn, question)
            for problem in (*_decided_problems(asked), *_choice_problems(asked, reply)):
                yield f"turn {turn['index']}: {problem}"


def _decided_problems(asked: Asked) -> Iterator[str]:
    """The answer is that which the record gives; what a chat model wrote is not derived again."""
    template, answer = asked.turn["template"], asked.turn["answer"]
    if template in EXPECTED:
        expected = EXPECTED[template](asked)
        if expected != answer:
            yield f"answer {answer!r}, but the record gives {expected!r}"
    elif not from_chat(asked.turn):
        yield f"template {template!r} is unknown"


def _choice_problems(asked: Asked, reply: str) -> Iterator[str]:
    """A multiple-choice question has four different options, and the reply begins with the letter of one."""
    if asked.turn["kind"] != "multiple_choice":
        return
    options, answer = asked.options(), asked.turn["answer"]
    if list(options) != list("ABCD") or len({text.strip(" .") for text in options.values()}) < len(options):
        yield "does not offer four different options, A to D, each on a line of its own"
    if answer not in options or not re.match(rf"{re.escape(answer)}(?:[.):]|$)", reply):
        yield f"the text does not begin with the letter {answer!r}"
