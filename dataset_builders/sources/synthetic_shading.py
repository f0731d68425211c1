"""Colour of ray-cast surfaces: solid textures, one soft lamp with shadow rays, contact shadows and a tone curve.

Plain arithmetic and square roots only (no powers, no trigonometry per pixel), so the same room gives the same bytes
with any number of threads.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dataset_builders.sources.ray_caster import (
    Camera,
    Hits,
    Primitive,
    Room,
    Vector,
    entry,
    pick,
    to_local,
    trace,
)
from dataset_builders.sources.synthetic_textures import albedo, true_places

# The first ray passes through the pixel's centre and gives the exact geometry; all five share the colour.
PIXEL_OFFSETS = np.array([[0.0, 0.0], [-0.375, -0.125], [0.125, -0.375], [0.375, 0.125], [-0.125, 0.375]])
# Where on the lamp's disc each of the five rays looks for light, in units of its radius.
LAMP_OFFSETS = np.array([[0.0, 0.0], [0.8, 0.2], [-0.2, 0.8], [-0.8, -0.2], [0.2, -0.8]])
SURFACE_TOLERANCE = 1e-3  # share of a primitive's half height within which a point counts as on its flat end


@dataclass(frozen=True)
class Lighting:
    """A lamp that is a horizontal disc, and light from all sides.

    Attributes:
        position_m: (3,), centre of the lamp, or a far point for sunlight.
        radius_m: of the lamp; the larger, the softer the shadows.
        colour: linear RGB of its light on a surface that faces it at `reference_m`.
        ambient: linear RGB of the light from all sides.
        reference_m: distance at which the lamp's light has its full colour.
    """

    position_m: tuple[float, float, float]
    radius_m: float
    colour: tuple[float, float, float]
    ambient: tuple[float, float, float]
    reference_m: float


@dataclass(frozen=True)
class Frame:
    """A rendered image: RGB uint8 (H, W, 3), exact z-depth float32 (H, W), instance ids int32 and class ids uint8."""

    image: np.ndarray
    depth_m: np.ndarray
    instances: np.ndarray
    segmentation: np.ndarray


def render(room: Room, camera: Camera, lighting: Lighting) -> Frame:
    """Render colour, depth, instance and class ids of a room.

    Args:
        room: with its solids.
        camera: inside the room and outside the solids.
        lighting: the lamp and the light around.

    Returns:
        Depth and ids at pixel centres, exact; colour averaged over five rays per pixel.
    """
    hits = trace(room, camera, PIXEL_OFFSETS)
    colour = _shade(room, hits, lighting).mean(dim=1)  # (3, H, W)
    colour = (colour * (1 + colour * 0.25) / (1 + colour)).mul_(1.5).clamp_(0, 1).sqrt_()  # shoulder, then gamma 2
    depth, instances, classes = _geometry(room, hits)
    return Frame((colour * 255 + 0.5).to(torch.uint8).permute(1, 2, 0).numpy(), depth, instances, classes)


def _geometry(room: Room, hits: Hits) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    surface = hits.surface[0].numpy()
    instances = np.array([primitive.instance for primitive in room.primitives] + [0, 0, 0], dtype=np.int32)
    classes = np.array([primitive.class_id for primitive in room.primitives] + [0, 1, 2], dtype=np.uint8)
    depth_m = hits.depth_m[0].numpy()
    assert np.isfinite(depth_m).all() and (depth_m > 0).all(), "a ray left the closed room"
    return depth_m, instances[surface], classes[surface]


def _shade(room: Room, hits: Hits, lighting: Lighting) -> Tensor:
    """Linear light, (3, S, H, W), that reaches the camera."""
    position = tuple(float(start) + hits.depth_m * step for start, step in zip(hits.origin_m, hits.direction))
    normal, local = _surface_normal(room, hits.surface, position)  # type: ignore[arg-type]
    textures = [primitive.texture for primitive in room.primitives] + [room.floor, room.wall, room.ceiling]
    base = albedo(textures, hits.surface, local)
    to_lamp = _to_lamp(lighting, position)  # type: ignore[arg-type]
    squared_distance = sum(component * component for component in to_lamp)
    facing = sum(a * b for a, b in zip(normal, to_lamp)) / squared_distance.sqrt()  # type: ignore[union-attr]
    lit = facing.clamp_min(0) * _falloff(squared_distance, lighting.reference_m)  # type: ignore[arg-type]
    lit = lit * ~_shadow(room, position, normal, to_lamp, facing)  # type: ignore[arg-type]
    ambient = (0.75 + 0.25 * normal[2]) * _contact(room, position, normal, hits.surface)  # type: ignore[arg-type]
    highlight = _highlight(hits, normal, to_lamp, squared_distance) * lit  # type: ignore[arg-type]
    gloss = pick(torch.tensor([texture.gloss for texture in textures]), hits.surface)
    glow = pick(torch.tensor([texture.glow for texture in textures]), hits.surface)
    light = [key * lit + around * ambient + glow for key, around in zip(lighting.colour, lighting.ambient)]
    return torch.stack([a * b + gloss * highlight for a, b in zip(base, light)])


def _to_lamp(lighting: Lighting, position: Vector) -> Vector:
    spots = torch.as_tensor(LAMP_OFFSETS[: len(position[0])] * lighting.radius_m, dtype=torch.float32)  # (S, 2)
    spots = spots[:, :, None, None]
    x, y, z = lighting.position_m
    return x + spots[:, 0] - position[0], y + spots[:, 1] - position[1], z - position[2]


def _falloff(squared_distance: Tensor, reference_m: float) -> Tensor:
    """Softer than the inverse square, so that near walls are not burnt out; 1 at the reference distance."""
    return 2 / (1 + squared_distance / reference_m**2)


def _highlight(hits: Hits, normal: Vector, to_lamp: Vector, squared_distance: Tensor) -> Tensor:
    """Blinn's half-vector highlight with exponent 32."""
    eye_length = sum(step * step for step in hits.direction).sqrt()  # type: ignore[union-attr]
    lamp_length = squared_distance.sqrt()
    half = tuple(lamp / lamp_length - step / eye_length for lamp, step in zip(to_lamp, hits.direction))
    length = sum(component * component for component in half).sqrt().clamp_min(1e-6)  # type: ignore[union-attr]
    sharpness = sum(a * b for a, b in zip(half, normal)).clamp_min(0) / length  # type: ignore[union-attr]
    for _ in range(5):
        sharpness = sharpness * sharpness
    return sharpness


