"""Cameras for a synthetic room: varied lenses, heights and tilts, taken only where they see several things."""

import math
from dataclasses import dataclass
from random import Random

import numpy as np

from dataset_builders.scene import Intrinsics
from dataset_builders.sources.ray_caster import Camera, box_corners, pixel_bounds
from dataset_builders.sources.synthetic_rooms import Footprint, FurnishedRoom
from dataset_builders.sources.synthetic_variety import PLAIN, Variety

CLEARANCE_M = 0.2  # least distance of a camera from walls and things
MOSTLY = 0.7  # share of a thing's box that must lie in the image
TRIALS = 24
MAX_PITCH_RAD = math.radians(70)
MAX_HALF_VIEW_RAD = math.radians(50)  # of a portrait


@dataclass(frozen=True)
class _Aim:
    """What the cameras of one scene share: where they look, from how far and through which lens."""

    variety: Variety
    focus_m: tuple[float, float]
    distance_m: float
    azimuth_rad: float
    step_rad: float
    field_of_view_rad: float


def choose_cameras(
    furnished: FurnishedRoom, rng: Random, num_views: int, image_size: tuple[int, int], variety: Variety = PLAIN
) -> list[Camera]:
    """Cameras that each see several things, the later ones much of what the first one sees.

    Args:
        furnished: the room.
        rng: source of all draws.
        num_views: how many cameras.
        image_size: height and width in pixels.
        variety: what is drawn from which range.
    """
    target = rng.choice(furnished.footprints) if furnished.footprints else Footprint(0, 0, 0, 0, 0, 0)
    aim = _Aim(
        variety=variety,
        focus_m=(target.x_m * 0.85, target.y_m * 0.85),
        distance_m=rng.uniform(*variety.distance_m),
        azimuth_rad=rng.uniform(0, math.tau),
        step_rad=math.radians(rng.uniform(10, 50) * rng.choice([-1, 1])),
        field_of_view_rad=math.radians(rng.uniform(*variety.field_of_view_deg)),
    )
    first, azimuth, wanted = _best_camera(furnished, rng, aim, aim.azimuth_rad, math.pi, image_size, frozenset())
    cameras = [first]
    for view in range(1, num_views):
        camera, _, _ = _best_camera(furnished, rng, aim, azimuth + view * aim.step_rad, 0.3, image_size, wanted)
        cameras.append(camera)
    return cameras


def _best_camera(
    furnished: FurnishedRoom,
    rng: Random,
    aim: _Aim,
    azimuth_rad: float,
    spread_rad: float,
    image_size: tuple[int, int],
    wanted: frozenset[int],
) -> tuple[Camera, float, frozenset[int]]:
    """The first random camera that sees enough things, or the best of all trials.

    Args:
        furnished: the room.
        rng: source of all draws.
        aim: shared by the cameras of the scene.
        azimuth_rad: direction from the focus towards the camera.
        spread_rad: how far from it a camera may be.
        image_size: height and width in pixels.
        wanted: the only things that count; empty = all.

    Returns:
        The camera, its azimuth, and the ids of the things that it sees.
    """
    corner_x, corner_y, ceiling_m = (side / 2 - 0.1 for side in furnished.room.size_m)
    fallback = _look(rng, (-corner_x, -corner_y, 2 * ceiling_m), aim, image_size)  # from a corner, for cramped rooms
    best = (fallback, azimuth_rad, _seen(furnished, fallback, aim.variety.seen_share))
    for _ in range(TRIALS):
        angle = azimuth_rad + rng.uniform(-spread_rad, spread_rad)
        position = _free_position(furnished, rng, aim, angle)
        if position is None:
            continue
        camera = _look(rng, position, aim, image_size)
        seen = _seen(furnished, camera, aim.variety.seen_share)
        if len(seen & wanted if wanted else seen) > len(best[2] & wanted if wanted else best[2]):
            best = (camera, angle, seen)
        if len(seen & wanted if wanted else seen) >= aim.variety.enough_seen:
            return camera, angle, seen
    return best


def _free_position(
    furnished: FurnishedRoom, rng: Random, aim: _Aim, angle_rad: float
) -> tuple[float, float, float] | None:
    """A place for a camera, away from walls and things; None if this draw has none."""
    width, depth, height = furnished.room.size_m
    distance = aim.distance_m * rng.uniform(0.8, 1.25)
    limit_x, limit_y = width / 2 - CLEARANCE_M, depth / 2 - CLEARANCE_M
    x = min(limit_x, max(-limit_x, aim.focus_m[0] + distance * math.cos(angle_rad)))
    y = min(limit_y, max(-limit_y, aim.focus_m[1] + distance * math.sin(angle_rad)))
    lowest, highest = aim.variety.height_m
    z = rng.uniform(lowest, min(highest, height - CLEARANCE_M))
    spot = Footprint(x, y, 0, 0, 0, 0)
    blocked = any(
        z < thing.top_m + CLEARANCE_M and spot.overlaps(thing, CLEARANCE_M) for thing in furnished.footprints
    )
    too_near = math.hypot(x - aim.focus_m[0], y - aim.focus_m[1]) < 0.6
    return None if blocked or too_near else (x, y, z)


