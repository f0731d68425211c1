"""Data of `spatialboost build` as scenes: depth and classes of `dense`, cameras of `multi_view`.

The rows of `dense` have no poses; an image of a `multi_view` record is the row of `dense` with the same bytes.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from datasets import Dataset, List, load_dataset_builder
from datasets import Image as ImageFeature

from evaluators.contract import NotMeasurable
from evaluators.dense_data import DenseSplit, load_dense
from evaluators.metrics import IGNORED_CLASS
from evaluators.scenes.scene import Camera, Points, Scene, SceneData, View, thin_out, unproject

MIN_VIEWS = 4  # two for each fragment of a registration
VOXEL_M = 0.04
HOW_TO_BUILD = "build them with `spatialboost build --views 6` or more"


@dataclass(frozen=True)
class Room:
    """A record of `multi_view` with its rows of `dense`.

    Attributes:
        id: of the record.
        split: of `dense`.
        rows: of the views, in the split.
        cameras: of the views.
    """

    id: str
    split: DenseSplit
    rows: tuple[int, ...]
    cameras: tuple[Camera, ...]

    @property
    def num_views(self) -> int:
        """See `Scene`."""
        return len(self.rows)

    @cached_property
    def fingerprint(self) -> str:
        """See `Scene`; the split's own covers depth and classes."""
        parts = [self.split.fingerprint, repr(self.rows), *(repr(camera) for camera in self.cameras)]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]

    def view(self, index: int) -> View:
        """See `Scene`."""
        row = self.rows[index]
        return View(self.split[row], self.split.dense_map("depth", row), self.cameras[index])

    def points(self) -> Points:
        """The surfaces that the views see, one point per cube of 4 cm, classes as in `segmentation`."""
        xyz_m, class_ids = [], []
        for index, row in enumerate(self.rows):
            positions, pixels = unproject(self.view(index))
            xyz_m.append(positions)
            class_ids.append(self.split.dense_map("segmentation", row).ravel()[pixels])
        xyz, ids = np.concatenate(xyz_m), np.concatenate(class_ids)
        counted = np.flatnonzero(ids != IGNORED_CLASS)
        kept = counted[thin_out(xyz[counted], VOXEL_M)]
        return Points(xyz[kept], ids[kept], np.full(len(kept), -1, np.int32))


def load_rooms(data: str, limit: int | None = None) -> SceneData:
    """Load the scenes of a folder or Hub id that have at least four posed views.

    Raises:
        NotMeasurable: there are none in a split.
        ValueError: the configuration `dense` is not there or wrong.
    """
    dense = load_dense(data)
    dropped: dict[str, dict[str, int]] = {}
    splits: dict[str, tuple[Scene, ...]] = {}
    for name, split in (("train", dense.train), ("test", dense.test)):
        rooms, reasons = _rooms_of(data, name, split)
        if not rooms:
            raise NotMeasurable(
                f"no room of data {data!r} has {MIN_VIEWS} posed views in split {name}: {HOW_TO_BUILD}"
            )
        splits[name], dropped[name] = tuple(rooms[:limit]), reasons
    return SceneData(str(data), splits["train"], splits["test"], dense.class_names, dropped=dropped)


def _rooms_of(data: str, name: str, split: DenseSplit) -> tuple[list[Room], dict[str, int]]:
    try:
        files = load_dataset_builder(str(data), "multi_view").config.data_files[name]
    except (OSError, ValueError, KeyError):
        raise NotMeasurable(f"data {data!r} has no configuration 'multi_view', so no poses: {HOW_TO_BUILD}") from None
    records = Dataset.from_parquet([str(file) for file in files]).select_columns(["id", "images", "cameras"])
    records = records.cast_column("images", List(ImageFeature(decode=False)))
    places = {image_digest: place for place, image_digest in enumerate(split.image_digests)}
    rooms, reasons = [], Counter[str]()
    for record in records:
        found = [places.get(hashlib.sha256(image["bytes"]).hexdigest()) for image in record["images"]]
        pairs = [(row, _camera(one)) for row, one in zip(found, record["cameras"]) if row is not None]
        if len(pairs) < MIN_VIEWS:
            reasons["too_few_posed_views"] += 1
            continue
        rooms.append(Room(record["id"], split, tuple(row for row, _ in pairs), tuple(camera for _, camera in pairs)))
    return rooms, dict(reasons)


def _camera(stored: dict[str, Any]) -> Camera:
    pose = np.array(stored["camera_to_world"], np.float64).reshape(4, 4)
    return Camera(stored["fx"], stored["fy"], stored["cx"], stored["cy"], pose)
