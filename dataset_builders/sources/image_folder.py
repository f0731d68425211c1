"""The `images` source: any folder of photographs, one scene per image, or one per run of frames with `--views`.

Nothing but the pixels is read, and the focal length where EXIF tells it; depth, masks and poses are for `perception`.
With `--views 2` or more every folder that holds images is a sequence of one place, in the order of the numbers in the
file names (frame 2 before frame 10), of which `--frame-step N` takes every N-th.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from dataset_builders.scene import DropItem, InputError, Scene
from dataset_builders.sources import SourceOptions
from dataset_builders.sources.image_files import (
    IMAGE_SUFFIXES,
    item_name,
    item_path,
    photograph,
    read_image,
    safe_id,
)
from dataset_builders.sources.sequences import (
    input_folder,
    scene_items,
    scene_samples,
    views_per_scene,
    whole_frame_step,
)


class ImageFolderSource:
    """All images at any depth below a folder; hidden files and folders are left alone."""

    how_to_get: ClassVar[str] = (
        "Put your own images below --input, in any folders; their licence is yours to know and recorded as 'unknown'."
    )

    def __init__(self, options: SourceOptions) -> None:
        """Check the options.

        Raises:
            InputError: no folder, or views or a step out of range.
        """
        self.options = options
        self.root = input_folder(options, "images at any depth")
        self.views = views_per_scene(options) or 1
        self.step = whole_frame_step(options, default=1)

    def list_items(self) -> Sequence[str]:
        """Paths of the images below the input, percent-encoded; of sequences "folder@first sample".

        Raises:
            InputError: there is no image.
        """
        items: list[str] = []
        for folder, files in self._folders():
            if self.views == 1:
                items += [item_name(folder / name) for name in files]
            elif files:
                items += scene_items(item_name(folder), len(files[:: self.step]), self.views)
        if not items:
            raise InputError(
                f"--input {self.root} holds no image; these are read: {' '.join(sorted(IMAGE_SUFFIXES))}."
            )
        return (sorted(items) if self.views == 1 else items)[: self.options.num_scenes]

    def load(self, item: str) -> Scene:
        """Read one image, or the frames of one sequence.

        Raises:
            DropItem: "too_few_views", or a reason of `read_image` or `photograph`.
        """
        paths = [item_path(item)] if self.views == 1 else self._frames(item)
        files = [read_image(self.root / path, item_name(path)) for path in paths]
        return Scene(
            id=safe_id(item if self.views == 1 else f"{item}x{self.views}"),
            source="images",
            licence="unknown",
            views=tuple(photograph(file, self.options.intrinsics) for file in files),
            scale_source="none",
            posed=self.views == 1,
        )

    def _frames(self, item: str) -> list[Path]:
        """The images of a sequence, relative to the input."""
        folder = item_path(item.rpartition("@")[0])
        frames = _images(os.listdir(self.root / folder))[:: self.step]
        chosen = scene_samples(item, len(frames), self.views)
        if len(chosen) < self.views:
            raise DropItem("too_few_views", f"{item} has {len(chosen)} images, --views asks for {self.views}")
        return [folder / frames[sample] for sample in chosen]

    def _folders(self) -> Iterator[tuple[Path, list[str]]]:
        """Every folder relative to the input with the names of its images, in order."""
        for folder, subfolders, files in os.walk(self.root):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            yield Path(folder).relative_to(self.root), _images(files)


def _images(names: Sequence[str]) -> list[str]:
    """The images among file names, in the order of the numbers in them: "frame_2.png" before "frame_10.png"."""
    images = [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")]
    return sorted(images, key=lambda name: ([int(part) if part.isdecimal() else part for part in _split(name)], name))


def _split(name: str) -> list[str]:
    """Text and numbers of a name, in turns."""
    return re.split(r"(\d+)", name)
