"""Rows of a data set on the Hub or in a folder, with their images still encoded."""

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, get_dataset_config_names, load_dataset_builder
from datasets.exceptions import DatasetsError
from PIL import Image, UnidentifiedImageError

from modeling_spatialboost.encoder_loading import first_line

UNREADABLE = (OSError, SyntaxError, TypeError, ValueError, UnidentifiedImageError)  # what PIL raises


def read_rows(data: str, configuration: str, split: str, columns: tuple[str, ...], terms: str) -> Dataset:
    """Return a split of a configuration in Parquet.

    Not by `load_dataset`, whose cache goes by a folder's name and card alone (datasets 5.2), so that a rebuilt folder
    would silently give the old rows.

    Args:
        data: folder or Hub id.
        configuration: of the data set.
        split: of the configuration.
        columns: which must be there.
        terms: what to pass instead, for the error.

    Raises:
        ValueError: no such data, configuration or split, or a column is missing.
    """
    try:
        files = load_dataset_builder(data, configuration).config.data_files[split]
        rows = Dataset.from_parquet([str(file) for file in files])
    except (OSError, ValueError, KeyError, TypeError, DatasetsError) as error:
        raise ValueError(
            f"data {data!r} has no split {split!r} of the configuration {configuration!r}: {terms} "
            f"({first_line(error)})"
        ) from error
    if missing := [name for name in columns if name not in rows.column_names]:
        raise ValueError(f"data {data!r} has no column {' and no column '.join(map(repr, missing))}: {terms}")
    return rows


def configurations(data: str) -> list[str]:
    """The names of a data set's configurations, [] where there is no such data."""
    try:
        return list(get_dataset_config_names(data))
    except (OSError, ValueError, DatasetsError):
        return []


def decode(encoded: dict[str, Any]) -> Image.Image:
    """Decode an image fully, as RGB."""
    return Image.open(io.BytesIO(read_bytes(encoded))).convert("RGB")


def read_bytes(encoded: dict[str, Any]) -> bytes:
    """Bytes of an undecoded image, which a data set holds itself or as a path."""
    return encoded["bytes"] or Path(encoded["path"]).read_bytes()


def spread(count: int, wanted: int | None) -> list[int]:
    """Indices of `wanted` of `count` items, evenly spread; all of them for None."""
    if wanted is None or wanted >= count:
        return list(range(count))
    return np.unique(np.linspace(0, count - 1, wanted).round().astype(int)).tolist()


def content_digest(images: list[dict[str, Any]]) -> str | None:
    """Hash of undecoded images, None where one of them is none."""
    digest = hashlib.sha256()
    try:
        for image in images:
            data = read_bytes(image)
            digest.update(data)
            Image.open(io.BytesIO(data)).close()  # reads the header only
    except UNREADABLE:
        return None
    return digest.hexdigest()[:16]
