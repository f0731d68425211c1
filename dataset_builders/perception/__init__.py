"""Outside models that turn photographs into scenes with depth, masks, names and poses.

Each kind of model has a Protocol of one method, one or several real implementations that wrap `transformers` (or the
model's own package) and load by id or folder, and a stub. A model is asked for batches, so that it can fill a GPU, and
is released before the next kind is loaded. Images are RGB, uint8, (H, W, 3); boxes are x0, y0, x1, y1 in pixels.
"""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from dataset_builders.scene import InputError, Intrinsics, View

Array = np.ndarray
Box = tuple[float, float, float, float]

# kind -> its name, or how it begins if that ends in ":" -> "module:class"; "" is any other id or folder
MODELS: dict[str, dict[str, str]] = {
    "depth": {
        "": "dataset_builders.perception.depth:TransformersDepth",
        "stub": "dataset_builders.perception.stubs:StubDepth",
    },
    "detector": {
        "": "dataset_builders.perception.detection:TransformersDetector",
        "stub": "dataset_builders.perception.stubs:StubDetector",
    },
    "segmenter": {
        "": "dataset_builders.perception.masks:TransformersSegmenter",
        "stub": "dataset_builders.perception.stubs:StubSegmenter",
    },
    "namer": {
        "": "dataset_builders.perception.naming:FlorenceNamer",
        "stub": "dataset_builders.perception.stubs:StubNamer",
    },
    "reconstructor": {
        "": "dataset_builders.perception.reconstruction:VggtReconstructor",
        "keypoints:": "dataset_builders.perception.reconstruction:KeypointReconstructor",
    },
    "distance": {
        "": "dataset_builders.perception.distance:LpipsDistance",
    },
}


@dataclass(frozen=True)
class DepthEstimate:
    """Metric depth of one image.

    Attributes:
        depth_m: float32, (H, W) of the image, metres along the optical axis, 0 = none (sky).
        focal_length_px: of the image as it is, in pixels; None where the model does not tell.
    """

    depth_m: Array
    focal_length_px: float | None


@dataclass(frozen=True)
class Detection:
    """A named thing in a box."""

    box: Box
    name: str
    score: float


@dataclass(frozen=True)
class Region:
    """A mask, bool, (H, W), and what is known of it."""

    mask: Array
    score: float
    name: str | None = None


@dataclass(frozen=True)
class Reconstruction:
    """Cameras of several views of one place.

    Attributes:
        camera_to_world: one rigid (4, 4) per view, OpenCV axes, the first view's camera as the world; None for a view
            that could not be connected to the others.
        intrinsics: one per view, or None where those of the views were used.
        depth_m: one (H, W) per view where the model gives its own, in the unit of the poses; else None.
        metric: whether the poses are in metres.
        error: relative disagreement of the depths of overlapping views after alignment (median), None if not measured.
    """

    camera_to_world: Sequence[Array | None]
    intrinsics: Sequence[Intrinsics] | None
    depth_m: Sequence[Array] | None
    metric: bool
    error: float | None


class DepthModel(Protocol):
    """Metric depth from one image; `relative_noise` is the standard deviation to expect, which sets the margins."""

    relative_noise: float

    def estimate(self, images: Sequence[Array], focal_lengths_px: Sequence[float | None]) -> list[DepthEstimate]:
        """One estimate per image, in order; a known focal length is used instead of the model's guess."""


class Detector(Protocol):
    """Open-vocabulary boxes."""

    def detect(self, images: Sequence[Array], vocabulary: Sequence[str]) -> list[list[Detection]]:
        """What of the vocabulary each image shows, the surest first."""


class Segmenter(Protocol):
    """Masks, of everything or of what boxes hold."""

    def segment(
        self, images: Sequence[Array], boxes: Sequence[Sequence[Box]] | None, vocabulary: Sequence[str]
    ) -> list[list[Region]]:
        """Regions of each image: one per box, in order, where boxes are given; else of all that it finds.

        A model that reads text (SAM 3) looks for the vocabulary and names what it finds; others ignore it.
        """


