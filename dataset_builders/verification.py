"""Derives every number and relation of a record's texts again, from its geometry columns alone.

It knows the vocabulary (`phrasings.RELATIONS`) but no template: it reads a text as a row of references (points and
objects), numbers, and claims of the form "<one> is <phrase> <other>". A number must be a fact of the reference that
stands before it, or the value of the turn; a claim must hold beyond doubt.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from dataset_builders.facts import RecordFacts, Row, position_text
from dataset_builders.geometry import NOISE_FACTOR, format_length, is_rigid, to_millimetre, transform
from dataset_builders.phrasings import COUNT_WORDS, RELATIONS
from dataset_builders.pointing import coordinates
from dataset_builders.vqa_verification import vqa_problems

TOLERANCE_M = 1e-6
CAMERA_PATTERN = r"the camera(?: of image \d+)?"
POINT_PATTERN = re.compile(r"the point \((\d\.\d{3}), (\d\.\d{3})\)(?: in image (\d+))?", re.IGNORECASE)
NUMBER_PATTERN = re.compile(r"(?<![\w.(])\d+(?:\.\d+)?(?: (?:cm|m)\b|(?![\w]))(?: (?:to the )?(\w+))?")
LENGTH_PATTERN = re.compile(r"(?<![\w.])\d+(?:\.\d+)? c?m\b")
WORD_NUMBER_PATTERN = re.compile(rf"\b({'|'.join(COUNT_WORDS[2:])})\b", re.IGNORECASE)
DIRECTIONS = {  # word -> axis and sign, of a point in its camera frame or of an object in its canonical frame
    "left": (0, -1), "right": (0, 1), "up": (1, -1), "down": (1, 1), "forward": (2, 1), "backward": (2, -1),
    "lower": (1, -1), "higher": (1, 1),
}  # fmt: skip


@dataclass(frozen=True)
class Reference:
    """A point (its row) or an object (its row) named in a text, and where."""

    start: int
    end: int
    point: Row | None = None
    item: Row | None = None


@dataclass(frozen=True)
class Reader:
    """What one turn's texts may speak of: the record's facts, the turn, and the points known so far."""

    facts: RecordFacts
    turn: Row
    points: list[Row]  # of this turn and of earlier turns with the same frame

    def references(self, text: str) -> list[Reference]:
        """Points and objects in the order in which a text names them; an unknown point has an empty row."""
        mentions = {row["mention"].lower(): row for row in self.facts.objects.values()}
        found = []
        if mentions:
            longest_first = sorted(mentions, key=len, reverse=True)
            pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, longest_first))})(?!\w)", re.IGNORECASE)
            found = [Reference(*one.span(), item=mentions[one[0].lower()]) for one in pattern.finditer(text)]
        taken = [range(one.start, one.end) for one in found]
        for one in POINT_PATTERN.finditer(text):
            if not any(one.start() in span for span in taken):
                found.append(Reference(*one.span(), point=self._point(*one.groups())))
        return sorted(found, key=lambda one: one.start)

    def _point(self, x: str, y: str, image: str | None) -> Row:
        wanted = (int(image) - 1 if image else 0, float(x), float(y))
        matches = (point for point in self.points if (point["view"], point["x"], point["y"]) == wanted)
        return next(matches, {})

    def lengths_of(self, one: Reference) -> set[str]:
        """Every length that may be said of a reference, as text."""
        if one.item is None:
            return {format_length(value) for value in one.point["position_m"]} if one.point else set()
        row, centre = one.item, self.place_of(one)
        if centre is None:
            return set()
        values = [row["depth_m"], row["size"][1], *row["dimensions"], centre[0], centre[1], np.linalg.norm(centre)]
        return {format_length(float(value)) for value in values}

    def place_of(self, one: Reference) -> Any:
        """Where a reference is (3,): a point in the camera frame, an object's centre in the canonical frame."""
        if one.item is None:
            return one.point["position_m"] if one.point else None
        return None if one.item["is_support"] else self.facts.box(one.item, self.turn["frame"]).centre

    def shared_lengths(self) -> set[str]:
        """Lengths that belong to the turn as a whole: distances and differences."""
        ids, points = self.turn["object_ids"], self.turn["points"]
        values = []
        if len(ids) == 2 and not any(self.facts.objects[name]["is_support"] for name in ids):
            values.append(self.facts.centre_distance(*ids))
        if len(self.turn["witness"]) == 2:
            values.append(math.dist(*self.turn["witness"]))
        if len(points) == 2:
            values.append(abs(self.facts.closer(*points)[1]))
            values.append(math.dist(*(point["position_m"] for point in points)))
        if self.turn["level"] == "caption" and len(self.facts.cameras) > 1:
            values.append(self.facts.camera_distance(0, len(self.facts.cameras) - 1))
        return {format_length(value) for value in values}

    def claims(self, text: str) -> Iterator[tuple[str, bool]]:
        """Relations that a text states or asks about: how it reads, and whether it holds beyond doubt."""
        found = self.references(text)
        for first, second in pairwise(found):
            between = text[first.end : second.start]
            stated = re.fullmatch(r" (?:is|are)( not)? (.+) ", between, re.IGNORECASE)
            asked = re.search(r"\b(?:is|are) $", text[: first.start], re.IGNORECASE)
            phrase = stated[2] if stated else between.strip() if asked else ""
            meaning = _meaning(phrase, points=first.item is None)
            if meaning is None or (first.item is None) != (second.item is None):
                continue
            kind, sign = meaning
            truth = self._relation(kind, first, second)
            wanted = -sign if stated and stated[1] else sign
            yield text[first.start : second.end], truth == wanted

    def _relation(self, kind: str, first: Reference, second: Reference) -> int:
        if first.item is not None and second.item is not None:
            if first.item["is_support"] or second.item["is_support"]:
                return 0
            return self.facts.relation(kind, first.item["id"], second.item["id"], self.turn["frame"])[0]
        return self.facts.closer(first.point or {}, second.point or {})[0] if first.point and second.point else 0


