"""The one reading of every row before a baseline trains: what cannot be read, what is there, and its digests."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from PIL import Image as PillowImage

IGNORED_CLASS = 255


def examine(
    rows: Dataset, name: str, check: Callable[[pa.Table], dict[str, list[Any]]], num_proc: int | None
) -> dict[str, list[Any]]:
    """What `check` says of every row; the outcome is cached by `datasets`.

    Raises:
        ValueError: a row that cannot be read.
    """
    checked = rows.with_format("arrow").map(
        check,
        batched=True,
        batch_size=64,
        remove_columns=rows.column_names,
        num_proc=num_proc,
        desc=f"Checking {name}",
    )
    outcome = checked.with_format(None).to_dict()
    bad = [(place, problem) for place, problem in enumerate(outcome["problem"]) if problem]
    if bad:
        raise ValueError(
            f"datasets={name!r}: row {bad[0][0]} {bad[0][1]}; {len(bad)} of {len(rows)} rows cannot be trained on. "
            "Repair or drop them."
        )
    return outcome


def examine_views(batch: pa.Table) -> dict[str, list[Any]]:
    """Of each row: its problem ("" if none), digests of its images, its own digest, counts of masks and cameras."""
    return _as_columns([_examine_view_row(row) for row in batch.to_pylist()])


def _examine_view_row(row: dict[str, Any]) -> dict[str, Any]:
    problem, digests = "", []
    for number, image in enumerate(images_of(row), start=1):
        try:
            digests.append(hashlib.sha256(read_bytes(image)).hexdigest())
            decode_image(image)
        except (OSError, SyntaxError, ValueError, TypeError, PillowImage.DecompressionBombError) as error:
            problem = problem or f"has an image that cannot be read, number {number} ({error})"
    others = {name: row[name] for name in ("objects", "cameras") if name in row}
    digest = hashlib.sha256(json.dumps([digests, others], sort_keys=True).encode()).hexdigest()
    masks = sum(bool(row_object["mask"]) for row_object in row.get("objects") or ())
    # a single image needs no pose, and its intrinsics stand beside its depth
    cameras = len(row.get("cameras") or ()) or int(len(digests) == 1)
    return {"problem": problem, "digests": digests, "digest": digest, "masks": masks, "cameras": cameras}


def examine_maps(batch: pa.Table) -> dict[str, list[Any]]:
    """Of each dense row: problem, digest of the image, digests of the maps, whether it has depth and classes."""
    return _as_columns([_examine_map_row(row) for row in batch.to_pylist()])


def _examine_map_row(row: dict[str, Any]) -> dict[str, Any]:
    outcome = {"problem": "", "digest": "", "content": "", "depth": False, "classes": False, "max_class": -1}
    try:
        image, depth, classes = (decode_image(row[column]) for column in ("image", "depth", "segmentation"))
    except (OSError, SyntaxError, ValueError, TypeError, PillowImage.DecompressionBombError) as error:
        return outcome | {"problem": f"has an image or a map that cannot be read ({error})"}
    if not image.size == depth.size == classes.size:
        outcome["problem"] = f"has maps of {depth.size} and {classes.size} for an image of {image.size} pixels"
    ids = np.asarray(classes, dtype=np.int64)
    labelled = ids != IGNORED_CLASS
    contents = [hashlib.sha256(read_bytes(row[column])).hexdigest() for column in ("image", "depth", "segmentation")]
    return outcome | {
        "digest": contents[0],
        "content": "".join(contents[1:]),
        "depth": bool(np.asarray(depth).any()),
        "classes": bool(labelled.any()),
        "max_class": int(ids.max(initial=-1, where=labelled)),
    }


def _as_columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {key: [row[key] for row in rows] for key in rows[0]}


def images_of(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The undecoded images of a row of conversations, or of the configuration `dense`."""
    return row["images"] if "images" in row else [row["image"]]


def decode_image(encoded: dict[str, Any]) -> PillowImage.Image:
    """The image behind a cell of an undecoded image column, read to its end."""
    image = PillowImage.open(io.BytesIO(read_bytes(encoded)))
    image.load()
    return image


def read_bytes(encoded: dict[str, Any]) -> bytes:
    """The file behind a cell of an undecoded image column."""
    return encoded["bytes"] if encoded["bytes"] is not None else Path(encoded["path"]).read_bytes()
