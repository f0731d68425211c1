"""Scenes whose cameras COLMAP reconstructed, read through pycolmap: Mip-NeRF 360 and DTU.

Poses and depths share a unit that nobody knows: `metric` is False and `scale_source` "colmap". `View.depth_m` is
sparse: the z of the reconstructed points at the pixels that saw them, by which a metric depth model can find the
metres.

A lens that moves a corner by more than 0.2 % of the width is undistorted by COLMAP itself, and the result stored as a
JPEG; MVImgNet's cameras are of that kind, and to leave their images out would leave out most of the data set. A weaker
distortion is ignored, which keeps the file byte for byte.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import pycolmap

from dataset_builders.geometry import Array, invert_pose, is_rigid
from dataset_builders.scene import DropItem, InputError, Intrinsics, Scene, View
from dataset_builders.sources import SourceOptions
from dataset_builders.sources.image_files import (
    IMAGE_SUFFIXES,
    ImageFile,
    check_intrinsics,
    item_name,
    item_path,
    safe_id,
)
from dataset_builders.sources.sequences import (
    as_jpeg,
    enough_views,
    input_folder,
    read_frame,
    scene_items,
    scene_samples,
    views_per_scene,
    whole_frame_step,
)

LENS_TOLERANCE = 0.002  # displacement of a corner by the lens, in image widths, that is ignored
FARTHEST = 1e6  # units of the poses; a point beyond it is damage
ASPECT_TOLERANCE = 0.02  # of an image against its camera: a quarter of an odd size is rounded


@dataclass(frozen=True)
class ColmapModel:
    """A sparse reconstruction.

    Attributes:
        reconstruction: COLMAP's own.
        image_ids: of the images that have a pose, by file name without folder and suffix, since the shrunken images
            of a scene may be stored in another format.
    """

    reconstruction: pycolmap.Reconstruction
    image_ids: dict[str, int]


@lru_cache(maxsize=1)
def load_colmap(folder: Path) -> ColmapModel:
    """Read the sparse model, binary or text, of a scene folder with sparse/0 or sparse.

    Raises:
        DropItem: "missing_file" or "bad_reconstruction".
    """
    model = next((path for path in (folder / "sparse" / "0", folder / "sparse") if _has_model(path)), None)
    if model is None:
        raise DropItem("missing_file", f"{folder} has no COLMAP model in sparse/0 (cameras, images, points3D)")
    for path in (model / "images.bin", model / "points3D.bin"):
        if path.is_file() and not _is_whole(path):
            raise DropItem("bad_reconstruction", f"{path} is cut off or no COLMAP file")
    try:
        reconstruction = pycolmap.Reconstruction(model)
        posed = (reconstruction.image(number) for number in reconstruction.reg_image_ids())
        image_ids = {Path(image.name).stem: image.image_id for image in posed}
    except Exception as error:  # a damaged file raises IndexError, ValueError, MemoryError and more
        raise DropItem("bad_reconstruction", f"{model} cannot be read by COLMAP: {error}") from error
    path, cameras = model / "cameras.bin", reconstruction.cameras.values()
    if path.is_file() and path.stat().st_size != 8 + sum(24 + 8 * len(camera.params) for camera in cameras):
        raise DropItem("bad_reconstruction", f"{path} is cut off")
    return ColmapModel(reconstruction, image_ids)


def _is_whole(path: Path) -> bool:
    """Whether the records of images.bin or points3D.bin fill it: pycolmap reads on past an end, or for hours."""
    content = path.read_bytes()
    position = 8
    for _ in range(int.from_bytes(content[:8], "little")):
        if path.name == "images.bin":  # number, pose, camera, name, count of points of 24 bytes
            position = content.find(b"\0", position + 64) + 1 or len(content)
            position += 8 + 24 * int.from_bytes(content[position : position + 8], "little")
        else:  # number, place, colour, error, count of observations of 8 bytes
            position += 51 + 8 * int.from_bytes(content[position + 43 : position + 51], "little")
        if position > len(content):
            return False
    return position == len(content)


def _has_model(folder: Path) -> bool:
    return any((folder / f"images{suffix}").is_file() for suffix in (".bin", ".txt"))


def colmap_view(model: ColmapModel, file: ImageFile, name: str, mask: Array | None = None) -> View | None:
    """A view from an image and its camera; None where the model has no pose for it.

    Args:
        model: from `load_colmap`.
        file: the image at any size with the camera's aspect.
        name: file name of the image without folder and suffix.
        mask: bool, (H, W), of the view's only object; it becomes instance 1.

    Raises:
        DropItem: "bad_pose", "bad_intrinsics", "intrinsics_size" or "size_mismatch".
    """
    if name not in model.image_ids:
        return None
    image = model.reconstruction.image(model.image_ids[name])
    camera = model.reconstruction.camera(image.camera_id)
    height, width = file.pixels.shape[:2]
    pinhole = _scaled_camera(camera, width, height, file.name)
    check_intrinsics(_intrinsics(pinhole), width, height, file.name)
    camera_from_world = np.eye(4)
    camera_from_world[:3] = image.cam_from_world().matrix()
    if not is_rigid(camera_from_world):
        raise DropItem("bad_pose", f"the pose of {name} in its COLMAP model is not a rotation with a translation")
    if lens_displacement(pinhole) > LENS_TOLERANCE:
        file = as_jpeg(undistort(file.pixels, pinhole), file.name)
        if mask is not None:
            mask = undistort(np.repeat(255 * mask[..., None].astype(np.uint8), 3, axis=-1), pinhole)[..., 0] > 127
        pinhole = pycolmap.undistort_camera(pycolmap.UndistortCameraOptions(), pinhole)
    intrinsics = _intrinsics(pinhole)
    return View(
        image=file.pixels,
        depth_m=_sparse_depth(model.reconstruction, image, camera, intrinsics, file.pixels.shape[:2]),
        intrinsics=intrinsics,
        camera_to_world=invert_pose(camera_from_world),
        instances=None if mask is None else mask.astype(np.int32),
        image_bytes=file.image_bytes,
    )


def _scaled_camera(camera: pycolmap.Camera, width: int, height: int, name: str) -> pycolmap.Camera:
    """The camera of the image at another size than the one that was reconstructed."""
    if abs(width * camera.height / (height * camera.width) - 1) > ASPECT_TOLERANCE:
        raise DropItem("size_mismatch", f"{name} measures {width}x{height}, its camera {camera.width}x{camera.height}")
    scaled = pycolmap.Camera(camera.todict())
    scaled.rescale(width, height)
    return scaled


def _intrinsics(camera: pycolmap.Camera) -> Intrinsics:
    """Focal lengths and principal point; the centre of COLMAP's first pixel is at 0.5, of ours at 0."""
    centre = camera.principal_point_x - 0.5, camera.principal_point_y - 0.5
    return Intrinsics(camera.focal_length_x, camera.focal_length_y, *centre)