def _meaning(phrase: str, points: bool) -> tuple[str, int] | None:
    """The relation kind and the sign that a phrase stands for."""
    for kind, (positive, negative) in RELATIONS.items():
        if (kind == "closer_point") == points:
            for sign, choices in ((1, positive), (-1, negative)):
                patterns = (re.escape(one).replace(r"\{camera\}", CAMERA_PATTERN) for one in choices)
                if phrase and re.fullmatch("|".join(patterns), phrase, re.IGNORECASE):
                    return kind, sign
    return None


def verify(record: dict[str, Any], texts: list[tuple[str, str]]) -> list[str]:
    """Problems of a record whose columns are complete.

    Args:
        record: with as many `turns` as `texts`.
        texts: question and answer of each turn, without the preamble.
    """
    problems = list(_camera_problems(record))
    if problems:
        return problems
    if not record["cameras"]:
        lengths = [found for pair in texts for text in pair for found in LENGTH_PATTERN.findall(text)]
        return [f"{length!r} in a record without cameras" for length in lengths]
    facts = RecordFacts(record)
    for row in record["objects"]:
        problems += [f"object {row['id']}: {problem}" for problem in _object_problems(facts, row)]
    mentions = Counter(row["mention"].lower() for row in record["objects"] if row["usable"])
    problems += [f"mention {mention!r} is not unique" for mention, count in mentions.items() if count > 1]
    for turn in record["turns"]:
        problems += [f"turn {turn['index']}: {problem}" for problem in _point_problems(facts, turn)]
    if problems:
        return problems
    for place, (turn, (question, answer)) in enumerate(zip(record["turns"], texts)):
        earlier = [one for one in record["turns"][: place + 1] if one["frame"] == turn["frame"]]
        reader = Reader(facts, turn, [point for one in earlier[::-1] for point in one["points"]])
        found = [
            *_answer_problems(reader, question, answer),
            *_text_problems(reader, question, answer, record["metric"]),
        ]
        problems += [f"turn {turn['index']}: {problem}" for problem in found]
    return problems + list(vqa_problems(record, texts))


