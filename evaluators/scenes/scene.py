"""Scenes of posed RGB-D views: what the 3D tasks know of a place, whichever data set it comes from."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from evaluators.contract import TaskConfig

CPU_SCENES = 12  # of a split in the preset "cpu"
CPU_VIEWS = 16
CPU_POINTS = 4000


class Camera(NamedTuple):
    """A pinhole camera; pixel centres lie on integer coordinates, axes are x right, y down, z forward."""

    fx: float
    fy: float
    cx: float
    cy: float
    camera_to_world: np.ndarray  # (4, 4), metres


class View(NamedTuple):
    """An RGB image with the depth seen from the same place; both cover one field of view, at sizes of their own."""

    image: Image.Image
    depth_m: np.ndarray  # (H, W) float32, 0 = no reading
    camera: Camera  # at the pixels of depth_m


class Points(NamedTuple):
    """The points of a scene that count."""

    xyz_m: np.ndarray  # (N, 3) float32, world
    class_ids: np.ndarray  # (N,) uint8, 255 = ignored
    object_ids: np.ndarray  # (N,) int32, -1 = none


class Scene(Protocol):
    """A place.

    Attributes:
        id: its name in the data set.
        num_views: how many views it has, in the order of the camera's path.
        fingerprint: of the files behind it.
    """

    @property
    def id(self) -> str: ...  # noqa: D102

    @property
    def num_views(self) -> int: ...  # noqa: D102

    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    def view(self, index: int) -> View:
        """Read one view."""

    def points(self) -> Points:
        """Read all points."""


@dataclass(frozen=True)
class SceneData:
    """Both splits of a data set; what `test` is called there is `test_split`."""

    source: str
    train: tuple[Scene, ...]
    test: tuple[Scene, ...]
    class_names: tuple[str, ...]
    test_split: str = "test"
    dropped: dict[str, dict[str, int]] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """What a report prints about the data."""
        return {
            "source": self.source,
            "splits": {
                name: {"items": len(scenes), "dropped": self.dropped.get(name, {}), "fingerprint": digest(scenes)}
                for name, scenes in (("train", self.train), (self.test_split, self.test))
            },
            "images_in_both_splits": len({one.id for one in self.train} & {one.id for one in self.test}),
            "classes": list(self.class_names),
        }


@dataclass(frozen=True, kw_only=True)
class SceneConfig(TaskConfig):
    """A task on scenes.

    Attributes:
        max_points: points of a scene that count, drawn at random by the scene's name. Lexicon3D keeps 300,000 in
            training and all in validation, about 500 GB of features of a ViT-L; None = 20,000.
        frame_step: every so many frames of a video are views (ScanNet: 20, as OpenScene exports it).
        max_views: of a scene, at equal steps; None = all of them.
    """

    max_points: int | None = None
    frame_step: int = 20
    max_views: int | None = None

    def __post_init__(self) -> None:
        """Fill in what the preset says."""
        is_small = self.preset == "cpu"
        filled: dict[str, Any] = {
            "max_points": self.max_points or (CPU_POINTS if is_small else 20_000),
            "max_views": self.max_views or (CPU_VIEWS if is_small else None),
            "limit": CPU_SCENES if self.limit is None and is_small and self.data_set != "rooms" else self.limit,
        }
        if self.data_set != "rooms":
            filled["resolution"] = self.resolution or (240, 320)
        for name, value in filled.items():
            object.__setattr__(self, name, value)


def digest(scenes: Sequence[Scene], *more: Any) -> str:
    """One hash of many scenes, and of what is asked about them."""
    parts = [*(scene.fingerprint for scene in scenes), *map(repr, more)]
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]


def unproject(view: View) -> tuple[np.ndarray, np.ndarray]:
    """The world positions of all pixels with a reading.

    Returns:
        (N, 3) float32 metres, and (N,) places of their pixels in the flattened depth map.
    """
    flat = np.flatnonzero(view.depth_m > 0)
    rows, columns = np.divmod(flat, view.depth_m.shape[1])
    camera, z = view.camera, view.depth_m.ravel()[flat].astype(np.float64)
    rays = np.stack([(columns - camera.cx) / camera.fx * z, (rows - camera.cy) / camera.fy * z, z])  # (3, N)
    rotation, position = camera.camera_to_world[:3, :3], camera.camera_to_world[:3, 3:]
    return (rotation @ rays + position).T.astype(np.float32), flat


def thin_out(xyz_m: np.ndarray, voxel_m: float) -> np.ndarray:
    """The places of one point per cube of `voxel_m`, the first of each, in order."""
    _, first = np.unique(np.floor(xyz_m / voxel_m).astype(np.int64), axis=0, return_index=True)
    return np.sort(first)


def draw_points(points: Points, count: int, name: str) -> Points:
    """At most `count` points, drawn by `name`, in their order."""
    if len(points.xyz_m) <= count:
        return points
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
    chosen = np.sort(np.random.default_rng(seed).permutation(len(points.xyz_m))[:count])
    return Points(*(column[chosen] for column in points))


def spread(count: int, wanted: int | None) -> list[int]:
    """At most `wanted` of the numbers 0 ... count - 1, at equal steps."""
    if wanted is None or wanted >= count:
        return list(range(count))
    return np.unique(np.linspace(0, count - 1, wanted).round().astype(int)).tolist()