def lens_displacement(camera: pycolmap.Camera) -> float:
    """How far the lens moves the corners of the image that move most, in image widths; inf where it has no inverse."""
    corners = np.array([[x, y] for x in (0.0, camera.width) for y in (0.0, camera.height)])
    straight = camera.cam_from_img(corners)  # (4, 2), on the plane z = 1
    focal = np.array([camera.focal_length_x, camera.focal_length_y])
    centre = np.array([camera.principal_point_x, camera.principal_point_y])
    with np.errstate(invalid="ignore"):
        moved = np.linalg.norm(straight * focal + centre - corners, axis=1) / camera.width
    return float(np.nan_to_num(moved, nan=np.inf).max())


def undistort(pixels: Array, camera: pycolmap.Camera) -> Array:
    """Pixels (H, W, 3), uint8, as a pinhole camera sees them; a little smaller, so that no border is blank."""
    bitmap = pycolmap.Bitmap.from_array(np.ascontiguousarray(pixels))
    return pycolmap.undistort_image(pycolmap.UndistortCameraOptions(), bitmap, camera)[0].to_array()


def _sparse_depth(
    reconstruction: pycolmap.Reconstruction,
    image: pycolmap.Image,
    camera: pycolmap.Camera,
    intrinsics: Intrinsics,
    size: tuple[int, ...],
) -> Array:
    """Depth of the points at the pixels that saw them, float32, (H, W), 0 elsewhere; of several the nearest."""
    depth_m = np.zeros(size, np.float32)
    seen = image.get_observation_points2D()
    if not len(seen):
        return depth_m
    points = np.array([reconstruction.point3D(one.point3D_id).xyz for one in seen])  # (N, 3), world
    z = (image.cam_from_world() * points)[:, 2]
    ray = camera.cam_from_img(seen)  # (N, 2), the lens taken out
    with np.errstate(invalid="ignore"):
        u = np.rint(ray[:, 0] * intrinsics.fx + intrinsics.cx)
        v = np.rint(ray[:, 1] * intrinsics.fy + intrinsics.cy)
        inside = (z > 0) & (z < FARTHEST) & (u >= 0) & (u < size[1]) & (v >= 0) & (v < size[0])  # not for NaN
    order = np.flatnonzero(inside)[np.argsort(-z[inside], kind="stable")]
    depth_m[v[order].astype(np.int64), u[order].astype(np.int64)] = z[order]
    return depth_m


