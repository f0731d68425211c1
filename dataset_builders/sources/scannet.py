"""ScanNet: posed RGB-D frames of rooms, as SensReader exports them from the .sens files.

DIR/scans/scene0000_00/ (or DIR/scene0000_00/)
    color/N.jpg, depth/N.png    1296x968, and 640x480 with millimetres in 16 bits, 0 = no reading
    pose/N.txt                  4x4, camera to world; -inf where tracking was lost
    intrinsic/                  intrinsic_color.txt, intrinsic_depth.txt: 4x4
    instance-filt/N.png         optional: objectId + 1 in 8 bits, at the size of the colour image
    scene0000_00.aggregation.json or scene0000_00_vh_clean.aggregation.json: optional: names of the objects

Colour and depth see from one place (the authors, ScanNet issue 92), so a colour pixel reads the depth pixel on its own
ray; nothing is interpolated, which would put points into the air at edges. The world of the poses is that of the
meshes, whose z axis points up.
"""

import json
import re
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import ClassVar

import numpy as np

from dataset_builders.geometry import Array, is_rigid, valid_depth
from dataset_builders.scene import DropItem, InputError, Intrinsics, Scene, SceneObject, View
from dataset_builders.sources import SourceOptions
from dataset_builders.sources.image_files import check_intrinsics, open_image
from dataset_builders.sources.sequences import (
    enough_views,
    input_folder,
    read_frame,
    scene_items,
    scene_samples,
    views_per_scene,
    whole_frame_step,
)

LAYOUT = "scans/scene0000_00/{color,depth,pose,intrinsic} as ScanNet's SensReader exports them"
SCAN_NAME = re.compile(r"scene(\d{4})_\d{2}")
TEST_ROOMS = range(707, 807)
FRAME_STEP = 20  # of 30 frames a second
SUPPORTS = frozenset(("wall", "floor", "ceiling", "table", "desk", "counter", "countertop"))  # last word of the label
NAMELESS = frozenset(("object", "objects", "unknown", "remove", "none"))


