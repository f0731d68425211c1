"""Sources of scenes. Each is a class behind one Protocol, so that a shard function can run it anywhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

from dataset_builders.scene import InputError, Intrinsics, Scene

SOURCES = {  # name -> "module:class", imported when asked for
    "rgbd": "dataset_builders.sources.rgbd:RgbdSource",
    "synthetic": "dataset_builders.sources.synthetic:SyntheticSource",
}


@dataclass(frozen=True)
class SourceOptions:
    """What a user may say about a source; a source reads the fields that concern it.

    Attributes:
        input_dir: folder of the raw data; None for sources that make their own.
        seed: of sources that draw something.
        num_scenes: how many scenes to make (synthetic), or at most to read (others); None = all.
        views: views per scene; None = what the source has (at most 8). A longer sequence becomes several scenes.
        image_size: height and width in pixels of images that the source draws itself.
        intrinsics: of every image, where the data does not say.
        up_world: direction against gravity in world axes, where the data does not say.
    """

    input_dir: Path | None = None
    seed: int = 0
    num_scenes: int | None = None
    views: int | None = None
    image_size: tuple[int, int] = (240, 320)
    intrinsics: Intrinsics | None = None
    up_world: tuple[float, float, float] | None = None


class Source(Protocol):
    """A list of items and a way to load one; an instance is cheap to make, to pickle and to ship to a worker."""

    def __init__(self, options: SourceOptions) -> None:
        """Check what concerns the whole input; raise `InputError` for a user's mistake."""

    def list_items(self) -> Sequence[str]:
        """Names of all items, sorted, the same on every machine; reads no image."""

    def load(self, item: str) -> Scene:
        """One scene, a pure function of (options, item); raises `DropItem` where it cannot be used."""


def open_source(name: str, options: SourceOptions) -> Source:
    """The source called `name`, ready to list its items.

    Raises:
        InputError: no such source, or the source refuses the options.
    """
    if name not in SOURCES:
        raise InputError(f"--source {name!r} is unknown; choose one of {', '.join(sorted(SOURCES))}.")
    module, class_name = SOURCES[name].split(":")
    return getattr(import_module(module), class_name)(options)
