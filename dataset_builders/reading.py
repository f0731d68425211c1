"""Reads the texts of a record back, knowing the vocabulary (`phrasings.RELATIONS`) but no template.

A text is a row of references (points and objects), numbers, and claims of the form "<one> is <phrase> <other>".
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from dataset_builders.facts import RecordFacts, Row
from dataset_builders.geometry import format_length
from dataset_builders.mentions import mention_by_point
from dataset_builders.phrasings import RELATIONS

CAMERA_PATTERN = r"the camera(?: of image \d+)?"
POINT_PATTERN = re.compile(r"the point \((\d\.\d{3}), (\d\.\d{3})\)(?: in image (\d+))?", re.IGNORECASE)


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
        rows, views = self.facts.objects.values(), len(self.facts.cameras)
        mentions = {mention_by_point(row, views).lower(): row for row in rows if not row["is_support"]}
        mentions |= {row["mention"].lower(): row for row in rows}
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


def without_references(reader: Reader, text: str) -> str:
    """A text with its points and objects blanked out, at the same length."""
    for one in reader.references(text):
        text = text[: one.start] + "_" * (one.end - one.start) + text[one.end :]
    return text
