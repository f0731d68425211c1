"""The `dense` configuration of a data set: images with depth and class maps, checked before anything is measured.

Columns: `image`, `depth` (16-bit PNG, millimetres, 0 = no reading), `segmentation` (8-bit PNG, class ids, 255 =
ignored), `id`; splits `train` and `test`; the class names are in `classes.json` beside the data.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, load_dataset_builder
from datasets import Image as ImageFeature
from huggingface_hub import hf_hub_download
from PIL import Image
from tqdm import tqdm

from evaluators.array_cache import cached_array
from evaluators.metrics import IGNORED_CLASS
from modeling_spatialboost.encoder_loading import first_line

COLUMNS = ("image", "depth", "segmentation", "id")
# What `_check` said of every row, by the fingerprint of the rows: each task of each encoder asks again.
_CHECKS: dict[str, list[dict[str, Any]]] = {}


# top, left, height and width of a part of an image, in its pixels
Box = tuple[float, float, float, float]


class DenseSplit(Sequence[Image.Image]):
    """One split; as a sequence it gives its RGB images, decoded when asked for.

    Attributes:
        dropped: how many items were left out, by reason.
        image_digests: one content hash per image.
        fingerprint: content hash of all images and maps.
    """

    dropped: dict[str, int]
    image_digests: tuple[str, ...]
    fingerprint: str

    def __iter__(self) -> Iterator[Image.Image]:
        return (self[index] for index in range(len(self)))

    def image_size(self, index: int) -> tuple[int, int]:
        """Return (height, width) in pixels."""
        width, height = self[index].size
        return height, width

    def dense_map(self, column: str, index: int) -> np.ndarray:
        """Return (H, W): `depth` as float32 metres, 0 = no reading; `segmentation` as uint8 ids, 255 = ignored."""
        raise NotImplementedError

    def training_targets(
        self, column: str, size: tuple[int, int], cache_dir: Path, keep_aspect: bool = False
    ) -> torch.Tensor:
        """Return every map of a column as (N, H, W), nearest pixel, memory-mapped from `cache_dir`.

        The map is squashed to `size`, with `keep_aspect` cut to its aspect ratio around the centre.
        """

        def make(file: Path) -> None:
            dtype = np.float32 if column == "depth" else np.uint8
            targets = np.lib.format.open_memmap(file, "w+", dtype, (len(self), *size))
            for index in tqdm(range(len(self)), desc=f"{column} targets", unit="image"):
                values = self.dense_map(column, index)
                targets[index] = resize_nearest(values, size, centre_box(values.shape, size) if keep_aspect else None)

        return cached_array(cache_dir, f"{self.fingerprint} {column} {size}{' centre' if keep_aspect else ''}", make)


@dataclass(frozen=True)
class RowsSplit(DenseSplit):
    """A split of a `dense` configuration.

    Attributes:
        rows: image columns hold encoded bytes.
        dropped: how many rows were left out, by reason.
        image_digests: one content hash per image.
        fingerprint: content hash of all images, depth and class maps.
        max_class_id: largest id in the class maps, -1 without any.
    """

    rows: Dataset
    dropped: dict[str, int]
    image_digests: tuple[str, ...]
    fingerprint: str
    max_class_id: int

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        """Return the RGB image of one row."""
        return _decode(self.rows[index]["image"]).convert("RGB")

    def dense_map(self, column: str, index: int) -> np.ndarray:
        """See `DenseSplit`."""
        values = np.asarray(_decode(self.rows[index][column]))
        return values.astype(np.float32) / 1000 if column == "depth" else values


@dataclass(frozen=True)
class DenseData:
    """Both splits of a data set and the names of its classes."""

    source: str
    train: DenseSplit
    test: DenseSplit
    class_names: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """Return what a report prints about the data."""
        shared = set(self.train.image_digests) & set(self.test.image_digests)
        return {
            "source": self.source,
            "splits": {
                name: {"items": len(split), "dropped": split.dropped, "fingerprint": split.fingerprint}
                for name, split in (("train", self.train), ("test", self.test))
            },
            "images_in_both_splits": len(shared),
            "classes": list(self.class_names),
            "warnings": list(self.warnings),
        }


def load_dense(data: str, limit: int | None = None) -> DenseData:
    """Load, check and, with `limit`, cut the `dense` configuration of a data folder or Hub id.

    A row that cannot be read, or whose maps have another size than the image, is left out and counted.

    Raises:
        ValueError: if the data, the configuration, a column or a usable row is missing, or a class id has no name.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit {limit} leaves no image: pass 1 or more")
    train, test = (_load_split(data, split, limit) for split in ("train", "test"))
    max_class_id = max(train.max_class_id, test.max_class_id)
    class_names = _read_class_names(data) or tuple(f"class {index}" for index in range(max_class_id + 1))
    if max_class_id >= len(class_names):
        raise ValueError(
            f"data {data!r} has class id {max_class_id} but classes.json names {len(class_names)}: name every class "
            f"or write {IGNORED_CLASS} where a pixel shall not count"
        )
    return DenseData(str(data), train, test, class_names)


