"""Measures the objects of a scene: cleaned masks, robust boxes, and flags that say what may be asked about them."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from dataset_builders.geometry import Array, Box, along, oriented_box, thin, valid_depth, view_points
from dataset_builders.scene import Scene, SceneObject, View

MIN_PIXELS = 50
MIN_IMAGE_FRACTION = 0.0005
MAX_POINTS = 4096  # per object and view
MAX_RIM = 200  # pixels of a mask's rim that are looked at, per side
DEPTH_JUMP = 0.02  # relative step between neighbours that is an edge, not a slanted surface
SHADOW_FRACTION = 0.03  # of the image width: how far beyond a mask an occluder may begin
GAP_SLANT = 2.0  # over a gap, surfaces slanted by up to 63 degrees are no jump
BOX_SLACK = 0.05  # of the longest side: points farther outside the box are noise
SLANT_PIXELS = 4.0  # a surface slanted by 76 degrees steps by 4 z / f per pixel, which counts at low resolution


@dataclass(frozen=True)
class Sighting:
    """One object in one view.

    Attributes:
        view: index of the view.
        points: (N, 3), world axes, of the cleaned mask, at most `MAX_POINTS`.
        depth_m: median over the cleaned mask.
        pixel_count: of the cleaned mask.
        truncated: the mask touches the image border.
        hidden_fraction: share of the mask's outline where something nearer begins.
        hidden_end: the left, right, upper or lower end of the mask is mostly hidden.
        valid_fraction: share of the mask that has depth.
        kept_extent: how much of the mask's width and height (the lesser share) is left after cleaning.
        mask_pixels: (M, 2), columns u, v, of the whole cleaned mask.
        pixels: (K, 2), columns u, v, well inside the object: a point named there is on it beyond doubt.
    """

    view: int
    points: Array
    depth_m: float
    pixel_count: int
    truncated: bool
    hidden_fraction: float
    hidden_end: bool
    valid_fraction: float
    kept_extent: float
    mask_pixels: Array
    pixels: Array

    @property
    def clear(self) -> bool:
        """Mostly visible, with depth: may be asked about."""
        return self.hidden_fraction < 0.5 and self.valid_fraction > 0.5

    @property
    def covered(self) -> bool:
        """Partly hidden, partly without depth, or with thin parts that cleaning takes for noise."""
        hidden = self.hidden_end or self.hidden_fraction >= 0.07
        return hidden or self.valid_fraction <= 0.9 or self.kept_extent < 0.9

    @property
    def whole(self) -> bool:
        """Neither cut nor covered: its size may be asked."""
        return not self.truncated and not self.covered


@dataclass(frozen=True)
class MeasuredObject:
    """An object with its sightings, the clearest first.

    `box` is the box around the points of all of them, `points` (N, 3) those that lie in it or a little outside,
    both in world axes.
    """

    item: SceneObject
    sightings: tuple[Sighting, ...]
    box: Box
    points: Array

    @property
    def best(self) -> Sighting:
        """The clearest sighting."""
        return self.sightings[0]

    def dense_points(self, views: tuple[View, ...]) -> Array:
        """All points (N, 3) of the cleaned masks that lie in the box or a little outside, world axes."""
        parts = [view_points(views[sighting.view], *sighting.mask_pixels.T) for sighting in self.sightings]
        return _inside(np.concatenate(parts), self.box)

    @property
    def whole(self) -> bool:
        """Some view shows all of it."""
        return any(sighting.whole for sighting in self.sightings)

    @property
    def usable(self) -> bool:
        """May be asked about."""
        return not self.item.is_support and bool(self.item.name.strip()) and self.best.clear

    def seen_in(self, view: int) -> Sighting | None:
        """The sighting in a view, if it is clear there."""
        return next((one for one in self.sightings if one.view == view and one.clear), None)


def measure_objects(scene: Scene) -> list[MeasuredObject]:
    """Measure every object, supports aside, that some view shows with enough pixels, in the order of the scene."""
    regions = [
        ndimage.find_objects(view.instances) if view.instances is not None else [] for view in scene.views
    ]  # per view: the bounding slices of instance 1, 2, ...
    measured = []
    for item in scene.objects:
        if item.is_support:
            continue
        sightings = []
        for index, view in enumerate(scene.views):
            region = regions[index][item.id - 1] if item.id <= len(regions[index]) else None
            sighting = _sight(view, index, item.id, region, scene.depth_noise == 0) if region is not None else None
            if sighting is not None:
                sightings.append(sighting)
        if sightings:
            sightings.sort(key=lambda one: (not one.clear, -one.pixel_count, one.view))
            points = np.concatenate([sighting.points for sighting in sightings])
            box = oriented_box(points, scene.up_world, max(scene.depth_noise, 0.002) * sightings[0].depth_m)
            measured.append(MeasuredObject(item, tuple(sightings), box, _inside(points, box)))
    return measured


def _inside(points: Array, box: Box) -> Array:
    """The points (N, 3) that lie in a box or a little outside."""
    offset = np.abs(along(points - box.centre, box.axes))
    return points[(offset <= box.dimensions / 2 + BOX_SLACK * box.dimensions[0]).all(axis=1)]


def _sight(view: View, index: int, object_id: int, region: tuple[slice, slice], exact: bool) -> Sighting | None:
    """Clean the mask of one object in one view and measure it; exact depth needs no cleaning.

    Returns None where too little is left.
    """
    height, width = view.depth_m.shape
    around = max(1, round(SHADOW_FRACTION * width))
    top, left = max(region[0].start - around, 0), max(region[1].start - around, 0)
    window = slice(top, region[0].stop + around), slice(left, region[1].stop + around)
    depth_m, mask = view.depth_m[window], view.instances[window] == object_id  # type: ignore[index]
    inside = mask & valid_depth(depth_m)
    relative_jump = max(DEPTH_JUMP, SLANT_PIXELS / view.intrinsics.fx)
    hidden_fraction, hidden_end = _hidden(depth_m, mask, relative_jump, view.intrinsics.fx, around)
    kept = inside if exact else _largest_parts(_open(inside & ~_depth_edges(depth_m, relative_jump)))
    pixel_count = int(kept.sum())
    if pixel_count < max(MIN_PIXELS, MIN_IMAGE_FRACTION * height * width):
        return None
    deep = kept
    for _ in range(max(1, round(0.005 * width))):
        deep = _shrink(deep)
    v, u = np.nonzero(kept)
    lost = 2  # rows or columns that erosion takes from any mask
    spans = [(np.ptp(used) + 1 + lost) / (one.stop - one.start) for used, one in zip((v, u), region)]
    mask_pixels = np.stack([u + left, v + top], axis=1)
    inner = mask_pixels[deep[v, u]]
    return Sighting(
        view=index,
        points=view_points(view, *thin(mask_pixels, MAX_POINTS).T),
        depth_m=float(np.median(depth_m[kept])),
        pixel_count=pixel_count,
        truncated=min(region[0].start, region[1].start) <= 1
        or region[0].stop >= height - 1
        or region[1].stop >= width - 1,
        hidden_fraction=hidden_fraction,
        hidden_end=hidden_end,
        valid_fraction=float(inside.sum() / mask.sum()),
        kept_extent=float(min(spans)),
        mask_pixels=mask_pixels,
        pixels=thin(inner if len(inner) else mask_pixels, MAX_POINTS),
    )


def _depth_edges(depth_m: Array, relative_jump: float) -> Array:
    """Pixels (H, W) on either side of a depth jump."""
    valid, edges = valid_depth(depth_m), np.zeros(depth_m.shape, dtype=bool)
    for before, after in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        here, there = depth_m[before], depth_m[after]
        with np.errstate(invalid="ignore"):
            jump = valid[before] & valid[after] & (np.abs(here - there) > relative_jump * np.minimum(here, there))
        edges[before] |= jump
        edges[after] |= jump
    return edges


def _hidden(
    depth_m: Array, mask: Array, relative_jump: float, focal_length_px: float, reach: int
) -> tuple[float, bool]:
    """How far something nearer cuts a mask.

    Cameras see nothing right beside an occluder, so the last reading on the object is compared with the next one
    beyond the mask, at most `reach` pixels off.

    Returns:
        The share of the rim that is cut, and whether one end (left, right, upper, lower) is mostly cut, as the foot of
        a lamp behind a table.
    """
    cut_pixels, rim_pixels, cut_end = 0, 0, False
    turned = [(depth_m, mask), (depth_m.T, mask.T)]
    for depth, inside in turned + [(one[:, ::-1], other[:, ::-1]) for one, other in turned]:  # four ways outward
        rows, columns = thin(np.argwhere(inside[:, :-1] & ~inside[:, 1:]), MAX_RIM).T
        if not len(rows):  # the mask ends at the image border
            continue
        here, steps_in = _first_reading(depth, rows, columns - np.arange(reach)[:, None])
        there, steps_out = _first_reading(depth, rows, columns + 1 + np.arange(reach)[:, None])
        allowed = relative_jump + (steps_in + steps_out) * GAP_SLANT / focal_length_px
        cut = (there > 0) & (here > (1 + allowed) * there)
        cut_pixels += int(cut.sum())
        rim_pixels += len(rows)
        last = columns >= columns.max() - np.ptp(columns) // 20
        cut_end |= bool(2 * cut[last].sum() > last.sum())
    return cut_pixels / max(rim_pixels, 1), cut_end


def _first_reading(depth_m: Array, rows: Array, columns: Array) -> tuple[Array, Array]:
    """The first valid depth (N,) along each column of `columns` (K, N), 0 where there is none, and its place (N,)."""
    inside = (columns >= 0) & (columns < depth_m.shape[1])
    readings = depth_m[rows, np.clip(columns, 0, depth_m.shape[1] - 1)]
    valid = inside & valid_depth(readings)
    place = valid.argmax(axis=0)
    found = np.arange(len(rows))
    return np.where(valid[place, found], readings[place, found], 0), place


def _shrink(mask: Array) -> Array:
    """Erosion of a mask (H, W) by 3 x 3 pixels, with nothing outside."""
    for axis in (0, 1):
        whole, mask = np.moveaxis(mask, axis, 0), mask.copy()
        kept = np.moveaxis(mask, axis, 0)
        kept[1:] &= whole[:-1]
        kept[:-1] &= whole[1:]
        kept[[0, -1]] = False
    return mask


def _open(mask: Array) -> Array:
    """Opening by 3 x 3 pixels: takes away the strips of background that a loose mask shows beside an object."""
    outside = np.ones((mask.shape[0] + 2, mask.shape[1] + 2), dtype=bool)
    outside[1:-1, 1:-1] = ~_shrink(mask)
    return ~_shrink(outside)[1:-1, 1:-1] & mask


def _largest_parts(mask: Array) -> Array:
    """Drop the connected parts smaller than a tenth of the largest: background seen past the object's rim."""
    labels, count = ndimage.label(mask)
    if count <= 1:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return (sizes >= 0.1 * sizes.max())[labels]