class ScanNetSource:
    """Scans of rooms, each as several scenes of consecutive samples."""

    how_to_get: ClassVar[str] = (
        "Send the signed ScanNet Terms of Use (github.com/ScanNet/ScanNet; non-commercial) to its authors, download "
        ".sens, _2d-instance-filt.zip and .aggregation.json of the scans, unzip the former two with SensReader "
        "(colour, depth, poses, intrinsics) and unzip, and pass the folder that holds scans/."
    )

    def __init__(self, options: SourceOptions) -> None:
        """Find the scans, without those of rooms that the paper's evaluation uses.

        Raises:
            InputError: no folder, no exported scan in it, only held-out scans, or impossible views or frame step.
        """
        root = input_folder(options, LAYOUT)
        self.options = options
        self.views = views_per_scene(options)
        self.step = whole_frame_step(options, FRAME_STEP)
        self.root = root / "scans" if (root / "scans").is_dir() else root
        found = [path.name for path in self.root.iterdir() if SCAN_NAME.fullmatch(path.name)]
        scans = sorted(name for name in found if (self.root / name / "color").is_dir())
        if not scans:
            raise InputError(f"--input {root} holds no exported ScanNet scan; it should hold {LAYOUT}.")
        held_out = [name for name in scans if is_held_out(name)]
        self.scans = scans if options.with_held_out else [name for name in scans if name not in held_out]
        if not self.scans:
            raise InputError(
                f"--input {root} holds only scans of ScanNet's validation and test rooms ({len(held_out)}), which are "
                "held out; add scans of other rooms or pass --with-held-out."
            )
        self.notices = (_notice(len(held_out), len(scans), options.with_held_out),)

    def list_items(self) -> list[str]:
        """Scans as "scene0000_00@first sample"; reads directories only."""
        items: list[str] = []
        for scan in self.scans:
            items += scene_items(scan, len(self._slots(scan)), self.views)
        return items[: self.options.num_scenes]

    def load(self, item: str) -> Scene:
        """Read the frames of one scene; where tracking was lost, the next tracked frame of the same step stands in.

        Raises:
            DropItem: with the reason "missing_file", "unreadable_image", "bad_intrinsics", "intrinsics_size",
                "bad_pose", "too_few_views", "depth_format", "no_depth_readings", "size_mismatch", "bad_instances",
                or another one of `read_image`.
        """
        scan = item.rpartition("@")[0]
        folder, slots = self.root / scan, self._slots(scan)
        colour, depth = (_read_intrinsics(folder / "intrinsic" / f"intrinsic_{one}.txt") for one in ("color", "depth"))
        names = _object_names(folder)
        tracked = (_first_tracked(folder, slots[sample]) for sample in scene_samples(item, len(slots), self.views))
        views = enough_views(
            [_read_view(folder, *frame, colour, depth, bool(names)) for frame in tracked if frame is not None],
            self.views,
            item,
        )
        return Scene(
            id=f"{item.replace('@', '_')}_{len(views)}v",
            source="scannet",
            licence="ScanNet Terms of Use",
            views=views,
            objects=_objects_in(views, names),
            up_world=np.array([0.0, 0.0, 1.0]),
            split="test" if is_held_out(scan) else "train",
        )

    def _slots(self, scan: str) -> list[list[str]]:
        """File names of the colour images in the order of their numbers, those of one frame step together."""
        files = [path for path in (self.root / scan / "color").iterdir() if path.stem.isdecimal()]
        files.sort(key=lambda path: int(path.stem))
        return [[path.name for path in slot] for _, slot in groupby(files, lambda path: int(path.stem) // self.step)]


def is_held_out(scan: str) -> bool:
    """Whether a scan shows a room of ScanNet's validation or test split; other scans of such a room do as well."""
    room = scan.removeprefix("scene")[:4]
    return room in _validation_rooms() or int(room) in TEST_ROOMS


@cache
def _validation_rooms() -> frozenset[str]:
    lines = Path(__file__).with_name("scannet_held_out.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if not line.startswith("#"))


def _notice(held_out: int, scans: int, included: bool) -> str:
    """What the build and the card say about the scans that the paper evaluates on."""
    about = f"{held_out} of {scans} ScanNet scans show rooms of its validation or test split, which evaluations use"
    if included:
        return f"{about}: they are included (--with-held-out), as the split test; do not train on them."
    return f"{about}: they are left out (--with-held-out would read them)."


def _read_matrix(path: Path, reason: str) -> Array:
    """A (4, 4) matrix of numbers from a text file."""
    try:
        matrix = np.array(path.read_text(encoding="ascii").split(), dtype=np.float64)
    except FileNotFoundError as error:
        raise DropItem("missing_file", f"{path} does not exist") from error
    except ValueError as error:
        raise DropItem(reason, f"{path} holds no numbers: {error}") from error
    if matrix.size != 16:
        raise DropItem(reason, f"{path} holds {matrix.size} numbers, not 16")
    return matrix.reshape(4, 4)


def _read_intrinsics(path: Path) -> Intrinsics:
    matrix = _read_matrix(path, "bad_intrinsics")
    return Intrinsics(fx=matrix[0, 0], fy=matrix[1, 1], cx=matrix[0, 2], cy=matrix[1, 2])


def _first_tracked(folder: Path, frames: list[str]) -> tuple[str, Array] | None:
    """The first frame with a pose, and its pose; None where tracking was lost in all of them."""
    for name in frames:
        path = (folder / "pose" / name).with_suffix(".txt")
        pose = _read_matrix(path, "bad_pose")
        if np.isfinite(pose).all():
            if not is_rigid(pose):
                raise DropItem("bad_pose", f"{path} is not a rotation with a translation")
            return name, pose
    return None


def _read_view(
    folder: Path, name: str, pose: Array, colour: Intrinsics, depth: Intrinsics, with_instances: bool
) -> View:
    """One frame with its depth and its instance numbers at the colour image's pixels."""
    path = folder / "color" / name
    file = read_frame(path, str(path))
    size = file.pixels.shape[:2]
    check_intrinsics(colour, size[1], size[0], str(path))
    depth_path = (folder / "depth" / name).with_suffix(".png")
    depth_m = _read_depth(depth_path)
    check_intrinsics(depth, depth_m.shape[1], depth_m.shape[0], str(depth_path))
    instances = None
    if with_instances:
        instances = _read_instances((folder / "instance-filt" / name).with_suffix(".png"), size)
    return View(file.pixels, _at_colour(depth_m, depth, colour, size), colour, pose, instances, None, file.image_bytes)


def _read_depth(path: Path) -> Array:
    """Depth in metres, float32, 0 = no reading."""
    stored = np.asarray(open_image(path, str(path)))
    if stored.ndim != 2 or stored.dtype == np.uint8:
        raise DropItem("depth_format", f"{path} holds {stored.dtype} {stored.shape}, not one channel of 16 bits")
    depth_m = stored.astype(np.float32) / np.float32(1000)
    depth_m[~valid_depth(depth_m)] = 0
    if not depth_m.any():
        raise DropItem("no_depth_readings", f"{path} has no reading but zero")
    return depth_m


def _at_colour(depth_m: Array, depth: Intrinsics, colour: Intrinsics, size: tuple[int, ...]) -> Array:
    """Depth (H', W') at the pixels of the colour image (H, W): the reading nearest to each pixel's ray, 0 outside."""
    u = np.rint((np.arange(size[1]) - colour.cx) / colour.fx * depth.fx + depth.cx).astype(np.int64)
    v = np.rint((np.arange(size[0]) - colour.cy) / colour.fy * depth.fy + depth.cy).astype(np.int64)
    height, width = depth_m.shape
    found = depth_m[v.clip(0, height - 1)][:, u.clip(0, width - 1)]
    found[(v < 0) | (v >= height)] = 0
    found[:, (u < 0) | (u >= width)] = 0
    return found


def _read_instances(path: Path, size: tuple[int, ...]) -> Array:
    """Instance numbers, int32, (H, W)."""
    stored = np.asarray(open_image(path, str(path)))
    if stored.ndim != 2 or stored.dtype != np.uint8:
        raise DropItem("bad_instances", f"{path} holds {stored.dtype} {stored.shape}, not one channel of 8 bits")
    if stored.shape != size:
        raise DropItem("size_mismatch", f"{path} has another size than its colour image")
    return stored.astype(np.int32)


def _object_names(folder: Path) -> dict[int, str]:
    """Names of the objects by their instance number (objectId + 1); empty where the scan has no annotation."""
    if not (folder / "instance-filt").is_dir():
        return {}
    for ending in ("", "_vh_clean"):
        path = folder / f"{folder.name}{ending}.aggregation.json"
        if path.is_file():
            break
    else:
        return {}
    try:
        groups = json.loads(path.read_text(encoding="utf-8"))["segGroups"]
        return {int(one["objectId"]) + 1: " ".join(str(one["label"]).lower().split()) for one in groups}
    except (ValueError, KeyError, TypeError) as error:
        raise DropItem("bad_instances", f"{path} lists no objects with objectId and label: {error}") from error


def _objects_in(views: tuple[View, ...], names: dict[int, str]) -> tuple[SceneObject, ...]:
    """The named objects that these views show: a caption may speak of no table that another view saw."""
    maps = [view.instances for view in views if view.instances is not None]
    counts = sum((np.bincount(one.ravel(), minlength=256) for one in maps), start=np.zeros(256, np.int64))
    return tuple(
        SceneObject(number, name, is_support=name.split()[-1] in SUPPORTS)
        for number, name in sorted(names.items())
        if number < 256 and counts[number] and name and name not in NAMELESS
    )
