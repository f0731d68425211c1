"""The picture beside a card's example: the views of that very record, with its boxes and numbered points drawn."""

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dataset_builders.facts import RecordFacts, Row
from dataset_builders.inspection.drawing import EDGES, box_corners_px, colour_of, points_of
from dataset_builders.schema import message_text

VIEW_HEIGHT_PX, MAX_VIEWS, GAP_PX = 384, 3, 8
PAPER, INK = "#ffffff", "#000000"


def example_record(files: Iterable[Path], texts: list[str]) -> Row | None:
    """The record with these texts among the first rows of some files; None if it is not there."""
    from pyarrow.parquet import ParquetFile

    for path in files:
        with ParquetFile(path) as file:
            (row,) = next(file.iter_batches(batch_size=1)).to_pylist()
        if [message_text(one).strip() for one in row["messages"]] == texts:
            return row
    return None


def draw_example(record: Row, path: Path) -> None:
    """Draw the first views side by side: boxes with names, and rings with the numbers of the turns that ask there."""
    # a turn's own number is its place in the forward order: the card counts them as they stand
    record = record | {"turns": [turn | {"index": place} for place, turn in enumerate(record["turns"], start=1)]}
    facts = RecordFacts(record) if record["cameras"] else None
    views = [_drawn_view(record, facts, view) for view in range(min(len(record["images"]), MAX_VIEWS))]
    width = sum(view.width for view in views) + GAP_PX * (len(views) - 1)
    sheet, left = Image.new("RGB", (width, VIEW_HEIGHT_PX), PAPER), 0
    for view in views:
        sheet.paste(view, (left, 0))
        left += view.width + GAP_PX
    sheet.save(path, format="PNG", optimize=True)


def _drawn_view(record: Row, facts: RecordFacts | None, view: int) -> Image.Image:
    with Image.open(io.BytesIO(record["images"][view]["bytes"])) as image:
        scale = VIEW_HEIGHT_PX / image.height
        picture = image.convert("RGB").resize((round(image.width * scale), VIEW_HEIGHT_PX), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(picture)
    asked = {name for turn in record["turns"] if turn["level"] != "caption" for name in turn["object_ids"]}
    for row in record["objects"]:
        if facts is not None and view in row["visible_in"] and row["id"] in asked:
            corners = box_corners_px(facts, row, view)
            if corners is not None:
                _draw_box(draw, corners * scale, row, picture.size)
    for (x, y), numbers in points_of(record, view).items():
        u, v = x * picture.width, y * picture.height
        draw.ellipse((u - 5, v - 5, u + 5, v + 5), outline=INK, width=4)
        draw.ellipse((u - 4, v - 4, u + 4, v + 4), outline=PAPER, width=2)
        _label(draw, (u + 9, v - 9), numbers, INK, picture.size)
    return picture


def _draw_box(draw: ImageDraw.ImageDraw, corners_px: np.ndarray, row: Row, size: tuple[int, int]) -> None:
    for start, end in EDGES:
        draw.line([tuple(corners_px[start]), tuple(corners_px[end])], fill=colour_of(row["id"]), width=2)
    u, v = corners_px.min(axis=0)
    _label(draw, (u, v - 9), row["name"], colour_of(row["id"]), size)


def _label(
    draw: ImageDraw.ImageDraw, point: tuple[float, float], text: str, colour: str, size: tuple[int, int]
) -> None:
    """Text inside the picture, outlined so that it reads on anything; `point` is the middle of its left side."""
    font = ImageFont.load_default(14)
    left = min(max(point[0], 2), size[0] - font.getlength(text) - 2)
    top = min(max(point[1], 9), size[1] - 9)
    draw.text((left, top), text, fill=colour, font=font, anchor="lm", stroke_width=2, stroke_fill=PAPER)
