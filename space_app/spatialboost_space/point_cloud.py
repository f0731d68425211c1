"""Depth as a point cloud: unprojection, boxes around regions, distances, and the glTF file that a browser shows.

Camera frames have OpenCV axes: x right, y down, z forward.
"""

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spatialboost_space.pictures import new_file

MAX_POINTS = 150_000
EDGE_POINTS = 120  # a box's edge is a row of points, which every viewer draws
NEAR_SHARE = 0.25  # of the median depth: how far from it a region's points may lie and still be of its object
COLOURS = ((230, 25, 75), (60, 180, 75), (255, 160, 0), (67, 99, 216), (145, 30, 180), (0, 160, 160), (240, 50, 230))


@dataclass(frozen=True)
class Found:
    """A point or object that was picked, in the camera frame.

    Attributes:
        name: what it is called.
        centre_m: (3,).
        size_m: (3,) width, height and depth of its box along the camera's axes; zeros for a point.
    """

    name: str
    centre_m: np.ndarray
    size_m: np.ndarray


def unproject(depth_m: np.ndarray, field_of_view_degrees: float) -> np.ndarray:
    """(H, W) depth along the optical axis to (H, W, 3) points of a pinhole camera, whose centre is the image's.

    Args:
        depth_m: metres.
        field_of_view_degrees: horizontal.
    """
    height, width = depth_m.shape
    focal_px = width / 2 / math.tan(math.radians(field_of_view_degrees) / 2)
    x = (np.arange(width) - (width - 1) / 2) / focal_px
    y = (np.arange(height) - (height - 1) / 2) / focal_px
    return np.stack([x[None] * depth_m, y[:, None] * depth_m, depth_m], axis=-1)


def find_point(points_m: np.ndarray, name: str, x: float, y: float) -> Found:
    """What is at a normalised image point of (H, W, 3) points."""
    height, width, _ = points_m.shape
    place = points_m[min(int(y * height), height - 1), min(int(x * width), width - 1)]
    return Found(name, place, np.zeros(3))


def find_object(points_m: np.ndarray, name: str, region: Sequence[float]) -> Found:
    """The object in a region (left, top, right, bottom, normalised) of (H, W, 3) points.

    Its depth is the median of the region's middle; the box holds the region's points near that depth, without the
    outermost 2 % a side.
    """
    height, width, _ = points_m.shape
    left, top, right, bottom = region
    first_row, first_column = min(int(top * height), height - 1), min(int(left * width), width - 1)
    last_row, last_column = (
        max(math.ceil(bottom * height), first_row + 1),
        max(math.ceil(right * width), first_column + 1),
    )
    inside = points_m[first_row:last_row, first_column:last_column]
    rows, columns = inside.shape[:2]
    middle = inside[rows // 4 : rows - rows // 4, columns // 4 : columns - columns // 4, 2]
    median_m = np.median(middle)
    near = inside[np.abs(inside[..., 2] - median_m) <= NEAR_SHARE * median_m]
    low, high = np.percentile(near, [2, 98], axis=0)
    return Found(name, (low + high) / 2, high - low)


def distance_m(first: Found, second: Found) -> float:
    """Straight line between two centres."""
    return float(np.linalg.norm(first.centre_m - second.centre_m))


def save_glb(points_m: np.ndarray, colours: np.ndarray, found: Sequence[Found]) -> str:
    """A binary glTF of coloured points, with the found things' boxes; its path.

    Args:
        points_m: (H, W, 3).
        colours: (H, W, 3) uint8.
        found: boxes are drawn as dotted edges, points as small crosses.
    """
    points, shades = points_m.reshape(-1, 3), colours.reshape(-1, 3)
    if len(points) > MAX_POINTS:
        chosen = np.random.default_rng(0).choice(len(points), MAX_POINTS, replace=False)  # a grid would show stripes
        points, shades = points[chosen], shades[chosen]
    parts, part_colours = [points], [shades]
    for number, one in enumerate(found):
        edges = _cross(one.centre_m) if not one.size_m.any() else _edges(one)
        parts.append(edges)
        part_colours.append(np.tile(COLOURS[number % len(COLOURS)], (len(edges), 1)))
    xyz = (np.concatenate(parts) * (1, -1, -1)).astype("<f4")  # glTF: y up, the viewer looks along -z
    rgba = np.full((len(xyz), 4), 65535, "<u2")
    rgba[:, :3] = (_linear(np.concatenate(part_colours) / 255) * 65535).round()
    path = new_file("scene.glb")
    path.write_bytes(_glb(xyz, rgba))
    return str(path)


def _linear(colours: np.ndarray) -> np.ndarray:
    """Colours of an image, sRGB from 0 to 1, as glTF wants those of points: in proportion to the light."""
    return np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)


def _cross(centre_m: np.ndarray) -> np.ndarray:
    steps = np.linspace(-0.05, 0.05, EDGE_POINTS)
    return np.concatenate([centre_m + np.outer(steps, axis) for axis in np.eye(3)])


def _edges(one: Found) -> np.ndarray:
    """(12 * EDGE_POINTS, 3) points along the edges of a box."""
    corners = np.array([[(corner >> axis & 1) - 0.5 for axis in range(3)] for corner in range(8)])
    corners = one.centre_m + corners * one.size_m
    steps = np.linspace(0, 1, EDGE_POINTS)[:, None]
    pairs = [(a, b) for a in range(8) for b in range(a + 1, 8) if (a ^ b).bit_count() == 1]
    return np.concatenate([corners[a] + steps * (corners[b] - corners[a]) for a, b in pairs])


def _glb(xyz: np.ndarray, rgba: np.ndarray) -> bytes:
    """The bytes of a glTF file with one mesh of points: (N, 3) float32 positions, (N, 4) uint16 colours."""
    positions, colours = xyz.tobytes(), rgba.tobytes()
    body = positions + colours
    body += b"\0" * (-len(body) % 4)
    count = len(xyz)
    structure = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "COLOR_0": 1}, "mode": 0, "material": 0}]}],
        "materials": [{"extensions": {"KHR_materials_unlit": {}}}],  # the image has its light already
        "extensionsUsed": ["KHR_materials_unlit"],
        "buffers": [{"byteLength": len(body)}],
        "bufferViews": [
            {"buffer": 0, "byteOffset": 0, "byteLength": len(positions)},
            {"buffer": 0, "byteOffset": len(positions), "byteLength": len(colours)},
        ],
        "accessors": [
            {
                "bufferView": 0,
                "componentType": 5126,  # float32
                "count": count,
                "type": "VEC3",
                "min": xyz.min(axis=0).tolist(),
                "max": xyz.max(axis=0).tolist(),
            },
            {"bufferView": 1, "componentType": 5123, "normalized": True, "count": count, "type": "VEC4"},  # uint16
        ],
    }
    header = json.dumps(structure).encode()
    header += b" " * (-len(header) % 4)
    chunks = struct.pack("<I4s", len(header), b"JSON") + header + struct.pack("<I4s", len(body), b"BIN\0") + body
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
