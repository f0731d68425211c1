"""Measures the objects of a scene: cleaned masks, robust boxes, and flags that say what may be asked about them."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from dataset_builders.cleaning import (
    BLEED_PX,
    GRAIN_FACTOR,
    Rim,
    grain,
    is_solid,
    own_readings,
    rim_of,
    shrunk,
    smoothed,
)
from dataset_builders.geometry import Array, Box, along, oriented_box, thin, transform, unproject, valid_depth
from dataset_builders.scene import Scene, SceneObject, View

MEASURABLE_PX = 25  # masks are right to a pixel or two: of what spans less, the size is not told
WINDOW_PIXELS = 50_000  # a larger window around a mask is read at every second or third pixel
MIN_PIXELS = 50
MIN_IMAGE_FRACTION = 0.0005
MAX_POINTS = 4096  # per object and view
DEPTH_JUMP = 0.02  # relative step between neighbours that is an edge, not a slanted surface
SHADOW_FRACTION = 0.03  # of the image width: how far beyond a mask an occluder may begin
BOX_SLACK = 0.05  # of the longest side: points farther outside the box are noise
FINE_GRAIN = 0.001  # relative; depth that varies less from pixel to pixel is taken as it is
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
        rim: what lies around the mask.
        solid: the depth is not that of what lies behind something transparent.
        valid_fraction: share of the mask that has depth.
        kept_extent: how much of the mask's width and height (the lesser share) is left after cleaning.
        span_px: the longer of the mask's width and height after cleaning.
        mask_points: (M, 3), world axes, of the whole cleaned mask.
        pixels: (K, 2), columns u, v, well inside the object: a point named there is on it beyond doubt.
    """

    view: int
    points: Array
    depth_m: float
    pixel_count: int
    truncated: bool
    rim: Rim
    solid: bool
    valid_fraction: float
    kept_extent: float
    span_px: int
    mask_points: Array
    pixels: Array

    @property
    def clear(self) -> bool:
        """Mostly visible, with depth of its own, most of its length and width left: may be asked about."""
        enough = self.rim.cut_fraction < 0.5 and self.valid_fraction > 0.5 and self.kept_extent > 0.75
        return enough and self.solid

    @property
    def covered(self) -> bool:
        """Partly hidden or without depth, too small, or with thin parts that cleaning takes for noise."""
        hidden = self.rim.cut_end or self.rim.cut_fraction >= 0.07 or not self.solid
        return hidden or self.valid_fraction <= 0.75 or self.kept_extent < 0.9 or self.span_px < MEASURABLE_PX

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
        return _inside(np.concatenate([sighting.mask_points for sighting in self.sightings]), self.box)

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
            sight = points.mean(axis=0) - scene.views[sightings[0].view].camera_to_world[:3, 3]
            box = oriented_box(points, scene.up_world, max(scene.depth_noise, 0.002) * sightings[0].depth_m, sight)
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
    corner = [max(one.start - around, 0) for one in region]
    window = tuple(slice(first, one.stop + around) for first, one in zip(corner, region))
    step = max(1, round((np.prod([one.stop - one.start for one in window]) / WINDOW_PIXELS) ** 0.5))
    depth_around = view.depth_m[window][::step, ::step]
    mask_around = view.instances[window][::step, ::step] == object_id  # type: ignore[index]
    close = tuple(  # all but a pixel of the surroundings is of no use for cleaning
        slice(max((one.start - first) // step - 1, 0), (one.stop - first) // step + 2)
        for first, one in zip(corner, region)
    )
    top, left = (first + step * one.start for first, one in zip(corner, close))
    depth_m, mask = depth_around[close], mask_around[close]
    inside = mask & valid_depth(depth_m)
    focal_length_px = view.intrinsics.fx / step
    relative_jump = max(DEPTH_JUMP, SLANT_PIXELS / focal_length_px)
    kept, covered, surface_m = inside, inside, depth_m
    if not exact:
        unevenness = grain(depth_m, inside)
        kept, covered = own_readings(depth_m, mask, max(relative_jump, GRAIN_FACTOR * unevenness))
        if unevenness > FINE_GRAIN:
            surface_m = smoothed(depth_m, kept)
        else:
            covered = kept
    pixel_count = int(kept.sum()) * step**2
    if pixel_count < max(MIN_PIXELS, MIN_IMAGE_FRACTION * height * width):
        return None
    own_m = np.zeros_like(depth_around)
    own_m[close] = np.where(kept, depth_m, 0)
    rim = rim_of(depth_around, mask_around, own_m, relative_jump, focal_length_px, max(1, around // step))
    v, u = np.nonzero(covered)
    points = unproject(step * u + left, step * v + top, surface_m[v, u].astype(np.float64), view.intrinsics)
    points = transform(points, view.camera_to_world)
    deep_v, deep_u = np.nonzero(shrunk(kept, max(1, round(0.005 * width / step))))
    if not len(deep_v):
        deep_v, deep_u = np.nonzero(kept)
    lost = 0 if exact else 2 * (BLEED_PX + 1)  # rows or columns that cleaning may take from any mask
    spans = [(np.ptp(used) + 1 + lost) * step / (one.stop - one.start) for used, one in zip((v, u), region)]
    return Sighting(
        view=index,
        points=thin(points, MAX_POINTS),
        depth_m=float(np.median(depth_m[kept])),
        pixel_count=pixel_count,
        truncated=min(region[0].start, region[1].start) <= 1
        or region[0].stop >= height - 1
        or region[1].stop >= width - 1,
        rim=rim,
        solid=is_solid(depth_m, mask, rim.flush_fraction),
        valid_fraction=float(inside.sum() / mask.sum()),
        kept_extent=float(min(spans)),
        span_px=step * (int(max(np.ptp(u), np.ptp(v))) + 1),
        mask_points=points,
        pixels=thin(np.stack([step * deep_u + left, step * deep_v + top], axis=1), MAX_POINTS),
    )
