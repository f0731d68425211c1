"""The images of a stage-3 data set with what the baselines learn from: depth, classes, masks and cameras.

The rows are those of the language run. Depth and class maps are looked up, by the SHA-256 of the image file, in the
configuration `dense` of the same folder; masks and cameras are columns of the conversations themselves.
"""

import contextlib
import hashlib
import json
import logging
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset, Image, List
from huggingface_hub import hf_hub_download
from PIL import Image as PillowImage
from torch.utils.data import ConcatDataset
from torch.utils.data import Dataset as TorchDataset

from modeling_spatialboost.encoder_loading import first_line
from trainers.baselines.view_checks import IGNORED_CLASS, decode_image, examine, examine_maps, examine_views, images_of
from trainers.data import DataSource, load_source

logger = logging.getLogger(__name__)
MAPS = ("depth", "classes")  # what the configuration `dense` holds
WHERE_FROM = {
    "depth": "the configuration 'dense' of the same folder, which `spatialboost build` writes where depth is metric",
    "classes": "the class maps of the configuration 'dense' of the same folder, which not every source knows",
    "masks": "the column 'objects' of the configurations single_view and multi_view of `spatialboost build`",
    "cameras": "the column 'cameras' of the configurations single_view and multi_view of `spatialboost build`",
}


class Camera(NamedTuple):
    """Pinhole camera in pixels, centres on integer coordinates; `to_world` (4, 4) is rigid, with OpenCV's axes."""

    fx: float
    fy: float
    cx: float
    cy: float
    to_world: np.ndarray


@dataclass
class View:
    """One image and what is known of it; what is not known is None or empty.

    Attributes:
        image: RGB, (H, W).
        depth_m: (H, W) float32, 0 = no reading.
        classes: (H, W) uint8 ids, 255 = ignored.
        masks: (H, W) bool, one an object.
        camera: of the image.
    """

    image: PillowImage.Image
    depth_m: np.ndarray | None = None
    classes: np.ndarray | None = None
    masks: list[np.ndarray] = field(default_factory=list)
    camera: Camera | None = None


class DenseMaps:
    """Depth and class maps by the digest of their image."""

    def __init__(self, name: str, num_proc: int | None) -> None:
        """`name`: "PATH:dense:SPLIT". Every row is read once.

        Raises:
            ValueError: no such configuration, or a row that cannot be read.
        """
        try:
            self.rows = load_source(name)
        except ValueError as error:
            raise ValueError(
                f"datasets: depth and class maps are read from {name!r}, which is not there: build it with "
                f"`spatialboost build`, without leaving out the configuration 'dense'. ({first_line(error)})"
            ) from error
        for column in ("image", "depth", "segmentation"):
            if column not in self.rows.column_names:
                raise ValueError(f"datasets={name!r} has no column {column!r}: build it with `spatialboost build`.")
            self.rows = self.rows.cast_column(column, Image(decode=False))
        columns = ["image", "depth", "segmentation", "intrinsics"]
        self.rows = self.rows.select_columns([column for column in columns if column in self.rows.column_names])
        self.checks = examine(self.rows, name, examine_maps, num_proc)
        self.places = {digest: place for place, digest in enumerate(self.checks["digest"])}

    def has(self, digest: str, needed: str) -> bool:
        """Whether the image of that digest has a "depth" reading, or a pixel of a class ("classes")."""
        place = self.places.get(digest)
        return place is not None and self.checks[needed][place]

    def content(self, digest: str) -> str:
        """SHA-256 of both maps, "" where there are none."""
        place = self.places.get(digest)
        return "" if place is None else self.checks["content"][place]

    def row(self, digest: str) -> dict[str, Any] | None:
        """The row of an image, undecoded."""
        place = self.places.get(digest)
        return None if place is None else self.rows[place]


