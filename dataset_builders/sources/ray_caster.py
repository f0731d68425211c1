"""Exact ray casting of a room filled with boxes, ellipsoids and frustums.

Every ray of a pinhole camera is built with a unit component along the optical axis, so the ray parameter of a hit is
its z-depth. Each primitive is tested only inside the rectangle that it can cover, which is what makes this fast.
World axes: x and y span the floor, z is up; the room is centred on the z axis and stands on z = 0.
Only arithmetic and square roots are used, and no sum runs over pixels, so the bytes do not depend on thread counts.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dataset_builders.scene import Intrinsics

NEAR_M = 1e-3  # hits nearer than this are behind the camera or on the surface that a shadow ray leaves
BOX_SIGNS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])  # (8, 3)
Vector = tuple[Tensor, Tensor, Tensor]  # x, y and z components, which may broadcast


Pattern = Literal["plain", "checker", "stripes", "noise", "planks", "tiles"]


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
    times as wide (1 = cylinder, 0 = cone).
    """

    shape: Literal["box", "ellipsoid", "frustum"]
    centre_m: tuple[float, float, float]
    half_size_m: tuple[float, float, float]
    texture: Texture
    yaw_rad: float = 0.0
    taper: float = 1.0
    instance: int = 0
    class_id: int = 0

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
        direction: three (S, H, W) tensors, world axes, not normalised: a hit lies at `origin + depth * direction`.
        origin_m: (3,), the camera's position.
    """

    depth_m: Tensor
    surface: Tensor
    direction: Vector
    origin_m: np.ndarray = field(default_factory=lambda: np.zeros(3))


def camera_rays(camera: Camera, offsets_px: np.ndarray) -> Vector:
    """Directions in world axes, (S, H, W) each, of rays through every pixel centre moved by `offsets_px` (S, 2)."""
    intrinsics, rotation = camera.intrinsics, camera.camera_to_world[:3, :3]
    offsets = torch.as_tensor(offsets_px, dtype=torch.float32)[:, :, None, None]  # (S, 2, 1, 1)
    x = (torch.arange(camera.width) + offsets[:, 0] - intrinsics.cx) / intrinsics.fx  # (S, 1, W)
    y = (torch.arange(camera.height)[:, None] + offsets[:, 1] - intrinsics.cy) / intrinsics.fy  # (S, H, 1)
    columns = [[float(value) for value in row] for row in rotation]
    return tuple(row[0] * x + row[1] * y + row[2] for row in columns)  # type: ignore[return-value]


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
        rays = tuple(component[:, window[0], window[1]] for component in direction)
        relative = tuple(float(start - middle) for start, middle in zip(origin, primitive.centre_m))
        distance = entry(primitive, to_local(primitive, relative), to_local(primitive, rays))  # type: ignore[arg-type]
        nearest, nearest_surface = depth[:, window[0], window[1]], surface[:, window[0], window[1]]
        nearer = distance < nearest
        nearest_surface.masked_fill_(nearer, index)
        torch.minimum(nearest, distance, out=nearest)
    return Hits(depth, surface, direction, origin)


def to_local(primitive: Primitive, vector: Vector) -> Vector:
    """Turn a world vector into the primitive's own axes."""
    cosine, sine = math.cos(primitive.yaw_rad), math.sin(primitive.yaw_rad)
    x, y, z = vector
    return cosine * x + sine * y, cosine * y - sine * x, z


def entry(primitive: Primitive, origin: Vector, direction: Vector) -> Tensor:
    """Ray parameter at which rays from outside enter the primitive, infinite where they miss it.

    Args:
        primitive: the solid.
        origin: start of the rays in the primitive's axes, relative to its centre.
        direction: of the rays in the primitive's axes, any length.
    """
    if primitive.shape == "box":
        return _enter_box(primitive.half_size_m, origin, direction)
    if primitive.shape == "ellipsoid":
        return _enter_ellipsoid(primitive.half_size_m, origin, direction)
    return _enter_frustum(primitive, origin, direction)


def pick(table: Tensor, index: Tensor) -> Tensor:
    """`table[index]` for a flat table; several times as fast."""
    return table.index_select(0, index.reshape(-1)).reshape(index.shape)


