"""The only place that spells the columns of a record, and the gate that every record passes before it is written.

A record is a plain dict with the keys of `COLUMNS`. All configs (`single_view`, `multi_view`, `multi_view_vqa`,
`alignment`, `grounding`) share it; what a config does not know is an empty list or None. Conventions:

* Views are counted from 0 in the columns (`view`, `frame`, `visible_in`) and from 1 in the text ("image 1").
* Camera frames have OpenCV axes: x right, y down, z forward. A *canonical* frame belongs to a view: origin at its
  camera, x right, y up (against gravity where `up_world` is known, else against the image's y), z forward.
* Image coordinates in text and in `points` are normalised: x = (u + 0.5) / width, three decimals. The point is the
  pixel that contains it: u = floor(x * width), and its depth and position are those of that pixel's centre.
* Lengths are in metres in the columns. In text they are written by `geometry.format_length` and by nothing else.
"""

import io
import random
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from PIL import Image

from dataset_builders.phrasings import PREAMBLE
from dataset_builders.verification import verify

if TYPE_CHECKING:
    from datasets import Features

GENERATOR_VERSION = "2"
LEVELS = ("pixel", "object", "scene", "caption", "vqa", "grounding")
ORDERS = ("forward", "reverse", "random")
KINDS: dict[str, str] = {  # kind -> level
    "point_depth": "pixel",
    "point_position": "pixel",
    "closer_point": "pixel",
    "depth_difference": "pixel",
    "depth_across_views": "pixel",
    "left_right": "object",
    "front_behind": "object",
    "above_below": "object",
    "taller_shorter": "object",
    "bigger_smaller": "object",
    "longest_side": "object",
    "object_depth": "object",
    "object_range": "object",
    "surface_distance": "scene",
    "point_distance": "scene",
    "caption": "caption",
    "common": "vqa",
    "adversarial": "vqa",
    "multiple_choice": "vqa",
    "named_point": "grounding",
    "pointed_thing": "grounding",
    "point_on_thing": "grounding",
    "which_point": "grounding",
    "thing_box": "grounding",
    "point_order": "grounding",
    "thing_order": "grounding",
}

# How many points and objects a turn of a kind speaks of; captions and VQA are free
ARITY = {
    "point_depth": (1, 0),
    "point_position": (1, 0),
    "depth_across_views": (1, 0),
    "closer_point": (2, 0),
    "depth_difference": (2, 0),
    "left_right": (0, 2),
    "front_behind": (0, 2),
    "above_below": (0, 2),
    "taller_shorter": (0, 2),
    "bigger_smaller": (0, 2),
    "longest_side": (0, 1),
    "object_depth": (0, 1),
    "object_range": (0, 1),
    "surface_distance": (0, 2),
    "point_distance": (2, 0),
    "named_point": (1, 1),
    "pointed_thing": (1, 1),
    "point_on_thing": (1, 1),
    "which_point": (2, 1),
    "thing_box": (2, 1),
    "point_order": (2, 0),
    "thing_order": (0, 2),
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
    described_object = {  # a support is known by name only: its measures are None
        "id": whole,
        "name": text,
        "mention": text,  # the unique expression that the texts use, such as "the box that is behind the sofa"
        "is_support": flag,
        "usable": flag,  # may be asked about: large enough, mostly visible, not a support
        "truncated": flag,  # cut by the image border in every view that shows it
        "occluded": flag,  # partly hidden behind something nearer, or partly without depth
        "view": whole,  # the view that sees most of it; the frame of the fields below
        "visible_in": List(whole),
        "x": real,  # a pixel on the object, normalised, in `view`
        "y": real,
        "depth_m": real,  # median over the cleaned mask in `view`, along the optical axis
        "pixel_count": whole,  # in `view`, after cleaning
        "mask": text,  # in `view`, before cleaning: COCO's compressed run lengths
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
            "overlap": real,  # least share that a view sees of the view most like it; None where views were not chosen
            "order": text,
            "seed": Value("int64"),
            "generator_version": text,
            "objects": List(described_object),
            "turns": List(turn),
        }
    )


COLUMNS = (
    "images", "messages", "id", "source", "licence", "split", "cameras", "up_world", "metric", "scale_source",
    "depth_noise", "overlap", "order", "seed", "generator_version", "objects", "turns",
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
    problems = problems or [*image_problems(record), *message_problems(record), *_turn_problems(record)]
    if problems:
        return problems
    texts = [message_text(one).removeprefix(PREAMBLE).strip() for one in _without_openings(record)]
    return verify(record, list(zip(texts[::2], texts[1::2])))


def image_problems(record: dict[str, Any]) -> Iterator[str]:
    """Every image opens, has the size of its camera, and has its numbered place in the first user turn."""
    for number, (image, camera) in enumerate(zip(record["images"], record["cameras"]), start=1):
        size = image.size if isinstance(image, Image.Image) else Image.open(io.BytesIO(image["bytes"])).size
        if size != (camera["width"], camera["height"]):
            yield f"image {number} measures {size}, its camera {(camera['width'], camera['height'])}"
    contents = [one["content"] for one in record["messages"]]
    placeholders = sum(part["type"] == "image" for content in contents for part in content)
    if placeholders != len(record["images"]):
        yield f"{placeholders} image placeholders in messages, {len(record['images'])} in images"
    elif contents:
        expected = opening_parts(placeholders, "") if placeholders else [""]
        opening = [None if part["type"] == "image" else part["text"] for part in contents[0]]
        if opening[:-1] != expected[:-1]:
            yield "the first user turn does not introduce the images in view order, each by its number"


def message_problems(record: dict[str, Any]) -> Iterator[str]:
    """Roles alternate, nobody is silent, and coordinates are declared before they are used."""
    roles = [one["role"] for one in record["messages"]]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        yield f"roles {roles} do not alternate between user and assistant"
        return
    texts = [message_text(one) for one in record["messages"]]
    if not all(text.strip() for text in texts):
        yield "a message has no text"
    if PREAMBLE not in texts[0] and any(re.search(r"\(\d\.\d+, \d\.\d+\)", text) for text in texts):
        yield "coordinates are used but never declared"


def _turn_problems(record: dict[str, Any]) -> Iterator[str]:
    """One turn per pair of messages, of a known kind, in the order that `order` says."""
    turns = record["turns"]
    if 2 * len(turns) != len(record["messages"]):
        yield f"{len(turns)} turns for {len(record['messages'])} messages"
    for turn in turns:
        if KINDS.get(turn["kind"]) != turn["level"]:
            yield f"turn {turn['index']}: kind {turn['kind']!r} is not of level {turn['level']!r}"
        if turn["kind"] in ARITY and (len(turn["points"]), len(turn["object_ids"])) != ARITY[turn["kind"]]:
            yield f"turn {turn['index']}: kind {turn['kind']!r} speaks of {ARITY[turn['kind']]} points and objects"
    indices = [turn["index"] for turn in turns]
    if record["order"] not in ORDERS:
        yield f"order {record['order']!r} is none of {ORDERS}"
    elif len(set(indices)) < len(indices) or indices != turn_order(
        indices, record["order"], record["seed"], record["id"]
    ):
        yield f"turns {indices} are not in {record['order']} order"


def _without_openings(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages, the first one without the words that introduce the images."""
    first, *rest = record["messages"]
    return [message("user", first["content"][-1]["text"].strip()), *rest]