class Namer(Protocol):
    """Names of image regions: a noun, with an adjective where that helps ("red box"); no article, lower case."""

    def name(self, images: Sequence[Array], boxes: Sequence[Sequence[Box]]) -> list[list[str]]:
        """One name per box of each image; "" where the model has none."""


class Reconstructor(Protocol):
    """Poses of several views of one place."""

    def reconstruct(self, views: Sequence[View]) -> Reconstruction:
        """Cameras in one world; raises `DropItem` ("not_reconstructed") where fewer than two views connect."""


class PerceptualDistance(Protocol):
    """How different two images look."""

    def distances(self, images: Sequence[Array]) -> Array:
        """Symmetric (V, V), zeros on the diagonal (LPIPS: about 0 to 1)."""


@dataclass(frozen=True)
class PerceptionOptions:
    """Which models to use, by id ("org/name" or "org/name@revision"), folder or "stub"; None = none of this kind.

    Attributes:
        depth: for views without depth, and to bring poses without scale to metres.
        detector: open-vocabulary; images in which it sees fewer than two things are dropped, its boxes are segmented.
        segmenter: for views without masks.
        namer: for masks without a name; "chat" asks the chat model about the crop.
        reconstructor: for several views without poses.
        distance: to choose pairs of views (LPIPS between 0.35 and 0.65).
        vocabulary: what the detector looks for.
        device: "auto", "cpu", "cuda", "cuda:1".
        dtype: "auto" (bfloat16 on a GPU, float32 on a CPU), "float16", "bfloat16", "float32".
        batch_size: images per call of a model.
        keep_models: keep every model in memory from block to block.
    """

    depth: str | None = None
    detector: str | None = None
    segmenter: str | None = None
    namer: str | None = None
    reconstructor: str | None = None
    distance: str | None = None
    vocabulary: tuple[str, ...] = ()
    device: str = "auto"
    dtype: str = "auto"
    batch_size: int = 4
    keep_models: bool = False


def open_model(kind: str, options: PerceptionOptions) -> Any:
    """Load the model that the options name for a kind of `MODELS`, ready to be asked.

    Raises:
        InputError: it cannot be found, read or is of no known architecture.
    """
    name = getattr(options, kind)
    beginnings = [one for one in MODELS[kind] if name == one or not one or (one[-1] == ":" and name.startswith(one))]
    beginning = max(beginnings, key=len)
    module, class_name = MODELS[kind][beginning].split(":")
    return getattr(import_module(module), class_name)(name.removeprefix(beginning), options)


class Models:
    """The models of a build, one kind in memory at a time unless `keep_models`."""

    def __init__(self, options: PerceptionOptions) -> None:
        """Load nothing yet."""
        self.options = options
        self._open: dict[str, Any] = {}

    def has(self, kind: str) -> bool:
        """Whether the build uses a model of this kind."""
        return getattr(self.options, kind) is not None

    @contextmanager
    def use(self, kind: str) -> Iterator[Any]:
        """The model of a kind, released afterwards unless models are kept."""
        if kind not in self._open:
            self._open[kind] = open_model(kind, self.options)
        try:
            yield self._open[kind]
        finally:
            if not self.options.keep_models:
                self.release()

    def release(self) -> None:
        """Drop every model and give its memory back."""
        self._open.clear()
        gc.collect()
        _empty_gpu_cache()


def _empty_gpu_cache() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def split_revision(name: str) -> tuple[str, str | None]:
    """Id and revision of "org/name@revision"; a folder or a bare id has no revision."""
    identifier, _, revision = name.partition("@")
    if name and not identifier:
        raise InputError(f"model {name!r} has no id before the '@'; pass something like apple/DepthPro@main.")
    return identifier, revision or None
