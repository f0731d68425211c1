"""Exact ray casting of a room filled with boxes, ellipsoids and frustums.

Every ray of a pinhole camera is built with a unit component along the optical axis, so the ray parameter of a hit is
its z-depth. Each primitive is tested only inside the rectangle that it can cover, which is what makes this fast.
World axes: x and y span the floor, z is up; the room is centred on the z axis and stands on z = 0.
Numpy alone, in float32: for windows of this size it is faster than torch, and no thread count changes a byte.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dataset_builders.scene import Intrinsics

NEAR_M = 1e-3  # hits nearer than this are behind the camera or on the surface that a shadow ray leaves
BOX_SIGNS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])  # (8, 3)
Array = np.ndarray  # float32 unless said otherwise; vectors have x, y and z along their first axis
Pattern = Literal[
    "plain", "checker", "stripes", "noise", "planks", "tiles",
    "bricks", "dots", "marble", "parquet", "zigzag", "speckle", "rings",
]  # fmt: skip


@dataclass(frozen=True)
class Texture:
    """A solid texture: `colour` and `second_colour` (linear RGB, 0..1) mixed by a pattern in the surface's own axes.

    `period_m` is the length of one repetition along each axis; `gloss` the strength of highlights (0..1), `glow` the
    share of the colour that shines on its own.
    """

    colour: tuple[float, float, float]
    second_colour: tuple[float, float, float] = (0.0, 0.0, 0.0)
    pattern: Pattern = "plain"
    period_m: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gloss: float = 0.0
    glow: float = 0.0


@dataclass(frozen=True)
class Primitive:
    """A convex solid, turned by `yaw_rad` around the vertical axis through its `centre_m`.

    `half_size_m` are its half extents; a frustum's bottom radius is the first of them and its top radius is `taper`
    times as wide (1 = cylinder, 0 = cone). Flat pieces on a wall or the floor take no `shadow` from the room.
    """

    shape: Literal["box", "ellipsoid", "frustum"]
    centre_m: tuple[float, float, float]
    half_size_m: tuple[float, float, float]
    texture: Texture
    yaw_rad: float = 0.0
    taper: float = 1.0
    instance: int = 0
    class_id: int = 0
    shadow: bool = True

    @property
    def half_extent_m(self) -> tuple[float, float, float]:
        """Half sides of the upright box around it, before its yaw."""
        widest = max(1.0, self.taper) if self.shape == "frustum" else 1.0
        return self.half_size_m[0] * widest, self.half_size_m[1] * widest, self.half_size_m[2]


@dataclass(frozen=True)
class Room:
    """An empty room of `size_m` (width, depth, height) and the solids in it; class ids 0, 1, 2 are its surfaces."""

    size_m: tuple[float, float, float]
    floor: Texture
    wall: Texture
    ceiling: Texture
    primitives: tuple[Primitive, ...] = ()


@dataclass(frozen=True)
class Camera:
    """A pinhole camera of `height` x `width` pixels; `camera_to_world` (4, 4) is rigid with OpenCV axes."""

    intrinsics: Intrinsics
    camera_to_world: np.ndarray
    height: int
    width: int


@dataclass(frozen=True)
class Hits:
    """What each ray of shape (S, H, W) meets first.

    Attributes:
        depth_m: (S, H, W), metres along the optical axis.
        surface: (S, H, W), int64: index of a primitive, or count + 0, 1, 2 for floor, wall and ceiling.
        direction: (3, S, H, W), world axes, not normalised: a hit lies at `origin + depth * direction`.
        origin_m: (3,), the camera's position, float64.
    """

    depth_m: Array
    surface: Array
    direction: Array
    origin_m: Array


def camera_rays(camera: Camera, offsets_px: np.ndarray) -> Array:
    """Directions in world axes, (3, S, H, W), of rays through every pixel centre moved by `offsets_px` (S, 2)."""
    intrinsics, rotation = camera.intrinsics, camera.camera_to_world[:3, :3].tolist()
    offsets = offsets_px[:, :, None, None]  # (S, 2, 1, 1)
    x = ((np.arange(camera.width) + offsets[:, 0] - intrinsics.cx) / intrinsics.fx).astype(np.float32)  # (S, 1, W)
    y = (np.arange(camera.height)[:, None] + offsets[:, 1] - intrinsics.cy) / intrinsics.fy  # (S, H, 1)
    y = y.astype(np.float32)
    return np.stack([row[0] * x + row[1] * y + row[2] for row in rotation])


def trace(room: Room, camera: Camera, offsets_px: np.ndarray) -> Hits:
    """Nearest hits of all rays of a camera inside `room`.

    Args:
        room: the scene; the camera must be inside it and outside every primitive.
        camera: the viewpoint.
        offsets_px: (S, 2), where in the pixel each of the S rays per pixel passes; (0, 0) is its centre.
    """
    direction = camera_rays(camera, offsets_px)
    origin = camera.camera_to_world[:3, 3]
    depth, surface = _room_exit(room, origin, direction)
    for index, (primitive, window) in enumerate(zip(room.primitives, _windows(room.primitives, camera))):
        if window is None:
            continue
        relative = (origin - primitive.centre_m).astype(np.float32)
        rays = direction[:, :, window[0], window[1]]
        distance = entry(primitive, to_local(primitive, relative), to_local(primitive, rays))
        nearest = depth[:, window[0], window[1]]
        np.copyto(surface[:, window[0], window[1]], index, where=distance < nearest)
        np.minimum(nearest, distance, out=nearest)
    return Hits(depth, surface, direction, origin)


def to_local(primitive: Primitive, vector: Array) -> Array:
    """Turn world vectors (3, ...) into the primitive's own axes."""
    cosine, sine = math.cos(primitive.yaw_rad), math.sin(primitive.yaw_rad)
    local = np.empty(vector.shape, dtype=np.float32)
    local[0] = cosine * vector[0] + sine * vector[1]
    local[1] = cosine * vector[1] - sine * vector[0]
    local[2] = vector[2]
    return local


