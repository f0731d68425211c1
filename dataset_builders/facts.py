"""What the columns of a record say about space: the one derivation that questions and verification share.

Everything here is computed from `cameras`, `up_world`, `depth_noise`, `objects` and the points of a turn, never from
depth maps or texts, so that a record read back from Parquet gives the same numbers as the one that was built.
"""

from typing import Any

import numpy as np

from dataset_builders.geometry import (
    NOISE_FACTOR,
    Array,
    Box,
    Placed,
    canonical_pose,
    compare,
    format_length,
    invert_pose,
    is_level,
    to_millimetre,
    transform,
    unproject,
)
from dataset_builders.scene import Intrinsics

Row = dict[str, Any]
MEASURABLE_FRACTION = 0.01  # of the depth: shorter sides are not reported, even where depth is exact
SIDE_NOISES = 5.0  # standard deviations of the depth: nor are sides shorter than this
MEASURABLE_PX = 25  # masks are right to a pixel or two: what spans less in the image is not reported
FORESHORTENED = 0.75  # cosine between a side and the line of sight, beyond which its far end may be out of sight


class RecordFacts:
    """Quantities of one record; views and objects are named by index and id."""

    def __init__(self, record: Row) -> None:
        """Read the geometry columns of a record (`cameras`, `up_world`, `depth_noise`, `objects`)."""
        self.cameras: list[Row] = record["cameras"]
        self.objects: dict[int, Row] = {row["id"]: row for row in record["objects"]}
        self.up_world = None if record["up_world"] is None else np.array(record["up_world"], dtype=np.float64)
        self.noise: float = record["depth_noise"]
        self.poses = [np.array(camera["camera_to_world"], dtype=np.float64).reshape(4, 4) for camera in self.cameras]
        self.world_to_camera = [invert_pose(pose) for pose in self.poses]
        self._placed: dict[tuple[int, int], Placed] = {}
        self.canonical = [canonical_pose(pose, self.up_world) for pose in self.poses]

    def pixel(self, point: Row) -> tuple[int, int]:
        """The pixel (u, v) that contains a normalised point."""
        camera = self.cameras[point["view"]]
        return (
            min(int(point["x"] * camera["width"]), camera["width"] - 1),
            min(int(point["y"] * camera["height"]), camera["height"] - 1),
        )

    def position(self, point: Row, frame: int) -> Array:
        """A point (3,) in the camera frame of `frame`: its pixel's centre at its depth, through the poses."""
        camera = self.cameras[point["view"]]
        intrinsics = Intrinsics(camera["fx"], camera["fy"], camera["cx"], camera["cy"])
        u, v = self.pixel(point)
        in_view = unproject(np.array(u), np.array(v), np.array(point["depth_m"]), intrinsics)
        if point["view"] == frame:
            return in_view
        return transform(transform(in_view, self.poses[point["view"]]), self.world_to_camera[frame])

    def box(self, row: Row, view: int) -> Box:
        """The oriented box of an object in the canonical frame of a view."""
        box = Box(*(np.array(row[name], dtype=np.float64) for name in ("centre", "box_rotation", "dimensions")))
        box = Box(box.centre, box.axes.reshape(3, 3), box.dimensions)
        return (
            box if view == row["view"] else box.moved(self.canonical[view] @ invert_pose(self.canonical[row["view"]]))
        )

    def placed(self, row: Row, view: int) -> Placed:
        """An object as a view sees it."""
        box = self.box(row, view)
        optical_axis = self.canonical[view][:3, :3] @ self.poses[view][:3, 2]
        whole = not row["truncated"] and not row["occluded"]
        return Placed(box, float(box.centre @ optical_axis), row["size"][1], whole)

    def relation(self, kind: str, first: int, second: int, view: int) -> tuple[int, float]:
        """`geometry.compare` of two objects (by id) as `view` sees them."""
        for name in (first, second):
            if (name, view) not in self._placed:
                self._placed[name, view] = self.placed(self.objects[name], view)
        pair = (self._placed[first, view], self._placed[second, view])
        gravity = self.up_world is not None
        if kind == "taller_shorter" and not all(
            self._is_measurably_tall(self.objects[one]) for one in (first, second)
        ):
            return 0, 0.0
        return compare(kind, *pair, self.noise, gravity, is_level(self.poses[view], self.up_world))

    def closer(self, first: Row, second: Row) -> tuple[int, float]:
        """+1 where the first of two points (same frame) is less deep beyond doubt, -1, or 0; and the difference."""
        depths = [to_millimetre(point["position_m"][2]) for point in (first, second)]
        difference = depths[1] - depths[0]
        decided = abs(difference) > NOISE_FACTOR * self.noise * (abs(depths[0]) + abs(depths[1])) / 2 and difference
        return (int(np.sign(difference)) if decided else 0), difference

    def dimensions_text(self, row: Row) -> str:
        """The sides of an object's box in words: "24.4 cm by 14.3 cm by 5.9 cm".

        A side that cannot be measured from where the camera stands is left out (the longest never is): one that is
        too short for the noise or the resolution, or that leads away from the camera.
        """
        sides = np.array(row["dimensions"])
        slant = np.abs(np.array(row["box_rotation"]).reshape(3, 3) @ np.array(row["centre"]))
        slant /= np.linalg.norm(row["centre"])
        told = self._measurable(row, sides, slant) & (slant < FORESHORTENED)
        return " by ".join(format_length(side) for side, good in zip(sides, [True, *told[1:]]) if good)

    def _measurable(self, row: Row, lengths_m: Array, slant: Array) -> Array:
        """Which lengths, at the depth of an object and at an angle of cosine `slant` to the sight, can be measured."""
        shortest_m = max(SIDE_NOISES * self.noise, MEASURABLE_FRACTION) * row["depth_m"]
        span_px = lengths_m * np.sqrt(1 - np.minimum(slant, 1) ** 2) * self.cameras[row["view"]]["fx"] / row["depth_m"]
        return (lengths_m > shortest_m) & (span_px > MEASURABLE_PX)

    def _is_measurably_tall(self, row: Row) -> bool:
        slant = abs(row["centre"][1]) / np.linalg.norm(row["centre"])
        return bool(self._measurable(row, np.array(row["size"][1]), slant))

    def centre_distance(self, first: int, second: int) -> float:
        """Distance between the centres of two objects' boxes."""
        view = self.objects[first]["view"]
        centres = [self.box(self.objects[name], view).centre for name in (first, second)]
        return float(np.linalg.norm(centres[0] - centres[1]))

    def camera_distance(self, first: int, second: int) -> float:
        """Distance between two cameras."""
        return float(np.linalg.norm(self.poses[first][:3, 3] - self.poses[second][:3, 3]))


def sideways(offset_m: float) -> str:
    """An x offset in words: "12.3 cm to the left"."""
    return f"{format_length(offset_m)} to the {'left' if offset_m < 0 else 'right'}"


def position_text(position_m: list[float] | Array) -> str:
    """A camera-frame position in words, right or left, down or up, forward or backward."""
    x, y, z = position_m
    vertical = f"{format_length(y)} {'up' if y < 0 else 'down'}"
    return f"{sideways(x)}, {vertical} and {format_length(z)} {'backward' if z < 0 else 'forward'}"
