"""Pictures in files: any list of them, and those that lie in one folder per class."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from tqdm import tqdm

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
TEST_NAMES = ("test", "val", "validation", "valid")
TEST_SHARE = 0.2
DIGESTED_BYTES = 4096  # of either end of a file: the whole of a small one
LISTED_NAMES = 20
MANY_FILES = 10_000  # to read that many takes a while
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels


class Pictures(Protocol):
    """A sequence of RGB pictures, decoded when asked for."""

    @property
    def fingerprint(self) -> str:
        """Stands for the content."""

    @property
    def digests(self) -> tuple[str, ...]:
        """One per picture, equal for equal pictures; empty where that is not known."""

    def __len__(self) -> int:
        """How many."""

    def __getitem__(self, index: int) -> Image.Image:
        """Decode one."""

    def select(self, indices: Sequence[int] | np.ndarray) -> "Pictures":
        """Some of them, in that order."""


@dataclass(frozen=True)
class PictureFiles:
    """Pictures in files.

    Attributes:
        root: folder of all of them.
        names: paths below it.
        boxes: per picture what it is cropped to; None for all of it.
    """

    root: Path
    names: tuple[str, ...]
    boxes: tuple[Box, ...] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Image.Image:
        try:
            with Image.open(self.root / self.names[index]) as image:
                picture = image.convert("RGB")
        except (OSError, SyntaxError) as error:
            raise ValueError(
                f"picture {str(self.root / self.names[index])!r} cannot be read: fetch it anew or remove it ({error})"
            ) from error
        return picture if self.boxes is None else picture.crop(self.boxes[index])

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """Per picture a hash of its size, its first and last 4 kB and its box."""
        rows = tqdm(range(len(self)), desc=f"fingerprint of {self.root.name}", disable=len(self) < MANY_FILES)
        return tuple(self._digest(index) for index in rows)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all digests, in order."""
        return hashlib.sha256("".join(self.digests).encode()).hexdigest()[:16]

    def select(self, indices: Sequence[int] | np.ndarray) -> "PictureFiles":
        """Some of them, in that order."""
        boxes = None if self.boxes is None else tuple(self.boxes[index] for index in indices)
        return PictureFiles(self.root, tuple(self.names[index] for index in indices), boxes)

    def require(self) -> "PictureFiles":
        """Return itself if every file is there.

        Raises:
            ValueError: with all that are missing.
        """
        if missing := [name for name in self.names if not (self.root / name).is_file()]:
            more = f" and {len(missing) - LISTED_NAMES} more" if len(missing) > LISTED_NAMES else ""
            raise ValueError(
                f"data {str(self.root)!r} lacks {len(missing)} of {len(self)} pictures: fetch "
                f"{', '.join(missing[:LISTED_NAMES])}{more}"
            )
        return self

    def _digest(self, index: int) -> str:
        file = self.root / self.names[index]
        with file.open("rb") as handle:
            size = file.stat().st_size
            head = handle.read(DIGESTED_BYTES)
            handle.seek(max(0, size - DIGESTED_BYTES))
            content = head + handle.read() + str((size, self.boxes and self.boxes[index])).encode()
        return hashlib.sha256(content).hexdigest()[:16]


@dataclass(frozen=True)
class LabelledPictures:
    """One split: pictures and (N,) int64 class ids."""

    pictures: Pictures
    labels: np.ndarray

    def select(self, indices: np.ndarray) -> "LabelledPictures":
        """Some of them, in that order."""
        return LabelledPictures(self.pictures.select(indices), self.labels[indices])

    def describe(self) -> dict[str, Any]:
        """Return what a report prints about the split."""
        labels = hashlib.sha256(self.labels.astype(np.int64).tobytes()).hexdigest()[:8]
        return {"items": len(self.labels), "dropped": {}, "fingerprint": f"{self.pictures.fingerprint}-{labels}"}


