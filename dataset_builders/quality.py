"""Gates on the depth of a scene: enough of it, registered to the picture, and not that of what lies behind glass."""

import numpy as np

from dataset_builders.cleaning import HERE, WELL_READ
from dataset_builders.geometry import MAX_DEPTH_M, MIN_DEPTH_M, Array, valid_depth
from dataset_builders.objects import measure_objects
from dataset_builders.scene import DropItem, Scene, View

MIN_COVERAGE = 0.3  # share of a dense depth map with readings
MIN_SPARSE_READINGS = 500
CONNECTED = 0.4  # share of readings with four neighbours, below which a depth map is sparse by nature (LiDAR)
SIDE = 160  # pixels that colour and depth edges are compared on
EDGE_STEP = 0.05  # relative, between neighbours of the reduced depth map
MIN_EDGES = 80  # fewer edges tell nothing
MAX_SHIFT = 12  # pixels of the reduced map that a shift is looked for
FITTING_SHIFT = 3  # up to this shift, edges are where they should be
BETTER = 1.5  # times the contrast in place: at a shift where edges fit that much better, they belong


def check_quality(scene: Scene) -> None:
    """Drop a scene whose depth cannot be trusted. For scenes that need depth, after perception.

    Raises:
        DropItem: "no_depth" (no view has a reading), "depth_holes" (too few readings in a view), "depth_edges" (depth
            and colour are not registered), "transparent_objects" (most objects are seen through).
    """
    if not any(valid_depth(view.depth_m).any() for view in scene.views):
        raise DropItem(
            "no_depth",
            f"scene {scene.id!r} has no depth between {MIN_DEPTH_M} m and {MAX_DEPTH_M:g} m; pass --depth-model to "
            "have it estimated",
        )
    for number, view in enumerate(scene.views, start=1):
        where = f"scene {scene.id!r}, image {number}"
        _check_holes(view.depth_m, where)
        _check_edges(view, where)
    _check_solid(scene)


def needs_gate(scene: Scene, asks_chat: bool) -> bool:
    """Whether a scene is to go through `check_quality`: not where depth is exact, and not where none is needed.

    Conversations that came with an image (LLaVA) need no depth, nor do the questions that a chat model asks about
    several views.
    """
    has_depth = any(view.has_depth for view in scene.views)
    needs_depth = not scene.conversation and not (asks_chat and len(scene.views) > 1)
    return (has_depth or needs_depth) and scene.depth_noise > 0


def _check_holes(depth_m: Array, where: str) -> None:
    """Sparse readings, spread as a LiDAR's are, are no holes; the sky is none either."""
    read = valid_depth(depth_m)
    if is_sparse(depth_m):
        if read.sum() < MIN_SPARSE_READINGS:
            raise DropItem("depth_holes", f"{where}: only {read.sum()} pixels have depth")
        return
    with np.errstate(invalid="ignore"):
        coverage = float((read | (depth_m > MAX_DEPTH_M)).mean())
    if coverage < MIN_COVERAGE:
        raise DropItem(
            "depth_holes", f"{where}: {coverage:.0%} of the pixels have depth, less than {MIN_COVERAGE:.0%}"
        )


def is_sparse(depth_m: Array) -> bool:
    """Whether the readings of a depth map (H, W) stand alone, as those of a LiDAR projected into an image."""
    read = valid_depth(depth_m)
    connected = read[1:-1, 1:-1] & read[:-2, 1:-1] & read[2:, 1:-1] & read[1:-1, :-2] & read[1:-1, 2:]
    return bool(connected.sum() < CONNECTED * read.sum())


def _check_edges(view: View, where: str) -> None:
    """Depth edges lie on colour edges; where they would do so clearly better after a shift, one of the two is off."""
    shift, gain = edge_shift(view)
    if max(map(abs, shift)) > FITTING_SHIFT and gain > BETTER:
        across, down = (round(part * max(view.depth_m.shape) / SIDE) for part in shift)
        raise DropItem(
            "depth_edges",
            f"{where}: depth and colour are not registered, edges of depth fit those of colour best when moved by "
            f"{across} pixels across and {down} down",
        )


def edge_shift(view: View) -> tuple[tuple[int, int], float]:
    """By how much the depth edges must move to lie on colour edges.

    Returns:
        The shift (across, down) in pixels of an image of about `SIDE` pixels, and how many times the contrast of the
        picture there is that without a shift; no shift where there are too few edges.
    """
    step = max(1, max(view.depth_m.shape) // SIDE)
    depth_m = view.depth_m[::step, ::step]
    grey = view.image[::step, ::step].mean(axis=2)
    contrast, edges = np.zeros(grey.shape), np.zeros(grey.shape, dtype=bool)
    read = valid_depth(depth_m)
    for before, after in HERE:
        change = np.abs(grey[after] - grey[before])
        contrast[before] = np.maximum(contrast[before], change)
        contrast[after] = np.maximum(contrast[after], change)
        nearer = np.minimum(depth_m[before], depth_m[after])
        with np.errstate(invalid="ignore"):
            jump = np.abs(depth_m[after] - depth_m[before]) > EDGE_STEP * nearer
        edges[before] |= read[before] & read[after] & jump
    rows, columns = np.nonzero(edges)
    within = (rows >= MAX_SHIFT) & (rows < grey.shape[0] - MAX_SHIFT)
    within &= (columns >= MAX_SHIFT) & (columns < grey.shape[1] - MAX_SHIFT)
    rows, columns = rows[within], columns[within]
    if len(rows) < MIN_EDGES:
        return (0, 0), 1.0
    moves = range(-MAX_SHIFT, MAX_SHIFT + 1)
    fits = {(x, y): float(contrast[rows + y, columns + x].mean()) for x in moves for y in moves}
    in_place = max(fit for (x, y), fit in fits.items() if max(abs(x), abs(y)) <= 1)
    best = max(fits, key=lambda move: fits[move])
    return best, fits[best] / max(in_place, 1e-6)


def _check_solid(scene: Scene) -> None:
    """Single things that are seen through are not asked about (`objects`); a scene of nothing else is left out."""
    things = [item for item in scene.objects if not item.is_support]
    poorly = [item for item in things if _poorly_read(scene, item.id)]
    if 2 * len(poorly) <= len(things):
        return
    solid = {one.item.id for one in measure_objects(scene) if any(sighting.solid for sighting in one.sightings)}
    glass = [item.name or f"object {item.id}" for item in poorly if item.id not in solid]
    if 2 * len(glass) > len(things):
        raise DropItem(
            "transparent_objects",
            f"scene {scene.id!r}: the depth of {len(glass)} of {len(things)} objects is patchy or that of what lies "
            f"behind them, as of glass ({', '.join(glass[:5])})",
        )


def _poorly_read(scene: Scene, name: int) -> bool:
    """Whether no view has readings over nearly all of an object."""
    shares = [
        valid_depth(view.depth_m[mask]).mean()
        for view in scene.views
        if view.instances is not None and (mask := view.instances == name).any()
    ]
    return bool(shares) and max(shares) <= WELL_READ
