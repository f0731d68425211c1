"""Pictures of whole-image tasks: what was recognised or found, right or wrong told by sign, line and colour."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

# blue and vermilion of Okabe and Ito: told apart whatever one's colour vision
RIGHT, WRONG = "#0072B2", "#D55E00"
COLUMNS = 4
Examples = list[dict[str, np.ndarray]]


def save_labels(file: Path, base: Examples, boosted: Examples) -> None:
    """Draw pictures with their class and what each encoder takes them for.

    Args:
        file: PNG.
        base: per picture `image` (H, W, 3), `truth` and `prediction`, names.
        boosted: of the same pictures.
    """
    rows = -(-len(base) // COLUMNS)
    figure = Figure(figsize=(2.8 * COLUMNS, 3.3 * rows), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False)
    for axis in axes.flat[len(base) :]:
        axis.set_axis_off()
    for axis, ours, theirs in zip(axes.flat, base, boosted):
        axis.imshow(ours["image"])
        axis.set(xticks=[], yticks=[])
        axis.set_title(str(ours["truth"]), fontsize="medium")
        axis.set_xlabel("\n\n")  # the room of both lines
        for line, (name, example) in enumerate((("base", ours), ("boosted", theirs))):
            text, colour = _verdict(name, example)
            place = {"xycoords": "axes fraction", "xytext": (0, -4 - 13 * line), "textcoords": "offset points"}
            axis.annotate(text, (0.5, 0), ha="center", va="top", color=colour, fontsize="small", **place)
    figure.savefig(file, dpi=100)


def save_hits(file: Path, base: Examples, boosted: Examples) -> None:
    """Draw each query with the first hits of both encoders, base above boosted.

    Args:
        file: PNG.
        base: per query `query` (S, S, 3), `hits` (K, S, S, 3) and `right` (K,).
        boosted: of the same queries.
    """
    num_hits = len(base[0]["hits"])
    figure = Figure(figsize=(1.5 * (num_hits + 1) + 0.8, 3.2 * len(base)), layout="constrained")
    grid = figure.add_gridspec(2 * len(base), num_hits + 1)
    for number, pair in enumerate(zip(base, boosted)):
        query = figure.add_subplot(grid[2 * number : 2 * number + 2, 0])
        query.imshow(pair[0]["query"])
        query.set(xticks=[], yticks=[], title="query" if number == 0 else "")
        for side, (name, example) in enumerate(zip(("base", "boosted"), pair)):
            for place, (hit, right) in enumerate(zip(example["hits"], example["right"])):
                axis = figure.add_subplot(grid[2 * number + side, place + 1])
                _draw_hit(axis, hit, bool(right))
                if place == 0:
                    axis.set_ylabel(name)
    figure.savefig(file, dpi=100)


def _draw_hit(axis: Any, hit: np.ndarray, right: bool) -> None:
    """Frame a hit, solid if it is right, dashed if it is wrong."""
    axis.imshow(hit)
    axis.set(xticks=[], yticks=[])
    for edge in axis.spines.values():
        edge.set(color=_colour(right), linewidth=3, linestyle="-" if right else (0, (3, 1.5)))
    axis.set_title(_sign(right), color=_colour(right), fontsize="small", pad=3)


def _verdict(name: str, example: dict[str, np.ndarray]) -> tuple[str, str]:
    right = bool(example["prediction"] == example["truth"])
    return f"{_sign(right)} {name}: {example['prediction']}", _colour(right)


def _sign(right: bool) -> str:
    return "✓" if right else "✗"


def _colour(right: bool) -> str:
    return RIGHT if right else WRONG
