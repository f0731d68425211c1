"""Pictures of the world that no dialogue is about: single things for classification, places for retrieval."""

import io
import json
import math
import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from dataset_builders.sources.ray_caster import Camera, trace
from dataset_builders.sources.synthetic_cameras import choose_cameras, portrait_camera
from dataset_builders.sources.synthetic_objects import CLASSES
from dataset_builders.sources.synthetic_rooms import FurnishedRoom, furnish
from dataset_builders.sources.synthetic_shading import render
from dataset_builders.sources.synthetic_variety import RICH

ROOM_SPLITS = {"train": "train", "val": "test"}  # pictures to test on wear the patterns of test rooms
CENTRES = np.zeros((1, 2))  # one ray per pixel
LEAST_SHARE = 0.08  # of a picture that its thing covers, more than any other thing
PLACE_VIEWS = 6  # one of them is the query
DECOY_VIEWS = 3
EASY_DEG, HARD_DEG = 35.0, 100.0  # angle between the lines of sight up to which a view is easy, and hard; beyond: junk
TRUTH = "gnd_roxford5k.json"


def make_objects(folder: Path, per_class: dict[str, int], image_size_px: int, seed: int, workers: int) -> int:
    """Pictures of single things in their rooms, `SPLIT/CLASS/NUMBER.png`; returns how many had to be made.

    Args:
        folder: where.
        per_class: pictures of each class, by split.
        image_size_px: height and width.
        seed: of all draws.
        workers: processes.
    """
    kinds = [kind for kind, blueprint in CLASSES.items() if not blueprint.is_support]
    names = [
        f"{split}/{kind}/{index:04d}" for split, count in per_class.items() for kind in kinds for index in range(count)
    ]
    missing = [name for name in names if not (folder / f"{name}.png").is_file()]
    for parent in {(folder / name).parent for name in missing}:
        parent.mkdir(parents=True, exist_ok=True)
    return _run(partial(_write_object, folder, image_size_px, seed), missing, workers, "pictures of things")


def make_places(folder: Path, num_places: int, image_size_px: int, seed: int, workers: int) -> int:
    """Rooms of the test split from several sides, in the layout of ROxford5k; returns how many pictures were made.

    The first view of a room is the query. The others are easy or hard by the angle between the lines of sight. Every
    room has a decoy of the same floor, walls, ceiling and light with other things in it.

    Args:
        folder: where.
        num_places: rooms.
        image_size_px: height and width.
        seed: of all draws.
        workers: processes.
    """
    (folder / "jpg").mkdir(parents=True, exist_ok=True)
    missing = [index for index in range(num_places) if not all(path.is_file() for path in _place_files(folder, index))]
    made = _run(partial(_write_place, folder, image_size_px, seed), missing, workers, "places")
    names = [[path.stem for path in _place_files(folder, index)] for index in range(num_places)]
    database = [name for some in names for name in some[1:]]
    truth = []
    for index, (_, *shown) in enumerate(names):
        first, *others = _place_cameras(_place(seed, index), seed, index, image_size_px)
        marks: dict[str, list[int]] = {"easy": [], "hard": [], "junk": []}
        for name, camera in zip(shown, others):
            angle = _angle_deg(first, camera)
            level = "easy" if angle < EASY_DEG else "hard" if angle < HARD_DEG else "junk"
            marks[level].append(database.index(name))
        truth.append({"bbx": [0, 0, image_size_px, image_size_px], **marks})
    text = json.dumps({"imlist": database, "qimlist": [some[0] for some in names], "gnd": truth})
    _write(folder / TRUTH, text.encode())
    return made