def _camera_problems(record: dict[str, Any]) -> Iterator[str]:
    if record["cameras"] and len(record["cameras"]) != len(record["images"]):
        yield f"{len(record['cameras'])} cameras for {len(record['images'])} images"
    for number, camera in enumerate(record["cameras"], start=1):
        if not is_rigid(np.array(camera["camera_to_world"], dtype=np.float64).reshape(4, 4)):
            yield f"camera {number} has a pose that is not rigid and finite"
        if not min(camera["fx"], camera["fy"], camera["width"], camera["height"]) > 0:
            yield f"camera {number} has a focal length or size that is not positive"
    up = record["up_world"]
    if up is not None and not abs(np.linalg.norm(up) - 1) < 1e-3:
        yield "up_world is not a unit vector"


def _object_problems(facts: RecordFacts, row: Row) -> Iterator[str]:
    """The box is a box, agrees with the extents and the depth beside it, and the mention with the mark."""
    if row["is_support"]:
        return
    axes = np.array(row["box_rotation"], dtype=np.float64).reshape(3, 3)
    dimensions = np.array(row["dimensions"], dtype=np.float64)
    if not np.abs(axes @ axes.T - np.eye(3)).max() < 1e-3:
        yield "box_rotation is not orthonormal"
    if not (dimensions[:-1] >= dimensions[1:]).all() or not dimensions[0] > 0:
        yield f"dimensions {row['dimensions']} are not sorted sides"
    placed = facts.placed(row, row["view"])
    slack = 0.1 * dimensions[0] + NOISE_FACTOR * facts.noise * row["depth_m"] + TOLERANCE_M
    if not (np.array(row["size"]) <= 2 * placed.box.half_extents() + slack).all():
        yield "size is larger than the oriented box allows"
    if not abs(placed.optical_depth_m - row["depth_m"]) < np.linalg.norm(dimensions) / 2 + slack:
        yield f"depth {row['depth_m']} lies outside its box"
    expected = f"the {row['name']}"
    if row["mention"] not in (expected, f"{expected} at {coordinates(row, len(facts.cameras))}"):
        yield f"mention {row['mention']!r} does not name it"


def _point_problems(facts: RecordFacts, turn: Row) -> Iterator[str]:
    """The position of every point follows from its pixel, its depth and the cameras; ids and frames exist."""
    views = range(len(facts.cameras))
    if turn["frame"] not in views:
        yield f"frame {turn['frame']} is no view"
        return
    for name in turn["object_ids"]:
        if name not in facts.objects:
            yield f"object {name} does not exist"
    for point in turn["points"]:
        if point["view"] not in views or not (0 <= point["x"] <= 1 and 0 <= point["y"] <= 1):
            yield f"point {point['x'], point['y']} is in no view"
        elif not np.abs(facts.position(point, turn["frame"]) - point["position_m"]).max() < TOLERANCE_M:
            yield f"point {point['x'], point['y']} has a position that its pixel and depth do not give"


