"""From depth to points, frames, boxes, relations and distances (numpy and scipy), and the one way to write a number.

Frames: *camera* has OpenCV axes (x right, y down, z forward); *canonical* belongs to a view: origin at its camera,
x right, y up against gravity, z forward and level. All thresholds are relative to depth or size, so that scaling a
scene scales every length and changes no relation.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import ConvexHull, QhullError, cKDTree
from scipy.spatial.distance import cdist

from dataset_builders.scene import Intrinsics, View

MIN_DEPTH_M = 0.01  # nearer readings are holes that were filled by interpolation
MAX_DEPTH_M = 100.0  # farther readings are sky
NOISE_FACTOR = 3.0  # a difference below this many standard deviations of the depth is undecidable
LEVEL_SINE = float(np.sin(np.deg2rad(60.0)))  # for a camera that looks down more steeply nothing is "in front"
STEEP_SINE = float(np.sin(np.deg2rad(35.0)))  # of a thing seen more steeply the height cannot be told
STRAIGHT_RAD = 0.17  # an outline that leaves its box's direction by less than 10 degrees
STRAIGHT_SHARE = 0.5  # over this share of its length follows straight sides; another one is round
ROUND_TIGHTNESS = 0.75  # no box around a round thing covers less than this share of the one that faces the camera
UPRIGHT_SINES = (0.1, 0.995)  # a face whose normal is within 6 degrees of level or of vertical does not lean
Array = np.ndarray


def format_length(length_m: float) -> str:
    """Write a length: rounded to the millimetre, then centimetres below 0.5 m ("31.2 cm"), metres from there on.

    Both forms have the same resolution, so a number reads the same wherever it stands in a dialogue.
    """
    millimetres = round(abs(length_m) * 1000)
    return f"{millimetres / 10:.1f} cm" if millimetres < 500 else f"{millimetres / 1000:.3f} m"


def to_millimetre(length_m: float) -> float:
    """The length that `format_length` shows, so that sums and differences of shown numbers come out right."""
    return round(float(length_m), 3)


def valid_depth(depth_m: Array) -> Array:
    """Which readings are real: finite, beyond filled holes, nearer than the sky. Any shape in, bool out."""
    with np.errstate(invalid="ignore"):
        return (depth_m >= MIN_DEPTH_M) & (depth_m <= MAX_DEPTH_M)


def unproject(u: Array, v: Array, depth_m: Array, intrinsics: Intrinsics) -> Array:
    """Pixels (N,), (N,) with their depth (N,) to points (N, 3) in the camera frame: x = (u - cx) z / fx."""
    x = (u - intrinsics.cx) * depth_m / intrinsics.fx
    y = (v - intrinsics.cy) * depth_m / intrinsics.fy
    return np.stack([x, y, depth_m], axis=-1).astype(np.float64)


def along(points: Array, directions: Array) -> Array:
    """Coordinates (..., K) of points (..., C) along directions (K, C).

    Not a matrix product: those depend in the last bit on the number of threads, and then so would a whole data set.
    """
    first, *others = (points[..., axis, None] * directions[:, axis] for axis in range(directions.shape[1]))
    for other in others:
        first += other
    return first


def transform(points: Array, pose: Array) -> Array:
    """Apply a (4, 4) pose to points (..., 3)."""
    return along(points, pose[:3, :3]) + pose[:3, 3]


def invert_pose(pose: Array) -> Array:
    """The inverse of a rigid (4, 4) pose."""
    inverse = np.eye(4)
    inverse[:3, :3] = pose[:3, :3].T
    inverse[:3, 3] = -pose[:3, :3].T @ pose[:3, 3]
    return inverse


def is_rigid(pose: Array, tolerance: float = 1e-3) -> bool:
    """Whether a (4, 4) matrix is finite and a rotation plus a translation, not a reflection or a scaling."""
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        return False
    rotation = pose[:3, :3]
    orthonormal = np.abs(rotation @ rotation.T - np.eye(3)).max() < tolerance
    return bool(orthonormal and np.linalg.det(rotation) > 0 and np.abs(pose[3] - (0, 0, 0, 1)).max() < tolerance)


def canonical_pose(camera_to_world: Array, up_world: Array | None) -> Array:
    """The (4, 4) pose world -> canonical frame of a view; without gravity the camera's own axes stand in."""
    down, forward = camera_to_world[:3, 1], camera_to_world[:3, 2]
    up = -down if up_world is None else np.asarray(up_world, dtype=np.float64) / np.linalg.norm(up_world)
    level = forward - (forward @ up) * up
    if np.linalg.norm(level) < 0.1:  # looking straight up or down: the top of the image is ahead
        level = -down - (-down @ up) * up if forward @ up < 0 else down - (down @ up) * up
    level = level / np.linalg.norm(level)
    rotation = np.stack([np.cross(level, up), up, level])  # rows: x right, y up, z forward (a left-handed triple)
    pose = np.eye(4)
    pose[:3, :3] = rotation
    pose[:3, 3] = -rotation @ camera_to_world[:3, 3]
    return pose