def _run(step: Callable[[Any], int], tasks: Sequence[Any], workers: int, what: str) -> int:
    """Do all tasks, in this process or in several; each is a pure function of itself."""
    if not tasks:
        return 0

    def counted(outcomes: Iterable[int]) -> int:
        return sum(tqdm(outcomes, total=len(tasks), desc=what))

    if workers == 1:
        return counted(map(step, tasks))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context) as pool:
        return counted(pool.map(step, tasks, chunksize=max(1, min(16, len(tasks) // workers))))


def _write_object(folder: Path, image_size_px: int, seed: int, name: str) -> int:
    split, kind, _ = name.split("/")
    furnished, camera = _portrait(Random(f"{seed}:{name}"), ROOM_SPLITS[split], kind, image_size_px)
    _write(folder / f"{name}.png", _encoded(furnished, camera, "PNG"))
    return 1


def _portrait(rng: Random, split: str, kind: str, image_size_px: int) -> tuple[FurnishedRoom, Camera]:
    """The first draw of a room and a camera in which a thing of a kind can be made out."""
    while True:
        furnished = furnish(rng, RICH, split)
        for one in furnished.objects:
            camera = None
            if one.name.split()[-1] == kind:
                camera = portrait_camera(furnished, one.id, rng, (image_size_px,) * 2, RICH)
            if camera is not None and _stands_out(furnished, camera, one.id):
                return furnished, camera


def _stands_out(furnished: FurnishedRoom, camera: Camera, object_id: int) -> bool:
    """Whether a thing covers enough of a picture, and more than any other thing."""
    primitives = furnished.room.primitives
    owners = np.array([primitive.instance for primitive in primitives] + [0, 0, 0])
    counts = np.bincount(owners[trace(furnished.room, camera, CENTRES).surface.ravel()], minlength=object_id + 1)
    enough = counts[object_id] >= LEAST_SHARE * camera.height * camera.width
    return bool(enough and counts[object_id] == counts[1:].max())


def _place_files(folder: Path, index: int) -> list[Path]:
    """The query, the other views of its room, and those of the decoy."""
    names = [f"place-{index:04d}-{view}" for view in range(PLACE_VIEWS)]
    names += [f"decoy-{index:04d}-{view}" for view in range(DECOY_VIEWS)]
    return [folder / "jpg" / f"{name}.jpg" for name in names]


def _place(seed: int, index: int) -> FurnishedRoom:
    return furnish(Random(f"{seed}:place:{index}"), RICH, "test")


def _place_cameras(furnished: FurnishedRoom, seed: int, index: int, image_size_px: int) -> list[Camera]:
    rng = Random(f"{seed}:place cameras:{index}")
    return choose_cameras(furnished, rng, PLACE_VIEWS, (image_size_px,) * 2, RICH)


def _write_place(folder: Path, image_size_px: int, seed: int, index: int) -> int:
    rng, place = Random(f"{seed}:decoy:{index}"), _place(seed, index)
    decoy = furnish(rng, RICH, "test")
    room = replace(decoy.room, floor=place.room.floor, wall=place.room.wall, ceiling=place.room.ceiling)
    light = replace(decoy.lighting, colour=place.lighting.colour, ambient=place.lighting.ambient)
    decoy = replace(decoy, room=room, lighting=light)
    views = [(place, camera) for camera in _place_cameras(place, seed, index, image_size_px)]
    decoy_cameras = choose_cameras(decoy, rng, DECOY_VIEWS, (image_size_px,) * 2, RICH)
    views += [(decoy, camera) for camera in decoy_cameras]
    for path, (furnished, camera) in zip(_place_files(folder, index), views):
        _write(path, _encoded(furnished, camera, "JPEG"))
    return len(views)


def _angle_deg(first: Camera, second: Camera) -> float:
    """Angle between the lines of sight."""
    cosine = float(first.camera_to_world[:3, 2] @ second.camera_to_world[:3, 2])
    return math.degrees(math.acos(min(1.0, max(-1.0, cosine))))


def _encoded(furnished: FurnishedRoom, camera: Camera, form: str) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(render(furnished.room, camera, furnished.lighting).image)
    image.save(buffer, form, **({"quality": 95} if form == "JPEG" else {}))
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all."""
    partial_path = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial_path.write_bytes(content)
    os.replace(partial_path, path)
