"""Colour of ray-cast surfaces: one soft lamp with shadow rays, contact shadows, highlights and a tone curve."""

import math
from dataclasses import dataclass

import numpy as np

from dataset_builders.sources.ray_caster import Array, Camera, Hits, Primitive, Room, dot, entry, to_local, trace
from dataset_builders.sources.synthetic_textures import albedo

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
    light = _shade(room, hits, lighting)
    colour = sum(light[:, sample] for sample in range(len(PIXEL_OFFSETS))) / len(PIXEL_OFFSETS)  # (3, H, W)
    colour = np.sqrt(np.clip(1.5 * colour * (1 + colour * 0.25) / (1 + colour), 0, 1))  # shoulder, then gamma 2
    image = np.ascontiguousarray((colour * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0))
    instances = np.array([primitive.instance for primitive in room.primitives] + [0, 0, 0], dtype=np.int32)
    classes = np.array([primitive.class_id for primitive in room.primitives] + [0, 1, 2], dtype=np.uint8)
    depth_m, surface = hits.depth_m[0], hits.surface[0]
    assert np.isfinite(depth_m).all() and (depth_m > 0).all(), "a ray left the closed room"
    return Frame(image, depth_m, instances[surface], classes[surface])


def _shade(room: Room, hits: Hits, lighting: Lighting) -> Array:
    """Linear light, (3, S, H, W), that reaches the camera."""
    position = hits.depth_m * hits.direction
    position += hits.origin_m.astype(np.float32)[:, None, None, None]
    normal, local = _surface_normal(room, hits.surface, position)
    textures = [primitive.texture for primitive in room.primitives] + [room.floor, room.wall, room.ceiling]
    to_lamp = _spots(lighting)[:, :, None, None] - position
    squared_distance = dot(to_lamp, to_lamp)
    facing = dot(normal, to_lamp) / np.sqrt(squared_distance)
    # softer than the inverse square, so that near walls are not burnt out; full at the reference distance
    lit = np.maximum(facing, 0) * (2 / (1 + squared_distance / lighting.reference_m**2))
    lit *= ~_shadow(room, _spots(lighting), position, normal, to_lamp, facing)
    ambient = (0.75 + 0.25 * normal[2]) * _contact(room, position, normal, hits.surface)
    gloss = np.array([texture.gloss for texture in textures], dtype=np.float32).take(hits.surface)
    gloss *= _highlight(hits, normal, to_lamp, squared_distance) * lit
    glow = np.array([texture.glow for texture in textures], dtype=np.float32).take(hits.surface)
    colour = albedo(textures, hits.surface, local)
    for channel, key, around in zip(colour, lighting.colour, lighting.ambient):
        channel *= key * lit + around * ambient + glow
        channel += gloss
    return colour


def _spots(lighting: Lighting) -> Array:
    """The place on the lamp that each of the S rays of a pixel looks at, (3, S)."""
    offsets = np.pad(LAMP_OFFSETS * lighting.radius_m, ((0, 0), (0, 1)))  # (S, 3), level
    return (offsets + lighting.position_m).T.astype(np.float32)


def _highlight(hits: Hits, normal: Array, to_lamp: Array, squared_distance: Array) -> Array:
    """Blinn's half-vector highlight with exponent 32."""
    half = to_lamp / np.sqrt(squared_distance) - hits.direction / np.sqrt(dot(hits.direction, hits.direction))
    sharpness = np.maximum(dot(half, normal), 0) / np.maximum(np.sqrt(dot(half, half)), 1e-6)
    for _ in range(5):
        sharpness = sharpness * sharpness
    return sharpness


def _objects(room: Room) -> dict[int, list[Primitive]]:
    objects: dict[int, list[Primitive]] = {}
    for primitive in room.primitives:
        if primitive.shadow:
            objects.setdefault(primitive.instance, []).append(primitive)
    return objects


def _bounding_sphere(primitives: list[Primitive]) -> tuple[np.ndarray, float]:
    """Centre (3,) and radius of a sphere around all the given solids."""
    reach = [float(np.linalg.norm(primitive.half_extent_m)) for primitive in primitives]
    centres = np.array([primitive.centre_m for primitive in primitives])
    middle = (centres.min(axis=0) + centres.max(axis=0)) / 2
    return middle, max(float(np.linalg.norm(centre - middle)) + size for centre, size in zip(centres, reach))


def _shadow(room: Room, spots: Array, position: Array, normal: Array, to_lamp: Array, facing: Array) -> Array:
    """Whether another solid stands between each point and its spot on the lamp, (S, H, W) bool."""
    start, ray = (position + 2e-3 * normal).reshape(3, -1), to_lamp.reshape(3, -1)
    ray_length = np.sqrt(dot(to_lamp, to_lamp))
    dark = np.zeros(facing.shape, dtype=bool)
    for primitives in _objects(room).values():
        # Only points in the cone of the object's bounding sphere, as seen from the lamp, can be in its shadow.
        centre, radius = _bounding_sphere(primitives)
        towards = spots - centre[:, None]  # (3, S)
        distance = np.sqrt(dot(towards, towards))
        cosine = np.where(distance > radius, np.sqrt(np.maximum(1 - (radius / distance) ** 2, 0)), -1.0) - 1e-5
        axis, limit = (towards / distance).astype(np.float32), cosine.astype(np.float32)
        inside = dot(axis[:, :, None, None], to_lamp) > limit[:, None, None] * ray_length
        chosen = np.flatnonzero(inside & (facing > 0) & ~dark)
        if not len(chosen):
            continue
        origins, directions = start.take(chosen, axis=1), ray.take(chosen, axis=1)
        blocked = np.zeros(len(chosen), dtype=bool)
        for primitive in primitives:
            relative = origins - np.array(primitive.centre_m, dtype=np.float32)[:, None]
            blocked |= entry(primitive, to_local(primitive, relative), to_local(primitive, directions)) < 1
        dark.flat[chosen] = blocked
    return dark


