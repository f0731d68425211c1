"""ImageNet-1k: folders `train/n01440764/*.JPEG` and `val/n01440764/*.JPEG`, or Parquet or tar shards off the Hub."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

from evaluators.data_sets.image_folder import (
    SUFFIXES,
    LabelledData,
    LabelledPictures,
    check_limit,
    label_pictures,
    read_classes,
)
from modeling_spatialboost.encoder_loading import first_line

NUM_CLASSES = 1_000
SPLIT_SIZES = (1_281_167, 50_000)
BELOW = ("", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")  # where the official archives and Kaggle's have train/ and val/
COLUMNS = (("image", "label"), ("jpg", "cls"))  # ILSVRC/imagenet-1k, timm/imagenet-1k-wds


@dataclass(frozen=True)
class PictureRows:
    """Pictures in the rows of a `datasets.Dataset`."""

    rows: datasets.Dataset
    column: str
    digests: tuple[str, ...] = ()  # whether two rows are equal is not known

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Image.Image:
        return self.rows[int(index)][self.column].convert("RGB")

    @property
    def fingerprint(self) -> str:
        """Of the files that the rows come from, and of how they were chosen."""
        return hashlib.sha256(f"{self.rows._fingerprint} {self.column}".encode()).hexdigest()[:16]

    def select(self, indices: Sequence[int] | np.ndarray) -> "PictureRows":
        """Some of them, in that order."""
        return PictureRows(self.rows.select(indices), self.column)


@lru_cache(maxsize=2)
def load_imagenet(data: str, limit: int | None = None) -> LabelledData:
    """Read ImageNet-1k, trained on `train` and reported on `val`, whose labels are public.

    Args:
        data: a folder, or the Hub id of ILSVRC/imagenet-1k or timm/imagenet-1k-wds.
        limit: at most so many pictures of each split.

    Raises:
        ValueError: if there is neither, or access to the Hub's copy was not granted.
    """
    check_limit(limit)
    roots = [Path(data) / below for below in BELOW]
    root = next((root for root in roots if (root / "train").is_dir() and (root / "val").is_dir()), None)
    if root is not None and any((root / "train").glob("*/")):
        train, test, class_names = _read_folders(root, limit)
    elif any((Path(data) / "train").glob("*/")):
        raise ValueError(f"data {data!r} has train/ and no val/, so it is no ImageNet-1k: pass it as folder={data}")
    else:
        (train, class_names), (test, _) = (_read_rows(data, splits, limit) for splits in ("train", "validation"))
    for part in (train, test):
        if (wrong := part.labels[(part.labels < 0) | (part.labels >= len(class_names))]).size:
            raise ValueError(f"data {data!r} has the label {wrong[0]} but {len(class_names)} classes: relabel it")
    whole = len(class_names) == NUM_CLASSES and (len(train.labels), len(test.labels)) == SPLIT_SIZES
    differs = (
        "" if whole else f"not the whole of ImageNet-1k: {len(class_names)} classes, {len(test.labels)} test pictures"
    )
    return LabelledData(data, train, test, class_names, "Trained on `train`, reported on `val`.", differs)


def _read_folders(root: Path, limit: int | None) -> tuple[LabelledPictures, LabelledPictures, tuple[str, ...]]:
    if any(file.suffix.lower() in SUFFIXES for file in (root / "val").iterdir()):
        raise ValueError(
            f"data {str(root)!r} has all pictures of val/ in one folder: move them into class folders, as PyTorch's "
            "valprep.sh does"
        )
    train, test = read_classes(root / "train"), read_classes(root / "val")
    if unknown := sorted(set(test) - set(train)):
        raise ValueError(f"data {str(root)!r} has the class {unknown[0]!r} in val/ only: add it to train/")
    names = tuple(train)
    return label_pictures(root / "train", train, names, limit), label_pictures(root / "val", test, names, limit), names


def _read_rows(data: str, split: str, limit: int | None) -> tuple[LabelledPictures, tuple[str, ...]]:
    """Load one split off the Hub or from a copy of its repository."""
    try:
        rows = _load_rows(data, split, limit)
    except (OSError, ValueError, KeyError, datasets.exceptions.DatasetNotFoundError) as error:
        raise ValueError(
            f"data {data!r} is neither a folder with train/CLASS/ and val/CLASS/ nor a data set that can be loaded: "
            "ImageNet-1k on the Hub is gated, accept its terms on its page and log in with `hf auth login` "
            f"({first_line(error)})"
        ) from error
    columns = next((pair for pair in COLUMNS if set(pair) <= set(rows.column_names)), None)
    if columns is None:
        raise ValueError(f"data {data!r} has neither the columns image and label nor jpg and cls: pass ImageNet-1k")
    image, label = columns
    labels = np.asarray(rows.with_format("numpy", columns=[label])[label], np.int64)
    names = getattr(rows.features[label], "names", None) or [str(number) for number in range(int(labels.max()) + 1)]
    return LabelledPictures(PictureRows(rows, image), labels), tuple(names)


def _load_rows(data: str, split: str, limit: int | None) -> Any:
    if os.path.isdir(data):
        # not by its name: that cache goes by the folder's name and card alone (datasets 5.2)
        files = [str(file) for file in datasets.load_dataset_builder(data).config.data_files[split]]
        packed = "webdataset" if files[0].endswith(".tar") else "parquet"
        rows = datasets.load_dataset(packed, data_files={split: files}, split=split)
    elif limit is not None:  # no more is downloaded than is looked at
        streamed = datasets.load_dataset(data, split=split, streaming=True)
        return datasets.Dataset.from_list(list(streamed.take(limit)), features=streamed.features)
    else:
        rows = datasets.load_dataset(data, split=split)
    return rows if limit is None else rows.select(range(min(limit, len(rows))))