class ViewDataset(TorchDataset):
    """The rows of one source, each with its `id` and its `views`; only what is in `needs` is read."""

    def __init__(
        self, rows: Dataset, digests: list[list[str]], maps: DenseMaps | None, needs: Collection[str]
    ) -> None:
        """`rows` with undecoded images; `digests` of the images of each row."""
        self.rows, self.digests, self.maps, self.needs = rows, digests, maps, needs

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a row: `id`, and `views` in their order."""
        row = self.rows[index]
        views = [View(decode_image(image).convert("RGB")) for image in images_of(row)]
        for number, (view, digest) in enumerate(zip(views, self.digests[index])):
            maps = self.maps.row(digest) if self.maps is not None else None
            if maps is not None and "depth" in self.needs:
                view.depth_m = np.asarray(decode_image(maps["depth"])).astype(np.float32) / 1000
            if maps is not None and "classes" in self.needs:
                view.classes = np.asarray(decode_image(maps["segmentation"]))
            if "cameras" in self.needs:
                view.camera = _camera(row, number, maps)
        if "masks" in self.needs:
            for row_object in row["objects"]:
                if row_object["mask"]:
                    view = views[row_object["view"]]
                    view.masks.append(decode_mask(row_object["mask"], *reversed(view.image.size)))
        return {"id": str(row.get("id", f"row {index}")), "views": views}


class ViewData(NamedTuple):
    """All sources joined, what each is made of, and the names of the classes (none where nothing needs them)."""

    dataset: TorchDataset
    sources: list[DataSource]
    class_names: tuple[str, ...]


def load_view_data(names: list[str], needs: Collection[str], num_proc: int | None = None) -> ViewData:
    """Load and check data sets of views.

    Args:
        names: each "PATH[:CONFIG[:SPLIT]]", as for the language run, or with CONFIG = dense.
        needs: of "depth", "classes", "masks", "cameras". An image that lacks one stays, and gives no loss.
        num_proc: processes that read the images.

    Raises:
        ValueError: no such data set, a row that cannot be read, or no image at all with something that is needed.
    """
    parts = [_Source.load(name, needs, num_proc) for name in names]
    for need in needs:
        count = sum(part.counts[need] for part in parts)
        if not count:
            raise ValueError(f"datasets={names}: nothing in them has {need}, which come from {WHERE_FROM[need]}.")
        logger.info(f"{need}: {count}, for {sum(part.num_images for part in parts)} images")
    if len({part.class_names for part in parts}) > 1:
        raise ValueError(f"datasets={names}: their classes.json differ, so one head cannot learn all of them.")
    return ViewData(
        ConcatDataset([part.views for part in parts]), [part.source for part in parts], parts[0].class_names
    )


class _Source(NamedTuple):
    """One source: its rows, its record, and how many images have what is needed."""

    views: ViewDataset
    source: DataSource
    counts: dict[str, int]
    num_images: int
    class_names: tuple[str, ...]

    @classmethod
    def load(cls, name: str, needs: Collection[str], num_proc: int | None) -> "_Source":
        rows = _load_rows(name, needs)
        maps = DenseMaps(_dense_name(name), num_proc) if set(needs) & set(MAPS) else None
        checks = examine(rows, name, examine_views, num_proc)
        flat = [digest for digests in checks["digests"] for digest in digests]
        counts = {need: sum(checks[need]) for need in needs if need not in MAPS}
        contents = list(checks["digest"])
        if maps is not None:
            counts |= {need: sum(maps.has(digest, need) for digest in flat) for need in needs if need in MAPS}
            contents += [maps.content(digest) for digest in flat]
        fingerprint = hashlib.sha256("".join(contents).encode()).hexdigest()
        class_names = _class_names(name, maps) if maps is not None and "classes" in needs else ()
        views = ViewDataset(rows, checks["digests"], maps, needs)
        return cls(views, DataSource(name, len(rows), fingerprint), counts, len(flat), class_names)


def decode_mask(counts: str, height: int, width: int) -> np.ndarray:
    """(H, W) bool from COCO's compressed run lengths."""
    from pycocotools import mask as coco

    return coco.decode({"size": [height, width], "counts": counts.encode()}).astype(bool)


def nearest_pixels(old: int, new: int) -> np.ndarray:
    """(new,) indices of the pixels of an axis that lie nearest to those of its resized form, centres aligned."""
    return np.minimum((np.arange(new) + 0.5) * old / new, old - 1).astype(np.int64)


def resize_nearest(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) -> `size` by the nearest pixel, so that no depth and no class is invented."""
    rows, columns = (nearest_pixels(old, new) for old, new in zip(array.shape, size))
    return array[rows[:, None], columns]


def _load_rows(name: str, needs: Collection[str]) -> Dataset:
    """The rows with the columns that are read, images undecoded."""
    rows = load_source(name)
    if "image" in rows.column_names:
        rows = rows.cast_column("image", Image(decode=False))
    elif "images" in rows.column_names:
        rows = rows.cast_column("images", List(Image(decode=False)))
    else:
        raise ValueError(f"datasets={name!r} has no images: pass a data set made by `spatialboost build`.")
    if "masks" in needs:
        decode_mask("", 0, 0)  # is pycocotools there?
        kinds = rows.features.get("objects")
        if kinds is None or "mask" not in getattr(kinds, "feature", {}):
            raise ValueError(f"datasets={name!r} has no masks: pass {WHERE_FROM['masks']}.")
    wanted = {"id", "image", "images"} | {{"masks": "objects"}.get(need, need) for need in needs}
    return rows.select_columns([column for column in rows.column_names if column in wanted])


def _dense_name(name: str) -> str:
    path, *rest = name.split(":", maxsplit=2)
    split = rest[1].split("[")[0] if len(rest) == 2 else "train"
    return f"{path}:dense:{split}"


def _camera(row: dict[str, Any], number: int, maps: dict[str, Any] | None) -> Camera | None:
    """The camera of a view: from the row itself, or for a single image from its dense row, in a frame of its own."""
    if row.get("cameras"):
        known = row["cameras"][number]
        to_world = np.reshape(known["camera_to_world"], (4, 4))
        return Camera(known["fx"], known["fy"], known["cx"], known["cy"], to_world)
    if maps is not None and maps.get("intrinsics") and len(images_of(row)) == 1:
        return Camera(**maps["intrinsics"], to_world=np.eye(4))
    return None


def _class_names(name: str, maps: DenseMaps) -> tuple[str, ...]:
    """The names in classes.json of the folder or Hub repository; numbers where it has none.

    Raises:
        ValueError: a class id without a name.
    """
    path = name.split(":")[0]
    file = Path(path) / "classes.json"
    if not Path(path).is_dir():
        with contextlib.suppress(OSError, ValueError):
            file = Path(hf_hub_download(path, "classes.json", repo_type="dataset"))
    largest = max(maps.checks["max_class"])
    if not file.is_file():
        return tuple(f"class {number}" for number in range(largest + 1))
    names = tuple(json.loads(file.read_text()))
    if largest >= len(names):
        raise ValueError(
            f"datasets={name!r} has class id {largest}, but classes.json names {len(names)}: name every class, or "
            f"write {IGNORED_CLASS} where a pixel shall not count."
        )
    return names