def thin(points: Array, limit: int) -> Array:
    """At most `limit` of the points (N, 3), evenly taken, always the same."""
    return points if len(points) <= limit else points[np.linspace(0, len(points) - 1, limit).astype(np.int64)]


def plane_normal(points: Array, tolerance_m: float, trials: int = 64) -> tuple[Array, float]:
    """Unit normal (3,) of the plane that most of the points (N, 3) lie on, and the fraction that does.

    Deterministic RANSAC on a subsample, then a least-squares fit to the inliers; NaN normal where there is no plane.
    """
    sample = thin(points, 512)
    corners = sample[np.random.default_rng(0).integers(0, len(sample), (trials, 3))]  # (trials, 3, 3)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1)
    spread = lengths > 1e-3 * lengths.max(initial=1e-12)
    if not spread.any():
        return np.full(3, np.nan), 0.0
    normals, origins = normals[spread] / lengths[spread, None], corners[spread, 0]
    near = np.abs(along(sample, normals) - (origins * normals).sum(axis=1)) < tolerance_m  # (512, trials)
    inliers = sample[near[:, near.sum(axis=0).argmax()]]
    offsets = inliers - inliers.mean(axis=0)
    normal = np.linalg.eigh(np.einsum("ni,nj->ij", offsets, offsets))[1][:, 0]
    return normal, len(inliers) / len(sample)


def up_from_support(points: Array, camera_position: Array) -> Array | None:
    """Gravity from a surface that is *labelled* as a level support (table, floor), never from the largest plane.

    Args:
        points: (N, 3) on the support, world axes.
        camera_position: (3,), the visible side of the support faces it.

    Returns:
        The unit vector (3,) against gravity, or None where the points are few or no plane.
    """
    if len(points) < 100:
        return None
    distance_m = float(np.median(np.linalg.norm(points - camera_position, axis=1)))
    normal, fraction = plane_normal(points, tolerance_m=0.01 * distance_m)
    if fraction < 0.6:
        return None
    return normal if normal @ (camera_position - np.median(points, axis=0)) > 0 else -normal


@dataclass(frozen=True)
class Box:
    """An oriented box: `centre` (3,), `axes` (3, 3) whose row i is the direction of side i, `dimensions` (3,) sorted.

    Without further word, in world axes; `Box.moved` gives it in another frame.
    """

    centre: Array
    axes: Array
    dimensions: Array

    def moved(self, pose: Array) -> "Box":
        """The same box after a (4, 4) pose."""
        return Box(transform(self.centre, pose), self.axes @ pose[:3, :3].T, self.dimensions)

    def half_extents(self) -> Array:
        """Half of the extent along each axis of the frame, (3,)."""
        return np.abs(self.axes.T) @ self.dimensions / 2


def trimmed_range(values: Array) -> tuple[Array, Array]:
    """Low and high ends (C,) of the columns of (N, C), whatever the outermost 1 of 150 on either side are.

    The ends lie as far beyond what is left as the next 1 of 150 reaches, if there are values there: evenly spread ones
    lose nothing.
    """
    cut, last = len(values) // 150, len(values) - 1
    places = [0, cut, 2 * cut, last - 2 * cut, last - cut, last]
    least, low, next_low, next_high, high, most = np.partition(values, places, axis=0)[places]
    return np.maximum(2 * low - next_low, least), np.minimum(2 * high - next_high, most)


def _to_nearest_end(values: Array) -> Array:
    """Distance of each value to the nearer end of its column, (N, A)."""
    return np.minimum(values - values.min(axis=0), values.max(axis=0) - values)


def _is_round(edges: Array, turns: Array, angles: Array) -> bool:
    """Whether the edges (E, 2) of an outline, of directions `turns` (E,), follow none of the angles (A,) for long."""
    apart = np.abs(turns - angles[:, None])  # (A, E)
    lengths = np.hypot(edges[:, 0], edges[:, 1])
    along_side = ((np.minimum(apart, np.pi / 2 - apart) < STRAIGHT_RAD) * lengths).sum(axis=1)
    return bool(along_side.max() < STRAIGHT_SHARE * lengths.sum())