@dataclass(frozen=True)
class LabelledData:
    """A data set of classes.

    Attributes:
        source: where it is.
        train: what classifiers learn from.
        test: what is reported on.
        class_names: by class id.
        note: which split is what, for the report.
        differs: why the numbers cannot be put beside the paper's, "" if they can.
    """

    source: str
    train: LabelledPictures
    test: LabelledPictures
    class_names: tuple[str, ...]
    note: str
    differs: str

    def describe(self) -> dict[str, Any]:
        """Return what a report prints about the data."""
        shared = set(self.train.pictures.digests) & set(self.test.pictures.digests)
        return {
            "source": self.source,
            "splits": {"train": self.train.describe(), "test": self.test.describe()},
            "images_in_both_splits": len(shared),
            "num_classes": len(self.class_names),
        }


@lru_cache(maxsize=4)  # each task of each encoder asks again
def load_image_folder(data: str, limit: int | None = None) -> LabelledData:
    """Read pictures in one folder per class: `train/CLASS/*` and `test/CLASS/*` (or `val`), or just `CLASS/*`.

    Without a split of its own every fifth picture of each class, drawn with seed 0, is for the test.

    Args:
        data: the folder.
        limit: at most so many pictures of each split, as evenly over the classes as they go.

    Raises:
        ValueError: if there is no folder, no class with pictures, or a class of the test that training lacks.
    """
    check_limit(limit)
    root = Path(data)
    if not root.is_dir():
        raise ValueError(f"data {data!r} is no folder: pass one with a sub-folder of pictures per class")
    train_root = root / "train" if (root / "train").is_dir() else root
    test_root = next((root / name for name in TEST_NAMES if train_root != root and (root / name).is_dir()), None)
    if test_root is not None:
        train, test = read_classes(train_root), read_classes(test_root)
        note = f"Trained on the folder `train`, reported on `{test_root.name}`."
    else:
        train, test = split_classes(read_classes(train_root))
        note = f"The data has no split of its own: {TEST_SHARE:.0%} of each class, seed 0, are for the test."
    if unknown := sorted(set(test) - set(train)):
        raise ValueError(f"data {data!r} has the class {unknown[0]!r} in the test only: add it to train, or remove it")
    splits = (
        label_pictures(train_root, train, tuple(train), limit),
        label_pictures(test_root or train_root, test, tuple(train), limit),
    )
    return LabelledData(data, *splits, tuple(train), note, differs="the data set is not one of the paper's")


@lru_cache(maxsize=4)
def read_places(data: str) -> LabelledPictures:
    """Read pictures in one folder per place, all of them in one split.

    Raises:
        ValueError: if there is no folder or no picture.
    """
    if not Path(data).is_dir():
        raise ValueError(f"data {data!r} is no folder: pass one with a sub-folder of pictures per place")
    places = read_classes(Path(data))
    return label_pictures(Path(data), places, tuple(places))


def read_classes(root: Path) -> dict[str, list[str]]:
    """Return the paths below `root` of each class's pictures, sorted.

    Raises:
        ValueError: if there are none.
    """
    classes = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
        if files:
            classes[folder.name] = [str(file.relative_to(root)) for file in files]
    if not classes:
        raise ValueError(f"data {str(root)!r} has no pictures in class folders: lay them out as CLASS/NAME.jpg")
    return classes


def split_classes(classes: dict[str, list[str]]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Split each class in two, (train, test); a class of one picture has no test."""
    train, test = {}, {}
    for name, files in classes.items():
        chosen = set(random.Random(f"0:{name}").sample(files, round(TEST_SHARE * len(files))))
        train[name] = [file for file in files if file not in chosen]
        test[name] = [file for file in files if file in chosen]
    return train, test


def check_limit(limit: int | None) -> None:
    """Raise ValueError for a limit that leaves nothing."""
    if limit is not None and limit < 1:
        raise ValueError(f"limit {limit} leaves no image: pass 1 or more")


def label_pictures(
    root: Path, classes: dict[str, list[str]], class_names: tuple[str, ...], limit: int | None = None
) -> LabelledPictures:
    """Put the classes' pictures in one list, class by class; `limit` takes from each class in turn."""
    ids = {name: class_id for class_id, name in enumerate(class_names)}
    rows = [(rank, ids[name], file) for name, files in classes.items() for rank, file in enumerate(files)]
    chosen = sorted(sorted(rows)[:limit], key=lambda row: (row[1], row[0]))
    return LabelledPictures(
        PictureFiles(root, tuple(file for _, _, file in chosen)), np.array([label for _, label, _ in chosen], np.int64)
    )
