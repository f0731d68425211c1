"""MVImgNet: videos all around an everyday object, with COLMAP cameras and the object's mask.

DIR/<category>/<object>/
    images/001.jpg ..., sparse/0/*.bin
    masks/001.jpg.png or masks/001.png      optional, or in mask(s)/<category>/<object>/, in DIR or beside it
DIR/mvimgnet_category.txt                   lines "7,stove"; or beside DIR

A video is one scene: its views are spread evenly over the walk. MVImgNet 2.0 has the same folders.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from dataset_builders.geometry import Array
from dataset_builders.scene import DropItem, InputError, Scene, SceneObject
from dataset_builders.sources import SourceOptions
from dataset_builders.sources.colmap import colmap_view, load_colmap
from dataset_builders.sources.image_files import item_name, item_path, open_image, safe_id
from dataset_builders.sources.sequences import (
    DEFAULT_VIEWS,
    enough_views,
    input_folder,
    read_frame,
    views_per_scene,
    whole_frame_step,
)

LAYOUT = "7/<object>/{images, sparse/0} per category number and object, as MVImgNet's zip files unpack"
CATEGORY_FILE = "mvimgnet_category.txt"
BETTER_NAMES = {"wahser": "washer", "swin ring": "swim ring", "shakyamuni": "sugar apple", "besom": "broom"}


class MvImgNetSource:
    """Object videos."""

    how_to_get: ClassVar[str] = (
        "Fill in the form at github.com/GAP-LAB-CUHK-SZ/MVImgNet to accept the MVImgNet Terms of Use "
        "(non-commercial), unpack the mvi_*.zip files (and the masks) into one folder, put that repository's "
        "mvimgnet_category.txt beside the numbered folders, and pass the folder."
    )

    def __init__(self, options: SourceOptions) -> None:
        """Find the categories and their names.

        Raises:
            InputError: no folder, no object video in it, no category names, or impossible views or frame step.
        """
        self.root = input_folder(options, LAYOUT)
        self.options = options
        self.views = views_per_scene(options)
        self.step = whole_frame_step(options, 1)
        if not any(self.root.glob("[0-9]*/*/sparse")):
            raise InputError(f"--input {self.root} holds no object video of MVImgNet; it should hold {LAYOUT}.")
        self.names = _category_names(self.root)

    def list_items(self) -> list[str]:
        """Object videos as "7/2701abcd"; reads directories only."""
        folders = self.root.glob("[0-9]*/*")
        items = sorted(item_name(path.relative_to(self.root)) for path in folders if path.is_dir())
        return items[: self.options.num_scenes]

    def load(self, item: str) -> Scene:
        """Read one object video.

        Raises:
            DropItem: with a reason of `load_colmap`, `colmap_view` or `read_frame`, or "unknown_category",
                "no_images", "too_few_views" or "size_mismatch".
        """
        place = item_path(item)
        category = place.parent.name
        if category not in self.names:
            raise DropItem("unknown_category", f"{CATEGORY_FILE} has no category {category}, as {item} needs")
        folder = self.root / place
        frames = sorted((folder / "images").glob("*.jpg"))[:: self.step]
        if not frames:
            raise DropItem("no_images", f"{folder / 'images'} holds no .jpg")
        model = load_colmap(folder)
        posed = [path for path in frames if path.stem in model.image_ids]
        spread = np.linspace(0, len(posed) - 1, min(self.views or DEFAULT_VIEWS, len(posed))).round().astype(np.int64)
        views = []
        for path in (posed[index] for index in spread):
            file = read_frame(path, str(path))
            mask = self._mask(place, path.name, file.pixels.shape[:2])
            views.append(colmap_view(model, file, path.stem, mask))
        kept = enough_views([view for view in views if view is not None], self.views, item)
        masked = any(view.instances is not None and view.instances.any() for view in kept)
        return Scene(
            id=safe_id(f"{item.replace('/', '_')}_{len(kept)}v"),
            source="mvimgnet",
            licence="MVImgNet Terms of Use",
            views=kept,
            objects=(SceneObject(1, self.names[category]),) if masked else (),
            metric=False,
            scale_source="colmap",
        )

    def _mask(self, place: Path, image_name: str, size: tuple[int, ...]) -> Array | None:
        """Where the object is, bool, (H, W); None where the image has no mask."""
        path = next((path for path in self._mask_paths(place, image_name) if path.is_file()), None)
        if path is None:
            return None
        stored = np.asarray(open_image(path, str(path)).convert("L"))
        if stored.shape != size:
            raise DropItem("size_mismatch", f"{path} has another size than its image")
        return stored > stored.max() / 2  # 0 and 255 with soft edges, or 0 and 1

    def _mask_paths(self, place: Path, image_name: str) -> Iterator[Path]:
        outside = [root / kind / place for root in (self.root, self.root.parent) for kind in ("masks", "mask")]
        for folder in (self.root / place / "masks", *outside):
            yield folder / f"{image_name}.png"
            yield (folder / image_name).with_suffix(".png")


def _category_names(root: Path) -> dict[str, str]:
    """Category number -> name, as a noun in lower case."""
    path = next((path for path in (root / CATEGORY_FILE, root.parent / CATEGORY_FILE) if path.is_file()), None)
    if path is None:
        raise InputError(
            f"--input {root} lacks {CATEGORY_FILE}, which names the numbered folders; take it from "
            "github.com/GAP-LAB-CUHK-SZ/MVImgNet and put it there."
        )
    lines = (line.partition(",") for line in path.read_text(encoding="utf-8").splitlines())
    names = {number.strip(): " ".join(name.lower().split()) for number, _, name in lines}
    return {number: BETTER_NAMES.get(name, name) for number, name in names.items() if number.isdecimal() and name}
