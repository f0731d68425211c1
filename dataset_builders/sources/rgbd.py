"""RGB-D folders with a `manifest.json` per sample: single images, and posed sequences as multi-view scenes.

Manifest keys that are read:
    rgb, depth              file names; depth is z along the optical axis in a one-channel PNG or TIFF
    depth_scale             metres = value / depth_scale
    depth_invalid_values    further values that mean "no reading", besides 0
    registered_to_rgb       false = depth belongs to another camera: the sample is left out
    intrinsics              {fx, fy, cx, cy} in pixels; where it is null, pass --intrinsics fx,fy,cx,cy
    instances_map           one-channel image of instance numbers, or a `mask` file per instance
    instances               [{value | mask, class_name, is_support}]
    frames                  [{rgb, depth, pose_cam_to_world, instances_map}], for several posed views of one place
    id, licence, split, up_world, depth_noise, metric, scale_source: as in `scene.Scene`

Gravity comes from `up_world`, else from --up-world, else from an instance that is labelled as a support (a table).
The depth, the masks and the intrinsics belong to the stored pixels: an EXIF rotation turns them with the image.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from dataset_builders.geometry import (
    MAX_DEPTH_M,
    MIN_DEPTH_M,
    Array,
    is_rigid,
    up_from_support,
    valid_depth,
    view_points,
)
from dataset_builders.scene import DropItem, InputError, Intrinsics, Scene, SceneObject, View
from dataset_builders.sources import SourceOptions

MAX_VIEWS = 8
QUARTER_TURNS = {1: 0, 6: 1, 3: 2, 8: 3}  # EXIF orientation -> clockwise quarter turns that make it upright
KEPT_FORMATS = ("JPEG", "PNG", "WEBP")
Manifest = dict[str, Any]


class RgbdSource:
    """One sample folder, or a folder that holds sample folders at any depth."""

    def __init__(self, options: SourceOptions) -> None:
        """Find the samples.

        Raises:
            InputError: no folder, or no manifest in it.
        """
        if options.input_dir is None or not options.input_dir.is_dir():
            raise InputError(f"--input {options.input_dir} is not a folder; give one with a manifest.json per sample.")
        if options.views is not None and not 1 <= options.views <= MAX_VIEWS:
            raise InputError(f"--views {options.views} is out of range; choose 1 to {MAX_VIEWS}.")
        self.options = options
        self.root = options.input_dir
        if not any(self.root.rglob("manifest.json")):
            raise InputError(f"--input {self.root} holds no manifest.json; each sample folder needs one.")

    def list_items(self) -> Sequence[str]:
        """Sample folders relative to the input, a long sequence as several "folder@first frame"."""
        items: list[str] = []
        for path in sorted(self.root.rglob("manifest.json")):
            folder = path.parent.relative_to(self.root).as_posix()
            try:
                frames = len(_read_manifest(path).get("frames") or [0])
            except DropItem:  # counted when the item is loaded
                frames = 1
            views = self.options.views or min(frames, MAX_VIEWS)
            starts = range(0, frames - views + 1, views) if frames > 1 else (0,)
            items += [f"{folder}@{start}" for start in starts] or [f"{folder}@0"]
        return items[: self.options.num_scenes]

    def load(self, item: str) -> Scene:
        """Read one sample.

        Raises:
            DropItem: with the reason "bad_manifest", "missing_file", "unreadable_image", "not_registered",
                "no_intrinsics", "bad_intrinsics", "no_depth", "depth_format", "depth_scale", "no_depth_readings",
                "size_mismatch", "bad_pose", "too_few_views" or "bad_instances".
        """
        name, _, start = item.rpartition("@")
        folder = self.root / name
        manifest = _read_manifest(folder / "manifest.json")
        frames = manifest.get("frames") or [manifest]
        views = self.options.views or min(len(frames), MAX_VIEWS)
        chosen = frames[int(start) : int(start) + views]
        if len(chosen) < views:
            raise DropItem("too_few_views", f"{folder} has {len(chosen)} views left, --views asks for {views}")
        if manifest.get("registered_to_rgb") is False:
            raise DropItem("not_registered", f"{folder}: the depth is not registered to the colour image")
        try:
            return self._scene(folder, manifest, chosen, int(start))
        except FileNotFoundError as error:
            raise DropItem("missing_file", f"{error.filename} does not exist") from error
        except (KeyError, TypeError) as error:
            raise DropItem("bad_manifest", f"{folder}: manifest.json lacks or garbles {error}") from error

    def _scene(self, folder: Path, manifest: Manifest, frames: list[Manifest], start: int) -> Scene:
        listed = manifest.get("instances") or []
        objects = tuple(
            SceneObject(int(one.get("value") or number), _name(one), bool(one.get("is_support", False)))
            for number, one in enumerate(listed, start=1)
        )
        views = tuple(self._view(folder, manifest, frame, listed) for frame in frames)
        name = str(manifest.get("id") or folder.resolve().name)
        if len(frames) < len(manifest.get("frames") or [0]):
            name = f"{name}_{start}_{len(frames)}v"
        up_world = manifest.get("up_world") or self.options.up_world
        return Scene(
            id=name.replace("/", "_"),
            source="rgbd",
            licence=str(manifest.get("licence", "unknown")),
            views=views,
            objects=objects,
            up_world=_up_from_objects(views, objects) if up_world is None else _unit(up_world, folder),
            depth_noise=float(manifest.get("depth_noise", 0.01)),
            metric=bool(manifest.get("metric", True)),
            scale_source=str(manifest.get("scale_source", "sensor")),
            split=str(manifest.get("split", "train")),
        )

    def _view(self, folder: Path, manifest: Manifest, frame: Manifest, listed: list[Manifest]) -> View:
        """One image with its depth, mask, camera and pose, turned upright."""
        image, image_bytes, turns = _read_image(folder / frame["rgb"])
        depth_m = _read_depth(folder, {**manifest, **frame})
        instances = _read_instances(folder, frame, listed, depth_m.shape)
        pose = np.array(frame.get("pose_cam_to_world", np.eye(4)), dtype=np.float64)
        if ("frames" in manifest and "pose_cam_to_world" not in frame) or not is_rigid(pose):
            raise DropItem("bad_pose", f"{folder / frame['rgb']}: the pose is missing, not finite or not rigid")
        intrinsics = self._intrinsics(folder, frame.get("intrinsics") or manifest.get("intrinsics"))
        if depth_m.shape != image.shape[:2]:
            raise DropItem(
                "size_mismatch",
                f"{folder}: depth measures {depth_m.shape[1]}x{depth_m.shape[0]}, the image "
                f"{image.shape[1]}x{image.shape[0]}",
            )
        view = View(image, depth_m, intrinsics, pose, instances, None, image_bytes)
        for _ in range(turns):
            view = _quarter_turn(view)
        return view

    def _intrinsics(self, folder: Path, stated: dict[str, float] | None) -> Intrinsics:
        if stated is None:
            if self.options.intrinsics is None:
                raise DropItem("no_intrinsics", f"{folder} has no intrinsics; pass --intrinsics fx,fy,cx,cy in pixels")
            return self.options.intrinsics
        found = Intrinsics(*(float(stated[name]) for name in ("fx", "fy", "cx", "cy")))
        if not np.isfinite(list(vars(found).values())).all() or min(found.fx, found.fy) <= 0:
            raise DropItem("bad_intrinsics", f"{folder}: the focal lengths in {found} are not positive and finite")
        return found


def _read_manifest(path: Path) -> Manifest:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DropItem("missing_file", f"{path} does not exist") from error
    except ValueError as error:
        raise DropItem("bad_manifest", f"{path} is not JSON: {error}") from error
    if not isinstance(manifest, dict):
        raise DropItem("bad_manifest", f"{path} holds no object")
    return manifest


def _name(instance: Manifest) -> str:
    return " ".join(str(instance.get("class_name", "object")).replace("_", " ").split())


def _open(path: Path) -> Image.Image:
    """A fully decoded image, so that a truncated file is found here."""
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError:
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error and more on bad files
        raise DropItem("unreadable_image", f"{path} cannot be read as an image: {error}") from error
    return image


def _read_image(path: Path) -> tuple[Array, bytes | None, int]:
    """Stored RGB pixels (H, W, 3), the file's bytes where they show just that, and the turns to make it upright."""
    image = _open(path)
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation not in QUARTER_TURNS:
        raise DropItem("unreadable_image", f"{path} has EXIF orientation {orientation}, which mirrors it")
    turns = QUARTER_TURNS[orientation]
    as_stored = image.mode == "RGB" and image.format in KEPT_FORMATS and turns == 0
    return np.asarray(image.convert("RGB")), path.read_bytes() if as_stored else None, turns


