"""Questions as pictures: the image, the question and its answer, and what both models said."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

RIGHT, WRONG = "#2a7d3a", "#b03a2e"
HEIGHT_PX, GAP_PX = 240, 6
MOST_VIEWS = 4
LETTERS_A_LINE, QUESTION_LINES, ANSWER_LINES = 88, 9, 5
LINE_INCHES, FEWEST_LINES = 0.21, 13


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
    rows = [_texts(ours, theirs) for ours, theirs in zip(base, boosted)]
    heights = [max(FEWEST_LINES, sum(len(lines) + 0.6 for _, lines, _ in row)) for row in rows]
    figure = Figure(figsize=(13, LINE_INCHES * sum(heights)), layout="constrained")
    axes = figure.subplots(len(base), 2, squeeze=False, width_ratios=(5, 8), height_ratios=heights)
    for (picture, words), example, row, height in zip(axes, base, rows, heights):
        picture.imshow(example["image"])
        picture.set_anchor("NW")
        line = 0.0
        for name, lines, colour in row:
            style = {"transform": words.transAxes, "va": "top", "color": colour, "fontsize": 10}
            words.text(0, 1 - line / height, name, fontweight="bold", **style)
            words.text(0.14, 1 - line / height, "\n".join(lines).replace("$", r"\$"), **style)
            line += len(lines) + 0.6
    for axis in axes.flat:
        axis.set_axis_off()
    figure.savefig(file, dpi=100)


def _texts(base: dict[str, np.ndarray], boosted: dict[str, np.ndarray]) -> list[tuple[str, list[str], str]]:
    """Name, lines and colour of every text of an example."""
    texts = [(name, _lines(str(base[name]), QUESTION_LINES), "black") for name in ("question", "truth")]
    for name, example in (("base", base), ("boosted", boosted)):
        mark, colour = ("✓", RIGHT) if example["right"] else ("✗", WRONG)
        texts.append((f"{name} {mark}", _lines(str(example["answer"]), ANSWER_LINES), colour))
    return texts


def _lines(text: str, most: int) -> list[str]:
    """A text wrapped into at most so many lines."""
    lines = [piece for part in text.splitlines() for piece in textwrap.wrap(part, LETTERS_A_LINE)] or ["(nothing)"]
    return lines if len(lines) <= most else [*lines[: most - 1], "..."]
