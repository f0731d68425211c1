"""Questions as pictures: the image, the question and its answer, and what both models said."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

RIGHT, WRONG = "#2a7d3a", "#b03a2e"
HEIGHT_PX, GAP_PX = 240, 6
MOST_VIEWS = 4
LETTERS_A_LINE, MOST_LINES = 88, 5


def shown_question(
    images: Sequence[Image.Image], question: str, truth: str, answer: str, right: bool
) -> dict[str, np.ndarray]:
    """An example for `save_answers`; of many images four that are evenly spread stand side by side."""
    chosen = np.unique(np.linspace(0, len(images) - 1, min(len(images), MOST_VIEWS)).round().astype(int))
    views = [images[index] for index in chosen]
    scaled = [view.resize((max(1, view.width * HEIGHT_PX // view.height), HEIGHT_PX)) for view in views]
    strip = Image.new("RGB", (sum(view.width + GAP_PX for view in scaled) - GAP_PX, HEIGHT_PX), "white")
    left = 0
    for view in scaled:
        strip.paste(view, (left, 0))
        left += view.width + GAP_PX
    texts = {"question": question, "truth": truth, "answer": answer}
    return {
        "image": np.asarray(strip),
        **{name: np.array(text) for name, text in texts.items()},
        "right": np.array(right),
    }


def save_answers(file: Path, base: list[dict[str, np.ndarray]], boosted: list[dict[str, np.ndarray]]) -> None:
    """Draw a row per example: the images at the left, the texts at the right; right answers green, wrong ones red.

    Args:
        file: PNG.
        base: examples of `shown_question`.
        boosted: the same questions.
    """
    figure = Figure(figsize=(13, 3.1 * len(base)), layout="constrained")
    axes = figure.subplots(len(base), 2, squeeze=False, width_ratios=(5, 8))
    for (picture, words), ours, theirs in zip(axes, base, boosted):
        picture.imshow(ours["image"])
        picture.set_axis_off()
        words.set_axis_off()
        line = 0.0
        for name, example, key in (
            ("question", ours, "question"),
            ("truth", ours, "truth"),
            ("base", ours, "answer"),
            ("boosted", theirs, "answer"),
        ):
            line = _write(words, line, name, str(example[key]), bool(example["right"]) if key == "answer" else None)
    figure.savefig(file, dpi=100)


def _write(axis: Any, line: float, name: str, text: str, right: bool | None) -> float:
    """Write one text from a line on; return the line of the next."""
    lines = [piece for part in text.splitlines() for piece in textwrap.wrap(part, LETTERS_A_LINE)] or ["(nothing)"]
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES - 1], "..."]
    mark = "" if right is None else (" ✓" if right else " ✗")
    colour = "black" if right is None else (RIGHT if right else WRONG)
    top = 1 - line / (2 * MOST_LINES + 2)
    style = {"transform": axis.transAxes, "va": "top", "color": colour, "fontsize": 10}
    axis.text(0, top, name + mark, fontweight="bold", **style)
    axis.text(0.14, top, "\n".join(lines).replace("$", r"\$"), **style)
    return line + len(lines) + 0.6
