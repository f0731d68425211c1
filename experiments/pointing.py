"""Practice in pointing, for stage 2 of the miniature: what is at (x, y)? Twelve times about one image.

A `grounding` conversation asks that once or twice, which is too seldom for a small language model. Here the things
whose masks such a row stores are asked about, each any number of times, so that no answer can be copied from another.
The answer says the point again before it names the thing, so that what is to be looked up stands right before it.
"""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np

from dataset_builders.grounding_phrasings import GROUNDING_QUESTIONS
from dataset_builders.phrasings import PREAMBLE
from dataset_builders.schema import message, opening_parts

Row = dict[str, Any]
NUM_QUESTIONS = 12
KIND = "named_point"


def masks_of(row: Row) -> Iterator[tuple[Row, np.ndarray]]:
    """The things that a row asks about, with their masks, (H, W) bool, in the view that they are stored in."""
    from pycocotools import mask as coco

    for item in row["objects"]:
        if item["usable"] and item["mask"]:
            camera = row["cameras"][item["view"]]
            coded = {"size": [camera["height"], camera["width"]], "counts": item["mask"].encode()}
            yield item, coco.decode(coded).astype(bool)


def pointing(row: Row, num_questions: int = NUM_QUESTIONS) -> Row:
    """A `grounding` row with that many questions about points of its things, in the order of chance."""
    chance = random.Random(f"{row['seed']}:{row['id']}:pointing")
    things = [(item, np.argwhere(mask)) for item, mask in masks_of(row)]
    messages: list[Row] = []
    turns: list[Row] = []
    for index in range(1, num_questions + 1):
        item, pixels = chance.choice(things)
        v, u = pixels[chance.randrange(len(pixels))]
        height, width = row["cameras"][0]["height"], row["cameras"][0]["width"]
        place = f"the point ({(u + 0.5) / width:.3f}, {(v + 0.5) / height:.3f})"
        question = chance.choice(GROUNDING_QUESTIONS[KIND]).format(p=place)
        parts = [question] if messages else opening_parts(1, f"\n{PREAMBLE}\n{question}")
        messages += [message("user", *parts), message("assistant", f"At {place} we see the {item['name']}.")]
        turns.append({
            "index": index, "level": "grounding", "kind": KIND, "template": KIND, "frame": 0, "value": None,
            "unit": "", "answer": item["name"], "margin": None, "points": [], "object_ids": [item["id"]],
            "witness": [],
        })  # fmt: skip
    return row | {"messages": messages, "turns": turns}
