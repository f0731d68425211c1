"""Points and regions of images: how a question names them, and where an answer speaks of them.

Coordinates are normalised, from (0, 0) in the top left corner to (1, 1) in the bottom right one, with three decimals,
as in the dialogues that the models are trained on.
"""

import re
from collections.abc import Sequence
from typing import Any, TypedDict

PREAMBLE = (
    "Image coordinates are written (x, y), from (0, 0) in the top left corner to (1, 1) in the bottom right corner. "
    "Depth is measured along the viewing direction of the camera."
)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NUMBER = r"([01](?:\.\d+)?)"
_PAIR = rf"\({_NUMBER}, ?{_NUMBER}\)"
_WHERE = r"(?: in image (\d+))?"
_BOX = re.compile(rf"{_PAIR}{_WHERE} to (?:the point )?{_PAIR}{_WHERE}")
_POINT = re.compile(rf"{_PAIR}{_WHERE}")
_POINT_ALONE = re.compile(_PAIR)
_LETTER = re.compile(r"\[([A-Z])\]")


class Mark(TypedDict):
    """A point, or with `x1` and `y1` a region, of an image, which is counted from 0."""

    image: int
    x: float
    y: float
    x1: float | None
    y1: float | None
    label: str


def read_marks(value: Any, num_images: int) -> list[Mark]:
    """The marks that a browser sent, brought into the image; what is none is left out."""
    marks: list[Mark] = []
    for item in value if isinstance(value, list) else []:
        try:
            image = int(item["image"])
            x, y = _inside(item["x"]), _inside(item["y"])
            x1 = None if item.get("x1") is None else _inside(item["x1"])
            y1 = None if item.get("y1") is None else _inside(item["y1"])
        except (AttributeError, KeyError, TypeError, ValueError):
            continue
        if not 0 <= image < num_images:
            continue
        if x1 is not None and y1 is not None:
            (x, x1), (y, y1) = sorted((x, x1)), sorted((y, y1))
            letter = LETTERS[sum(mark["x1"] is not None for mark in marks) % len(LETTERS)]
            marks.append(Mark(image=image, x=x, y=y, x1=x1, y1=y1, label=letter))
        else:
            marks.append(Mark(image=image, x=x, y=y, x1=None, y1=None, label=""))
    return marks


def _inside(value: Any) -> float:
    number = float(value)
    if number != number:
        raise ValueError("not a number")
    return round(min(max(number, 0.0), 1.0), 3)


def _where(mark: Mark, num_images: int) -> str:
    return f" in image {mark['image'] + 1}" if num_images > 1 else ""


def mention(mark: Mark, num_images: int) -> str:
    """How a question names a mark: "the point (0.586, 0.273) in image 2", or "[A]"."""
    if mark["x1"] is None:
        return f"the point ({mark['x']:.3f}, {mark['y']:.3f}){_where(mark, num_images)}"
    return f"[{mark['label']}]"


def declarations(question: str, marks: Sequence[Mark], num_images: int) -> str:
    """What [A], [B], ... of a question are, one sentence each; empty where it names none."""
    named = set(_LETTER.findall(question))
    return " ".join(
        f"[{mark['label']}] is the region from ({mark['x']:.3f}, {mark['y']:.3f}) to "
        f"({mark['x1']:.3f}, {mark['y1']:.3f}){_where(mark, num_images)}."
        for mark in marks
        if mark["x1"] is not None and mark["label"] in named
    )


def spoken_marks(text: str, num_images: int, regions: Sequence[Mark] = ()) -> list[Mark]:
    """The points, boxes and regions that a text speaks of, each once.

    Args:
        text: an answer.
        num_images: points of an image that is not there are left out.
        regions: what [A], [B], ... stand for.
    """
    found: list[Mark] = []
    for x, y, _, x1, y1, image in _BOX.findall(text):
        found += read_marks([{"image": int(image or 1) - 1, "x": x, "y": y, "x1": x1, "y1": y1}], num_images)
    found += named_points(_BOX.sub("", text), num_images)
    named = set(_LETTER.findall(text))
    found += [region for region in regions if region["label"] in named]
    for mark in found:
        mark["label"] = mark["label"] if mark in regions else ""
    return [mark for place, mark in enumerate(found) if mark not in found[:place]]


def named_points(text: str, num_images: int) -> list[Mark]:
    """The points that a text names, in their order; those of an image that is not there are left out."""
    return [
        mark
        for x, y, image in _POINT.findall(text)
        for mark in read_marks([{"image": int(image or 1) - 1, "x": x, "y": y}], num_images)
    ]


def on_grid(text: str, grid: tuple[int, int] | None) -> str:
    """A text whose coordinates are centres of pixels, as in the dialogues that the models are trained on.

    Args:
        text: a question.
        grid: columns and rows of the image as the model sees it; None where they are not known.
    """
    if grid is None:
        return text

    def centre(number: str, pixels: int) -> str:
        return f"{(min(int(float(number) * pixels), pixels - 1) + 0.5) / pixels:.3f}"

    return _POINT_ALONE.sub(lambda pair: f"({centre(pair[1], grid[0])}, {centre(pair[2], grid[1])})", text)


def opening(num_images: int, text: str) -> list[dict[str, str]]:
    """The first question's content: a place per image, numbered where there are several, and the coordinates' rule."""
    image, text_of = {"type": "image"}, "{}"
    parts: list[dict[str, str]] = [image]
    if num_images > 1:
        parts = [part for n in range(num_images) for part in ({"type": "text", "text": f"Image {n + 1}: "}, image)]
        text_of = "\n{}"
    return [*parts, {"type": "text", "text": text_of.format(f"{PREAMBLE}\n{text}")}]


def conversation(num_images: int, turns: Sequence[tuple[str, str]], question: str) -> list[dict[str, Any]]:
    """Messages for the model: the answered turns, each (question, answer), and the question that is open."""
    messages: list[dict[str, Any]] = []
    for asked, answered in [*turns, (question, None)]:
        content = [{"type": "text", "text": asked}] if messages else opening(num_images, asked)
        messages.append({"role": "user", "content": content})
        if answered is not None:
            messages.append({"role": "assistant", "content": [{"type": "text", "text": answered}]})
    return messages
