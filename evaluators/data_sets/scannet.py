"""ScanNet v2: meshes with classes, and the posed RGB-D frames that saw them, in a local folder.

ROOT/scannetv2_train.txt, scannetv2_val.txt    names of scans (ScanNet's Tasks/Benchmark; also in ROOT/meta_data)
ROOT/scans/scene0000_00/
    color/N.jpg, depth/N.png, pose/N.txt, intrinsic/intrinsic_depth.txt    as SensReader exports them
    scene0000_00_vh_clean_2.labels.ply         points with NYU40 classes
    scene0000_00_vh_clean_2.0.010000.segs.json and scene0000_00.aggregation.json    objects, for ScanRefer only
    scene0000_00.txt                           optional: axisAlignment
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from evaluators.data_sets.ply import read_vertices
from evaluators.metrics import IGNORED_CLASS
from evaluators.scenes.language_config import Question, QuestionData
from evaluators.scenes.scene import Camera, Points, Scene, SceneData, View

MAP_SIZE = (240, 320)  # of the depth maps, Lexicon3D's
CLASSES = {
    1: "wall", 2: "floor", 3: "cabinet", 4: "bed", 5: "chair", 6: "sofa", 7: "table", 8: "door", 9: "window",
    10: "bookshelf", 11: "picture", 12: "counter", 14: "desk", 16: "curtain", 24: "refrigerator",
    28: "shower curtain", 33: "toilet", 34: "sink", 36: "bathtub", 39: "other furniture",
}  # fmt: skip
NAMED = 20  # missing files that an error names; it counts the rest
LISTS = ("", "meta_data", "Tasks/Benchmark")


@dataclass(frozen=True)
class Scan:
    """A scan; the world is that of the axis alignment where there is one, z up."""

    folder: Path
    frame_step: int

    @property
    def id(self) -> str:
        """See `Scene`."""
        return self.folder.name

    @property
    def num_views(self) -> int:
        """See `Scene`."""
        return len(self._frames)

    @cached_property
    def fingerprint(self) -> str:
        """See `Scene`: names, sizes and times of the files, for their content is gigabytes."""
        files = [self._labels, *(self.folder / "color" / name for name, _ in self._frames)]
        state = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return hashlib.sha256(repr((self.id, self.frame_step, state)).encode()).hexdigest()[:16]

    def view(self, index: int) -> View:
        """See `Scene`; the depth map is brought to 240 x 320, the nearest reading each."""
        name, pose = self._frames[index]
        with Image.open(self.folder / "color" / name) as colour:
            image = colour.convert("RGB")
        with Image.open((self.folder / "depth" / name).with_suffix(".png")) as stored:
            scale_y, scale_x = MAP_SIZE[0] / stored.height, MAP_SIZE[1] / stored.width
            small = stored.resize(MAP_SIZE[::-1], Image.Resampling.NEAREST)
        matrix = _read_matrix(self.folder / "intrinsic" / "intrinsic_depth.txt")
        camera = Camera(
            matrix[0, 0] * scale_x,
            matrix[1, 1] * scale_y,
            (matrix[0, 2] + 0.5) * scale_x - 0.5,
            (matrix[1, 2] + 0.5) * scale_y - 0.5,
            self._alignment @ pose,
        )
        return View(image, np.asarray(small).astype(np.float32) / 1000, camera)

    def points(self) -> Points:
        """See `Scene`: all vertices, ScanNet's 20 classes."""
        vertices = read_vertices(self._labels)
        xyz = np.stack([vertices[axis] for axis in "xyz"], axis=1).astype(np.float64)
        xyz = xyz @ self._alignment[:3, :3].T + self._alignment[:3, 3]
        table = np.full(2**16, IGNORED_CLASS, np.uint8)
        table[list(CLASSES)] = np.arange(len(CLASSES))
        return Points(xyz.astype(np.float32), table[vertices["label"]], self._object_ids(len(xyz)))

    @property
    def _labels(self) -> Path:
        return self.folder / f"{self.id}_vh_clean_2.labels.ply"

    @cached_property
    def _frames(self) -> list[tuple[str, np.ndarray]]:
        """One tracked frame per step: file name and pose (4, 4); where tracking was lost, the next one of the step."""
        files = sorted((file for file in (self.folder / "color").iterdir()), key=lambda file: int(file.stem))
        frames: dict[int, tuple[str, np.ndarray]] = {}
        for file in files:
            slot = int(file.stem) // self.frame_step
            if slot not in frames:
                pose = _read_matrix(self.folder / "pose" / f"{file.stem}.txt")
                if np.isfinite(pose).all():
                    frames[slot] = (file.name, pose)
        return list(frames.values())

    @cached_property
    def _alignment(self) -> np.ndarray:
        """(4, 4) from the scan's world to one whose walls lie along the axes."""
        file = self.folder / f"{self.id}.txt"
        lines = file.read_text().splitlines() if file.is_file() else []
        found = next((line.split("=")[1] for line in lines if line.startswith("axisAlignment")), None)
        return np.array(found.split(), np.float64).reshape(4, 4) if found else np.eye(4)

    def _object_ids(self, count: int) -> np.ndarray:
        """(N,) objectId of every vertex, -1 for none or where the scan has no annotation."""
        ids = np.full(count, -1, np.int32)
        segments_file, groups_file = object_files(self.folder)
        if not (segments_file.is_file() and groups_file.is_file()):
            return ids
        segments = np.array(json.loads(segments_file.read_text())["segIndices"])
        if len(segments) != count:
            raise ValueError(f"{segments_file} has {len(segments)} vertices, the mesh {count}: download both again")
        for group in json.loads(groups_file.read_text())["segGroups"]:
            ids[np.isin(segments, group["segments"])] = group["objectId"]
        return ids