def _look(rng: Random, position_m: tuple[float, float, float], aim: _Aim, image_size: tuple[int, int]) -> Camera:
    """A camera at a place, turned towards the focus, slightly off and slightly rolled."""
    variety = aim.variety
    x, y = (rng.gauss(middle, variety.scatter_m) for middle in aim.focus_m)
    forward = np.array([x, y, rng.uniform(*variety.target_height_m)]) - position_m
    if variety.pitch_deg:
        ahead = math.hypot(forward[0], forward[1])
        pitch = math.atan2(forward[2], ahead) + math.radians(rng.gauss(0, variety.pitch_deg))
        forward[2] = ahead * math.tan(min(MAX_PITCH_RAD, max(-MAX_PITCH_RAD, pitch)))
    roll_rad = math.radians(rng.uniform(-variety.roll_deg, variety.roll_deg))
    return _camera(position_m, forward, roll_rad, aim.field_of_view_rad, image_size)


def _camera(
    position_m: tuple[float, float, float],
    forward: np.ndarray,
    roll_rad: float,
    field_of_view_rad: float,
    image_size: tuple[int, int],
) -> Camera:
    """A camera at a place that looks along `forward` (3,), any length, and is rolled."""
    height, width = image_size
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, (0, 0, 1))
    right = right / np.linalg.norm(right)
    down = np.cross(forward, right)
    cosine, sine = math.cos(roll_rad), math.sin(roll_rad)
    right, down = cosine * right + sine * down, cosine * down - sine * right
    camera_to_world = np.eye(4)
    camera_to_world[:3] = np.column_stack([right, down, forward, position_m])
    focal_length_px = max(height, width) / 2 / math.tan(field_of_view_rad / 2)
    intrinsics = Intrinsics(focal_length_px, focal_length_px, (width - 1) / 2, (height - 1) / 2)
    return Camera(intrinsics, camera_to_world, height, width)


def portrait_camera(
    furnished: FurnishedRoom, object_id: int, rng: Random, image_size: tuple[int, int], variety: Variety
) -> Camera | None:
    """A camera from any side that a thing would fill, if nothing stood before it; None if this draw has none.

    Args:
        furnished: the room.
        object_id: of the thing.
        rng: source of all draws.
        image_size: height and width in pixels.
        variety: what is drawn from which range.
    """
    parts = [primitive for primitive in furnished.room.primitives if primitive.instance == object_id]
    low = np.min([np.subtract(part.centre_m, part.half_extent_m) for part in parts], axis=0)
    high = np.max([np.add(part.centre_m, part.half_extent_m) for part in parts], axis=0)
    centre, radius_m = (low + high) / 2, float(np.linalg.norm(high - low)) / 2
    aim = _Aim(variety, (centre[0], centre[1]), 0.6 + radius_m * rng.uniform(1.5, 5), rng.uniform(0, math.tau), 0, 0)
    position = _free_position(furnished, rng, aim, aim.azimuth_rad)
    if position is None:
        return None
    forward = centre - position
    half_view_rad = math.atan(radius_m / float(np.linalg.norm(forward)) * rng.uniform(0.9, 1.5))
    if not math.radians(2) < half_view_rad < MAX_HALF_VIEW_RAD or math.hypot(forward[0], forward[1]) < CLEARANCE_M:
        return None
    forward = forward + radius_m * np.array([rng.uniform(-0.25, 0.25) for _ in range(3)])
    roll_rad = math.radians(rng.uniform(-variety.roll_deg, variety.roll_deg))
    return _camera(position, forward, roll_rad, 2 * half_view_rad, image_size)


def _seen(furnished: FurnishedRoom, camera: Camera, least_share: float) -> frozenset[int]:
    """Ids of the things, supports left out, most of whose box lies in the image and covers enough of it."""
    rows, columns, depth = pixel_bounds(box_corners(furnished.room.primitives, camera), camera)
    owners = np.array([primitive.instance for primitive in furnished.room.primitives])
    seen = []
    for one in furnished.objects:
        own = owners == one.id
        if one.is_support or depth[own, 0].min() < CLEARANCE_M / 2:
            continue
        top, bottom = rows[own, 0].min(), rows[own, 1].max()
        left, right = columns[own, 0].min(), columns[own, 1].max()
        inside_rows = min(bottom, camera.height) - max(top, 0)
        inside_columns = min(right, camera.width) - max(left, 0)
        inside = max(0.0, inside_rows) * max(0.0, inside_columns)
        whole = (bottom - top) * (right - left)
        if inside > MOSTLY * whole and inside > least_share * camera.height * camera.width:
            seen.append(one.id)
    return frozenset(seen)