def _flat_box(points: Array, up: Array, sight: Array | None) -> Box:
    """The box with one axis along `up`, turned so that the points (N, 3) lie along its sides.

    Of the rectangles of about the least area, the one whose sides the points are nearest to. A round thing has no
    sides: its box faces the camera, so that the full width that the camera sees is a side of the box.
    """
    first = np.cross(up, np.eye(3)[np.abs(up).argmin()])
    first /= np.linalg.norm(first)
    second = np.cross(up, first)
    flat = along(thin(points, 1024), np.stack([first, second]))  # (N, 2)
    try:
        outline = flat[ConvexHull(flat).vertices]
    except (QhullError, ValueError):  # all on one line
        outline = flat
    edges = np.diff(outline, axis=0, append=outline[:1])
    turns = np.arctan2(edges[:, 1], edges[:, 0]) % (np.pi / 2)
    angles = np.unique(np.round(turns * 50)) / 50
    if sight is not None:  # the last candidate faces the camera
        angles = np.append(angles, np.arctan2(sight @ second, sight @ first) % (np.pi / 2))
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)  # (A, 2)
    normals = directions[:, ::-1] * (-1, 1)
    areas = np.ptp(along(outline, directions), axis=0) * np.ptp(along(outline, normals), axis=0)
    tight = areas <= 1.1 * areas[: len(areas) - (sight is not None)].min()
    if sight is not None:
        tight[-1] = areas.min() > ROUND_TIGHTNESS * areas[-1] and _is_round(edges, turns, angles)
        tight[:-1] &= not tight[-1]
    sample = thin(flat, 128)
    distances = np.minimum(  # of points to the nearest side of each rectangle: two visible walls make an L
        _to_nearest_end(along(sample, directions[tight])), _to_nearest_end(along(sample, normals[tight]))
    )
    cosine, sine = directions[tight][distances.mean(axis=0).argmin()]
    axes = np.stack([cosine * first + sine * second, cosine * second - sine * first, up])
    low, high = trimmed_range(along(thin(points, 4096), axes))
    order = np.argsort(low - high)
    return Box(((low + high) / 2) @ axes, axes[order], (high - low)[order])


def oriented_box(points: Array, up: Array | None, tolerance_m: float, sight: Array | None = None) -> Box:
    """A robust box around an object's points (N, 3), N >= 4, in the frame of the points.

    Two candidates: upright (needs `up`, the direction against gravity) and flush with the object's largest flat
    face. The flush one is taken where gravity is unknown, or where that face leans and the box is clearly tighter, as
    for a leaning book.

    Args:
        points: cleaned points (N, 3).
        up: (3,) or None.
        tolerance_m: noise of the points, the thickness of a flat face.
        sight: (3,), direction from the camera to the object; decides how the box of a round thing is turned.
    """
    normal, _ = plane_normal(points, tolerance_m)
    if np.isnan(normal).any():
        normal = np.array([0.0, 1.0, 0.0]) if up is None else np.asarray(up, dtype=np.float64)
    if up is None:
        return _flat_box(points, normal, sight)
    upright = _flat_box(points, np.asarray(up, dtype=np.float64), sight)
    if not UPRIGHT_SINES[0] < abs(normal @ up) < UPRIGHT_SINES[1]:
        return upright
    flush = _flat_box(points, normal, sight)
    thick = np.maximum(flush.dimensions, tolerance_m), np.maximum(upright.dimensions, tolerance_m)
    return flush if thick[0].prod() < 0.8 * thick[1].prod() else upright


