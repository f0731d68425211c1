"""Scenes of boxes with exact depth, seen by a camera that can be placed and tilted at will (world z is up)."""

from dataclasses import dataclass

import numpy as np

from dataset_builders.scene import Intrinsics, Scene, SceneObject, View
from dataset_builders.schema import message_text

UP = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class Solid:
    name: str
    centre: tuple[float, float, float]
    size: tuple[float, float, float]  # x, y, z before the yaw
    yaw_degrees: float = 0.0
    is_support: bool = False

    def axes(self):
        yaw = np.deg2rad(self.yaw_degrees)
        return np.array([[np.cos(yaw), np.sin(yaw), 0], [-np.sin(yaw), np.cos(yaw), 0], [0, 0, 1.0]])


def camera_pose(position=(0.0, 0.0, 0.0), yaw=0.0, pitch=0.0, roll=0.0):
    """Looks along world y, turned left by `yaw`, down by `pitch`, clockwise by `roll` (degrees)."""
    yaw, pitch, roll = np.deg2rad([yaw, pitch, roll])
    level = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # columns: right, down, forward
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    spin = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    pose = np.eye(4)
    pose[:3, :3] = turn @ level @ tilt @ spin
    pose[:3, 3] = position
    return pose


def render(solids, pose, width=320, height=240, focal=260.0, background=0.0):
    """Exact z-depth and instance map (k = the k-th solid, from 1)."""
    intrinsics = Intrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2)
    v, u = np.mgrid[:height, :width]
    rays = np.stack([(u - intrinsics.cx) / focal, (v - intrinsics.cy) / focal, np.ones(u.shape)], axis=-1)
    rays = rays @ pose[:3, :3].T  # world, with unit z in the camera
    depth, instances = np.full(u.shape, np.inf), np.zeros(u.shape, dtype=np.int32)
    for number, solid in enumerate(solids, start=1):
        axes = solid.axes()
        origin, directions = axes @ (pose[:3, 3] - np.array(solid.centre)), rays @ axes.T
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = np.stack([(sign * np.array(solid.size) / 2 - origin) / directions for sign in (-1, 1)])
        enter, leave = ends.min(axis=0).max(axis=-1), ends.max(axis=0).min(axis=-1)
        hit = (enter < leave) & (enter > 0) & (enter < depth)
        depth[hit], instances[hit] = enter[hit], number
    depth[np.isinf(depth)] = background
    image = (40 * instances[..., None] + np.array([10, 60, 90])).astype(np.uint8)
    return View(image, depth.astype(np.float32), intrinsics, pose, instances)


def scene_of(solids, poses=None, *, name="boxes", noise=0.01, up=UP, **camera):
    poses = [camera_pose(pitch=20, position=(0, 0, 0.5))] if poses is None else poses
    return Scene(
        id=name,
        source="test",
        licence="CC0-1.0",
        views=tuple(render(solids, pose, **camera) for pose in poses),
        objects=tuple(SceneObject(k, one.name, one.is_support) for k, one in enumerate(solids, start=1)),
        up_world=up,
        depth_noise=noise,
    )


TABLE = Solid("table", (0.0, 2.0, -0.05), (3.0, 3.0, 0.1), is_support=True)
BREAKFAST = (  # on a table top at z = 0, in front of a camera at height 0.5 m
    TABLE,
    Solid("cereal box", (-0.30, 1.30, 0.15), (0.20, 0.08, 0.30), 20),
    Solid("mug", (0.25, 1.10, 0.05), (0.10, 0.10, 0.10), 10),
    Solid("scissors", (0.05, 1.70, 0.02), (0.30, 0.12, 0.04), -30),
    Solid("lamp", (0.55, 1.90, 0.25), (0.15, 0.15, 0.50)),
)
TWO_POSES = [camera_pose((-0.3, 0, 0.5), -10, 20), camera_pose((0.6, 0, 0.6), 15, 22)]


def dialogue(record):
    """Each turn with its question and answer."""
    texts = [message_text(one) for one in record["messages"]]
    return list(zip(record["turns"], texts[::2], texts[1::2]))


def asked_objects(record):
    """Ids of the objects that object- and scene-level turns speak of."""
    return {name for turn in record["turns"] if turn["level"] in ("object", "scene") for name in turn["object_ids"]}
