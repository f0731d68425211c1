"""Points and names that a reader can find in the images: where to point, and what to call an object."""

import random
from collections.abc import Collection

import numpy as np

from dataset_builders.facts import Row
from dataset_builders.geometry import Array, canonical_pose, thin, to_millimetre, transform, trimmed_range, valid_depth
from dataset_builders.mentions import may_be_called, mention_by_point, name_objects, shown
from dataset_builders.objects import MeasuredObject, Sighting
from dataset_builders.phrasings import RESERVED_NAMES
from dataset_builders.scene import Scene, SceneObject, View

TRIES = 64
WINDOW_FRACTION = 0.01  # of the image width: how far around a point the depth must be steady
STEADY_SPREAD = 0.03  # largest relative spread of the depth around a point


def point_at(view: View, index: int, u: int, v: int) -> Row | None:
    """The point row (without a position) of a pixel, named with three decimals; None where there is no depth.

    The depth is read again at the pixel that the rounded coordinates name, which for images of 1000 pixels or more
    may be the neighbour, and rounded to the millimetre, as the text shows it.
    """
    height, width = view.depth_m.shape
    x, y = round((u + 0.5) / width, 3), round((v + 0.5) / height, 3)
    depth_m = view.depth_m[min(int(y * height), height - 1), min(int(x * width), width - 1)]
    if not valid_depth(depth_m):
        return None
    return {"view": index, "x": x, "y": y, "depth_m": to_millimetre(depth_m)}


def point_on(scene: Scene, sighting: Sighting, rng: random.Random) -> Row:
    """A point well inside an object, in the inner half of what is visible of it."""
    offsets = np.linalg.norm(sighting.pixels - sighting.pixels.mean(axis=0), axis=1)
    inner = sighting.pixels[offsets <= np.median(offsets)]
    for _ in range(TRIES):
        u, v = inner[rng.randrange(len(inner))].tolist()
        point = point_at(scene.views[sighting.view], sighting.view, u, v)
        if point is not None:
            return point
    raise ValueError(f"scene {scene.id!r}: no depth on an object that was measured; its pixels are inconsistent")


def steady_points(scene: Scene, view_index: int, rng: random.Random, count: int) -> list[Row]:
    """Up to `count` points of a view where the depth is steady, so that a shift of a pixel changes nothing."""
    view = scene.views[view_index]
    height, width = view.depth_m.shape
    radius = max(1, round(WINDOW_FRACTION * width))
    points: list[Row] = []
    if min(height, width) <= 4 * radius:
        return points
    for _ in range(TRIES):
        u, v = rng.randrange(2 * radius, width - 2 * radius), rng.randrange(2 * radius, height - 2 * radius)
        point = point_at(view, view_index, u, v)
        if point is not None and _is_steady(view.depth_m[v - radius : v + radius + 1, u - radius : u + radius + 1]):
            points.append(point)
        if len(points) == count:
            break
    return points


def _is_steady(window: Array) -> bool:
    readings = window[valid_depth(window)]
    return 2 * readings.size > window.size and np.ptp(readings) < STEADY_SPREAD * np.median(readings)


def object_rows(scene: Scene, measured: list[MeasuredObject], seed: int) -> list[Row]:
    """The `objects` column: every support by name, every measured object with its box and its mention.

    Where a name fits two of all objects that any view shows, the mention sets them apart (`mentions.py`).
    """
    found = {one.item.id: one for one in measured}
    rows = []
    for item in scene.objects:
        if not item.is_support and item.id not in found:
            continue
        name = " ".join(item.name.split())
        row: Row = {"id": item.id, "name": name, "mention": f"the {name}", "is_support": item.is_support}
        if item.is_support:
            rows.append(row | dict.fromkeys(_MEASURES, None) | {"usable": False, "visible_in": []})
            continue
        one = found[item.id]
        point = point_on(scene, one.best, random.Random(f"{seed}:{scene.id}:object {item.id}"))
        row |= _measures(scene, one) | {"x": point["x"], "y": point["y"]}
        row["usable"] = one.usable and name.lower() not in RESERVED_NAMES
        if any(_may_be_meant(scene, name, other, found) for other in scene.objects if other is not item):
            row["mention"] = mention_by_point(row, len(scene.views))
        rows.append(row)
    return name_objects(scene, rows, seed)


def _may_be_meant(scene: Scene, name: str, other: SceneObject, found: Collection[int]) -> bool:
    """Whether a name fits another object that is there to be seen."""
    return may_be_called(name, other.name) and (other.is_support or other.id in found or shown(scene, other.id))


_MEASURES = (
    "truncated", "occluded", "view", "x", "y", "depth_m", "pixel_count", "mask",
    "centre", "size", "dimensions", "box_rotation",
)  # fmt: skip


def _measures(scene: Scene, one: MeasuredObject) -> Row:
    """The measured columns of an object, in the canonical frame of its best view."""
    best, complete = one.best, one.whole
    pose = canonical_pose(scene.views[best.view].camera_to_world, scene.up_world)
    box = one.box.moved(pose)
    low, high = trimmed_range(transform(thin(one.points, 2048), pose))
    return {
        "truncated": not complete and any(sighting.truncated for sighting in one.sightings),
        "occluded": not complete and any(sighting.covered for sighting in one.sightings),
        "view": best.view,
        "visible_in": sorted(sighting.view for sighting in one.sightings if sighting.clear),
        "depth_m": to_millimetre(best.depth_m),
        "pixel_count": best.pixel_count,
        "mask": mask_text(scene.views[best.view].mask_of(one.item.id)),
        "centre": rounded(box.centre),
        "size": rounded(high - low),
        "dimensions": rounded(box.dimensions),
        "box_rotation": rounded(box.axes.ravel()),
    }


def mask_text(mask: Array) -> str:
    """A mask (H, W), not empty, as COCO's compressed run lengths; `pycocotools.mask.decode` reads it with its size."""
    from pycocotools import mask as coco

    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    window = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    down = np.zeros((window.shape[1], window.shape[0] + 1), dtype=bool)  # column by column, as COCO counts
    down[:, :-1] = window.T
    column, row = np.divmod(np.flatnonzero(np.diff(down.ravel(), prepend=False)), down.shape[1])
    edges = (column + columns[0]) * height + row + rows[0]  # starts and ends of runs, in turn
    inner = edges[1:-1].reshape(-1, 2)
    inner = inner[inner[:, 0] != inner[:, 1]]  # a run that goes on in the next column is one
    end = [] if edges[-1] == height * width else [height * width]
    counts = np.diff(np.concatenate([[0, edges[0]], inner.ravel(), [edges[-1]], end]))
    return coco.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)["counts"].decode()


def rounded(values: Array) -> list[float]:
    """Lengths for a row, to the micrometre, so that the last bits of a machine do not show in a data set."""
    return np.round(values, 6).tolist()
