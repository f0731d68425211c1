"""VSI-Bench (nyu-visionx/VSI-Bench): questions about indoor videos, from a folder with the unpacked videos."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from evaluators.language.questions import Question, Questions
from evaluators.language.rows import configurations, read_rows

NUMBERS = ("object_abs_distance", "object_counting", "object_size_estimation", "room_size_estimation")
CHOICES = (
    "object_rel_distance", "object_rel_direction_easy", "object_rel_direction_medium", "object_rel_direction_hard",
    "route_planning", "obj_appearance_order",
)  # fmt: skip
CATEGORIES = (*NUMBERS, *CHOICES)
COLUMNS = ("dataset", "scene_name", "question_type", "question", "ground_truth", "options")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
TERMS = (
    "pass a folder with a copy of nyu-visionx/VSI-Bench (`hf download nyu-visionx/VSI-Bench --repo-type dataset "
    "--local-dir FOLDER`) in which arkitscenes.zip, scannet.zip and scannetpp.zip are unpacked"
)
MOST_NAMED = 20


def load_vsi_bench(root: str, subset: str, num_frames: int) -> Questions:
    """Load split test; a scene is a video DATASET/SCENE.mp4 or a folder DATASET/SCENE of frames.

    Args:
        root: the folder.
        subset: "full" or another configuration of the data set, such as "debiased".
        num_frames: evenly spread over a video.

    Raises:
        ValueError: no such folder, videos are missing (all of them are told), or an unknown type of question.
    """
    if not Path(root).is_dir():
        raise ValueError(f"data {root!r} is no folder: {TERMS}")
    known = configurations(root)
    configuration = "default" if subset == "full" and subset not in known else subset
    rows = read_rows(root, configuration, "test", COLUMNS, TERMS)
    scenes = {
        scene: _scene_file(Path(root), *scene) for scene in sorted(set(zip(rows["dataset"], rows["scene_name"])))
    }
    if missing := ["/".join(scene) for scene, file in scenes.items() if file is None]:
        named = ", ".join(missing[:MOST_NAMED]) + (
            f" and {len(missing) - MOST_NAMED} more" if missing[MOST_NAMED:] else ""
        )
        raise ValueError(f"data {root!r} lacks {len(missing)} of {len(scenes)} videos ({named}): {TERMS}")
    questions = []
    for row in sorted(rows, key=lambda row: (row["dataset"], row["scene_name"])):  # a scene is decoded once
        file = scenes[row["dataset"], row["scene_name"]]
        assert file is not None  # said above
        if row["question_type"] not in CATEGORIES:
            raise ValueError(f"data {root!r} has the question_type {row['question_type']!r}: {TERMS}")
        choices = tuple(option.partition(".")[2].strip() for option in row["options"] or ())
        questions.append(
            Question(
                thing=f"{row['dataset']}/{row['scene_name']}",
                category=row["question_type"],
                text=_prompt(row["question"], row["options"] or ()),
                answer=row["ground_truth"],
                choices=choices,
                images=_frames_of(file, num_frames),
                num_images=num_frames,
                digest=f"{file.name} {file.stat().st_size} {num_frames}",
            )
        )
    return Questions(root, "test", tuple(questions), {})


def _prompt(question: str, options: list[str] | tuple[()]) -> str:
    """The prompt of VSI-Bench's own evaluation."""
    if not options:
        return f"These are frames of a video.\n{question}\nPlease answer the question using a single word or phrase."
    lines = ["These are frames of a video.", question, "Options:", *options]
    return "\n".join([*lines, "Answer with the option's letter from the given choices directly."])


def _scene_file(root: Path, dataset: str, scene: str) -> Path | None:
    video, folder = root / dataset / f"{scene}.mp4", root / dataset / scene
    return video if video.is_file() else folder if folder.is_dir() and _image_files(folder) else None


def _image_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)


def _frames_of(file: Path, num_frames: int) -> Callable[[], list[Image.Image]]:
    return lambda: read_frames(file, num_frames)


@functools.lru_cache(maxsize=2)
def read_frames(file: Path, num_frames: int) -> list[Image.Image]:
    """Read evenly spread frames of a video or of a folder of images, the first and the last among them.

    Raises:
        ValueError: the video cannot be read.
    """
    if file.is_dir():
        files = _image_files(file)
        return [Image.open(files[place]).convert("RGB") for place in _places(len(files), num_frames)]
    import av

    try:
        with av.open(str(file)) as container:
            stream = container.streams.video[0]
            count = stream.frames or sum(1 for _ in container.decode(stream))
        wanted = _places(count, num_frames)
        chosen = set(wanted)
        with av.open(str(file)) as container:
            kept = {
                place: frame.to_image() for place, frame in enumerate(container.decode(video=0)) if place in chosen
            }
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"video {str(file)!r} cannot be read ({error}): unpack it again") from error
    last = kept[max(kept)]  # a header may promise more frames than there are
    return [kept.get(place, last) for place in wanted]


def _places(count: int, wanted: int) -> list[int]:
    """Indices of `wanted` of `count` frames, some more than once where there are fewer."""
    return np.linspace(0, count - 1, wanted).astype(int).tolist()