def _answer_problems(reader: Reader, question: str, answer: str) -> Iterator[str]:
    """`value`, `unit`, `answer` and `margin` follow from the geometry, and the text says the answer."""
    facts, turn = reader.facts, reader.turn
    rows = [facts.objects[name] for name in turn["object_ids"]]
    if turn["level"] in ("object", "scene") and not all(row["usable"] for row in rows):
        yield "asks about an object that is not usable"
    if turn["kind"] == "longest_side" and (rows[0]["truncated"] or rows[0]["occluded"]):
        yield "asks for the size of an object that is not wholly visible"
    if turn["kind"] == "surface_distance":
        yield from _witness_problems(facts, turn)
    expected = _expected_answer(reader)
    if expected is not None and expected != turn["answer"]:
        yield f"answer {turn['answer']!r}, but the geometry gives {expected!r}"
    if turn["unit"] in ("m", "cm") and format_length(turn["value"]).split()[1] != turn["unit"]:
        yield f"unit {turn['unit']!r} does not fit the value {turn['value']}"
    if turn["value"] is not None and turn["unit"] and turn["level"] not in ("caption", "vqa"):
        if format_length(turn["value"]) != turn["answer"]:
            yield f"value {turn['value']} is not the answer {turn['answer']!r}"
    elif turn["value"] is not None:
        lengths = reader.shared_lengths().union(*(reader.lengths_of(Reference(0, 0, item=row)) for row in rows))
        known = lengths | {str(len(rows))}
        if (format_length(turn["value"]) if turn["unit"] else f"{turn['value']:g}") not in known:
            yield f"value {turn['value']} follows from nothing in the geometry"
    if turn["level"] != "caption" and turn["answer"].lower() not in answer.lower():
        yield f"the text does not say the answer {turn['answer']!r}"
    if turn["answer"] in ("yes", "no"):
        yield from _polarity_problems(reader, question, answer)


def _witness_problems(facts: RecordFacts, turn: Row) -> Iterator[str]:
    """The two points that a distance is measured between lie on (a little around) the boxes of the two objects."""
    for name, witness in zip(turn["object_ids"], turn["witness"]):
        row = facts.objects[name]
        box = facts.box(row, row["view"])
        offset = np.abs((transform(np.array(witness), facts.canonical[row["view"]]) - box.centre) @ box.axes.T)
        slack = 0.1 * box.dimensions[0] + NOISE_FACTOR * facts.noise * row["depth_m"] + TOLERANCE_M
        if not (offset <= box.dimensions / 2 + slack).all():
            yield f"the distance is measured from a point that is not on object {name}"
    if len(turn["witness"]) != 2:
        yield "a distance without the two points that it is measured between"


def _expected_answer(reader: Reader) -> str | None:
    """The canonical answer of a turn by its kind; None for captions, VQA and yes/no (read from the question)."""
    facts, turn, kind = reader.facts, reader.turn, reader.turn["kind"]
    points, rows = turn["points"], [facts.objects[name] for name in turn["object_ids"]]
    if kind in ("point_depth", "depth_across_views"):
        return format_length(points[0]["position_m"][2])
    if kind == "point_position":
        return position_text(points[0]["position_m"])
    if kind == "closer_point":
        sign = facts.closer(*points)[0]
        return coordinates(points[0 if sign > 0 else 1], len(facts.cameras)) if sign else "undecidable"
    if kind == "depth_difference":
        return format_length(to_millimetre(facts.closer(*points)[1]))
    if kind == "longest_side":
        return format_length(rows[0]["dimensions"][0])
    if kind == "object_depth":
        return format_length(rows[0]["depth_m"])
    if kind == "object_range":
        return format_length(float(np.linalg.norm(facts.box(rows[0], turn["frame"]).centre)))
    if kind == "surface_distance":
        return format_length(math.dist(*turn["witness"])) if len(turn["witness"]) == 2 else ""
    if kind == "point_distance":
        return format_length(math.dist(*(point["position_m"] for point in points)))
    return None


def _polarity_problems(reader: Reader, question: str, answer: str) -> Iterator[str]:
    """The question asks one thing, the geometry decides it, and the text says yes or no accordingly, once."""
    said = re.findall(r"\b(yes|no)\b", _without_references(reader, answer).lower())
    if said != [reader.turn["answer"]]:
        yield f"says {said} where the answer is {reader.turn['answer']!r}"
    asked = list(reader.claims(question))
    if not asked and reader.turn["level"] == "object":
        yield "the question asks for no relation that can be read"
    for reading, holds in asked:
        if holds != (reader.turn["answer"] == "yes") and reader.turn["level"] != "vqa":
            yield f"{reader.turn['answer']!r} contradicts the geometry of {reading!r}"
    if reader.turn["level"] == "object":
        kind, (first, second) = reader.turn["kind"], reader.turn["object_ids"]
        sign, difference = reader.facts.relation(kind, first, second, reader.turn["frame"])
        if not sign:
            yield "asks for a relation that noise could flip"
        if not abs(abs(difference) - (reader.turn["margin"] or 0.0)) < TOLERANCE_M:
            yield f"margin {reader.turn['margin']} is not {abs(difference)}"