def dot(first: Array, second: Array) -> Array:
    """Scalar products over the first axis."""
    return first[0] * second[0] + first[1] * second[1] + first[2] * second[2]


def entry(primitive: Primitive, origin: Array, direction: Array) -> Array:
    """Ray parameter at which rays from outside enter the primitive, infinite where they miss it.

    Args:
        primitive: the solid.
        origin: (3,) or (3, P), start of the rays in the primitive's axes, relative to its centre.
        direction: (3, ...) of the rays in the primitive's axes, any length.
    """
    if primitive.shape == "box":
        return _enter_box(primitive.half_size_m, origin, direction)
    if primitive.shape == "ellipsoid":
        return _enter_ellipsoid(primitive.half_size_m, origin, direction)
    return _enter_frustum(primitive, origin, direction)


def _room_exit(room: Room, origin: np.ndarray, direction: Array) -> tuple[Array, Array]:
    """Depth at which each ray leaves the room, and whether it is by the floor, a wall or the ceiling."""
    low = (-room.size_m[0] / 2, -room.size_m[1] / 2, 0.0)
    high = (room.size_m[0] / 2, room.size_m[1] / 2, room.size_m[2])
    exits = []
    for axis in range(3):
        component = _nonzero(direction[axis])
        ahead, behind = high[axis] - float(origin[axis]), low[axis] - float(origin[axis])
        exits.append(np.where(component > 0, np.float32(ahead), np.float32(behind)) / component)
    wall = np.minimum(exits[0], exits[1])
    level = np.where(direction[2] > 0, 2, 0)
    return np.minimum(wall, exits[2]), np.where(wall < exits[2], 1, level) + len(room.primitives)


def _windows(primitives: tuple[Primitive, ...], camera: Camera) -> list[tuple[slice, slice] | None]:
    """Rows and columns of the image that each primitive can cover, None for those out of sight."""
    corners = box_corners(primitives, camera)
    rows, columns, nearest = pixel_bounds(corners, camera)
    windows: list[tuple[slice, slice] | None] = []
    for (top, bottom), (left, right), (near, far) in zip(rows.tolist(), columns.tolist(), nearest.tolist()):
        if far < NEAR_M:
            windows.append(None)
        elif near < 10 * NEAR_M:
            windows.append((slice(0, camera.height), slice(0, camera.width)))
        else:
            top, bottom = max(0, math.floor(top) - 1), min(camera.height, math.ceil(bottom) + 2)
            left, right = max(0, math.floor(left) - 1), min(camera.width, math.ceil(right) + 2)
            windows.append((slice(top, bottom), slice(left, right)) if top < bottom and left < right else None)
    return windows