def object_files(folder: Path) -> tuple[Path, Path]:
    """Where the objects of a scan are: segments of the vertices, and objects of the segments."""
    return folder / f"{folder.name}_vh_clean_2.0.010000.segs.json", folder / f"{folder.name}.aggregation.json"


def load(data: str, limit: int | None = None, frame_step: int = 20) -> SceneData:
    """Load ScanNet's train and validation splits.

    Args:
        data: ROOT.
        limit: scans of each split, None = all.
        frame_step: frames between two views.

    Raises:
        ValueError: no such folder, another layout, or missing files, all of them told at once.
    """
    root = Path(data)
    names = {split: _read_list(root, split) for split in ("train", "val")}
    found = {split: [name for name in names[split] if (root / "scans" / name).is_dir()] for split in names}
    for split, scans in found.items():
        if not scans:
            raise ValueError(
                f"data {data!r} holds no scan of scannetv2_{split}.txt in scans/: export ScanNet's .sens files there, "
                "scans/scene0000_00/{color,depth,pose,intrinsic}"
            )
    chosen = {split: [root / "scans" / name for name in scans[:limit]] for split, scans in found.items()}
    check_files([file for folders in chosen.values() for folder in folders for file in _needed(folder)])
    train, val = (tuple(Scan(folder, frame_step) for folder in chosen[split]) for split in ("train", "val"))
    absent = {split: len(names[split]) - len(found[split]) for split in names}
    dropped = {split: {"scan_is_not_there": count} for split, count in absent.items() if count}
    return SceneData(data, train, val, tuple(CLASSES.values()), test_split="val", dropped=dropped)


def load_questions(
    data: str,
    scannet: str | None,
    frame_step: int,
    questions: dict[str, list[Question]],
    limit: int | None,
    with_objects: bool = False,
) -> QuestionData:
    """Put questions and the scans that they are about together; questions about scans that are not there are counted.

    Args:
        data: where the questions are from.
        scannet: ROOT of the scans, None = `data`.
        frame_step: frames between two views.
        questions: of the split `train` and of the one that is reported.
        limit: questions of each split, None = all.
        with_objects: whether the objects of the scans are needed.

    Raises:
        ValueError: no scan of a split is there, or files are missing, all of them told at once.
    """
    root = Path(scannet or data) / "scans"
    kept, dropped = {}, {}
    for split, asked in questions.items():
        there = [question for question in asked if (root / question.scene_id).is_dir()]
        if not there:
            raise ValueError(
                f"{str(root)!r} holds none of the scans that split {split} of {data!r} asks about: pass ScanNet's "
                "ROOT with --set TASK.scannet=ROOT"
            )
        dropped[split] = {"scan_is_not_there": len(asked) - len(there)} if len(there) < len(asked) else {}
        kept[split] = tuple(there[:limit])
    folders = [root / name for name in sorted({one.scene_id for part in kept.values() for one in part})]
    needed = [[*_needed(folder), *(object_files(folder) if with_objects else ())] for folder in folders]
    check_files([file for files in needed for file in files])
    train, test = kept
    scenes: dict[str, Scene] = {folder.name: Scan(folder, frame_step) for folder in folders}
    return QuestionData(data, kept[train], kept[test], scenes, test, dropped)


def read_json(root: Path, name: str, places: Sequence[str], how_to_get: str) -> Any:
    """The content of a JSON file of one of some folders of ROOT.

    Raises:
        ValueError: it is in none of them, or no JSON.
    """
    file = next((root / place / name for place in places if (root / place / name).is_file()), None)
    if file is None:
        raise ValueError(f"data {str(root)!r} has no {name}: {how_to_get}")
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: download it again") from error


def check_files(files: list[Path]) -> None:
    """Raise ValueError with all files and folders that are missing."""
    missing = [str(file) for file in files if not file.exists()]
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise ValueError(f"{len(missing)} files are missing: {', '.join(missing[:NAMED])}{more}")


def _needed(folder: Path) -> list[Path]:
    parts = ("color", "depth", "pose", "intrinsic/intrinsic_depth.txt", f"{folder.name}_vh_clean_2.labels.ply")
    return [folder / part for part in parts]


def _read_list(root: Path, split: str) -> list[str]:
    for place in LISTS:
        file = root / place / f"scannetv2_{split}.txt"
        if file.is_file():
            return file.read_text().split()
    raise ValueError(
        f"data {str(root)!r} has no scannetv2_{split}.txt: copy it from Tasks/Benchmark of github.com/ScanNet/ScanNet"
    )


def _read_matrix(file: Path) -> np.ndarray:
    """(4, 4) of a text file; where tracking was lost it holds -inf."""
    try:
        return np.array(file.read_text().split(), np.float64).reshape(4, 4)
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} is no 4x4 matrix: export the scan again with SensReader") from error
