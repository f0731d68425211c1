"""The `synthetic` source: procedural rooms with exact depth, masks, classes, gravity and camera poses.

Rooms are named, not numbered through: a room depends on the seed, its split and its index only, so asking for more
rooms never changes those that exist, and no training room is ever a test room.
"""

from collections.abc import Sequence
from random import Random
from typing import ClassVar

import numpy as np

from dataset_builders.scene import InputError, Scene, View
from dataset_builders.sources import SourceOptions
from dataset_builders.sources.synthetic_cameras import choose_cameras
from dataset_builders.sources.synthetic_objects import SEGMENTATION_CLASSES
from dataset_builders.sources.synthetic_rooms import furnish
from dataset_builders.sources.synthetic_shading import render
from dataset_builders.sources.synthetic_variety import VARIETIES

DEFAULT_VIEWS = 2
MAX_VIEWS = 8
TEST_SHARE = 0.2
LICENCE = "CC0-1.0"


class SyntheticSource:
    """Rooms drawn from a seed; `segmentation_classes` are the names of the class ids in `View.segmentation`."""

    how_to_get: ClassVar[str] = (
        "Nothing to download: the rooms are drawn from --seed and dedicated to the public (CC0)."
    )
    segmentation_classes = SEGMENTATION_CLASSES

    def __init__(self, options: SourceOptions) -> None:
        """Check the options.

        Raises:
            InputError: fewer than two scenes, or views or a resolution out of range.
        """
        self.options = options
        self.views = DEFAULT_VIEWS if options.views is None else options.views
        if options.num_scenes is None or options.num_scenes < 2:
            raise InputError(
                f"--num-scenes {options.num_scenes} is too few: pass at least 2, one to train on and one to test on."
            )
        if not 1 <= self.views <= MAX_VIEWS:
            raise InputError(f"--views {self.views} is out of range; pass 1 to {MAX_VIEWS}.")
        if options.variety not in VARIETIES:
            raise InputError(f"--variety {options.variety!r} is unknown; choose one of {', '.join(VARIETIES)}.")
        if min(options.image_size) < 16:
            raise InputError(f"--resolution {options.image_size} is too small; pass at least 16 pixels a side.")

    def list_items(self) -> Sequence[str]:
        """Names of all rooms: about a fifth of them, at least one, are in the test split."""
        assert self.options.num_scenes is not None
        num_test = max(1, round(self.options.num_scenes * TEST_SHARE))
        counts = {"test": num_test, "train": self.options.num_scenes - num_test}
        name = "synthetic" if self.options.variety == "plain" else f"synthetic-{self.options.variety}"
        return [
            f"{name}-{self.options.seed}-{split}-{index:06d}"
            for split, count in counts.items()
            for index in range(count)
        ]

    def load(self, item: str) -> Scene:
        """Draw and render one room."""
        rng = Random(item)
        split, variety = item.split("-")[-2], VARIETIES[self.options.variety]
        furnished = furnish(rng, variety, split)
        views = []
        for camera in choose_cameras(furnished, rng, self.views, self.options.image_size, variety):
            frame = render(furnished.room, camera, furnished.lighting)
            view = View(
                image=frame.image,
                depth_m=frame.depth_m,
                intrinsics=camera.intrinsics,
                camera_to_world=camera.camera_to_world,
                instances=frame.instances,
                segmentation=frame.segmentation,
            )
            views.append(view)
        return Scene(
            id=item,
            source="synthetic",
            licence=LICENCE,
            views=tuple(views),
            objects=furnished.objects,
            up_world=np.array([0.0, 0.0, 1.0]),
            depth_noise=0.0,
            scale_source="renderer",
            split=split,
        )
