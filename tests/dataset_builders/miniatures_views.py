"""Miniatures of ScanNet, COLMAP scenes, MVImgNet and Ego4D: their real folders around a few rendered boxes."""

import io
import json
from fractions import Fraction

import numpy as np
from PIL import Image

from dataset_builders.geometry import invert_pose, transform, view_points
from tests.dataset_builders.scenes_for_tests import BREAKFAST, camera_pose, render

SCANNET_LABELS = ("Dining Table", "cereal box", "mug", "scissors", "lamp")


def jpeg(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="JPEG", quality=95)
    return buffer.getvalue()


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jpg":
        path.write_bytes(jpeg(array))
    else:
        Image.fromarray(array).save(path)


def walk(count):
    """Poses of a camera that steps to the right and turns left."""
    return [camera_pose((0.06 * k - 0.3, 0, 0.5), yaw=2.0 * k - 6, pitch=20) for k in range(count)]


# ScanNet

COLOUR = {"width": 162, "height": 121, "focal": 146.0}
DEPTH = {"width": 80, "height": 60, "focal": 71.0}


def write_matrix(path, matrix):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(" ".join(f"{value:.6f}" for value in row) for row in matrix) + "\n")


def intrinsic_matrix(camera):
    matrix = np.eye(4)
    matrix[[0, 1], [0, 1]] = camera.fx, camera.fy
    matrix[:2, 2] = camera.cx, camera.cy
    return matrix


def scannet_scan(root, name="scene0011_00", frames=8, numbers=None, instances=True):
    """A scan as SensReader exports it; returns its folder and the exact views at colour resolution."""
    folder, views = root / "scans" / name, []
    for number, pose in zip(numbers or range(frames), walk(frames)):
        colour, depth = render(BREAKFAST, pose, **COLOUR), render(BREAKFAST, pose, **DEPTH)
        views.append(colour)
        save(folder / "color" / f"{number}.jpg", colour.image)
        save(folder / "depth" / f"{number}.png", np.round(depth.depth_m * 1000).astype(np.uint16))
        write_matrix(folder / "pose" / f"{number}.txt", pose)
        if instances:
            save(folder / "instance-filt" / f"{number}.png", colour.instances.astype(np.uint8))
    write_matrix(folder / "intrinsic" / "intrinsic_color.txt", intrinsic_matrix(colour.intrinsics))
    write_matrix(folder / "intrinsic" / "intrinsic_depth.txt", intrinsic_matrix(depth.intrinsics))
    groups = [{"id": k, "objectId": k, "segments": [], "label": label} for k, label in enumerate(SCANNET_LABELS)]
    groups += [{"id": 5, "objectId": 5, "segments": [], "label": "wall"}]  # which no view shows
    (folder / f"{name}.aggregation.json").write_text(json.dumps({"sceneId": name, "segGroups": groups}))
    return folder, views


# COLMAP


def colmap_model(folder, views, names, *, model="PINHOLE", lens=(), text=False, points=200, scale=1.0):
    """A sparse model with exact cameras and points of the first view; `scale` is the unit of the poses in metres."""
    import pycolmap

    first = views[0]
    camera = pycolmap.Camera.create_from_model_name(1, model, first.intrinsics.fx, *first.image.shape[1::-1])
    focal = [first.intrinsics.fx] * (2 if model in ("PINHOLE", "OPENCV") else 1)
    camera.params = [*focal, first.intrinsics.cx + 0.5, first.intrinsics.cy + 0.5, *lens]
    reconstruction = pycolmap.Reconstruction()
    reconstruction.add_camera_with_trivial_rig(camera)
    rng = np.random.default_rng(0)
    v, u = (rng.permutation(np.argwhere(first.depth_m > 0))[:points]).T
    world = view_points(first, u, v) / scale
    numbers = [reconstruction.add_point3D(point, pycolmap.Track(), np.zeros(3, np.uint8)) for point in world]
    for k, (view, name) in enumerate(zip(views, names), start=1):
        pose = invert_pose(view.camera_to_world)
        pose[:3, 3] /= scale
        pixels = np.atleast_2d(camera.img_from_cam(transform(world, pose)))
        image = pycolmap.Image(name=name, image_id=k, camera_id=1)
        image.points2D = pycolmap.Point2DList([pycolmap.Point2D(pixel) for pixel in pixels])
        rigid = pycolmap.Rigid3d(pycolmap.Rotation3d(pose[:3, :3]), pose[:3, 3])
        reconstruction.add_image_with_trivial_frame(image, rigid)
        for index, number in enumerate(numbers):
            reconstruction.add_observation(number, pycolmap.TrackElement(k, index))
    target = folder / "sparse" / "0"
    target.mkdir(parents=True, exist_ok=True)
    reconstruction.write_text(target) if text else reconstruction.write_binary(target)
    if not text:  # the published data sets are older than COLMAP's rigs
        for name in ("rigs.bin", "frames.bin"):
            (target / name).unlink()
    return camera


def colmap_scene(root, name="garden", count=5, image_folder="images", suffix=".JPG", **model):
    """One scene of Mip-NeRF 360 or DTU; returns its exact views."""
    views = [render(BREAKFAST, pose, width=160, height=120, focal=140.0) for pose in walk(count)]
    names = [f"IMG_{k:04d}{suffix}" for k in range(count)]
    for view, image_name in zip(views, names):
        path = root / name / image_folder / image_name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(view.image).save(path, **({"quality": 95} if suffix.lower() == ".jpg" else {}))
    colmap_model(root / name, views, names, **model)
    return views


def mvimgnet_object(root, category="7", name="2701abcd", count=10, masks="masks", **model):
    """One object video: the cereal box is the object; returns its exact views."""
    folder = root / category / name
    views = [render(BREAKFAST, pose, width=160, height=120, focal=140.0) for pose in walk(count)]
    names = [f"{k + 1:03d}.jpg" for k in range(count)]
    for view, image_name in zip(views, names):
        save(folder / "images" / image_name, view.image)
        where = folder / "masks" if masks == "masks" else root.parent / "mask" / category / name
        if masks:
            save(where / f"{image_name}.png", (255 * (view.instances == 2)).astype(np.uint8))
    colmap_model(folder, views, names, model="SIMPLE_RADIAL", lens=model.pop("lens", [0.0]), **model)
    (root / "mvimgnet_category.txt").write_text("2,wahser\n7,stove\n141,Flower\n203,Toy butterfly \n")
    return views


# Ego4D


def video(path, count=90, rate=30, *, milliseconds=None, rotation=0, mirrored=False, aspect=None, size=(64, 48)):
    """Frame k is grey of 2 k with a red corner at the top left; `milliseconds` are the times of a varying rate."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt, stream.options = "yuv420p", {"g": "30", "threads": "1", "crf": "10"}
        if rotation or mirrored:
            stream.set_display_rotation(rotation, hflip=mirrored)
        if aspect:
            stream.sample_aspect_ratio = aspect
        if milliseconds is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for k in range(count):
            pixels = np.full((size[1], size[0], 3), 2 * k, np.uint8)
            pixels[: size[1] // 4, : size[0] // 4] = 255, 0, 0
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = k if milliseconds is None else milliseconds[k]
            if milliseconds is not None:
                frame.time_base = Fraction(1, 1000)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path
