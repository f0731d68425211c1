"""Sources of scenes. Each is a class behind one Protocol, so that a shard function can run it anywhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import ClassVar, Protocol

from dataset_builders.scene import InputError, Intrinsics, Scene

SOURCES = {  # name -> "module:class", imported when asked for
    "dtu": "dataset_builders.sources.colmap:DtuSource",
    "ego4d": "dataset_builders.sources.ego4d:Ego4dSource",
    "hub": "dataset_builders.sources.hub:HubSource",
    "images": "dataset_builders.sources.image_folder:ImageFolderSource",
    "llava": "dataset_builders.sources.llava:LlavaSource",
    "mipnerf360": "dataset_builders.sources.colmap:MipNerf360Source",
    "mvimgnet": "dataset_builders.sources.mvimgnet:MvImgNetSource",
    "rgbd": "dataset_builders.sources.rgbd:RgbdSource",
    "sa1b": "dataset_builders.sources.sa1b:Sa1bSource",
    "scannet": "dataset_builders.sources.scannet:ScanNetSource",
    "synthetic": "dataset_builders.sources.synthetic:SyntheticSource",
}
MAX_VIEWS = 64  # of a sequence that a source yields as one scene; a dialogue shows at most 8 of them


@dataclass(frozen=True)
class SourceOptions:
    """What a user may say about a source; a source reads the fields that concern it.

    Attributes:
        input_dir: folder of the raw data; None for sources that make their own.
        seed: of sources that draw something.
        num_scenes: how many scenes to make (synthetic), or at most to read (others); None = all.
        views: views per scene; None = what the source has (at most 8). A longer sequence becomes several scenes.
        frame_step: of a sequence or video, take every n-th frame; for videos in seconds.
        image_size: height and width in pixels of images that the source draws itself.
        intrinsics: of every image, where the data does not say.
        up_world: direction against gravity in world axes, where the data does not say.
        dataset: id or folder for `datasets.load_dataset` (source `hub`), and what to take of it:
        dataset_config: configuration; None = its default.
        dataset_split: split.
        image_column: column that holds the image; None = the only one of type Image.
        variety: of rooms that the source draws: "plain" or "rich" (synthetic).
        with_held_out: also read scenes that the paper's own evaluation uses (ScanNet's validation and test scans).
    """

    input_dir: Path | None = None
    seed: int = 0
    num_scenes: int | None = None
    views: int | None = None
    frame_step: float | None = None
    image_size: tuple[int, int] = (240, 320)
    intrinsics: Intrinsics | None = None
    up_world: tuple[float, float, float] | None = None
    dataset: str | None = None
    dataset_config: str | None = None
    dataset_split: str = "train"
    image_column: str | None = None
    variety: str = "plain"
    with_held_out: bool = False


class Source(Protocol):
    """A list of items and a way to load one; an instance is cheap to make, to pickle and to ship to a worker.

    Two optional attributes: `segmentation_classes`, names of the ids in `View.segmentation`, and `notices`, sentences
    that a build prints before it starts and puts on the card (scenes that were left out on purpose, and why).
    """

    how_to_get: ClassVar[str]  # one sentence: what to download from where, and which licence to accept

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
