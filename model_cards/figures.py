"""The pictures of the model cards, drawn with Pillow, whose own font is in every wheel: the same on every machine.

python -m model_cards.figures outputs/figures          # both, with made-up alpha, to look at
"""

import argparse
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

METHOD_NAME, ALPHA_NAME = "dual_channel.png", "alpha.png"
OVERSAMPLING = 2  # drawn larger and reduced, which smooths the edges
INK, QUIET, PAPER, GRID = "#1f2430", "#667085", "#ffffff", "#e4e7ec"
FROZEN, FROZEN_PAPER = "#3b6fb6", "#e8f0fa"
TRAINED, TRAINED_PAPER = "#d9480f", "#fff0e6"
LEAST_SPAN = 0.1  # of alpha: a mix that hardly moved must not look as if it had
Point = tuple[float, float]


class Sheet:
    """A white picture; all lengths are pixels of the finished one."""

    def __init__(self, width_px: int, height_px: int) -> None:
        """Begin an empty one."""
        self.size = width_px, height_px
        self.image = Image.new("RGB", (width_px * OVERSAMPLING, height_px * OVERSAMPLING), PAPER)
        self.draw = ImageDraw.Draw(self.image)

    def line(self, points: Sequence[Point], colour: str, width_px: float = 2) -> None:
        """Draw a line through the points."""
        self.draw.line(_scaled(points), fill=colour, width=round(width_px * OVERSAMPLING), joint="curve")

    def arrow(self, points: Sequence[Point], colour: str, dashed: bool = False) -> None:
        """Draw a line of horizontal and vertical parts with a head at its end."""
        for (x0, y0), (x1, y1) in pairwise(points):
            pieces = max(1, round(max(abs(x1 - x0), abs(y1 - y0)) / 12)) if dashed else 1
            for piece in range(pieces):
                shares = piece / pieces, (piece + (0.55 if dashed else 1)) / pieces
                self.line([(x0 + (x1 - x0) * share, y0 + (y1 - y0) * share) for share in shares], colour, 2.5)
        (x0, y0), (x, y) = points[-2:]
        across = abs(x - x0) >= abs(y - y0)
        back = 10 if (x < x0 if across else y < y0) else -10
        wings = [(x + back, y - 6), (x + back, y + 6)] if across else [(x - 6, y + back), (x + 6, y + back)]
        self.draw.polygon(_scaled([(x, y), *wings]), fill=colour)

    def box(self, corners: tuple[float, float, float, float], lines: Sequence[str], colour: str, paper: str) -> None:
        """Draw a rounded box (left, top, right, bottom) with lines of text, the first one larger."""
        left, top, right, bottom = corners
        self.draw.rounded_rectangle(
            [side * OVERSAMPLING for side in corners], 10 * OVERSAMPLING, paper, colour, 2 * OVERSAMPLING
        )
        middle = (top + bottom) / 2 - 12 * (len(lines) - 1)
        for place, text in enumerate(lines):
            self.text(((left + right) / 2, middle + 24 * place), text, 15 if place else 19, QUIET if place else INK)

    def text(self, point: Point, text: str, size_px: float, colour: str = INK, anchor: str = "mm") -> None:
        """Write a line of text; `anchor` as Pillow has it."""
        font = ImageFont.load_default(size_px * OVERSAMPLING)
        self.draw.text(_scaled([point])[0], text, fill=colour, font=font, anchor=anchor)

    def save(self, path: Path) -> None:
        """Write the picture as PNG."""
        self.image.resize(self.size, Image.Resampling.LANCZOS).save(path, optimize=True)


