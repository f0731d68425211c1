"""The only place that spells the columns of a record, and the gate that every record passes before it is written.

A record is a plain dict with the keys of `COLUMNS`. All configs (`single_view`, `multi_view`, `multi_view_vqa`,
`alignment`) share it; what a config does not know is an empty list or None. Conventions:

* Views are counted from 0 in the columns (`view`, `frame`, `visible_in`) and from 1 in the text ("image 1").
* Camera frames have OpenCV axes: x right, y down, z forward. A *canonical* frame belongs to a view: origin at its
  camera, x right, y up (against gravity where `up_world` is known, else against the image's y), z forward.
* Image coordinates in text and in `points` are normalised: x = (u + 0.5) / width, three decimals. The point is the
  pixel that contains it: u = floor(x * width), and its depth and position are those of that pixel's centre.
* Lengths are in metres in the columns. In text they are written by `geometry.format_length` and by nothing else.
"""

import random
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Features

GENERATOR_VERSION = "1"
LEVELS = ("pixel", "object", "scene", "caption", "vqa")
ORDERS = ("forward", "reverse", "random")
KINDS: dict[str, str] = {  # kind -> level
    "point_depth": "pixel",
    "point_position": "pixel",
    "closer_point": "pixel",
    "depth_difference": "pixel",
    "left_right": "object",
    "front_behind": "object",
    "above_below": "object",
    "taller_shorter": "object",
    "bigger_smaller": "object",
    "longest_side": "object",
    "surface_distance": "scene",
    "point_distance": "scene",
    "caption": "caption",
    "common": "vqa",
    "adversarial": "vqa",
    "multiple_choice": "vqa",
}


def features() -> "Features":
    """The column types of every config, in column order."""
    from datasets import Features, Image, List, Value

    text, real, whole, flag = Value("string"), Value("float64"), Value("int32"), Value("bool")
    vector = List(real, length=3)
    point = {"view": whole, "x": real, "y": real, "depth_m": real, "position_m": vector}
    camera = {
        "width": whole,
        "height": whole,
        "fx": real,
        "fy": real,
        "cx": real,
        "cy": real,
        "camera_to_world": List(real, length=16),  # row-major, rigid, OpenCV axes
    }
    described_object = {
        "id": whole,
        "name": text,
        "mention": text,  # the unique expression that the texts use, such as "the box at (0.310, 0.522)"
        "is_support": flag,
        "usable": flag,  # may be asked about: large enough, mostly visible, not a support
        "truncated": flag,  # cut by the image border in every view that shows it
        "occluded": flag,  # partly hidden behind something nearer
        "view": whole,  # the view that sees most of it; the frame of the fields below
        "visible_in": List(whole),
        "x": real,  # a pixel on the object, normalised, in `view`
        "y": real,
        "depth_m": real,  # median over the cleaned mask in `view`, along the optical axis
        "pixel_count": whole,  # in `view`, after cleaning
        "centre": vector,  # of the oriented box, canonical frame of `view`
        "size": vector,  # width (x), height (y), depth (z): extents along the canonical axes of `view`
        "dimensions": vector,  # sides of the oriented box: longest, middle, shortest
        "box_rotation": List(real, length=9),  # row i: unit direction of dimensions[i], canonical frame of `view`
    }
    turn = {
        "index": whole,  # 1-12: the place in the forward order; the list itself is in the order of the messages
        "level": text,
        "kind": text,
        "template": text,
        "frame": whole,  # the view whose frame the answer speaks of
        "value": real,  # the number that is the answer, in metres or a count; None for words
        "unit": text,  # "m", "cm" or ""
        "answer": text,  # short and canonical: "yes", "31.2 cm", "B"
        "margin": real,  # the decisive difference of a comparison, metres; None elsewhere
        "points": List(point),  # position_m in the camera frame of `frame`
        "object_ids": List(whole),
        "witness": List(vector),  # the two points, in world axes, that a distance is measured between
    }
    return Features(
        {
            "images": List(Image()),
            "messages": List({"role": text, "content": List({"type": text, "text": text})}),
            "id": text,
            "source": text,
            "licence": text,
            "split": text,
            "cameras": List(camera),  # one per image, or none where the geometry is unknown
            "up_world": vector,  # unit, against gravity; None where unknown
            "metric": flag,
            "scale_source": text,
            "depth_noise": real,  # relative standard deviation, sets the margins of the comparisons
            "order": text,
            "seed": Value("int64"),
            "generator_version": text,
            "objects": List(described_object),
            "turns": List(turn),
        }
    )


COLUMNS = (
    "images", "messages", "id", "source", "licence", "split", "cameras", "up_world", "metric", "scale_source",
    "depth_noise", "order", "seed", "generator_version", "objects", "turns",
)  # fmt: skip


def turn_order(indices: Iterable[int], order: str, seed: int, record_id: str) -> list[int]:
    """The order in which turns are asked: "forward", "reverse", or "random" (fixed by the seed and the record)."""
    ordered = sorted(indices, reverse=order == "reverse")
    if order == "random":
        random.Random(f"{seed}:{record_id}:order").shuffle(ordered)
    return ordered


def message(role: str, *parts: str | None) -> dict[str, Any]:
    """One message in TRL's vision format; a part is a text, or None for an image placeholder."""
    content = [{"type": "image", "text": None} if part is None else {"type": "text", "text": part} for part in parts]
    return {"role": role, "content": content}


def opening_parts(num_images: int, text: str) -> list[str | None]:
    """The first user turn: one placeholder per view, each introduced by its number when there are several."""
    if num_images == 1:
        return [None, text]
    parts: list[str | None] = []
    for number in range(1, num_images + 1):
        parts += [f"Image {number}: ", None]
    return [*parts, text]


def message_text(one_message: dict[str, Any]) -> str:
    """All text of a message, joined by spaces."""
    return " ".join(part["text"] for part in one_message["content"] if part["type"] == "text" and part["text"])


def validate(record: dict[str, Any]) -> list[str]:
    """Problems of a record; empty means that it may be written.

    Every number and every relation in the texts is derived again from `cameras`, `objects` and `turns`
    (see `verification.py`); nothing is taken from the text itself.
    """
    problems = [f"column {name!r} is missing" for name in COLUMNS if name not in record]
    problems += [f"column {name!r} is unknown" for name in record if name not in COLUMNS]
    if problems:
        return problems
    placeholders = sum(part["type"] == "image" for turn in record["messages"] for part in turn["content"])
    if placeholders != len(record["images"]):
        problems.append(f"{placeholders} image placeholders in messages, {len(record['images'])} in images")
    return problems
