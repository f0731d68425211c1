"""Answers every grounding question again from the masks in a record's `objects` and from the question's own words."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from dataset_builders.facts import Row
from dataset_builders.mentions import coordinates

APART = 0.1  # of the image: least difference between what is ordered
ORDERS = {"higher": (1, -1), "lower": (1, 1), "further left": (0, -1), "further right": (0, 1)}  # axis and sign
POINT_PATTERN = re.compile(r"the point \((\d\.\d{3}), (\d\.\d{3})\)", re.IGNORECASE)
CORNER_SLACK_PX = 1  # three decimals name the neighbour in images of 1000 pixels or more


def clear_order(order: str, first: tuple[float, float], second: tuple[float, float]) -> int | None:
    """Which of two places (x, y), 0 or 1, an order of `ORDERS` holds for; None where they are about level."""
    axis, sign = ORDERS[order]
    difference = sign * (first[axis] - second[axis])
    return None if abs(difference) < APART else 0 if difference > 0 else 1


def grounding_problems(record: dict[str, Any], texts: list[tuple[str, str]]) -> Iterator[str]:
    """Problems of the grounding turns of a record whose columns and points are in order.

    Args:
        record: all of its columns.
        texts: question and answer of each turn, without the preamble.
    """
    for turn, (question, reply) in zip(record["turns"], texts):
        if turn["level"] == "grounding":
            for problem in _turn_problems(record, turn, question, reply):
                yield f"turn {turn['index']}: {problem}"


def _turn_problems(record: dict[str, Any], turn: Row, question: str, reply: str) -> Iterator[str]:
    rows = [row for row in record["objects"] if row["id"] in turn["object_ids"]]
    rows.sort(key=lambda row: turn["object_ids"].index(row["id"]))
    masks = [mask_of(row, record["cameras"][0]) for row in rows]
    asked, told = ([f"({x}, {y})" for x, y in POINT_PATTERN.findall(text)] for text in (question, reply))
    places = [coordinates(point, 1) for point in turn["points"]]
    if turn["kind"] not in ("pointed_thing", "thing_box") and asked != places:
        yield f"the question names the points {asked}, the turn {places}"
    if set(told) - set(places):
        yield f"the answer names the points {told}, the turn {places}"
    for row in rows:
        if f"the {row['name']}".lower() not in f"{question}\n{reply}".lower():
            yield f"neither question nor answer names {row['name']!r}"
    expected = _expected(turn, rows, masks, question, record["cameras"][0])
    if expected != turn["answer"]:
        yield f"answer {turn['answer']!r}, but the masks give {expected!r}"
    if turn["kind"] == "thing_box" and told != places:
        yield f"the answer names the corners {told}, the turn {places}"
    if turn["kind"] in ("which_point", "point_order", "pointed_thing") and told != [turn["answer"]]:
        yield f"the answer names {told}, not {turn['answer']!r} alone"
    if turn["kind"] == "thing_order" and sum(row["name"].lower() in reply.lower() for row in rows) != 1:
        yield "the answer does not name one of the things alone"


def _expected(turn: Row, rows: list[Row], masks: list[np.ndarray], question: str, camera: Row) -> str:
    """The canonical answer of a turn."""
    kind, points = turn["kind"], turn["points"]
    named = [coordinates(point, 1) for point in points]
    on = [bool(masks[0][_pixel(point, camera)]) for point in points] if masks else []
    if kind == "named_point":
        return rows[0]["name"] if on == [True] else "elsewhere"
    if kind == "pointed_thing":
        return named[0] if on == [True] else "elsewhere"
    if kind == "point_on_thing":
        return "yes" if on == [True] else "no"
    if kind == "which_point":
        return named[on.index(True)] if sum(on) == 1 else "undecidable"
    if kind == "thing_box":
        corners = np.array([_pixel(point, camera) for point in points])
        return (
            f"{named[0]} to the point {named[1]}"
            if np.abs(corners - _corners(masks[0])).max() <= CORNER_SLACK_PX
            else "elsewhere"
        )
    orders = [order for order in ORDERS if re.search(rf"\b{order}\b", question)]
    if len(orders) != 1:
        return "undecidable"
    if kind == "point_order":
        chosen = clear_order(orders[0], *((point["x"], point["y"]) for point in points))
        return "undecidable" if chosen is None else named[chosen]
    size = np.array([camera["width"], camera["height"]])
    middles = [(_corners(mask).sum(axis=0) + 1)[::-1] / 2 / size for mask in masks]
    chosen = clear_order(orders[0], tuple(middles[0]), tuple(middles[1]))
    return "undecidable" if chosen is None else rows[chosen]["name"]


def mask_of(row: Row, camera: Row) -> np.ndarray:
    """The mask (H, W) of an object in its view, from its run lengths."""
    from pycocotools import mask as coco

    size = [camera["height"], camera["width"]]
    return np.asarray(coco.decode({"size": size, "counts": row["mask"].encode()}), dtype=bool)


def _pixel(point: Row, camera: Row) -> tuple[int, int]:
    """Row and column of the pixel that contains a point."""
    row, column = int(point["y"] * camera["height"]), int(point["x"] * camera["width"])
    return min(row, camera["height"] - 1), min(column, camera["width"] - 1)


def _corners(mask: np.ndarray) -> np.ndarray:
    """First and last pixel of a mask's bounding box, (2, 2), row and column."""
    places = np.argwhere(mask)
    return np.stack([places.min(axis=0), places.max(axis=0)])
