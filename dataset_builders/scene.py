"""The one description of a scene that every source yields and every builder reads."""

import errno
import math
from dataclasses import dataclass, field

import numpy as np

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


class InputError(ValueError):
    """A user's mistake, told in one sentence that names the argument, the value and the remedy (exit code 2)."""


class DropItem(Exception):
    """One item of many cannot be used: it is left out, counted under `reason`, and the build goes on."""

    def __init__(self, reason: str, detail: str) -> None:
        """Keep the countable `reason` (snake_case) apart from the human-readable `detail`."""
        self.reason = reason
        self.detail = detail.encode("utf-8", "backslashreplace").decode()  # file names may hold any bytes
        super().__init__(f"{reason}: {self.detail}")

    def __reduce__(self) -> tuple:
        """Pickle by both arguments, so that it may travel between processes."""
        return DropItem, (self.reason, self.detail)


def drop_for(error: Exception, name: str) -> DropItem:
    """The drop that an item's error amounts to: one bad item never ends a build of many.

    Raises:
        Exception: the error itself, where it would befall all others too (wrong argument, no package, full disk).
    """
    if isinstance(error, DropItem):
        return error
    if isinstance(error, InputError | ImportError) or (isinstance(error, OSError) and error.errno in FULL_DISK):
        raise error
    return DropItem("unexpected_error", f"{name}: {type(error).__name__}: {error}")


@dataclass(frozen=True)
class Intrinsics:
    """Pinhole camera, in pixels; pixel centres lie on integer coordinates: `u = fx * x / z + cx`."""

    fx: float
    fy: float
    cx: float
    cy: float

    @property
    def known(self) -> bool:
        """Whether all four are numbers."""
        return all(math.isfinite(value) for value in (self.fx, self.fy, self.cx, self.cy))


UNKNOWN_INTRINSICS = Intrinsics(math.nan, math.nan, math.nan, math.nan)  # until a depth model tells the focal length


@dataclass(frozen=True)
class View:
    """One image of a scene with its geometry.

    Attributes:
        image: RGB, uint8, (H, W, 3), already upright.
        depth_m: float32, (H, W), metres along the optical axis (z, not ray length), 0 = no reading. All zeros in what
            a source of plain photographs yields: a depth model fills it (`perception`). In a scene that is not
            `metric` it is in the unit of the poses and may be sparse.
        intrinsics: of `image` and `depth_m`, which have the same size; `UNKNOWN_INTRINSICS` until perception.
        camera_to_world: (4, 4), rigid, OpenCV axes (x right, y down, z forward); identity for a single view.
        instances: int32, (H, W), 0 = no object, k = the object whose `id` is k; None where unknown.
        segmentation: uint8, (H, W), class ids, 255 = ignored; None where unknown.
        image_bytes: the encoded file the image came from, kept so that it is stored without re-encoding.
    """

    image: np.ndarray
    depth_m: np.ndarray
    intrinsics: Intrinsics
    camera_to_world: np.ndarray = field(default_factory=lambda: np.eye(4))
    instances: np.ndarray | None = None
    segmentation: np.ndarray | None = None
    image_bytes: bytes | None = None

    @property
    def has_depth(self) -> bool:
        """Whether any pixel has a reading."""
        return bool((self.depth_m > 0).any())

    def mask_of(self, object_id: int) -> np.ndarray:
        """Where an object is to be seen, bool, (H, W); nowhere if the view has no masks."""
        if self.instances is None:
            return np.zeros(self.depth_m.shape, dtype=bool)
        return np.asarray(self.instances == object_id)


@dataclass(frozen=True)
class SceneObject:
    """A named thing in a scene; `id` is its value in `View.instances`. Supports (table, floor) are not asked about."""

    id: int
    name: str
    is_support: bool = False


@dataclass(frozen=True)
class Scene:
    """Views of one place, the objects in it and what is known about scale and gravity.

    Attributes:
        id: unique in its source, safe as a file name.
        source: name of the source, as in `spatialboost build --source`.
        licence: SPDX id or a short name; "unknown" where the data set does not say.
        views: one or more.
        objects: may be empty, which leaves only pixel-level questions.
        up_world: unit vector against gravity in world axes, or None: then no question about height is asked.
        depth_noise: relative standard deviation of the depth (0.0 = exact), sets the ambiguity margins.
        metric: whether `depth_m` and the poses are in true metres; no metric text is written without it.
        scale_source: where the metres come from: "sensor", "renderer", "model:<id>", "poses".
        split: "train" or "test".
        posed: whether the `camera_to_world` of several views share one world; False until they are reconstructed.
        conversation: question-answer pairs that came with the image (LLaVA); no geometry is needed for them.
    """

    id: str
    source: str
    licence: str
    views: tuple[View, ...]
    objects: tuple[SceneObject, ...] = ()
    up_world: np.ndarray | None = None
    depth_noise: float = 0.01
    metric: bool = True
    scale_source: str = "sensor"
    split: str = "train"
    posed: bool = True
    conversation: tuple[tuple[str, str], ...] = ()