class ColmapSource:
    """A folder of scenes with images and a sparse COLMAP model; subclasses name the data set."""

    how_to_get: ClassVar[str]
    name: ClassVar[str]
    licence: ClassVar[str]
    layout: ClassVar[str]
    image_folders: ClassVar[Sequence[str]]  # the first that a scene has is read

    def __init__(self, options: SourceOptions) -> None:
        """Find the scenes.

        Raises:
            InputError: no folder, no scene with a model in it, or impossible views or frame step.
        """
        self.root = input_folder(options, self.layout)
        self.options = options
        self.views = views_per_scene(options)
        self.step = whole_frame_step(options, 1)
        folders = sorted(path for path in self.root.iterdir() if (path / "sparse").is_dir())
        self.scenes = [path.name for path in folders if self._image_folder(path.name) is not None]
        if not self.scenes:
            raise InputError(f"--input {self.root} holds no scene of {self.name}; it should hold {self.layout}.")

    def list_items(self) -> list[str]:
        """Scenes as "garden@first sample"; reads directories only."""
        items: list[str] = []
        for scene in self.scenes:
            items += scene_items(item_name(Path(scene)), len(self._frames(scene)), self.views)
        return items[: self.options.num_scenes]

    def load(self, item: str) -> Scene:
        """Read consecutive images of one scene; those that COLMAP could not place are left off.

        Raises:
            DropItem: with a reason of `load_colmap`, `colmap_view` or `read_frame`, or "too_few_views".
        """
        scene = item_path(item.rpartition("@")[0]).name
        frames = self._frames(scene)
        samples = scene_samples(item, len(frames), self.views)
        model = load_colmap(self.root / scene)
        paths = [frames[sample] for sample in samples]
        found = [colmap_view(model, read_frame(path, str(path)), path.stem) for path in paths]
        views = enough_views([view for view in found if view is not None], self.views, item)
        up_world = self.options.up_world
        return Scene(
            id=safe_id(f"{item.replace('@', '_')}_{len(views)}v"),
            source=self.name,
            licence=self.licence,
            views=views,
            up_world=None if up_world is None else np.array(up_world) / np.linalg.norm(up_world),
            metric=False,
            scale_source="colmap",
        )

    def _image_folder(self, scene: str) -> Path | None:
        folders = (self.root / scene / name for name in self.image_folders)
        return next((folder for folder in folders if folder.is_dir()), None)

    def _frames(self, scene: str) -> list[Path]:
        """Every n-th image by name."""
        folder = self._image_folder(scene)
        assert folder is not None  # `__init__` kept only scenes with images
        return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)[:: self.step]


class MipNerf360Source(ColmapSource):
    """Nine indoor and outdoor scenes, each filmed all around; the images at a quarter of their size."""

    how_to_get: ClassVar[str] = (
        "Download 360_v2.zip from jonbarron.info/mipnerf360, unpack it and pass the folder that holds garden/, "
        "kitchen/ and the others; read its terms there before you publish what you build."
    )
    name: ClassVar[str] = "mipnerf360"
    licence: ClassVar[str] = "unknown"
    layout: ClassVar[str] = "garden/{images_4 or images, sparse/0} and so on, as 360_v2.zip unpacks"
    image_folders: ClassVar[Sequence[str]] = ("images_4", "images_2", "images_8", "images")


class DtuSource(ColmapSource):
    """Table-top scenes under a robot's camera, with cameras that COLMAP reconstructed, hence without metres."""

    how_to_get: ClassVar[str] = (
        "Download the DTU scans with COLMAP models as 2D Gaussian Splatting lists them (or the images from "
        "roboimagedata.compute.dtu.dk and reconstruct them), and pass the folder that holds scan24/ and the others; "
        "read DTU's terms there before you publish what you build."
    )
    name: ClassVar[str] = "dtu"
    licence: ClassVar[str] = "unknown"
    layout: ClassVar[str] = "scan24/{images or image, sparse/0} and so on"
    image_folders: ClassVar[Sequence[str]] = ("images", "image")