def box_corners(primitives: tuple[Primitive, ...], camera: Camera) -> np.ndarray:
    """Corners of the upright boxes around primitives, (N, 8, 3), metres in camera axes."""
    half = np.array([primitive.half_extent_m for primitive in primitives]).reshape(-1, 1, 3)
    centre = np.array([primitive.centre_m for primitive in primitives]).reshape(-1, 1, 3)
    yaw = np.array([primitive.yaw_rad for primitive in primitives]).reshape(-1, 1)
    local = BOX_SIGNS * half  # (N, 8, 3)
    x = np.cos(yaw) * local[..., 0] - np.sin(yaw) * local[..., 1]
    y = np.sin(yaw) * local[..., 0] + np.cos(yaw) * local[..., 1]
    world = np.stack([x, y, local[..., 2]], axis=-1) + centre
    return (world - camera.camera_to_world[:3, 3]) @ camera.camera_to_world[:3, :3]


def pixel_bounds(corners_m: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Least and greatest row, column (pixels) and depth (metres), (N, 2) each, of corners in camera axes (N, 8, 3).

    Rows and columns mean something only where the least depth is positive.
    """
    depth = np.maximum(corners_m[..., 2], NEAR_M)
    columns = corners_m[..., 0] / depth * camera.intrinsics.fx + camera.intrinsics.cx
    rows = corners_m[..., 1] / depth * camera.intrinsics.fy + camera.intrinsics.cy
    bounds = [
        np.stack([values.min(axis=1), values.max(axis=1)], axis=1) for values in (rows, columns, corners_m[..., 2])
    ]
    return bounds[0], bounds[1], bounds[2]


def _nonzero(component: Array) -> Array:
    """Replace exact zeros, by which a ray parameter cannot be divided."""
    return np.where(component == 0, np.float32(1e-12), component)


def _enter_box(half_size_m: tuple[float, float, float], origin: Array, direction: Array) -> Array:
    middles, reaches = [], []
    for half, start, step in zip(half_size_m, origin, direction):
        inverse = 1 / _nonzero(step)
        middles.append(-start * inverse)
        reaches.append(half * np.abs(inverse))
    pairs = list(zip(middles, reaches))
    first = np.maximum(np.maximum(*(middle - reach for middle, reach in pairs[:2])), middles[2] - reaches[2])
    last = np.minimum(np.minimum(*(middle + reach for middle, reach in pairs[:2])), middles[2] + reaches[2])
    return _entered(first, last)


def _enter_ellipsoid(half_size_m: tuple[float, float, float], origin: Array, direction: Array) -> Array:
    half = np.array(half_size_m, dtype=np.float32)
    ray = direction / half.reshape(3, *(1,) * (direction.ndim - 1))
    start = origin / half.reshape(3, *(1,) * (origin.ndim - 1))
    squared_length = dot(ray, ray)
    middle = -dot(start, ray) / squared_length  # nearest approach: keeps small numbers small
    x, y, z = start[0] + middle * ray[0], start[1] + middle * ray[1], start[2] + middle * ray[2]
    half_chord = np.sqrt(np.maximum(1 - (x * x + y * y + z * z), 0) / squared_length)
    return _entered(middle - half_chord, middle + half_chord)


def _enter_frustum(primitive: Primitive, origin: Array, direction: Array) -> Array:
    bottom_radius, _, half_height = primitive.half_size_m
    slope = bottom_radius * (primitive.taper - 1) / (2 * half_height)  # of the radius, per metre of height
    mid_radius = bottom_radius * (1 + primitive.taper) / 2
    x, y, z = direction
    middle = -dot(origin, direction) / dot(direction, direction)
    start_x, start_y, start_z = origin[0] + middle * x, origin[1] + middle * y, origin[2] + middle * z
    start_radius, growth = mid_radius + slope * start_z, slope * z
    quadratic = _nonzero(x * x + y * y - growth * growth)
    linear = start_x * x + start_y * y - growth * start_radius
    constant = start_x * start_x + start_y * start_y - start_radius * start_radius
    discriminant = linear * linear - quadratic * constant
    root = np.sqrt(np.maximum(discriminant, 0))
    first, last = (-linear - root) / quadratic, (-linear + root) / quadratic
    if slope:  # a ray steeper than the side is inside from one crossing on, or up to one
        steep = quadratic < 0
        first = np.where(steep & (growth <= 0), np.float32(-np.inf), first)
        last = np.where(steep & (growth > 0), np.float32(np.inf), last)
    inverse = 1 / _nonzero(z)
    level, reach = -start_z * inverse, half_height * np.abs(inverse)
    first, last = np.maximum(first, level - reach), np.minimum(last, level + reach)
    last[discriminant <= 0] = -np.inf
    return _entered(first + middle, last + middle)


def _entered(first: Array, last: Array) -> Array:
    """Where rays enter a convex solid that they are inside of between two parameters."""
    return np.where((first < last) & (first > NEAR_M), first, np.float32(np.inf))
