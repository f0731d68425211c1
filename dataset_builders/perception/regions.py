"""From the many overlapping regions of a segmenter to one map of instances."""

from collections.abc import Sequence

import numpy as np

from dataset_builders.perception import Array, Region

MIN_AREA_SHARE = 0.001  # of the image
DUPLICATE_IOU = 0.8
INSIDE = 0.9  # share of the smaller region that lies in the larger one
PART_SHARE = 0.3  # of the larger region's area
MIN_VISIBLE = 0.5  # of a region, once what is smaller lies on top of it
OVERLAP_SIDE_PX = 256  # overlaps are computed on about so many pixels a side


def tidy(regions: Sequence[Region], max_regions: int = 24) -> list[Region]:
    """One region per thing, the largest first.

    Left out are regions under 0.1 % of the image, the less sure of two that share more than 80 % (intersection over
    union), and a large part of a larger region: a segmenter of everything gives a thing, its parts and their parts.
    A small region inside a larger one stays, for it may be a cup on a table, and so does one of another name.

    Args:
        regions: of one image, in any order.
        max_regions: the largest so many are kept.
    """
    large_enough = [one for one in regions if np.count_nonzero(one.mask) >= MIN_AREA_SHARE * one.mask.size]
    by_score = sorted(large_enough, key=lambda one: -one.score)
    shared = _shared_area(by_score)  # (N, N)
    area = shared.diagonal()
    kept: list[int] = []
    for index in range(len(by_score)):
        if all(shared[index, k] <= DUPLICATE_IOU * (area[index] + area[k] - shared[index, k]) for k in kept):
            kept.append(index)
    kept.sort(key=lambda k: -area[k])
    whole: list[int] = []
    for index in kept:
        if not any(_is_part(shared, index, k) and _same_name(by_score[index], by_score[k]) for k in whole):
            whole.append(index)
    return [by_score[k] for k in whole[:max_regions]]


def paint(regions: Sequence[Region], shape: tuple[int, int]) -> Array:
    """A map of instances: int32, `shape`, 0 = none, k = `regions[k - 1]`.

    Where regions overlap the smallest shows, so that a cup is not lost on its table. A region of which less than half
    would show is left out altogether, and with it the gap that it would have left in what lies under it.
    """
    instances = np.zeros(shape, dtype=np.int32)
    areas = [np.count_nonzero(one.mask) for one in regions]
    for index in sorted(range(len(regions)), key=areas.__getitem__):  # each next one goes under those before
        visible = regions[index].mask & (instances == 0)
        if areas[index] and np.count_nonzero(visible) >= MIN_VISIBLE * areas[index]:
            instances[visible] = index + 1
    return instances


def _shared_area(regions: Sequence[Region]) -> Array:
    """Pixels that each two regions share, (N, N), on a coarse grid; the areas are on the diagonal."""
    if not regions:
        return np.zeros((0, 0))
    step = max(1, max(regions[0].mask.shape) // OVERLAP_SIDE_PX)
    flat = np.stack([one.mask[::step, ::step].ravel() for one in regions]).astype(np.float32)  # (N, P)
    return flat @ flat.T


def _is_part(shared: Array, index: int, of: int) -> bool:
    area, whole_area = shared[index, index], shared[of, of]
    return bool(shared[index, of] >= INSIDE * area and area >= PART_SHARE * whole_area)


def _same_name(one: Region, other: Region) -> bool:
    return one.name is None or other.name is None or one.name == other.name