def _without_references(reader: Reader, text: str) -> str:
    """A text with its points and objects blanked out, at the same length."""
    for one in reader.references(text):
        text = text[: one.start] + "_" * (one.end - one.start) + text[one.end :]
    return text


def _text_problems(reader: Reader, question: str, answer: str, metric: bool) -> Iterator[str]:
    """Every reference is known, every number is explained, every claim of the answer holds."""
    turn = reader.turn
    for text in (question, answer):
        for one in reader.references(text):
            if one.point == {}:
                yield f"speaks of a point that no turn has marked: {text[one.start : one.end]!r}"
    for text in (answer,) if turn["kind"] == "multiple_choice" else (question, answer):
        yield from _number_problems(reader, text, metric)
    for reading, holds in reader.claims(answer):
        if not holds:
            yield f"claims {reading!r}, which the geometry does not bear out"
    asked_unit = re.search(r"\b(cm|centimet(?:er|re)s?|met(?:er|re)s?)\b", question)
    if asked_unit and turn["unit"] and turn["unit"] != ("cm" if asked_unit[1].startswith("c") else "m"):
        yield f"the question asks for {asked_unit[1]}, the answer is in {turn['unit']}"


def _number_problems(reader: Reader, text: str, metric: bool) -> Iterator[str]:
    facts, turn = reader.facts, reader.turn
    references, blanked = reader.references(text), _without_references(reader, text)
    for row in facts.objects.values():  # a class name may hold a digit
        blanked = re.sub(re.escape(row["name"]), lambda one: "_" * len(one[0]), blanked, flags=re.IGNORECASE)
    for one in re.finditer(r"\bimages? (\d+)", blanked, re.IGNORECASE):
        if not 1 <= int(one[1]) <= len(facts.cameras):
            yield f"speaks of {one[0]}, but there are {len(facts.cameras)} images"
    blanked = re.sub(r"\bimages? \d+", lambda one: "_" * len(one[0]), blanked, flags=re.IGNORECASE)
    names = Counter(row["name"].lower() for row in facts.objects.values())
    counts = {len(facts.cameras), len(turn["object_ids"]), len(turn["points"]), *names.values()}
    for one in WORD_NUMBER_PATTERN.finditer(blanked):
        if COUNT_WORDS.index(one[1].lower()) not in counts:
            yield f"the count {one[1]!r} follows from nothing"
    for one in NUMBER_PATTERN.finditer(blanked):
        length = re.match(r"[\d.]+ c?m\b", one[0])
        before = [reference for reference in references if reference.end <= one.start()]
        near = before[-1:]
        if len(before) > 1 and text[before[-2].end : before[-1].start] == " on ":
            near = before[-2:]
        if length is None:
            if one[0].split()[0] not in {str(count) for count in counts}:
                yield f"the number {one[0]!r} follows from nothing"
        elif not metric:
            yield f"{length[0]!r} in a record without metric scale"
        elif not _is_explained(reader, length[0], one[1], near):
            yield f"the length {one[0]!r} follows from nothing that stands before it"


def _is_explained(reader: Reader, length: str, word: str | None, near: list[Reference]) -> bool:
    """Whether a length is a fact of the references before it (with the right direction word), or of the turn."""
    if not near:
        near = [Reference(0, 0, item=reader.facts.objects[name]) for name in reader.turn["object_ids"]]
        near += [Reference(0, 0, point=point) for point in reader.turn["points"]]
    if word in DIRECTIONS:
        axis, sign = DIRECTIONS[word]
        offsets = [float(place[axis]) for place in (reader.place_of(one) for one in near) if place is not None]
        return any(format_length(offset) == length and sign * offset >= 0 for offset in offsets)
    return length in reader.shared_lengths().union(*(reader.lengths_of(one) for one in near))