def resize_nearest(array: np.ndarray, size: tuple[int, int], box: Box | None = None) -> np.ndarray:
    """Return (H, W) values of the nearest pixels of `box`, so that no depth or class is invented; centres align."""
    top, left, height, width = box or (0.0, 0.0, *array.shape)
    rows, columns = (
        np.minimum(start + (np.arange(new) + 0.5) * old / new, end - 1).astype(np.int64)
        for start, new, old, end in zip((top, left), size, (height, width), array.shape)
    )
    return array[rows[:, None], columns]


def centre_box(image_size: Sequence[int], size: tuple[int, int]) -> Box:
    """Return the largest part of an image around its centre that has the aspect ratio of `size`."""
    zoom = min(old / new for old, new in zip(image_size, size))
    height, width = (new * zoom for new in size)
    return (image_size[0] - height) / 2, (image_size[1] - width) / 2, height, width


def _load_split(data: str, split: str, limit: int | None) -> RowsSplit:
    try:
        rows = _read_parquet(data, split)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"data {data!r} has no split {split!r} of the configuration 'dense': pass a folder made by `spatialboost "
            f"build` or a Hub id in its layout ({first_line(error)})"
        ) from error
    missing = [column for column in COLUMNS if column not in rows.column_names]
    if missing:
        raise ValueError(f"data {data!r} lacks the column {missing[0]!r} in its configuration 'dense': rebuild it")
    if limit is not None:
        rows = rows.select(range(min(limit, len(rows))))
    for column in ("image", "depth", "segmentation"):
        rows = rows.cast_column(column, ImageFeature(decode=False))
    checks = _CHECKS.get(rows._fingerprint)
    if checks is None:
        checks = [_check(row) for row in tqdm(rows, desc=f"checking {split} of {Path(data).name}", unit="image")]
        _CHECKS[rows._fingerprint] = checks
    kept = [index for index, check in enumerate(checks) if not check["problem"]]
    dropped = Counter(check["problem"] for check in checks if check["problem"])
    if not kept:
        raise ValueError(f"data {data!r} has no usable row in split {split!r} ({dict(dropped)}): rebuild it")
    return RowsSplit(
        rows=rows.select(kept),
        dropped=dict(dropped),
        image_digests=tuple(checks[index]["image_digest"] for index in kept),
        fingerprint=hashlib.sha256("".join(checks[index]["digest"] for index in kept).encode()).hexdigest()[:16],
        max_class_id=max(checks[index]["max_class_id"] for index in kept),
    )


def _read_parquet(data: str, split: str) -> Dataset:
    """Load one split of the configuration `dense`.

    Not by `load_dataset(folder, "dense")`: its cache goes by the folder's name and card alone (datasets 5.2), so that
    a rebuilt folder, or another one of the same name, would silently give the old rows.
    """
    files = load_dataset_builder(str(data), "dense").config.data_files[split]
    return Dataset.from_parquet([str(file) for file in files])


def _check(row: dict[str, Any]) -> dict[str, Any]:
    """Decode one row; return its content hashes, its largest class id and the reason to drop it, if any."""
    try:
        image, depth, segmentation = (_decode(row[column]) for column in ("image", "depth", "segmentation"))
    except (OSError, SyntaxError, TypeError):  # what PIL raises for a file that is broken, cut or absent
        return {"problem": "unreadable_file"}
    if not image.size == depth.size == segmentation.size:
        return {"problem": "size_mismatch"}
    if depth.mode not in ("I;16", "I") or segmentation.mode not in ("L", "P"):
        return {"problem": "wrong_bit_depth"}
    class_ids = np.asarray(segmentation, dtype=np.int64)
    contents = [hashlib.sha256(_read(row[column])).hexdigest() for column in ("image", "depth", "segmentation")]
    return {
        "problem": None,
        "digest": "".join(contents),
        "image_digest": contents[0],
        "max_class_id": int(class_ids.max(initial=-1, where=class_ids != IGNORED_CLASS)),
    }


def _decode(encoded: dict[str, Any]) -> Image.Image:
    """Decode fully, so that a truncated file shows itself."""
    image = Image.open(io.BytesIO(_read(encoded)))
    image.load()
    return image


def _read(encoded: dict[str, Any]) -> bytes:
    """Return the bytes of an undecoded image, which a data set holds itself or as a path."""
    return encoded["bytes"] or Path(encoded["path"]).read_bytes()


def _read_class_names(data: str) -> tuple[str, ...] | None:
    """Return the names in classes.json of a folder or Hub repository, None where it has none."""
    file = Path(data) / "classes.json"
    if not Path(data).is_dir():
        try:
            file = Path(hf_hub_download(str(data), "classes.json", repo_type="dataset"))
        except (OSError, ValueError):
            return None
    return tuple(json.loads(file.read_text())) if file.is_file() else None
