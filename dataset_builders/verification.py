"""Derives every number and relation of a record's texts again, from its geometry columns alone.

A number must be a fact of the reference that stands before it (`reading.py`), or the value of the turn; a claim must
hold beyond doubt; a name must fit one object only.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from dataset_builders.facts import RecordFacts, Row, position_text
from dataset_builders.geometry import NOISE_FACTOR, format_length, is_rigid, to_millimetre, transform
from dataset_builders.grammar import COUNT_WORDS
from dataset_builders.grounding_verification import grounding_problems
from dataset_builders.mentions import coordinates, holds_alone, mention_by_point, namesakes, stated
from dataset_builders.reading import Reader, Reference, without_references
from dataset_builders.vqa_verification import from_chat, vqa_problems

TOLERANCE_M = 1e-6
NUMBER_PATTERN = re.compile(r"(?<![\w.(])\d+(?:\.\d+)?(?: (?:cm|m)\b|(?![\w]))(?: (?:to the )?(\w+))?")
LENGTH_PATTERN = re.compile(
    r"(?<![\w.])(?:\d+(?:[.,]\d+)?[ -]?(?:[ckm]?m|ft|feet|inch(?:es)?|yards?)"
    rf"|(?:\d+(?:[.,]\d+)?|{'|'.join(COUNT_WORDS[1:])})[ -]?(?:centi|milli|kilo)?met(?:er|re)s?)\b",
    re.IGNORECASE,
)
WORD_NUMBER_PATTERN = re.compile(rf"\b({'|'.join(COUNT_WORDS[2:])})\b", re.IGNORECASE)
DIRECTIONS = {  # word -> axis and sign, of a point in its camera frame or of an object in its canonical frame
    "left": (0, -1), "right": (0, 1), "up": (1, -1), "down": (1, 1), "forward": (2, 1), "backward": (2, -1),
    "lower": (1, -1), "higher": (1, 1),
}  # fmt: skip


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
        problems = [f"{length!r} in a record without cameras" for length in lengths]
        derived = [turn for turn in record["turns"] if turn["level"] not in ("caption", "vqa")]
        problems += [f"turn {turn['index']}: asks for geometry in a record without cameras" for turn in derived]
        return problems or list(vqa_problems(record, texts))
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
        found = _chat_problems if from_chat(turn) else _derived_problems
        problems += [
            f"turn {turn['index']}: {problem}" for problem in found(reader, question, answer, record["metric"])
        ]
    return [*problems, *vqa_problems(record, texts), *grounding_problems(record, texts)]


def _derived_problems(reader: Reader, question: str, answer: str, metric: bool) -> Iterator[str]:
    """Problems of a turn that was composed from the geometry, all of which is derived again."""
    yield from _answer_problems(reader, question, answer)
    yield from _text_problems(reader, question, answer, metric)
    yield from _giveaway_problems(reader, question)


def _chat_problems(reader: Reader, question: str, answer: str, metric: bool) -> Iterator[str]:
    """Problems of a turn that a chat model wrote: it may not measure anything."""
    for text in (question, answer):
        for one in LENGTH_PATTERN.finditer(text):
            yield f"the length {one[0]!r} was written by a chat model, which cannot measure"
    if reader.turn["answer"].lower() not in answer.lower():
        yield f"the text does not say the answer {reader.turn['answer']!r}"


def _giveaway_problems(reader: Reader, question: str) -> Iterator[str]:
    """No object is called by the relation that the question asks for, nor by one to the other object."""
    ids, kind = reader.turn["object_ids"], reader.turn["kind"]
    for one in reader.references(question):
        if one.item is not None and question[one.start : one.end].lower() == one.item["mention"].lower():
            what = stated(reader.facts, one.item)
            if what is not None and (what.kind == kind or what.anchor in ids):
                yield f"calling it {one.item['mention']!r} gives the answer away"


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
    yield from _mention_problems(facts, row)


def _mention_problems(facts: RecordFacts, row: Row) -> Iterator[str]:
    """The mention names the object, and no other object fits it; what it states holds beyond doubt."""
    if row["mention"] == f"the {row['name']}":
        if row["usable"] and namesakes(facts, row):
            yield f"mention {row['mention']!r} fits other objects, too"
        return
    what = stated(facts, row)
    if what is not None and not holds_alone(facts, row, what):
        yield f"mention {row['mention']!r} states what the geometry does not bear out of it alone"
    if what is None and row["mention"] != mention_by_point(row, len(facts.cameras)):
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
    said = re.findall(r"\b(yes|no)\b", without_references(reader, answer).lower())
    if said != [reader.turn["answer"]]:
        yield f"says {said} where the answer is {reader.turn['answer']!r}"
    asked = list(reader.claims(question))
    if not asked and reader.turn["level"] == "object":
        yield "the question asks for no relation that can be read"
    for reading, true in asked:
        if true != (reader.turn["answer"] == "yes") and reader.turn["level"] != "vqa":
            yield f"{reader.turn['answer']!r} contradicts the geometry of {reading!r}"
    if reader.turn["level"] == "object":
        kind, (first, second) = reader.turn["kind"], reader.turn["object_ids"]
        sign, difference = reader.facts.relation(kind, first, second, reader.turn["frame"])
        if not sign:
            yield "asks for a relation that noise could flip"
        if not abs(abs(difference) - (reader.turn["margin"] or 0.0)) < TOLERANCE_M:
            yield f"margin {reader.turn['margin']} is not {abs(difference)}"


def _text_problems(reader: Reader, question: str, answer: str, metric: bool) -> Iterator[str]:
    """Every reference is known, every number is explained, every claim of the answer holds."""
    turn = reader.turn
    for text in (question, answer):
        for one in reader.references(text):
            if one.point == {}:
                yield f"speaks of a point that no turn has marked: {text[one.start : one.end]!r}"
    for text in (answer,) if turn["kind"] == "multiple_choice" else (question, answer):
        yield from _number_problems(reader, text, metric)
    for reading, true in reader.claims(answer):
        if not true:
            yield f"claims {reading!r}, which the geometry does not bear out"
    asked_unit = re.search(r"\b(cm|centimet(?:er|re)s?|met(?:er|re)s?)\b", question)
    if asked_unit and turn["unit"] and turn["unit"] != ("cm" if asked_unit[1].startswith("c") else "m"):
        yield f"the question asks for {asked_unit[1]}, the answer is in {turn['unit']}"


def _number_problems(reader: Reader, text: str, metric: bool) -> Iterator[str]:
    facts, turn = reader.facts, reader.turn
    references, blanked = reader.references(text), without_references(reader, text)
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
