"""Ego4D: frames of videos from a camera on someone's head, without depth and without poses.

DIR/v2/full_scale/*.mp4 (or DIR/full_scale/*.mp4, DIR/*.mp4), as the `ego4d` command downloads them; ego4d.json beside
or above the videos, where it is there, tells which stretches are blacked out and which videos the benchmarks test on.

Read with PyAV: its wheels carry FFmpeg, while torchcodec needs FFmpeg installed on the system and a build that matches
the PyTorch at hand, which a data set builder has no other use for. A frame is the first one at or after its moment,
found by its time stamp from the key frame before it, so a frame rate that varies moves nothing.

A video holds no image files. Each frame is encoded once as a JPEG of quality 95, and the view shows the pixels of that
JPEG: questions are made from what is stored.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from PIL import Image

from dataset_builders.geometry import Array
from dataset_builders.scene import DropItem, InputError, Scene
from dataset_builders.sources import SourceOptions
from dataset_builders.sources.image_files import MAX_ASPECT, item_name, item_path, photograph, safe_id
from dataset_builders.sources.sequences import (
    as_jpeg,
    enough_views,
    input_folder,
    scene_items,
    scene_samples,
    views_per_scene,
)

LAYOUT = "v2/full_scale/*.mp4 (or *.mp4) and, if there, ego4d.json"
STEP_S = 2.0
END_S = 0.1  # of a video is left off: no frame may begin in it
LONGEST_S = 24 * 3600.0  # a longer video has a damaged head
BENCHMARK_SPLITS = ("split_em", "split_av", "split_fho")


@dataclass(frozen=True)
class KnownVideo:
    """What ego4d.json says of a video: its length, stretches that are blacked out, whether a benchmark tests on it."""

    duration_s: float
    redacted_s: tuple[tuple[float, float], ...]
    tested: bool


class Ego4dSource:
    """Videos, each as several scenes of consecutive samples."""

    how_to_get: ClassVar[str] = (
        "Sign the Ego4D licence at ego4d-data.org/docs/start-here, then run `pip install ego4d` and `ego4d "
        "--output_directory DIR --datasets full_scale --metadata`, and pass DIR."
    )

    def __init__(self, options: SourceOptions) -> None:
        """Find the videos and their metadata.

        Raises:
            InputError: no folder, no video in it, garbled metadata, or impossible views or frame step.
        """
        self.root = input_folder(options, LAYOUT)
        self.options = options
        self.views = views_per_scene(options)
        self.step_s = STEP_S if options.frame_step is None else options.frame_step
        if not 0 < self.step_s < math.inf:
            raise InputError(f"--frame-step {self.step_s:g} is no time between frames; pass seconds above 0.")
        folders = (self.root / "v2" / "full_scale", self.root / "full_scale", self.root)
        self.folder = next((folder for folder in folders if any(folder.glob("*.mp4"))), self.root)
        self.videos = sorted(path.stem for path in self.folder.glob("*.mp4"))
        if not self.videos:
            raise InputError(f"--input {self.root} holds no video; it should hold {LAYOUT}.")
        self.metadata = _read_metadata((self.folder, self.folder.parent, self.root))

    def list_items(self) -> list[str]:
        """Videos as "uid@first sample"; reads the head of a file where the metadata lacks its length."""
        items: list[str] = []
        for video in self.videos:
            items += scene_items(item_name(Path(video)), self._samples(video), self.views)
        return items[: self.options.num_scenes]

    def load(self, item: str) -> Scene:
        """Decode the frames of one scene.

        Raises:
            DropItem: with the reason "unreadable_video", "past_the_end", "redacted", "mirrored_video",
                "too_few_views", or one of `read_image`.
        """
        video = item_path(item.rpartition("@")[0]).name
        known = self.metadata.get(video)
        samples = scene_samples(item, self._samples(video), self.views)
        moments = [number * self.step_s for number in samples]
        for begin, end in known.redacted_s if known else ():
            if any(begin <= moment <= end for moment in moments):
                raise DropItem("redacted", f"{item} shows a stretch of its video that is blacked out")
        frames = read_frames(self.folder / f"{video}.mp4", moments)
        files = [as_jpeg(frame, item) for frame in frames]
        return Scene(
            id=safe_id(f"{item.replace('@', '_')}_{len(files)}v"),
            source="ego4d",
            licence="Ego4D License Agreement",
            views=enough_views([photograph(file, self.options.intrinsics) for file in files], self.views, item),
            split="test" if known and known.tested else "train",
            posed=False,
        )

    def _samples(self, video: str) -> int:
        """How many frames a video gives; 0 where its length cannot be read, which `load` tells about."""
        known = self.metadata.get(video)
        duration_s = known.duration_s if known else _duration_s(self.folder / f"{video}.mp4")
        return max(0, math.ceil((duration_s - END_S) / self.step_s)) if duration_s < LONGEST_S else 0


def _read_metadata(folders: tuple[Path, ...]) -> dict[str, KnownVideo]:
    """What ego4d.json says of each video, by uid; empty where there is none."""
    path = next((folder / "ego4d.json" for folder in folders if (folder / "ego4d.json").is_file()), None)
    if path is None:
        return {}
    try:
        return {one["video_uid"]: _known(one) for one in json.loads(path.read_text(encoding="utf-8"))["videos"]}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no Ego4D metadata ({error!r}); download it again or remove it.") from error


def _known(entry: dict[str, Any]) -> KnownVideo:
    redacted = entry.get("redacted_intervals") or ()
    return KnownVideo(
        duration_s=float(entry["duration_sec"]),
        redacted_s=tuple((float(one["start_sec"]), float(one["end_sec"])) for one in redacted),
        tested=any(entry.get(name) == "test" for name in BENCHMARK_SPLITS),
    )


def _open(path: Path) -> av.container.InputContainer:
    return av.open(str(path), metadata_errors="replace")


def _duration_s(path: Path) -> float:
    try:
        with _open(path) as container:
            stream = container.streams.video[0]
            if stream.duration is not None and stream.time_base is not None:
                return float(stream.duration * stream.time_base)
            return (container.duration or 0) / av.time_base
    except (av.FFmpegError, IndexError, ValueError):  # counted when its item is loaded
        return 0.0


def read_frames(path: Path, moments_s: list[float]) -> list[Array]:
    """The frames that a video shows at some moments, upright.

    Args:
        path: the video.
        moments_s: seconds from its beginning, ascending.

    Returns:
        RGB, uint8, (H, W, 3) for each moment.

    Raises:
        DropItem: "unreadable_video", "past_the_end" or "mirrored_video".
    """
    try:
        with _open(path) as container:
            aspect = float(container.streams.video[0].sample_aspect_ratio or 1)
            if not 1 / MAX_ASPECT < aspect < MAX_ASPECT:
                raise ValueError(f"its pixels are {aspect:g} times as wide as high")
            return [_upright(frame, aspect, path) for frame in _frames_at(container, moments_s)]
    except (av.FFmpegError, IndexError, ValueError) as error:  # IndexError: no video stream
        raise DropItem("unreadable_video", f"{path} cannot be decoded: {error}") from error
    except EOFError as error:
        raise DropItem("past_the_end", f"{path} ends before {moments_s[-1]:g} s") from error


def _frames_at(container: av.container.InputContainer, moments_s: list[float]) -> Iterator[av.VideoFrame]:
    """The first frame at or after each moment; jumps only where a key frame lies between here and there."""
    stream = container.streams.video[0]
    begin = stream.start_time or 0
    frames, now = container.decode(stream), begin - 1  # time stamp of the frame that was decoded last
    for moment_s in moments_s:
        target = begin + math.ceil(moment_s / float(stream.time_base or 1) - 1e-6)
        if _key_frame_before(stream, target) > now:
            container.seek(target, stream=stream)
            frames = container.decode(stream)
        for frame in frames:
            if frame.is_corrupt or frame.pts is None:
                raise av.InvalidDataError(0, "a frame is damaged", str(container.name))
            now = frame.pts
            if now >= target:
                yield frame
                break
        else:
            raise EOFError


def _key_frame_before(stream: av.VideoStream, target: int) -> int:
    """Time stamp of the last key frame up to a time stamp, 0 where the container lists none."""
    number = stream.index_entries.search_timestamp(target)
    return stream.index_entries[number].timestamp if number >= 0 else 0


def _upright(frame: av.VideoFrame, pixel_aspect: float, path: Path) -> Array:
    """Pixels as a player shows them: square, and turned by the display matrix."""
    side_data: Any = frame.side_data
    if SideDataType.DISPLAYMATRIX in side_data:
        matrix = np.frombuffer(side_data[SideDataType.DISPLAYMATRIX], np.int32)[[0, 1, 3, 4]].astype(np.float64)
        if np.linalg.det(matrix.reshape(2, 2)) < 0:
            raise DropItem("mirrored_video", f"{path} is stored mirrored")
    image = frame.to_image()
    if pixel_aspect != 1:
        image = image.resize((round(image.width * pixel_aspect), image.height), Image.Resampling.BICUBIC)
    return np.rot90(np.asarray(image), round(frame.rotation / 90))
