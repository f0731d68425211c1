"""The `sa1b` source: SA-1B as Meta distributes it, read in place from its tar shards, or from extracted folders.

    sa_000000.tar, sa_000001.tar, ...   each about 11,000 images: ./sa_223750.jpg and ./sa_223750.json, ...

A JSON file holds {"image": {image_id, width, height, file_name}, "annotations": [{"segmentation": {"size", "counts"},
"area", "predicted_iou", "stability_score", ...}]}, masks as compressed COCO run lengths. Listing reads tar headers
only, and the name of an item says where its bytes lie, so that any process can jump to it. The masks become instances
without a name, which a namer gives them later.
"""

import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pycocotools import mask as coco

from dataset_builders.scene import DropItem, InputError, Scene, SceneObject
from dataset_builders.sources import SourceOptions
from dataset_builders.sources.image_files import (
    item_name,
    item_path,
    photograph,
    read_image,
    refuse_views,
    safe_id,
)
from dataset_builders.sources.sequences import input_folder

LICENCE = "SA-1B research licence"
MAX_OBJECTS = 32
MIN_PREDICTED_IOU = 0.88  # both as in the paper of SA-1B
MIN_STABILITY = 0.92
MIN_SHARE = 0.001  # of the image; smaller masks are left out
MAX_INSIDE = 0.8  # a mask that lies in another by more is a part of it, or the same thing again
BACKGROUND_SHARE = 0.5  # of the image; what lies in a mask this large stands before it
DAMAGED = "damaged"
Annotation = dict[str, Any]


class Sa1bSource:
    """One scene per image, with at most `MAX_OBJECTS` of its masks."""

    how_to_get: ClassVar[str] = (
        "Accept the SA-1B dataset research licence at https://ai.meta.com/datasets/segment-anything-downloads and put "
        "any of the tar shards listed there below --input; nothing needs to be extracted."
    )

    def __init__(self, options: SourceOptions) -> None:
        """Check the options.

        Raises:
            InputError: no folder, or several views.
        """
        refuse_views(options, "sa1b")
        self.options = options
        self.root = input_folder(options, "shards like sa_000000.tar, or what they hold")

    def list_items(self) -> Sequence[str]:
        """Extracted images, and images in shards as "shard@offset+length,offset+length:name" of picture and masks.

        Raises:
            InputError: there is neither a shard nor an image.
        """
        items: list[str] = []
        for folder, _, files in os.walk(self.root):
            for name in files:
                path = (Path(folder) / name).relative_to(self.root)
                if path.suffix == ".tar":
                    items += [f"{item_name(path)}@{place}" for place in _shard_places(self.root / path)]
                elif path.suffix == ".jpg":
                    items.append(item_name(path.with_suffix("")))
        if not items:
            raise InputError(f"--input {self.root} holds no image and no shard like sa_000000.tar with images in it.")
        return sorted(items)[: self.options.num_scenes]

    def load(self, item: str) -> Scene:
        """Read one image and its masks.

        Raises:
            DropItem: "damaged_shard", "missing_file", "bad_annotation", "size_mismatch", or a reason of `read_image`
                or `photograph`.
        """
        name, picture, annotation = self._contents(item)
        file = read_image(picture, name)
        view = photograph(file, self.options.intrinsics)
        stored_shape = view.depth_m.shape[:: -1 if file.quarter_turns % 2 else 1]
        chosen = choose_masks(_annotations(annotation, name), stored_shape, name)
        instances, count = paint(chosen, stored_shape)
        return Scene(
            id=safe_id(Path(name).name),
            source="sa1b",
            licence=LICENCE,
            views=(replace(view, instances=np.rot90(instances, -file.quarter_turns)),),
            objects=tuple(SceneObject(number, "") for number in range(1, count + 1)),
            scale_source="none",
        )

    def _contents(self, item: str) -> tuple[str, bytes, bytes]:
        """Name of an image, its file and that of its masks."""
        container, _, place = item.rpartition("@")
        if not container:
            path = self.root / item_path(item)
            found = [path.with_name(path.name + suffix) for suffix in (".jpg", ".json")]
            return item, _read(found[0], item), _read(found[1], item)
        if place == DAMAGED:
            raise DropItem("damaged_shard", f"{container} cannot be read to its end; download it again")
        spans, _, name = place.partition(":")
        name = f"{container}/{name}"
        if not spans.endswith("+0"):
            ((start, size), (masks_start, masks_size)) = (map(int, one.split("+")) for one in spans.split(","))
            with open(self.root / item_path(container), "rb") as shard:
                return name, _span(shard, start, size), _span(shard, masks_start, masks_size)
        raise DropItem("missing_file", f"{name}.json is not in the shard beside its picture")


