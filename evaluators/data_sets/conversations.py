"""Conversations of `spatialboost build`: turns with their kind and exact answer, about one image or several views."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from datasets import Dataset, concatenate_datasets
from PIL import Image as PillowImage

from evaluators.language.reading import (
    Point,
    read_length,
    read_letter,
    read_nearer,
    read_number,
    read_position,
    read_yes_no,
)
from evaluators.language.rows import UNREADABLE, configurations, decode, read_bytes, read_rows, spread

KINDS = (
    "point_depth", "point_position", "closer_point", "depth_difference", "depth_across_views", "left_right",
    "front_behind", "above_below", "taller_shorter", "bigger_smaller", "longest_side", "object_depth", "object_range",
    "surface_distance", "point_distance", "common", "adversarial", "multiple_choice",
)  # fmt: skip
NUMBERS, YES_NO, CHOICES = range(3)  # the forms of an answer that is scored
COLUMNS = ("images", "messages", "turns", "id")
TERMS = "pass a folder made by `spatialboost build` or a Hub id in its layout"

# what an answer is read to be: metres or a count, metres (right, down, forward), a word, the place of an option
Value = float | tuple[float, float, float] | str | int


@dataclass(frozen=True)
class Turn:
    """A question with its answer.

    Attributes:
        kind: one of `KINDS`, or another one that is not scored.
        form: NUMBERS, YES_NO or CHOICES; None for what is not scored, such as a caption.
        content: parts of the user's message.
        words: the data's whole answer.
        truth: what a right answer is read to be.
        options: of a choice between points.
    """

    kind: str
    form: int | None
    content: list[dict[str, Any]]
    words: str
    truth: Value | None = None
    options: tuple[Point, ...] = ()

    @property
    def question(self) -> str:
        """The text of the user's message, without what introduces the images."""
        return str(self.content[-1]["text"]).rsplit(" camera.\n", 1)[-1]

    def read(self, text: str) -> Value | None:
        """What an answer says, None where it cannot be read."""
        if self.options:
            return read_nearer(text, self.options)
        if isinstance(self.truth, tuple):
            return read_position(text)
        if isinstance(self.truth, float):
            return read_number(text) if self.kind in ("common", "adversarial") else read_length(text)
        return read_yes_no(text) if self.form == YES_NO else read_letter(text, 26)


@dataclass(frozen=True)
class Conversation:
    """Turns about the same images, up to the last one that is scored."""

    id: str
    num_images: int
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Conversations:
    """Conversations of one split.

    Attributes:
        conversations: with at least one turn that is scored.
        rows: in the same order.
        dropped: how many rows were left out, by reason.
        fingerprint: content hash of images and texts.
    """

    conversations: tuple[Conversation, ...]
    rows: Dataset
    dropped: dict[str, int]
    fingerprint: str

    def images(self, index: int) -> list[PillowImage.Image]:
        """The images of a conversation."""
        return [decode(image) for image in _encoded(self.rows, index)]

    def describe(self) -> dict[str, Any]:
        """Return what a report prints of a split."""
        return {"items": len(self.conversations), "dropped": self.dropped, "fingerprint": self.fingerprint}


def present_configurations(data: str, names: Sequence[str]) -> list[str]:
    """Those of the configurations that the data has.

    Raises:
        ValueError: it has none of them.
    """
    known = configurations(data)
    if not (present := [name for name in names if name in known]):
        raise ValueError(f"data {data!r} has no conversations ({', '.join(names)}): {TERMS}")
    return present


def load_conversations(data: str, split: str, names: Sequence[str], num_items: int | None = None) -> Conversations:
    """Load the conversations of a split, of all configurations that the data has among `names`.

    Args:
        data: folder or Hub id.
        split: "train" or "test"; only the images of "test" are looked at.
        names: of configurations.
        num_items: so many rows, evenly spread; None = all.

    Raises:
        ValueError: no such data, or nothing in it that can be scored.
    """
    present = present_configurations(data, names)
    parts = [read_rows(data, name, split, COLUMNS, TERMS).select_columns(list(COLUMNS)) for name in present]
    rows = concatenate_datasets(parts)
    rows = rows.select(spread(len(rows), num_items))
    texts = rows.select_columns(["id", "messages", "turns"])
    kept, conversations, digest = [], [], hashlib.sha256()
    dropped: dict[str, int] = {}
    for index, row in enumerate(texts):
        encoded = _encoded(rows, index) if split == "test" else []
        conversation, problem = _parse(row, encoded if split == "test" else None)
        if conversation is None:
            dropped[problem] = dropped.get(problem, 0) + 1
            continue
        kept.append(index)
        conversations.append(conversation)
        digest.update(json.dumps([row["messages"], row["turns"]], sort_keys=True).encode())
        for image in encoded:
            digest.update(read_bytes(image))
    if not kept:
        raise ValueError(f"data {data!r} has no turn that can be scored in split {split!r} ({dropped}): rebuild it")
    return Conversations(tuple(conversations), rows.select(kept), dropped, digest.hexdigest()[:16])


def _encoded(rows: Dataset, index: int) -> list[dict[str, Any]]:
    """The undecoded images of a row; casting the column of lists would copy all of them."""
    return rows.with_format("arrow")[index]["images"].to_pylist()[0]


def _parse(row: dict[str, Any], images: list[dict[str, Any]] | None) -> tuple[Conversation | None, str]:
    """The conversation of a row, or why there is none; images are looked at where they are given."""
    messages, turns = row["messages"], row["turns"]
    if [message["role"] for message in messages] != ["user", "assistant"] * len(turns):
        return None, "turns_do_not_match_messages"
    placeholders = sum(part["type"] == "image" for message in messages for part in message["content"])
    if images is not None:
        if placeholders != len(images):
            return None, "images_do_not_match_messages"
        try:
            for image in images:
                decode(image)
        except UNREADABLE:
            return None, "unreadable_file"
    parsed = list(map(_turn, turns, messages[::2], messages[1::2]))
    last = max((place for place, turn in enumerate(parsed) if turn.form is not None), default=-1)
    if last < 0:
        return None, "nothing_to_score"
    return Conversation(row["id"], placeholders, tuple(parsed[: last + 1])), ""


def _turn(turn: dict[str, Any], question: dict[str, Any], answer: dict[str, Any]) -> Turn:
    content = [
        {"type": "image"} if part["type"] == "image" else {"type": "text", "text": part["text"]}
        for part in question["content"]
    ]
    words = " ".join(part["text"] for part in answer["content"] if part["text"])
    make = partial(Turn, turn["kind"], content=content, words=words)
    points, short = turn["points"], turn["answer"]
    if turn["kind"] not in KINDS:
        return make(form=None)
    if turn["kind"] == "closer_point":
        options = tuple((point["x"], point["y"], point["view"] + 1) for point in points)
        return make(form=CHOICES, truth=read_nearer(short, options), options=options)
    if turn["kind"] == "point_position":
        return make(form=NUMBERS, truth=tuple(points[0]["position_m"]))
    if turn["value"] is not None:
        return make(form=NUMBERS, truth=float(turn["value"]))
    if short in ("yes", "no"):
        return make(form=YES_NO, truth=short)
    if turn["kind"] == "multiple_choice" and len(short) == 1:
        return make(form=CHOICES, truth=short)
    return make(form=None)  # free words