def _read_depth(folder: Path, manifest: Manifest) -> Array:
    """Depth in metres, float32, 0 = no reading; refuses what cannot be metres."""
    if not manifest.get("depth"):
        raise DropItem("no_depth", f"{folder}: manifest.json names no depth file")
    path, scale = folder / manifest["depth"], float(manifest["depth_scale"])
    stored = np.asarray(_open(path))
    if stored.ndim != 2 or stored.dtype == np.uint8:
        raise DropItem(
            "depth_format", f"{path} holds {stored.dtype} {stored.shape}, not one channel of 16 bits or more"
        )
    depth_m = stored.astype(np.float32) / np.float32(scale)
    depth_m[np.isin(stored, manifest.get("depth_invalid_values", [0])) | ~np.isfinite(depth_m)] = 0
    readings = depth_m[depth_m > 0]
    if not readings.size:
        raise DropItem("no_depth_readings", f"{path} has no reading but zero")
    median_m = float(np.median(readings))
    if not MIN_DEPTH_M <= median_m <= MAX_DEPTH_M:
        raise DropItem("depth_scale", f"{path} has a median depth of {median_m:g} m; depth_scale {scale:g} is wrong")
    depth_m[~valid_depth(depth_m)] = 0
    return depth_m


def _read_instances(folder: Path, frame: Manifest, listed: list[Manifest], shape: tuple[int, ...]) -> Array | None:
    """Instance numbers, int32, (H, W); None where the sample has no masks."""
    masks = [(number, one["mask"]) for number, one in enumerate(listed, start=1) if "mask" in one]
    if "instances_map" not in frame and not masks:
        return None
    if "instances_map" in frame:
        instances = np.asarray(_open(folder / frame["instances_map"]))
        if instances.ndim != 2:
            raise DropItem("bad_instances", f"{folder}: {frame['instances_map']} has more than one channel")
        instances = instances.astype(np.int32)
    else:
        instances = np.zeros(shape, dtype=np.int32)
    for number, name in masks if "instances_map" not in frame else ():
        mask = np.asarray(_open(folder / name).convert("L")) > 0
        if mask.shape != shape:
            raise DropItem("size_mismatch", f"{folder / name} has another size than the depth")
        instances[mask] = number
    if instances.shape != shape:
        raise DropItem("size_mismatch", f"{folder}: {frame['instances_map']} has another size than the depth")
    return instances