def _shard_places(path: Path) -> Iterator[str]:
    """Where the pictures of a tar file and their masks lie in it, as told by its headers."""
    pictures: dict[str, tuple[int, int]] = {}
    masks: dict[str, tuple[int, int]] = {}
    damaged = False
    try:
        with tarfile.open(path, "r:") as archive:
            for entry in archive:
                stem, suffix = os.path.splitext(os.path.basename(entry.name))
                if suffix in (".jpg", ".json") and entry.isfile():
                    (pictures if suffix == ".jpg" else masks)[stem] = entry.offset_data, entry.size
    except (tarfile.TarError, OSError):
        damaged = True
    for stem, (start, size) in pictures.items():
        masks_start, masks_size = masks.get(stem, (0, 0))
        yield f"{start:012d}+{size},{masks_start}+{masks_size}:{item_name(Path(stem))}"
    if damaged:
        yield DAMAGED


def _span(shard: Any, start: int, size: int) -> bytes:
    shard.seek(start)
    return shard.read(size)


def _read(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DropItem("missing_file", f"{name}{path.suffix} cannot be read: {error.strerror}") from error


def _annotations(content: bytes, name: str) -> list[Annotation]:
    try:
        found = json.loads(content)["annotations"]
        if not isinstance(found, list):
            raise TypeError("annotations are no list")
    except (ValueError, KeyError, TypeError) as error:
        raise DropItem("bad_annotation", f"{name}.json has no list of annotations: {error}") from error
    return found


def choose_masks(annotations: Sequence[Annotation], shape: tuple[int, ...], name: str) -> list[np.ndarray]:
    """The largest good masks, none of which is a part of another.

    Args:
        annotations: as in the files of SA-1B.
        shape: height and width of the image as it is stored.
        name: what a drop calls it.

    Returns:
        Run lengths as of `run_lengths`, of at most `MAX_OBJECTS` masks, from large to small.

    Raises:
        DropItem: "bad_annotation" or "size_mismatch".
    """
    try:
        masks = [
            one["segmentation"]
            for one in annotations
            if one.get("predicted_iou", 1) >= MIN_PREDICTED_IOU and one.get("stability_score", 1) >= MIN_STABILITY
        ]
        if any(tuple(mask["size"]) != tuple(shape) for mask in masks):
            raise DropItem("size_mismatch", f"{name}.json has masks of another size than the image")
        runs = [run_lengths(mask["counts"]) for mask in masks]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DropItem("bad_annotation", f"{name}.json has a garbled mask: {error}") from error
    pixels = shape[0] * shape[1]
    if any(lengths.sum() != pixels or lengths.min() < 0 for lengths in runs):
        raise DropItem("bad_annotation", f"{name}.json has a mask whose run lengths do not add up to the image")
    areas = np.array([lengths[1::2].sum() for lengths in runs], dtype=np.int64)
    order = [int(index) for index in np.argsort(-areas, kind="stable") if areas[index] >= MIN_SHARE * pixels]
    masks, areas = [masks[index] for index in order], areas[order]
    inside = np.array(coco.iou(masks, masks, [1] * len(masks)))  # [i, k]: share of mask i that lies in mask k
    kept: list[int] = []
    for index in range(len(masks)):
        holders = [k for k in kept if inside[index, k] > MAX_INSIDE]
        same = any(areas[index] > MAX_INSIDE * areas[k] for k in holders)
        part = any(areas[k] < BACKGROUND_SHARE * pixels for k in holders)
        if not same and not part and len(kept) < MAX_OBJECTS:
            kept.append(index)
    return [runs[order[index]] for index in kept]


def run_lengths(counts: str) -> np.ndarray:
    """The runs, int64, of a compressed COCO mask, in turns outside and inside, down the columns.

    pycocotools never returns from some garbled strings, so they are read here first. Each number is written in groups
    of five bits, the lowest first, from the fourth on as the difference from the last but one.
    """
    codes = np.frombuffer(counts.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((codes & 32) == 0)
    if not ends.size or ends[-1] != codes.size - 1 or codes.min() < 0 or codes.max() > 63:
        raise ValueError("its run lengths are cut or hold foreign characters")
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(codes.size) - np.repeat(starts, ends - starts + 1)  # of a group within its number
    if place.max() > 6:
        raise ValueError("a run length is out of range")
    numbers = np.add.reduceat((codes & 31) << (5 * place), starts)
    numbers -= np.where(codes[ends] & 16, 1 << (5 * (place[ends] + 1)), 0)  # two's complement
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def paint(masks: Sequence[np.ndarray], shape: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """Masks (run lengths) on top of each other in the order given, as int32 (H, W) numbered 1 to n, and n.

    What is left of a mask under the later ones must still be `MIN_SHARE` of the image.
    """
    painted = np.zeros(shape[0] * shape[1], dtype=np.uint8)  # down the columns
    for number, runs in enumerate(masks, start=1):
        borders = np.cumsum(runs).tolist()
        for start, end in zip(borders[::2], borders[1::2]):
            painted[start:end] = number
    sizes = np.bincount(painted, minlength=len(masks) + 1)
    kept = [number for number in range(1, len(masks) + 1) if sizes[number] >= MIN_SHARE * painted.size]
    numbers = np.zeros(len(masks) + 1, dtype=np.uint8)
    numbers[kept] = np.arange(1, len(kept) + 1)
    return numbers[painted].reshape(shape[::-1]).T.astype(np.int32, order="C"), len(kept)