def draw_method(path: Path) -> None:
    """Draw the dual channel of one layer, and the way that the loss takes back to it (eq. 1 of the paper)."""
    sheet = Sheet(1080, 430)
    sheet.box((24, 160, 124, 230), ["image"], QUIET, PAPER)
    sheet.draw.rounded_rectangle([side * OVERSAMPLING for side in (170, 50, 664, 340)], 14 * OVERSAMPLING, None,
                                 GRID, 3 * OVERSAMPLING)  # fmt: skip
    sheet.text((186, 72), "vision encoder: the attention of every layer", 16, QUIET, "lm")
    sheet.box((250, 100, 420, 175), ["Attn", "as released, frozen"], FROZEN, FROZEN_PAPER)
    sheet.box((250, 215, 420, 290), ["Attn_plus", "began as its copy"], TRAINED, TRAINED_PAPER)
    sheet.box((545, 165, 625, 225), ["sum"], INK, PAPER)
    sheet.arrow([(124, 195), (210, 195), (210, 137), (250, 137)], INK)
    sheet.arrow([(210, 195), (210, 252), (250, 252)], INK)
    sheet.text((198, 182), "x", 18, INK)
    sheet.arrow([(420, 137), (585, 137), (585, 165)], FROZEN)
    sheet.arrow([(420, 252), (585, 252), (585, 225)], TRAINED)
    sheet.text((500, 120), "alpha · Attn(x)", 15, INK)
    sheet.text((436, 270), "(1 - alpha) · Attn_plus(x)", 15, INK, "lm")
    sheet.text((352, 318), "alpha = sigmoid(a), one per channel, 0.5 at first", 14, QUIET, "lm")
    sheet.arrow([(625, 195), (710, 195)], INK)
    sheet.box((710, 160, 820, 230), ["projector"], TRAINED, TRAINED_PAPER)
    sheet.arrow([(820, 195), (862, 195)], INK)
    sheet.box((862, 150, 1056, 240), ["language model", "frozen in stage 3"], FROZEN, FROZEN_PAPER)
    sheet.arrow([(959, 92), (959, 150)], INK)
    sheet.text((959, 76), "12 questions about 3D space", 15, QUIET)
    sheet.arrow([(959, 240), (959, 375), (335, 375), (335, 290)], TRAINED, dashed=True)
    sheet.text((676, 396), "the loss of its answers trains Attn_plus, alpha and the projector", 16, TRAINED)
    sheet.save(path)


def draw_alpha(path: Path, table: Sequence[dict[str, Any]]) -> None:
    """Draw alpha per layer: a dot for the mean, a bar from the least to the greatest channel.

    Args:
        path: of the PNG.
        table: rows with `layer`, `mean`, `min` and `max`, at least one; what `alpha_table()` returns.
    """
    left, top, right, bottom = 80, 56, 820, 300
    sheet = Sheet(860, 360)
    reach = max(LEAST_SPAN, 1.1 * max(abs(row[key] - 0.5) for row in table for key in ("min", "max")))
    low, high = max(0.0, 0.5 - reach), min(1.0, 0.5 + reach)

    def height(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - top)

    sheet.text((left, 24), "alpha per layer: mean of the channels, and their range", 17, INK, "lm")
    for place in range(5):
        value = low + place / 4 * (high - low)
        sheet.line([(left, height(value)), (right, height(value))], GRID, 3 if place == 2 else 1.5)
        sheet.text((left - 10, height(value)), f"{value:.2f}", 14, QUIET, "rm")
    step = (right - left) / len(table)
    every = -(-len(table) // 24)  # labels of 24 layers fit
    for place, row in enumerate(table):
        x, radius = left + (place + 0.5) * step, min(6, 0.3 * step)
        sheet.line([(x, height(row["min"])), (x, height(row["max"]))], "#f3a683", radius)
        y = height(row["mean"])
        sheet.draw.ellipse([side * OVERSAMPLING for side in (x - radius, y - radius, x + radius, y + radius)], TRAINED)
        if place % every == 0:
            sheet.text((x, bottom + 18), str(row["layer"]), 14, QUIET)
    sheet.text(((left + right) / 2, bottom + 44), "layer (above 0.5: more of the frozen attention)", 15, QUIET)
    sheet.save(path)


def _scaled(points: Sequence[Point]) -> list[Point]:
    return [(x * OVERSAMPLING, y * OVERSAMPLING) for x, y in points]


def make_parser() -> argparse.ArgumentParser:
    """The parser of `python -m model_cards.figures`."""
    parser = argparse.ArgumentParser(prog="python -m model_cards.figures", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("output", type=Path, help="folder for the two pictures")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Draw both; return 0."""
    output: Path = make_parser().parse_args(argv).output
    output.mkdir(parents=True, exist_ok=True)
    draw_method(output / METHOD_NAME)
    rows = [{"layer": n, "mean": 0.5 - 0.004 * n, "min": 0.45 - 0.006 * n, "max": 0.55} for n in range(24)]
    draw_alpha(output / ALPHA_NAME, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
