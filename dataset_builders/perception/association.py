"""The same thing in several posed views gets one id: regions are linked where their points fall onto each other."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from dataset_builders.filters import SAME_DEPTH, project
from dataset_builders.geometry import Array, invert_pose, thin, transform, valid_depth, view_points
from dataset_builders.perception import Region
from dataset_builders.perception.gravity import is_support_name
from dataset_builders.perception.regions import paint
from dataset_builders.scene import SceneObject, View

SAMPLE = 400  # points of a region that are looked for in the other views
MIN_VISIBLE = 8  # of them that another view must see for a verdict
MIN_SHARE = 0.5  # of the visible points that lie on the other region, both ways
Node = tuple[int, int]  # view, region


def associate(
    views: Sequence[View],
    regions: Sequence[Sequence[Region]],
    names: Sequence[Sequence[str]],
    depth_noise: float = 0.01,
) -> tuple[list[Array], tuple[SceneObject, ...]]:
    """Give the regions of all views common ids.

    Args:
        views: with depth and, if several, poses in one world.
        regions: of each view, tidied; what `paint` leaves out becomes no object.
        names: of the regions; "" where unknown.
        depth_noise: relative standard deviation of the depth.

    Returns:
        Instances (H, W), int32, of each view, and the objects whose ids they hold, numbered from 1 in the order of
        their first view. A thing's name is the one that most views gave it, of equals the one of the larger regions;
        no two regions of one view become one object.
    """
    maps = [paint(found, view.image.shape[:2]) for view, found in zip(views, regions)]
    groups = {
        (view, int(number) - 1): {(view, int(number) - 1)}
        for view, painted in enumerate(maps)
        for number in np.unique(painted[painted > 0])
    }
    for _, first, second in _mutual_links(views, maps, depth_noise):
        together = groups[first] | groups[second]
        if len({view for view, _ in together}) == len(together):  # at most one region of a view
            for node in together:
                groups[node] = together
    instances = [np.zeros(one.shape, dtype=np.int32) for one in maps]
    objects: list[SceneObject] = []
    for node, group in groups.items():
        if node != min(group):
            continue
        number = len(objects) + 1
        votes: Counter[str] = Counter()
        for view, index in group:
            mask = maps[view] == index + 1
            instances[view][mask] = number
            if names[view][index]:
                votes[names[view][index]] += 1 + mask.sum() / (1 + sum(one.size for one in maps))  # breaks ties
        name = max(sorted(votes), key=lambda one: votes[one], default="")
        objects.append(SceneObject(number, name, is_support_name(name)))
    return instances, tuple(objects)


def _mutual_links(views: Sequence[View], maps: Sequence[Array], depth_noise: float) -> list[tuple[float, Node, Node]]:
    """Pairs of regions that each find most of their visible points on the other, the surest first."""
    shares: dict[tuple[Node, Node], float] = {}
    for here, view in enumerate(views):
        for number in range(1, int(maps[here].max(initial=0)) + 1):
            v, u = thin(np.argwhere((maps[here] == number) & valid_depth(view.depth_m)), SAMPLE).T
            points = view_points(view, u, v)
            for there, other in enumerate(views):
                if there != here and len(points):
                    found, share = _landing(points, other, maps[there], depth_noise)
                    if share >= MIN_SHARE:
                        shares[(here, number - 1), (there, found - 1)] = share
    links = [
        (min(share, shares[second, first]), first, second)
        for (first, second), share in shares.items()
        if first < second and (second, first) in shares
    ]
    return sorted(links, key=lambda one: (-one[0], one[1:]))


def _landing(points: Array, view: View, painted: Array, depth_noise: float) -> tuple[int, float]:
    """The region that most of the world points (N, 3) that a view sees fall on, and their share; (0, 0.0) if none."""
    seen = transform(points, invert_pose(view.camera_to_world))
    column, row, inside = project(seen, view)
    agrees = np.abs(view.depth_m[row, column] - seen[:, 2]) < (SAME_DEPTH + 3 * depth_noise) * seen[:, 2]
    landed = painted[row, column][inside & agrees]
    if len(landed) < MIN_VISIBLE:
        return 0, 0.0
    counts = np.bincount(landed)
    counts[0] = 0
    return int(counts.argmax()), float(counts.max() / len(landed))
