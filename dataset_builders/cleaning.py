"""Tells which readings under a mask are the object's: without flying pixels, holes and what lies beside it.

Real masks are loose by a few pixels, and real depth is smeared over edges, so that the rim of a mask mostly shows the
background, or something between. All functions work on a window around one mask.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from dataset_builders.geometry import Array, thin, valid_depth

BLEED_PX = 3  # a loose mask shows up to this much of what lies beside an object
PART_FRACTION = 0.01  # of the largest part of a mask: smaller ones are noise
CURVED_JUMPS = 2.5  # jumps within `BLEED_PX` at the rim of a round thing, which turns away
GRAIN_FACTOR = 5.0  # times the standard deviation from pixel to pixel: a greater step is an edge
SMOOTH_PX = 5
MAX_RIM = 100  # pixels of a mask's rim that are looked at, per side
GAP_SLANT = 2.0  # over a gap, surfaces slanted by up to 63 degrees are no jump
WELL_READ = 0.9  # share of a mask with readings, from which on there is nothing to explain
PATCHY = 0.7  # share of the inner part of a mask with readings, below which it is no surface
DEEP = 0.4  # of the greatest distance from the rim: where the inner part begins
FLUSH = 0.6  # share of the rim without a step, from which on a mask shows what is behind it
HERE = ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:]))  # neighbours along the columns, along the rows


def grain(depth_m: Array, inside: Array) -> float:
    """Relative standard deviation of the depth from pixel to pixel among `inside` (H, W), by second differences."""
    rows, columns = thin(np.argwhere(inside[:, 1:-1] & inside[:, :-2] & inside[:, 2:]), 1024).T
    if not len(rows):
        return 0.0
    middle = depth_m[rows, columns + 1]
    bend = (depth_m[rows, columns] + depth_m[rows, columns + 2] - 2 * middle) / middle
    return float(1.4826 / 6**0.5 * np.median(np.abs(bend)))


def own_readings(depth_m: Array, mask: Array, jump: float) -> tuple[Array, Array]:
    """The readings under a mask that are the object's, and the pixels that it covers.

    A reading counts where it agrees with a neighbour in its row and with one in its column. Of two that count, differ
    and are within `BLEED_PX` of each other, the farther is what a loose mask shows beside the object: thin parts that
    stand out lose nothing. What is left in pieces is judged piece by piece.

    Args:
        depth_m: (H, W).
        mask: (H, W).
        jump: relative step between neighbours that is an edge.

    Returns:
        The readings to trust, (H, W); and these with the pixels next to them that are neither the object's nor
        something else's: smeared, flying, or without a reading.
    """
    inside = mask & valid_depth(depth_m)
    log_depth = np.full(depth_m.shape, np.nan, dtype=np.float32)
    log_depth[inside] = np.log(depth_m[inside])
    good = inside.copy()
    with np.errstate(invalid="ignore"):
        for before, after in HERE:
            same = np.abs(log_depth[after] - log_depth[before]) < jump
            agrees = np.zeros(mask.shape, dtype=bool)
            agrees[before] = same
            agrees[after] |= same
            good &= agrees
        nearest = np.where(good, log_depth, np.float32(np.inf))
        for axis in (0, 1):
            nearest = ndimage.minimum_filter1d(nearest, 2 * BLEED_PX + 1, axis=axis, mode="nearest")
        behind = log_depth - nearest  # NaN without a reading
        kept = _own_parts(depth_m, mask, good & (behind < jump), jump)
        curved = good & (behind < CURVED_JUMPS * jump)
    covered = kept | (_beside(kept) & mask & (curved | ~good))
    return kept, covered | (_beside(covered) & curved)


def _beside(mask: Array) -> Array:
    """The four neighbours of every pixel of a mask (H, W)."""
    beside = np.zeros(mask.shape, dtype=bool)
    for before, after in HERE:
        beside[before] |= mask[after]
        beside[after] |= mask[before]
    return beside


def _own_parts(depth_m: Array, mask: Array, kept: Array, jump: float) -> Array:
    """Without the connected parts that are tiny, and the narrow ones that go on beyond a mask that has other parts."""
    labels, count = ndimage.label(kept)
    if not count:
        return kept
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    going_on = np.zeros(count + 1, dtype=np.int64)
    outside = ~mask & valid_depth(depth_m)
    for before, after in HERE:
        for here, there in ((before, after), (after, before)):
            rim = np.nonzero((labels[here] > 0) & outside[there])
            own, other = depth_m[here][rim], depth_m[there][rim]
            going_on += np.bincount(labels[here][rim], np.abs(other - own) < jump * own, count + 1).astype(np.int64)
    sizes[(sizes <= (BLEED_PX + 1) * going_on) & (2 * sizes < mask.sum())] = 0
    return ((sizes > 0) & (sizes >= PART_FRACTION * sizes.max()))[labels]


def smoothed(depth_m: Array, kept: Array) -> Array:
    """Depth (H, W) averaged over the kept readings in a square around each pixel, 0 where there is none."""
    weight = ndimage.uniform_filter(kept.astype(np.float32), SMOOTH_PX)
    total = ndimage.uniform_filter(np.where(kept, depth_m, np.float32(0)), SMOOTH_PX)
    return np.where(weight > 1e-3, total / np.maximum(weight, 1e-3), 0)


@dataclass(frozen=True)
class Rim:
    """What lies around a mask.

    Attributes:
        cut_fraction: share of the rim where something nearer begins.
        cut_end: one end (left, right, upper, lower) is mostly cut, as the foot of a lamp behind a table.
        flush_fraction: share of the rim where the depth goes on without a step.
    """

    cut_fraction: float
    cut_end: bool
    flush_fraction: float


def rim_of(depth_m: Array, mask: Array, own_m: Array, jump: float, focal_length_px: float, reach: int) -> Rim:
    """Look outward over the rim of a mask.

    Cameras see nothing right beside an occluder, so the last reading on the object is compared with the next one
    beyond the mask, at most `reach` pixels off.

    Args:
        depth_m: (H, W).
        mask: (H, W).
        own_m: (H, W), the readings that are the object's, else 0.
        jump: relative step between neighbours that is an edge.
        focal_length_px: in pixels.
        reach: in pixels.
    """
    cut_pixels, flush_pixels, rim_pixels, cut_end = 0, 0, 0, False
    upright = (depth_m, own_m, mask)
    turned = [upright, tuple(one.T for one in upright)]
    for depth, own, inside in turned + [tuple(one[:, ::-1] for one in three) for three in turned]:  # four ways outward
        rows, columns = (thin(place, MAX_RIM) for place in np.nonzero(inside[:, :-1] & ~inside[:, 1:]))
        if not len(rows):  # the mask ends at the image border
            continue
        here, steps_in = _first_reading(own, rows, columns - np.arange(reach)[:, None])
        there, steps_out = _first_reading(depth, rows, columns + 1 + np.arange(reach)[:, None])
        allowed = jump + (steps_in + steps_out) * GAP_SLANT / focal_length_px
        cut = (there > 0) & (here > (1 + allowed) * there)
        cut_pixels += int(cut.sum())
        flush_pixels += int(((here > 0) & (there > 0) & (np.abs(here - there) < jump * there)).sum())
        rim_pixels += len(rows)
        last = columns >= columns.max() - np.ptp(columns) // 20
        cut_end |= bool(2 * cut[last].sum() > last.sum())
    return Rim(cut_pixels / max(rim_pixels, 1), cut_end, flush_pixels / max(rim_pixels, 1))


def is_solid(depth_m: Array, mask: Array, flush_fraction: float) -> bool:
    """Whether the readings under a mask are those of a solid thing.

    Sensors see through glass and clear plastic: what reading there is deep inside the mask is patchy, or belongs to
    the surface behind, without a step at the rim. Holes along the rim, in the shadow of the sensor's own light, are
    usual.
    """
    valid = valid_depth(depth_m)
    if valid[mask].mean() > WELL_READ:
        return True
    depth_inside = ndimage.distance_transform_cdt(mask)
    read = valid[depth_inside > DEEP * depth_inside.max()].mean()
    return bool(read > PATCHY and (read > WELL_READ or flush_fraction < FLUSH))


def _first_reading(depth_m: Array, rows: Array, columns: Array) -> tuple[Array, Array]:
    """The first valid depth (N,) along each column of `columns` (K, N), 0 where there is none, and its place (N,)."""
    inside = (columns >= 0) & (columns < depth_m.shape[1])
    readings = depth_m[rows, np.clip(columns, 0, depth_m.shape[1] - 1)]
    valid = inside & valid_depth(readings)
    place = valid.argmax(axis=0)
    found = np.arange(len(rows))
    return np.where(valid[place, found], readings[place, found], 0), place


def shrunk(mask: Array, steps: int) -> Array:
    """Erosion of a mask (H, W) by `steps` times 3 x 3 pixels, with nothing outside."""
    for _ in range(steps):
        for before, after in HERE:
            whole, mask = mask, mask.copy()
            mask[before] &= whole[after]
            mask[after] &= whole[before]
        mask[[0, -1]] = mask[:, [0, -1]] = False
    return mask
