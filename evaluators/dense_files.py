"""Images and maps that lie as files in a data set's own folder layout."""

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from evaluators.dense_data import DenseData, DenseSplit
from evaluators.metrics import IGNORED_CLASS

NAMED = 20  # missing files that an error names; it counts the rest
# Hashes of contents by (path, bytes, time of change): both encoders and each task ask again.
_DIGESTS: dict[tuple[str, int, int], str] = {}


class Pair(NamedTuple):
    """An image and its map."""

    image: Path
    target: Path


class FileSplit(DenseSplit):
    """A split whose items are pairs of files.

    Attributes:
        column: what the maps hold, `depth` or `segmentation`.
        pairs: one per item, all of them there.
        read_target: of an array as it is stored, into metres (0 = no reading) or class ids (255 = ignored).
        crop: the (height, width) -> (top, left, height, width) in pixels that is all of the image that is used.
    """

    def __init__(
        self,
        column: str,
        pairs: Sequence[Pair],
        read_target: Callable[[np.ndarray], np.ndarray],
        crop: Callable[[int, int], tuple[int, int, int, int]] | None = None,
        dropped: dict[str, int] | None = None,
    ) -> None:
        """See the attributes; `dropped` counts what the file lists name and cannot be used."""
        self.column, self.pairs, self.read_target, self.crop = column, tuple(pairs), read_target, crop
        self.dropped = dropped or {}

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: Any) -> Any:
        """Return the RGB image of one item."""
        return self._open(self.pairs[index].image).convert("RGB")

    def image_size(self, index: int) -> tuple[int, int]:
        """See `DenseSplit`; only the file's head is read."""
        with Image.open(self.pairs[index].image) as image:
            width, height = image.size
        return self.crop(height, width)[2:] if self.crop else (height, width)

    def dense_map(self, column: str, index: int) -> np.ndarray:
        """See `DenseSplit`.

        Raises:
            ValueError: the map has another size than its image, or holds what it should not.
        """
        if column != self.column:
            raise ValueError(f"this data set has no {column} maps, only {self.column}")
        file = self.pairs[index].target
        stored = np.asarray(self._open(file))
        if stored.shape != self.image_size(index):
            raise ValueError(f"{file} is {stored.shape}, its image {self.image_size(index)}: both must have one size")
        try:
            return self.read_target(stored)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error

    @cached_property
    def image_digests(self) -> tuple[str, ...]:  # type: ignore[override]  # made when it is asked for
        """One content hash per image."""
        return tuple(_digest(pair.image) for pair in self._with_bar("images"))

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]
        """Content hash of all images, maps and what is cut out of them."""
        targets = [_digest(pair.target) for pair in self._with_bar("maps")]
        text = "".join([*self.image_digests, *targets, getattr(self.crop, "__qualname__", "")])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _with_bar(self, what: str) -> Any:
        return tqdm(self.pairs, desc=f"checksums of {what}", unit="file")

    def _open(self, file: Path) -> Image.Image:
        try:
            image = Image.open(file)
            image.load()
        except (OSError, SyntaxError) as error:
            raise ValueError(f"{file} cannot be read ({error}): fetch it again") from error
        if self.crop is None:
            return image
        top, left, height, width = self.crop(image.height, image.width)
        return image.crop((left, top, left + width, top + height))


def make_data(
    title: str, root: str, splits: tuple[FileSplit, FileSplit], published: tuple[int, int], class_names: Sequence[str]
) -> DenseData:
    """Put a train and a test split together; a split of another size than the published one is warned about.

    Raises:
        ValueError: a split has no item, or a file is missing; all missing files are counted, the first are named.
    """
    pairs = [pair for split in splits for pair in split.pairs]
    missing = [str(file) for pair in pairs for file in pair if not file.is_file()]
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise ValueError(f"{title} at {root!r} lacks {len(missing)} files: {', '.join(missing[:NAMED])}{more}")
    for name, split in zip(("train", "test"), splits):
        if not split.pairs:
            raise ValueError(f"{title} at {root!r} has no image in split {name!r}: check the folder")
    warnings = [
        f"split {name} has {len(split):,} images, the published one {number:,}."
        for name, split, number in zip(("train", "test"), splits, published)
        if len(split) != number
    ]
    return DenseData(root, *splits, tuple(class_names), tuple(warnings))


def read_list(title: str, root: Path, name: str, layout: str) -> list[str]:
    """Return the lines of a split's file list that are not empty.

    Raises:
        ValueError: the folder or the list is not there; `layout` says what is expected.
    """
    if not root.is_dir():
        raise ValueError(f"{title} at {str(root)!r} is no folder: pass one that holds {layout}")
    if not (root / name).is_file():
        raise ValueError(f"{title} at {str(root)!r} has no {name}: pass a folder that holds {layout}")
    return [line for line in (root / name).read_text().splitlines() if line.strip()]


def plain_pairs(root: Path, target: str) -> tuple[list[Pair], list[Pair]] | None:
    """Return train and test of a small sample: a folder per item with `rgb.png` or `rgb.jpg` and the map `target`.

    Without splits of its own, every second item by name is a test item. None where the folder is none of that kind.
    """
    items = [folder for folder in sorted(root.glob("*")) if (folder / target).is_file()]
    pairs = [Pair(image, folder / target) for folder in items for image in sorted(folder.glob("rgb.*"))[:1]]
    return (pairs[::2], pairs[1::2]) if pairs else None


def metres(stored: np.ndarray, units_per_metre: float) -> np.ndarray:
    """Return (H, W) metres of 16-bit depth, 0 = no reading.

    Raises:
        ValueError: the file has no 16-bit values.
    """
    if stored.dtype == np.uint8 or stored.ndim != 2:
        raise ValueError("depth must be a 16-bit grey PNG")
    return stored.astype(np.float32) / units_per_metre


def class_ids(stored: np.ndarray, num_classes: int, background_is_ignored: bool) -> np.ndarray:
    """Return (H, W) ids below `num_classes`, or 255 where a pixel does not count.

    Args:
        stored: (H, W), ids as in the file, 255 = ignored.
        num_classes: K.
        background_is_ignored: 0 means no class, and the first class is 1 (`reduce_zero_label`).

    Raises:
        ValueError: an id is out of range.
    """
    if stored.ndim != 2:
        raise ValueError("class ids must be a grey or palette PNG, not colours")
    ids = stored.astype(np.int64)
    if background_is_ignored:
        ids = np.where((ids == 0) | (ids == IGNORED_CLASS), IGNORED_CLASS, ids - 1)
    wrong = ids[(ids >= num_classes) & (ids != IGNORED_CLASS)]
    if wrong.size:
        raise ValueError(f"class id {stored.max(where=ids != IGNORED_CLASS, initial=0)} is not among {num_classes}")
    return ids.astype(np.uint8)


def _digest(file: Path) -> str:
    stat = file.stat()
    key = (str(file.resolve()), stat.st_size, stat.st_mtime_ns)
    if key not in _DIGESTS:
        with file.open("rb") as stream:
            _DIGESTS[key] = hashlib.file_digest(stream, "sha256").hexdigest()
    return _DIGESTS[key]