def _room_exit(room: Room, origin: np.ndarray, direction: Vector) -> tuple[Tensor, Tensor]:
    """Depth at which each ray leaves the room, and whether it is by the floor, a wall or the ceiling."""
    low = (-room.size_m[0] / 2, -room.size_m[1] / 2, 0.0)
    high = (room.size_m[0] / 2, room.size_m[1] / 2, room.size_m[2])
    exits = []
    for axis in range(3):
        component = _nonzero(direction[axis])
        ahead, behind = high[axis] - float(origin[axis]), low[axis] - float(origin[axis])
        exits.append(torch.where(component > 0, ahead, behind) / component)
    wall = torch.minimum(exits[0], exits[1])
    depth = torch.minimum(wall, exits[2])
    level = torch.where(direction[2] > 0, 2, 0)
    return depth, torch.where(wall < exits[2], 1, level) + len(room.primitives)


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


def _nonzero(component: Tensor) -> Tensor:
    """Replace exact zeros, by which a ray parameter cannot be divided."""
    return torch.where(component.abs() < 1e-9, 1e-9, component)


def _enter_box(half_size_m: tuple[float, float, float], origin: Vector, direction: Vector) -> Tensor:
    first, last = None, None
    for half, start, step in zip(half_size_m, origin, direction):
        inverse = 1 / _nonzero(step)
        middle, reach = -start * inverse, half * inverse.abs()
        first = middle - reach if first is None else torch.maximum(first, middle - reach)
        last = middle + reach if last is None else torch.minimum(last, middle + reach)
    return torch.where((first < last) & (first > NEAR_M), first, torch.inf)  # type: ignore[operator, arg-type]


def _enter_ellipsoid(half_size_m: tuple[float, float, float], origin: Vector, direction: Vector) -> Tensor:
    x, y, z = (step / half for step, half in zip(direction, half_size_m))
    start_x, start_y, start_z = (start / half for start, half in zip(origin, half_size_m))
    squared_length = x * x + y * y + z * z
    middle = -(start_x * x + start_y * y + start_z * z) / squared_length  # nearest approach: keeps small numbers small
    start_x, start_y, start_z = start_x + middle * x, start_y + middle * y, start_z + middle * z
    gap = 1 - (start_x * start_x + start_y * start_y + start_z * start_z)
    distance = middle - (gap.clamp_min(0) / squared_length).sqrt()
    return torch.where((gap > 0) & (distance > NEAR_M), distance, torch.inf)


def _enter_frustum(primitive: Primitive, origin: Vector, direction: Vector) -> Tensor:
    bottom_radius, _, half_height = primitive.half_size_m
    slope = bottom_radius * (primitive.taper - 1) / (2 * half_height)  # of the radius, per metre of height
    mid_radius = bottom_radius * (1 + primitive.taper) / 2
    x, y, z = direction
    middle = -(origin[0] * x + origin[1] * y + origin[2] * z) / (x * x + y * y + z * z)
    start_x, start_y, start_z = origin[0] + middle * x, origin[1] + middle * y, origin[2] + middle * z
    start_radius = mid_radius + slope * start_z
    quadratic = _nonzero(x * x + y * y - slope * slope * z * z)
    linear = start_x * x + start_y * y - slope * z * start_radius
    constant = start_x * start_x + start_y * start_y - start_radius * start_radius
    discriminant = linear * linear - quadratic * constant
    root = discriminant.clamp_min(0).sqrt()
    best = torch.full_like(discriminant, torch.inf)
    for numerator in (-linear - root, -linear + root):
        distance = numerator / quadratic
        height = start_z + distance * z
        on_side = (discriminant > 0) & (height.abs() <= half_height) & (mid_radius + slope * height >= 0)
        valid = on_side & (distance + middle > NEAR_M)
        best = torch.where(valid & (distance < best), distance, best)
    inverse = 1 / _nonzero(z)
    for end, radius in ((-half_height, bottom_radius), (half_height, bottom_radius * primitive.taper)):
        distance = (end - start_z) * inverse
        across, along = start_x + distance * x, start_y + distance * y
        valid = (across * across + along * along <= radius * radius) & (distance + middle > NEAR_M)
        best = torch.where(valid & (distance < best), distance, best)
    return best + middle