def _contact(room: Room, position: Array, normal: Array, surface: Array) -> Array:
    """Share of the surrounding light that nearby solids and the room's corners leave, 0..1.

    It changes slowly, so it is taken at the centres of the pixels, (H, W).
    """
    width, depth, height = room.size_m
    surface, position, normal = surface[0], position[:, 0], normal[:, 0]
    openness = np.ones(surface.shape, dtype=np.float32)
    for axis, (low, high) in enumerate(((-width / 2, width / 2), (-depth / 2, depth / 2), (0.0, height))):
        for gap, side in ((position[axis] - low, 1 - normal[axis]), (high - position[axis], 1 + normal[axis])):
            openness *= 1 - 0.3 * np.minimum(side, 1) / (1 + (gap * 4) * (gap * 4))
    owner = np.array([primitive.instance for primitive in room.primitives] + [0, 0, 0]).take(surface)
    for instance, primitives in _objects(room).items():
        volumes = np.array([float(np.prod(primitive.half_size_m)) for primitive in primitives])
        centres = np.array([primitive.centre_m for primitive in primitives])
        centre, squared_radius = volumes @ centres / volumes.sum(), float(volumes.sum() ** (2 / 3))
        step = centre.astype(np.float32)[:, None, None] - position
        squared_distance = np.maximum(dot(step, step), squared_radius)
        towards = np.maximum(dot(step, normal), 0) / np.sqrt(squared_distance)
        openness *= 1 - 0.8 * towards * (squared_radius / squared_distance) * (owner != instance)
    return openness


def _surface_normal(room: Room, surface: Array, position: Array) -> tuple[Array, Array]:
    """Outward unit normals and local positions, (3, S, H, W) each, of points on surfaces of the room.

    Local positions are relative to a primitive's centre in its axes, to the room's origin for floor and ceiling, and
    (along the wall, 0, up) on a wall.
    """
    rows = [_row(primitive) for primitive in room.primitives] + [[0.0] * 3 + [1.0, 0.0] + [1.0] * 3 + [0.0, 3.0]] * 3
    table = np.array(rows, dtype=np.float32).T.copy()  # (10, N)
    centre_x, centre_y, z, cosine, sine, half_x, half_y, half_z, slope, shape = table.take(surface, axis=1)
    x, y, z = position[0] - centre_x, position[1] - centre_y, position[2] - z
    x, y = cosine * x + sine * y, cosine * y - sine * x
    across, along, up = x / half_x, y / half_y, z / half_z
    is_box = shape == 0
    largest = np.maximum(np.maximum(np.abs(across), np.abs(along)), np.abs(up))
    face_x = np.where(is_box, across * (np.abs(across) == largest), across / half_x)
    face_y = np.where(is_box, along * (np.abs(along) == largest), along / half_y)
    face_z = np.where(is_box, up * (np.abs(up) == largest), up / half_z)
    is_frustum = shape == 2
    radius = np.sqrt(x * x + y * y)
    flat_end = (np.abs(up) > 1 - SURFACE_TOLERANCE) & (radius < half_x + slope * z - 1e-5)
    np.copyto(face_x, x * ~flat_end, where=is_frustum)
    np.copyto(face_y, y * ~flat_end, where=is_frustum)
    np.copyto(face_z, np.where(flat_end, up, -slope * radius), where=is_frustum)
    normal = np.stack([cosine * face_x - sine * face_y, sine * face_x + cosine * face_y, face_z])
    _set_room_normals(room, surface, position, normal)
    normal /= np.maximum(np.sqrt(dot(normal, normal)), 1e-12)
    on_wall = surface == len(room.primitives) + 1
    return normal, np.stack([x + y * on_wall, y * ~on_wall, z])


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


def _set_room_normals(room: Room, surface: Array, position: Array, normal: Array) -> None:
    """Write the normals of floor, walls and ceiling, which point into the room, over those in `normal`."""
    floor, wall, ceiling = (surface == len(room.primitives) + place for place in range(3))
    on_side = np.abs(position[0]) * room.size_m[1] > np.abs(position[1]) * room.size_m[0]
    np.copyto(normal[0], -position[0] * on_side, where=wall)
    np.copyto(normal[1], -position[1] * ~on_side, where=wall)
    np.copyto(normal[2], 0, where=wall)
    for place, up in ((floor, 1), (ceiling, -1)):
        np.copyto(normal, np.array([0, 0, up], dtype=np.float32)[:, None, None, None], where=place)
