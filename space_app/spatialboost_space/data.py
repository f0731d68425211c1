"""Rows of a reasoning data set, read straight from its Parquet files: a folder's, or those of a Hub repository."""

import os
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from spatialboost_space.errors import Refusal
from spatialboost_space.marks import Mark
from spatialboost_space.models import Unavailable
from spatialboost_space.settings import PARTS, part

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
MAX_GROUP_BYTES = 512 * 2**20
Row = dict[str, Any]


@lru_cache(maxsize=16)
def _files(source: str) -> dict[tuple[str, str], list[tuple[Any, str]]]:
    """(config, split) -> its files, each with the file system that opens it.

    Only the operator's own source may be a folder or be read with the operator's token: what a visitor names is a
    public repository on the Hub.
    """
    from fsspec.implementations.local import LocalFileSystem
    from huggingface_hub import HfFileSystem

    own = source == part("data")
    if own and os.path.isdir(source):
        system, root = LocalFileSystem(), os.path.abspath(source)
    elif HUB_ID.fullmatch(source) and ".." not in source:
        system, root = HfFileSystem(token=None if own else False), f"datasets/{source}"
    else:
        raise Refusal("That is no data set: give the id of a public one on the Hub, such as ORG/NAME.")
    try:
        paths = sorted(str(path) for path in system.glob(f"{root}/*/*.parquet"))
    except Exception as error:
        raise Refusal("That data set cannot be reached: is its id right, and is it public?") from error
    found: dict[tuple[str, str], list[tuple[Any, str]]] = {}
    for path in paths:
        config, name = path.split("/")[-2:]
        if config != "dense":  # depth maps without a dialogue
            found.setdefault((config, name.split("-")[0].removesuffix(".parquet")), []).append((system, path))
    if not found:
        raise Refusal("That data set has no files CONFIG/SPLIT-*.parquet.")
    return found


def source_or_default(source: str | None) -> str:
    """The data set that was named, else the operator's.

    Raises:
        Unavailable: neither is there.
    """
    chosen = (source or "").strip() or part("data")
    if not chosen:
        raise Unavailable(
            f"This Space has no data set of its own ({PARTS['data']} or SPATIALBOOST_BUNDLE): name one of the Hub."
        )
    return chosen


def choices(source: str) -> list[str]:
    """Everything in a data set as "config / split", single images first."""
    order = {"single_view": 0, "multi_view": 1, "multi_view_vqa": 2}

    def place(one: tuple[str, str]) -> tuple[int, str, bool, str]:
        return order.get(one[0], 9), one[0], one[1] != "train", one[1]

    return [f"{config} / {split}" for config, split in sorted(_files(source), key=place)]


def read_row(source: str, choice: str, index: int) -> tuple[Row, int]:
    """A row and the number of rows.

    Raises:
        Refusal: no such data set, configuration or row.
    """
    import pyarrow.parquet as parquet

    config, _, split = (choice or "").partition(" / ")
    files = _files(source).get((config, split))
    if files is None:
        raise Refusal(f"The data set has no such configuration and split: choose one of {', '.join(choices(source))}.")
    total, row = 0, None
    for system, path in files:
        with system.open(path, "rb") as stream:
            table = parquet.ParquetFile(stream)
            if "messages" not in table.schema_arrow.names:
                raise Refusal("That configuration has no dialogues (column `messages`).")
            for group in range(table.num_row_groups):
                count = table.metadata.row_group(group).num_rows
                if row is None and total <= index < total + count:
                    if table.metadata.row_group(group).total_byte_size > MAX_GROUP_BYTES:
                        raise Refusal("The rows of that data set come in groups too large for this Space.")
                    row = table.read_row_group(group).slice(index - total, 1).to_pylist()[0]
                total += count
    if row is None:
        raise Refusal(f"Row {index} is not there: the rows go from 0 to {total - 1}.")
    return row, total


def turns_of(row: Row) -> list[tuple[str, str]]:
    """Questions and answers as texts, a place for an image written as such."""
    texts = ["".join(part["text"] or "[image] " for part in message["content"]).strip() for message in row["messages"]]
    return list(zip(texts[::2], texts[1::2], strict=False))


def turn_marks(row: Row, turn: int | None = None) -> list[Mark]:
    """Points and objects that a turn speaks of (None: all turns), with their names."""
    rows = [row["turns"][turn]] if turn is not None else row.get("turns") or []
    marks: dict[tuple[Any, ...], Mark] = {}
    for one in rows:
        for point in one["points"] or []:
            place = point["view"], point["x"], point["y"]
            label = ", ".join(filter(None, [marks[place]["label"] if place in marks else "", str(one["index"])]))
            marks[place] = Mark(image=place[0], x=place[1], y=place[2], x1=None, y1=None, label=label)
        for item in row.get("objects") or []:
            if item["id"] in (one["object_ids"] or []) and item.get("mask"):
                camera = row["cameras"][item["view"]]
                left, top, right, bottom = mask_region(item["mask"], camera["height"], camera["width"])
                marks["object", item["id"]] = Mark(
                    image=item["view"], x=left, y=top, x1=right, y1=bottom, label=item["name"]
                )
    return list(marks.values())


def mask_region(counts: str, height: int, width: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom, normalised, of a mask in COCO's compressed run lengths, which go down columns."""
    edges = _run_edges(counts)
    columns, rows = set(), set()
    for start, end in zip(edges[0::2], edges[1::2], strict=False):
        if start == end:
            continue
        first, last = start // height, (end - 1) // height
        columns |= {first, last}
        rows |= {0, height - 1} if last > first else {start % height, (end - 1) % height}
    if not columns:
        return 0.0, 0.0, 0.0, 0.0
    return min(columns) / width, min(rows) / height, (max(columns) + 1) / width, (max(rows) + 1) / height


def _run_edges(counts: str) -> Sequence[int]:
    """Start and end of each run of the mask, in turn, as offsets."""
    lengths: list[int] = []
    value = shift = 0
    for letter in counts.encode():
        bits = letter - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                value -= 1 << shift  # negative
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
    offsets, edges = 0, []
    for length in lengths:
        offsets += length
        edges.append(offsets)
    return edges
