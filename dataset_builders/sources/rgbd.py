"""RGB-D folders with a `manifest.json` per sample: single images, and sequences as multi-view scenes.

Manifest keys that are read:
    rgb, depth              file names; depth is z along the optical axis in a one-channel PNG or TIFF, null = none yet
    depth_scale             metres = value / depth_scale
    depth_invalid_values    further values that mean "no reading", besides 0
    registered_to_rgb       false = depth belongs to another camera: the sample is left out
    width, height           of the images that the intrinsics belong to; checked where they are there
    intrinsics              {fx, fy, cx, cy} in pixels; where it is null and depth is there, pass --intrinsics
    instances_map           one-channel image of instance numbers, or a `mask` file per instance, or
    mask                    one mask of all instances, each a connected `component` of it (numbered from the top)
    instances               [{value | mask | component, class_name, is_support, iscrowd}]; a crowd is no object
    frames                  [{rgb, depth, pose_cam_to_world, instances_map}], for several views of one place, all of
                            them with a pose or none
    id, licence, split, up_world, depth_noise, metric (or metric_scale), scale_source: as in `scene.Scene`

Gravity comes from `up_world`, else from --up-world, else from an instance that is labelled as a support (a table).
The depth, the masks and the intrinsics belong to the stored pixels: an EXIF rotation turns them with the image.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from scipy import ndimage

from dataset_builders.geometry import (
    MAX_DEPTH_M,
    MIN_DEPTH_M,
    Array,
    is_rigid,
    up_from_support,
    valid_depth,
    view_points,
)
from dataset_builders.scene import UNKNOWN_INTRINSICS, DropItem, InputError, Intrinsics, Scene, SceneObject, View
from dataset_builders.sources import SourceOptions
from dataset_builders.sources.image_files import (
    check_intrinsics,
    item_name,
    item_path,
    open_image,
    photograph,
    read_image,
    safe_id,
)
from dataset_builders.sources.sequences import input_folder, scene_items, scene_samples, views_per_scene

SHARED_ID = ":shared-id"  # marks an item whose sample has the id of another one
Manifest = dict[str, Any]


class RgbdSource:
    """One sample folder, or a folder that holds sample folders at any depth."""

    how_to_get: ClassVar[str] = (
        "Put one folder per sample below --input, each with a manifest.json as dataset_builders/sources/rgbd.py "
        "describes it; the licence is the one that you write there."
    )

    def __init__(self, options: SourceOptions) -> None:
        """Find the samples.

        Raises:
            InputError: no folder, or no manifest in it.
        """
        self.options = options
        self.root = input_folder(options, "a manifest.json per sample")
        self.views = views_per_scene(options)
        if not any(self.root.rglob("manifest.json")):
            raise InputError(f"--input {self.root} holds no manifest.json; each sample folder needs one.")

    def list_items(self) -> Sequence[str]:
        """Sample folders relative to the input, a long sequence as several "folder@first frame"."""
        frames: dict[Path, int] = {}
        ids: dict[Path, str] = {}
        for path in sorted(self.root.rglob("manifest.json")):
            folder = path.parent.relative_to(self.root)
            try:
                manifest = _read_manifest(path, self._shown(folder))
            except DropItem:  # counted when the item is loaded
                manifest = {}
            frames[folder], ids[folder] = len(manifest.get("frames") or [0]), self._id(folder, manifest)
        shared = {one for one, count in Counter(ids.values()).items() if count > 1}
        items: list[str] = []
        for folder, count in frames.items():
            name = item_name(folder) + (SHARED_ID if ids[folder] in shared else "")
            items += scene_items(name, count, self.views)
        return items[: self.options.num_scenes]

    def load(self, item: str) -> Scene:
        """Read one sample.

        Raises:
            DropItem: "bad_manifest", "missing_file", "not_registered", "no_intrinsics", "depth_format", "depth_scale",
                "no_depth_readings", "size_mismatch", "bad_pose", "too_few_views", "bad_instances", or a reason of
                `read_image` or `check_intrinsics`.
        """
        place = item.rpartition("@")[0]
        folder = item_path(place.removesuffix(SHARED_ID))
        shown = self._shown(folder)
        manifest = _read_manifest(self.root / folder / "manifest.json", shown)
        frames = manifest.get("frames") or [manifest]
        chosen = [frames[sample] for sample in scene_samples(item, len(frames), self.views)]
        if len(chosen) < (self.views or 1):
            raise DropItem("too_few_views", f"{shown} has {len(chosen)} views left, --views asks for {self.views}")
        if manifest.get("registered_to_rgb") is False:
            raise DropItem("not_registered", f"{shown}: the depth is not registered to the colour image")
        name = self._id(folder, manifest)
        if place.endswith(SHARED_ID):
            name = f"{folder.as_posix()}/{name}"
        if len(chosen) < len(frames):
            name = f"{name}_{item.rpartition('@')[2]}_{len(chosen)}v"
        try:
            return self._scene(_Sample(self.root / folder, shown, manifest), chosen, safe_id(name))
        except (KeyError, TypeError, ValueError) as error:
            raise DropItem("bad_manifest", f"{shown}: manifest.json lacks or garbles {error}") from error

    def _id(self, folder: Path, manifest: Manifest) -> str:
        return str(manifest.get("id") or (self.root / folder).resolve().name)

    def _shown(self, folder: Path) -> str:
        """What a message calls a sample."""
        return item_name(Path(self.root.resolve().name) / folder)

    def _scene(self, sample: "_Sample", frames: list[Manifest], name: str) -> Scene:
        manifest = sample.manifest
        with_pose = sum("pose_cam_to_world" in frame for frame in frames)
        if 0 < with_pose < len(frames):
            raise DropItem(
                "bad_pose", f"{sample.name}: {len(frames) - with_pose} of {len(frames)} frames have no pose"
            )
        views = tuple(self._view(sample, frame) for frame in frames)
        objects = tuple(
            SceneObject(
                number, " ".join(str(one.get("class_name", "object")).replace("_", " ").split()), bool(support)
            )
            for number, one in sample.instances()
            for support in [one.get("is_support", False)]
            if not one.get("iscrowd")
        )
        if all(view.instances is None for view in views):  # boxes without masks
            objects = ()
        up_world = manifest.get("up_world") or self.options.up_world
        measured = "sensor" if any(view.has_depth for view in views) else "poses" if with_pose > 1 else "none"
        return Scene(
            id=name,
            source="rgbd",
            licence=str(manifest.get("licence", "unknown")),
            views=views,
            objects=objects,
            up_world=_up_from_objects(views, objects) if up_world is None else _unit(up_world, sample.name),
            depth_noise=float(manifest.get("depth_noise", 0.01)),
            metric=bool(manifest.get("metric", manifest.get("metric_scale", True))),
            scale_source=str(manifest.get("scale_source", measured)),
            split=str(manifest.get("split", "train")),
            posed=with_pose > 0 or len(views) == 1,
        )

    def _view(self, sample: "_Sample", frame: Manifest) -> View:
        """One image with its depth, masks, camera and pose, turned upright."""
        name = f"{sample.name}/{frame['rgb']}"
        file = read_image(sample.folder / frame["rgb"], name)
        stored = np.rot90(file.pixels, file.quarter_turns)
        depth_m = _read_depth(sample, frame)
        if depth_m is not None and depth_m.shape != stored.shape[:2]:
            sizes = f"{depth_m.shape[1]}x{depth_m.shape[0]}, the image {stored.shape[1]}x{stored.shape[0]}"
            raise DropItem("size_mismatch", f"{name}: depth measures {sizes}")
        pose = np.array(frame.get("pose_cam_to_world", np.eye(4)), dtype=np.float64)
        if not is_rigid(pose):
            raise DropItem("bad_pose", f"{name}: the pose is not finite or not rigid")
        view = View(
            image=stored,
            depth_m=np.zeros(stored.shape[:2], np.float32) if depth_m is None else depth_m,
            intrinsics=self._intrinsics(sample, frame, stored.shape, name),
            camera_to_world=pose,
            instances=_read_instances(sample, frame, stored.shape[:2]),
            image_bytes=file.image_bytes,
        )
        for _ in range(file.quarter_turns):
            view = _quarter_turn(view)
        if depth_m is None and not view.intrinsics.known:
            view = replace(view, intrinsics=photograph(file, self.options.intrinsics).intrinsics)
        return view

    def _intrinsics(self, sample: "_Sample", frame: Manifest, shape: tuple[int, ...], name: str) -> Intrinsics:
        """Those of the stored pixels; unknown ones only where there is no depth either."""
        both = {**sample.manifest, **frame}
        stated = frame.get("intrinsics") or sample.manifest.get("intrinsics")
        height, width = shape[:2]
        if stated is None:
            if not both.get("depth"):
                return UNKNOWN_INTRINSICS
            if self.options.intrinsics is None:
                raise DropItem("no_intrinsics", f"{name} has no intrinsics; pass --intrinsics fx,fy,cx,cy in pixels")
            check_intrinsics(self.options.intrinsics, width, height, name)
            return self.options.intrinsics
        found = Intrinsics(*(float(stated[key]) for key in ("fx", "fy", "cx", "cy")))
        check_intrinsics(found, width, height, name)
        if (both.get("width", width), both.get("height", height)) != (width, height):
            size = f"{both.get('width', width)}x{both.get('height', height)}"
            raise DropItem("intrinsics_size", f"{name}: intrinsics for {size} pixels, the image has {width}x{height}")
        return found


@dataclass(frozen=True)
class _Sample:
    """A sample folder, what messages call it, and its manifest."""

    folder: Path
    name: str
    manifest: Manifest

    def instances(self) -> list[tuple[int, Manifest]]:
        """The listed instances with their numbers."""
        listed = self.manifest.get("instances") or []
        return [(int(one.get("value") or number), one) for number, one in enumerate(listed, start=1)]


def _read_manifest(path: Path, name: str) -> Manifest:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DropItem("missing_file", f"{name}/manifest.json does not exist") from error
    except ValueError as error:
        raise DropItem("bad_manifest", f"{name}/manifest.json is not JSON: {error}") from error
    if not isinstance(manifest, dict):
        raise DropItem("bad_manifest", f"{name}/manifest.json holds no object")
    return manifest


def _read_depth(sample: _Sample, frame: Manifest) -> Array | None:
    """Depth in metres, float32, 0 = no reading; refuses what cannot be metres; None where there is no depth file."""
    manifest = {**sample.manifest, **frame}
    if not manifest.get("depth"):
        return None
    name, scale = f"{sample.name}/{manifest['depth']}", float(manifest["depth_scale"])
    if not 0 < scale < np.inf:
        raise DropItem("depth_scale", f"{name}: depth_scale {scale:g} is no positive number")
    stored = np.asarray(open_image(sample.folder / manifest["depth"], name))
    if stored.ndim != 2 or stored.dtype == np.uint8:
        raise DropItem(
            "depth_format", f"{name} holds {stored.dtype} {stored.shape}, not one channel of 16 bits or more"
        )
    depth_m = stored.astype(np.float32) / np.float32(scale)
    depth_m[np.isin(stored, manifest.get("depth_invalid_values", [0])) | ~np.isfinite(depth_m)] = 0
    readings = depth_m[depth_m > 0]
    if not readings.size:
        raise DropItem("no_depth_readings", f"{name} has no reading but zero")
    median_m = float(np.median(readings))
    if not MIN_DEPTH_M <= median_m <= MAX_DEPTH_M:
        raise DropItem("depth_scale", f"{name} has a median depth of {median_m:g} m; depth_scale {scale:g} is wrong")
    depth_m[~valid_depth(depth_m)] = 0
    return depth_m


def _read_instances(sample: _Sample, frame: Manifest, shape: tuple[int, ...]) -> Array | None:
    """Instance numbers, int32, (H, W); None where the sample has no masks."""

    def read(file_name: str, mode: str | None = None) -> Array:
        image = open_image(sample.folder / file_name, f"{sample.name}/{file_name}")
        found = np.asarray(image if mode is None else image.convert(mode))
        if found.ndim != 2:
            raise DropItem("bad_instances", f"{sample.name}/{file_name} has more than one channel")
        if found.shape != shape:
            raise DropItem("size_mismatch", f"{sample.name}/{file_name} has another size than the image")
        return found

    listed = sample.instances()
    if "instances_map" in frame:
        instances = read(frame["instances_map"]).astype(np.int32)
        instances[np.isin(instances, [number for number, one in listed if one.get("iscrowd")])] = 0
        return instances
    if not any("mask" in one or "component" in one for _, one in listed):
        return None
    instances = np.zeros(shape, dtype=np.int32)
    components = ndimage.label(read(sample.manifest["mask"], "L"))[0] if "mask" in sample.manifest else instances
    for number, one in listed:
        mask = read(one["mask"], "L") > 0 if "mask" in one else components == one["component"]
        instances[mask] = 0 if one.get("iscrowd") else number
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


def _unit(direction: Sequence[float], name: str) -> Array:
    vector = np.array(direction, dtype=np.float64)
    length = float(np.linalg.norm(vector))
    if vector.shape != (3,) or not np.isfinite(length) or length == 0:
        raise DropItem("bad_manifest", f"{name}: up_world {list(direction)} is no direction")
    return vector / length