def surface_distance(first: Array, second: Array) -> tuple[float, Array]:
    """Robust distance between the nearest visible surfaces of two objects, symmetric, in the unit of the points.

    From either side, the tenth smallest of the points' distances to the other object. A few stray points between the
    two spoil only the view from the other side, hence the larger of the two results is taken.

    Args:
        first: points (N, 3), as dense as they are known.
        second: points (M, 3), same frame.

    Returns:
        The distance and the two points (2, 3) that it is measured between, first one on `first`.
    """
    rank = min(9, len(first) // 5, len(second) // 5)
    kept = [first, second]
    for _ in range(2):  # leave out what cannot be nearest, the second time by a tighter bound
        coarse = [thin(points, 250) for points in kept]
        between = cdist(*coarse)
        reach = max(np.partition(between.min(axis=axis), rank)[rank] for axis in (0, 1)) * 1.001 + 1e-9
        boxes = [(points.min(axis=0), points.max(axis=0)) for points in kept]
        kept = [
            np.concatenate([points[np.linalg.norm(points - np.clip(points, *box), axis=1) <= reach], few])
            for points, box, few in zip(kept, boxes[::-1], coarse)
        ]
    kept = [np.concatenate([thin(points, 1000), few]) for points, few in zip(kept, coarse)]
    found = []
    for points, other in (kept, kept[::-1]):
        distances, index = cKDTree(other).query(points, distance_upper_bound=reach)  # inf beyond reach
        chosen = int(np.argpartition(distances, rank)[rank])
        found.append((float(distances[chosen]), points[chosen], other[index[chosen]]))
    there, back = found
    return (there[0], np.stack(there[1:])) if there[0] >= back[0] else (back[0], np.stack(back[:0:-1]))


@dataclass(frozen=True)
class Placed:
    """An object as one view sees it.

    Attributes:
        box: in the canonical frame of the view.
        optical_depth_m: of the box centre, along the optical axis of the view.
        height_m: vertical extent.
        whole: neither cut by the border nor partly hidden, so that its size may be compared.
    """

    box: Box
    optical_depth_m: float
    height_m: float
    whole: bool


def compare(kind: str, first: Placed, second: Placed, noise: float, gravity: bool, level: bool) -> tuple[int, float]:
    """How `first` relates to `second` for a viewer, if a few centimetres of noise could not flip the answer.

    Args:
        kind: "left_right" (+1 = first is left), "front_behind" (+1 = first is in front, nearer the camera),
            "above_below" (+1 = first is above), "taller_shorter", "bigger_smaller" (+1 = first is).
        first: in the frame of the same view as `second`.
        second: the other object.
        noise: relative standard deviation of the depth.
        gravity: whether the canonical y axis is known to be vertical.
        level: whether gravity is known and the view looks ahead rather than down (`is_level`).

    Heights and sizes are compared only where both objects are `whole`.

    Returns:
        +1, -1 or 0 for undecidable, and the decisive difference in metres (positive with +1).
    """
    range_first, range_second = (float(np.linalg.norm(one.box.centre)) for one in (first, second))
    margin = NOISE_FACTOR * noise * (range_first + range_second) / 2
    half_first, half_second = first.box.half_extents(), second.box.half_extents()
    step = second.box.centre - first.box.centre  # x: positive when first is left
    if kind == "left_right":
        bearing = second.box.centre[0] / range_second - first.box.centre[0] / range_first
        return _decide(step[0], margin + (half_first[0] + half_second[0]) / 4, bearing)
    if kind == "front_behind":
        nearer = second.optical_depth_m - first.optical_depth_m
        ahead = step[2] if level else nearer
        margin += (half_first[2] + half_second[2]) / 4
        sign, _ = _decide(ahead, margin, nearer)
        closer = range_second - range_first  # "in front of" and "closer to the camera" must both be beyond doubt
        return (sign if sign * closer > margin / 2 else 0), ahead
    if not (first.whole and second.whole):
        return 0, 0.0
    if kind == "above_below":
        return _decide(-step[1], margin + max(half_first[1], half_second[1])) if gravity else (0, 0.0)
    if kind == "taller_shorter":
        taller = first.height_m - second.height_m
        steepest = max(abs(first.box.centre[1]) / range_first, abs(second.box.centre[1]) / range_second)
        if not level or steepest > STEEP_SINE:
            return 0, 0.0
        return _decide(taller, margin + 0.05 * (first.height_m + second.height_m))
    if kind == "bigger_smaller":  # in its two longest sides and not thinner: the third side may be out of sight
        longest, middle, shortest = first.box.dimensions - second.box.dimensions
        margin += 0.075 * (first.box.dimensions[0] + second.box.dimensions[0])
        sign, difference = _decide(longest, margin, middle)
        clear = sign * middle > margin / 2 and sign * shortest > -margin / 2
        return (sign if clear else 0), difference
    raise ValueError(f"compare: kind {kind!r} is unknown")


def _decide(difference: float, margin: float, *others: float) -> tuple[int, float]:
    """The sign of a difference beyond its margin with which the other evidence agrees, else 0."""
    sign = int(np.sign(difference)) if abs(difference) > margin else 0
    return (sign if all(np.sign(other) == sign for other in others) else 0), float(difference)


def is_level(camera_to_world: Array, up_world: Array | None) -> bool:
    """Whether gravity is known and the camera looks ahead (pitch within 60 degrees), so that it sees heights."""
    return up_world is not None and abs(float(camera_to_world[:3, 2] @ np.asarray(up_world))) < LEVEL_SINE


def view_points(view: View, u: Array, v: Array) -> Array:
    """World points (N, 3) of pixels (N,), (N,) of a view; only these pixels are unprojected."""
    return transform(unproject(u, v, view.depth_m[v, u].astype(np.float64), view.intrinsics), view.camera_to_world)
