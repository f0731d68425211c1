"""Practice in pointing, for stage 2 of the miniature: how bright is the image at (x, y), and what is there?

Stage 3 asks for numbers at points; a small language model learns where to look for them only from very many short
questions about points, which no `grounding` conversation has. Brightness is such a number, and pixels tell it alone:
nothing here speaks of depth or size. As it may be asked about any point, and neither the rest of the image nor what
was said before answers it, a model that does not look at the place cannot learn it. Three quarters of the questions
are put in one short wording, the easiest to learn from; the others ask as the dialogues ask for depth, or for names.
"""

import io
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from dataset_builders.configs import png
from dataset_builders.grounding_phrasings import GROUNDING_QUESTIONS
from dataset_builders.phrasings import PREAMBLE
from dataset_builders.schema import message, opening_parts

Row = dict[str, Any]
NUM_QUESTIONS = 16
NEIGHBOURS = 3  # pixels around a point that its brightness is the mean of: a square with sides of 7
BRIGHTNESS_QUESTIONS = (
    "How bright is {p}?",
    "What is the brightness at {p}?",
    "How bright is the image at {p}?",
    "Give the brightness value at {p}.",
    "Estimate the brightness of what is seen at {p}.",
    "Tell me how bright the surface at {p} is.",
)
BRIGHTNESS_ANSWERS = (
    "{value}.",
    "The brightness at {p} is {value}.",
    "At {p} the brightness is {value}.",
    "The surface at {p} has a brightness of {value}.",
)

NAMED = "At {p} we see the {value}."


class Asked(NamedTuple):
    """A question about a point, and its answer: templates with {p} for the point and {value} for the value."""

    kind: str
    template: str
    point: str
    question: str
    answer: str
    value: str


def masks_of(row: Row) -> Iterator[tuple[Row, np.ndarray]]:
    """The things that a row asks about, with their masks, (H, W) bool, in the view that they are stored in."""
    from pycocotools import mask as coco

    for item in row["objects"]:
        if item["usable"] and item["mask"]:
            camera = row["cameras"][item["view"]]
            coded = {"size": [camera["height"], camera["width"]], "counts": item["mask"].encode()}
            yield item, coco.decode(coded).astype(bool)


def pointing(row: Row, turned: bool = False) -> Row:
    """A `grounding` row with `NUM_QUESTIONS` about points of its image, in the order of chance.

    Args:
        row: with its image as the bytes of a file.
        turned: every other image, by chance, has its rows for columns: of an upright room the row alone tells much of
            the brightness, so that columns are learnt late.
    """
    chance = random.Random(f"{row['seed']}:{row['id']}:pointing")
    image: Image.Image = Image.open(io.BytesIO(row["images"][0]["bytes"]))
    masks = list(masks_of(row))
    if turned and chance.random() < 0.5:
        image, masks = image.transpose(Image.Transpose.TRANSPOSE), [(item, mask.T) for item, mask in masks]
        row = row | {"images": [png(np.asarray(image))]}
    things = [(item, np.argwhere(mask)) for item, mask in masks]
    grey = np.asarray(image.convert("L"), np.float32)

    def ask() -> Asked:
        kind = chance.choices(("plain", "worded", "named_point"), (6, 1, 1))[0]
        if kind == "named_point":
            item, pixels = chance.choice(things)
            v, u = (int(one) for one in chance.choice(pixels))
            return Asked(kind, kind, point(u, v, grey), chance.choice(GROUNDING_QUESTIONS[kind]), NAMED, item["name"])
        v, u = (chance.randrange(side) for side in grey.shape)
        wording = wordings(BRIGHTNESS_QUESTIONS, BRIGHTNESS_ANSWERS, kind == "worded", chance)
        return Asked("brightness", kind, point(u, v, grey), *wording, f"{brightness(grey, u, v):.1f}")

    return conversation(row, [ask() for _ in range(NUM_QUESTIONS)])


def wordings(
    questions: tuple[str, ...], answers: tuple[str, ...], any_of_them: bool, chance: random.Random
) -> tuple[str, str]:
    """A question and how its answer is said: the first of either, or any."""
    return (chance.choice(questions), chance.choice(answers)) if any_of_them else (questions[0], answers[0])


def conversation(row: Row, asked: list[Asked]) -> Row:
    """A row whose conversation is these questions and answers about its first image."""
    messages: list[Row] = []
    turns: list[Row] = []
    for index, (kind, template, p, question, answer, value) in enumerate(asked, start=1):
        text = question.format(p=p)
        parts = [text] if messages else opening_parts(1, f"\n{PREAMBLE}\n{text}")
        messages += [message("user", *parts), message("assistant", answer.format(p=p, value=value))]
        turns.append({
            "index": index, "level": "grounding", "kind": kind, "template": template, "frame": 0, "value": None,
            "unit": "", "answer": value, "margin": None, "points": [], "object_ids": [], "witness": [],
        })  # fmt: skip
    return row | {"messages": messages, "turns": turns}


def brightness(grey: np.ndarray, u: int, v: int) -> float:
    """Mean around a pixel of a grey image (H, W) of 0 to 255, from 0 for black to 9.9 for white."""
    around = grey[max(0, v - NEIGHBOURS) : v + NEIGHBOURS + 1, max(0, u - NEIGHBOURS) : u + NEIGHBOURS + 1]
    return 9.9 * float(around.mean()) / 255


def point(u: int, v: int, picture: np.ndarray) -> str:
    """A pixel of a picture (H, W) as the dialogues write it."""
    height, width = picture.shape
    return f"the point ({(u + 0.5) / width:.3f}, {(v + 0.5) / height:.3f})"