def _quarter_turn(view: View) -> View:
    """The view after a clockwise quarter turn of its pixels and its camera."""
    height = view.depth_m.shape[0]
    old = view.intrinsics
    turn = np.array([[0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=np.float64)  # new to old camera
    return View(
        image=np.rot90(view.image, -1),
        depth_m=np.rot90(view.depth_m, -1),
        intrinsics=Intrinsics(fx=old.fy, fy=old.fx, cx=height - 1 - old.cy, cy=old.cx),
        camera_to_world=view.camera_to_world @ turn,
        instances=None if view.instances is None else np.rot90(view.instances, -1),
    )


def _up_from_objects(views: tuple[View, ...], objects: tuple[SceneObject, ...]) -> Array | None:
    """Gravity from the first labelled support that is a plane in some view."""
    for item in objects:
        for view in views if item.is_support else ():
            if view.instances is not None:
                v, u = np.nonzero((view.instances == item.id) & valid_depth(view.depth_m))
                up = up_from_support(view_points(view, u, v), view.camera_to_world[:3, 3])
                if up is not None:
                    return up
    return None


def _unit(direction: Sequence[float], folder: Path) -> Array:
    vector = np.array(direction, dtype=np.float64)
    length = float(np.linalg.norm(vector))
    if vector.shape != (3,) or not np.isfinite(length) or length == 0:
        raise DropItem("bad_manifest", f"{folder}: up_world {list(direction)} is no direction")
    return vector / length
