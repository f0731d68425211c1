"""What sources of long runs of frames share: how a run becomes scenes of several views, and how a frame is read."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dataset_builders.scene import DropItem, InputError, View
from dataset_builders.sources import MAX_VIEWS, SourceOptions
from dataset_builders.sources.image_files import ImageFile, read_image

DEFAULT_VIEWS = 8
JPEG_QUALITY = 95


def input_folder(options: SourceOptions, layout: str) -> Path:
    """The folder that the user named.

    Raises:
        InputError: there is none; `layout` says what it should hold.
    """
    if options.input_dir is None or not options.input_dir.is_dir():
        raise InputError(f"--input {options.input_dir} is not a folder; give one with {layout}.")
    return options.input_dir


def views_per_scene(options: SourceOptions) -> int | None:
    """How many views a scene shall have; None = what there is, at most `DEFAULT_VIEWS`.

    Raises:
        InputError: too few or too many.
    """
    if options.views is not None and not 1 <= options.views <= MAX_VIEWS:
        raise InputError(f"--views {options.views} is out of range; choose 1 to {MAX_VIEWS}.")
    return options.views


def whole_frame_step(options: SourceOptions, default: int) -> int:
    """Take every n-th frame of a run of images.

    Raises:
        InputError: it is no whole number from 1 on.
    """
    step = default if options.frame_step is None else options.frame_step
    if step < 1 or step != int(step):
        raise InputError(f"--frame-step {step:g} is no whole number of frames; pass 1 or more.")
    return int(step)


def scene_items(name: str, samples: int, views: int | None) -> list[str]:
    """A run of `samples` frames as items "name@first sample", the rest that fills no scene left off.

    A run that is too short is an item as well, so that it is counted when it is loaded.
    """
    length = views or max(1, min(samples, DEFAULT_VIEWS))
    return [f"{name}@{first}" for first in range(0, samples - length + 1, length)] or [f"{name}@0"]


def scene_samples(item: str, samples: int, views: int | None) -> range:
    """Which samples of its run an item shows."""
    first = int(item.rpartition("@")[2])
    return range(first, min(first + (views or DEFAULT_VIEWS), samples))


def enough_views(found: Sequence[View], wanted: int | None, item: str) -> tuple[View, ...]:
    """The views, where they are as many as the user wants.

    Raises:
        DropItem: "too_few_views".
    """
    if len(found) < (wanted or 1):
        raise DropItem("too_few_views", f"{item} has {len(found)} usable views, --views asks for {wanted or 1}")
    return tuple(found)


def read_frame(path: Path, name: str) -> ImageFile:
    """Read an image whose camera is known for its stored pixels.

    Raises:
        DropItem: as `read_image`, and "rotated_image".
    """
    file = read_image(path, name)
    if file.quarter_turns:
        raise DropItem("rotated_image", f"{name}: EXIF turns the image, and the camera may belong to either form")
    return file


def as_jpeg(pixels: np.ndarray, name: str) -> ImageFile:
    """Computed pixels, uint8, (H, W, 3), as a JPEG that is encoded once.

    What is returned are the pixels of that JPEG, so that what is asked about is what is stored.
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return read_image(buffer.getvalue(), name)