def _objects(room: Room) -> dict[int, list[Primitive]]:
    objects: dict[int, list[Primitive]] = {}
    for primitive in room.primitives:
        objects.setdefault(primitive.instance, []).append(primitive)
    return objects


def _bounding_sphere(primitives: list[Primitive]) -> tuple[np.ndarray, float]:
    """Centre (3,) and radius of a sphere around all the given solids."""
    reach = [float(np.linalg.norm(primitive.half_extent_m)) for primitive in primitives]
    centres = np.array([primitive.centre_m for primitive in primitives])
    middle = (centres.min(axis=0) + centres.max(axis=0)) / 2
    return middle, max(float(np.linalg.norm(centre - middle)) + size for centre, size in zip(centres, reach))


def _shadow(room: Room, position: Vector, normal: Vector, to_lamp: Vector, facing: Tensor) -> Tensor:
    """Whether another solid stands between each point and its spot on the lamp, (S, H, W) bool."""
    start = [(place + 2e-3 * up).reshape(-1) for place, up in zip(position, normal)]
    ray = [component.reshape(-1) for component in to_lamp]
    dark = torch.zeros(len(ray[0]), dtype=torch.bool)
    objects = list(_objects(room).values())
    for primitives, candidates in zip(objects, _maybe_shaded(objects, position, to_lamp, facing)):
        chosen = true_places(candidates & ~dark)
        if not len(chosen):
            continue
        origins, directions = ([pick(component, chosen) for component in vector] for vector in (start, ray))
        blocked = torch.zeros(len(chosen), dtype=torch.bool)
        for primitive in primitives:
            relative = tuple(component - middle for component, middle in zip(origins, primitive.centre_m))
            local = to_local(primitive, relative), to_local(primitive, tuple(directions))  # type: ignore[arg-type]
            blocked |= entry(primitive, *local) < 1
        dark.index_copy_(0, chosen, blocked)
    return dark.reshape(facing.shape)


def _maybe_shaded(objects: list[list[Primitive]], position: Vector, to_lamp: Vector, facing: Tensor) -> Tensor:
    """For each object the points, (K, P) bool, that lie in the cone of its bounding sphere as seen from the lamp.

    Sums are only compared here, with some slack, so their rounding cannot change a picture.
    """
    samples = len(facing)
    spheres = [_bounding_sphere(primitives) for primitives in objects]
    centres = torch.tensor(np.array([centre for centre, _ in spheres]), dtype=torch.float32).reshape(-1, 3)  # (K, 3)
    radii = torch.tensor([radius for _, radius in spheres])  # (K,)
    length = (to_lamp[0] * to_lamp[0] + to_lamp[1] * to_lamp[1] + to_lamp[2] * to_lamp[2]).sqrt()
    rays = torch.stack([component / length for component in to_lamp], dim=1).reshape(samples, 3, -1)  # (S, 3, P)
    spots = torch.stack([part[:, 0, 0] + step[:, 0, 0] for part, step in zip(position, to_lamp)], dim=1)  # (S, 3)
    towards = spots[:, None] - centres  # (S, K, 3)
    distance = towards.norm(dim=-1)  # (S, K)
    sine = (radii / distance).clamp_max(1)
    cosine = torch.where(distance > radii, (1 - sine * sine).sqrt(), -1.0) - 1e-5
    aligned = torch.bmm(towards / distance[..., None], rays)  # (S, K, P)
    inside = (aligned > cosine[..., None]) & (facing.reshape(samples, 1, -1) > 0)
    return inside.transpose(0, 1).flatten(1)


def _contact(room: Room, position: Vector, normal: Vector, surface: Tensor) -> Tensor:
    """Share of the surrounding light that nearby solids and the room's corners leave, 0..1.

    It changes slowly, so it is taken at the centres of the pixels, (1, H, W).
    """
    width, depth, height = room.size_m
    surface = surface[:1]
    position, normal = tuple(part[:1] for part in position), tuple(part[:1] for part in normal)  # type: ignore[assignment]
    openness = torch.ones_like(position[0])
    for axis, (low, high) in enumerate(((-width / 2, width / 2), (-depth / 2, depth / 2), (0.0, height))):
        for gap, side in ((position[axis] - low, 1 - normal[axis]), (high - position[axis], 1 + normal[axis])):
            openness = openness * (1 - 0.3 * side.clamp_max(1) / (1 + (gap * 4) * (gap * 4)))
    owner = pick(torch.tensor([primitive.instance for primitive in room.primitives] + [0, 0, 0]), surface)
    for instance, primitives in _objects(room).items():
        volumes = np.array([float(np.prod(primitive.half_size_m)) for primitive in primitives])
        centres = np.array([primitive.centre_m for primitive in primitives])
        centre, squared_radius = volumes @ centres / volumes.sum(), float(volumes.sum() ** (2 / 3))
        x, y, z = (float(value) - component for value, component in zip(centre, position))
        squared_distance = (x * x + y * y + z * z).clamp_min(squared_radius)
        towards = (x * normal[0] + y * normal[1] + z * normal[2]).clamp_min(0) / squared_distance.sqrt()
        openness = openness * (1 - 0.8 * towards * (squared_radius / squared_distance) * (owner != instance))
    return openness


def _surface_normal(room: Room, surface: Tensor, position: Vector) -> tuple[Vector, Vector]:
    """Outward unit normals and local positions, (S, H, W) per component, of points on surfaces of the room.

    Local positions are relative to a primitive's centre in its axes, to the room's origin for floor and ceiling, and
    (along the wall, 0, up) on a wall.
    """
    table = torch.tensor([_row(primitive) for primitive in room.primitives] + [[0.0] * 3 + [1.0, 0.0] + [1.0] * 5] * 3, dtype=torch.float32)
    columns = [pick(column, surface) for column in table.T.contiguous()]  # 10 x (S, H, W)
    centre_x, centre_y, centre_z, cosine, sine, half_x, half_y, half_z, slope, shape = columns
    x, y, z = position[0] - centre_x, position[1] - centre_y, position[2] - centre_z
    x, y = cosine * x + sine * y, cosine * y - sine * x
    across, along, up = x / half_x, y / half_y, z / half_z
    largest = torch.maximum(torch.maximum(across.abs(), along.abs()), up.abs())
    is_box, is_frustum = shape == 0, shape == 2
    face_x = torch.where(is_box, across * (across.abs() == largest), across / half_x)
    face_y = torch.where(is_box, along * (along.abs() == largest), along / half_y)
    face_z = torch.where(is_box, up * (up.abs() == largest), up / half_z)
    radius = (x * x + y * y).sqrt()
    flat_end = is_frustum & (up.abs() > 1 - SURFACE_TOLERANCE) & (radius < half_x + slope * z - 1e-5)
    face_x = torch.where(is_frustum, torch.where(flat_end, 0.0, x), face_x)
    face_y = torch.where(is_frustum, torch.where(flat_end, 0.0, y), face_y)
    face_z = torch.where(is_frustum, torch.where(flat_end, up, -slope * radius), face_z)
    normal = (cosine * face_x - sine * face_y, sine * face_x + cosine * face_y, face_z)
    normal = _room_normal(room, surface, position, normal)
    length = (normal[0] * normal[0] + normal[1] * normal[1] + normal[2] * normal[2]).sqrt().clamp_min(1e-12)
    on_wall = surface == len(room.primitives) + 1
    local = (torch.where(on_wall, x + y, x), torch.where(on_wall, 0.0, y), z)
    return (normal[0] / length, normal[1] / length, normal[2] / length), local


def _row(primitive: Primitive) -> list[float]:
    """Numbers of a primitive that its normals need; a frustum's half width is the radius at mid-height."""
    half_x, half_y, half_z = primitive.half_size_m
    slope = 0.0
    if primitive.shape == "frustum":
        slope = half_x * (primitive.taper - 1) / (2 * half_z)
        half_x = half_x * (1 + primitive.taper) / 2
    shape = float(("box", "ellipsoid", "frustum").index(primitive.shape))
    turn = [math.cos(primitive.yaw_rad), math.sin(primitive.yaw_rad)]
    return [*primitive.centre_m, *turn, half_x, half_y, half_z, slope, shape]


def _room_normal(room: Room, surface: Tensor, position: Vector, normal: Vector) -> Vector:
    count = len(room.primitives)
    floor, wall, ceiling = surface == count, surface == count + 1, surface == count + 2
    on_side = position[0].abs() * room.size_m[1] > position[1].abs() * room.size_m[0]
    x = torch.where(wall, -position[0] * on_side, torch.where(floor | ceiling, 0.0, normal[0]))
    y = torch.where(wall, -position[1] * ~on_side, torch.where(floor | ceiling, 0.0, normal[1]))
    z = torch.where(wall, 0.0, torch.where(floor, 1.0, torch.where(ceiling, -1.0, normal[2])))
    return x, y, z
