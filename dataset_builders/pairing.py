"""Which views of a scene make one multi-view sample.

Without a distance model: neighbours in groups of 2, 4 and 8. With one, as the paper: pairs of a sequence that look
neither alike nor foreign to each other (LPIPS between 0.35 and 0.65), some of them grown to 4 or 8 views by frames
that lie between the two.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn

import numpy as np

from dataset_builders.perception import PerceptualDistance
from dataset_builders.scene import DropItem, Scene

GROUP_SIZES = (2, 4, 8)  # views per record
GROUP_SHARES = (16, 3, 1)  # of a pair to become a record of that many views: 160K, 30K and 10K in the paper
MIN_LPIPS, MAX_LPIPS = 0.35, 0.65
Job = tuple[str, Callable[[], dict[str, Any]]]


def view_groups(scene: Scene, seed: int = 0, distance: PerceptualDistance | None = None) -> Iterator[Scene]:
    """The groups of 2, 4 and 8 views of a scene, each as a scene of its own with its views in the scene's order.

    Args:
        scene: a sequence of views.
        seed: with a distance, chooses the pairs and their sizes.
        distance: None = all groups of neighbours, no view twice in a size; else pairs within the band, no view twice
            as an anchor, each pair once, with as many frames between them as its size asks for.

    Raises:
        DropItem: "no_pair_in_band", with a distance.
    """
    if distance is None:
        for size in GROUP_SIZES:
            for start in range(0, len(scene.views) - size + 1, size):
                name = f"{scene.id}-views-{start + 1}-{start + size}"
                yield replace(scene, id=name, views=scene.views[start : start + size])
        return
    rng = random.Random(f"{seed}:{scene.id}:pairs")
    for first, second in _pairs_in_band(scene, rng, distance):
        indices = _grown(first, second, rng)
        name = f"{scene.id}-views-" + "-".join(str(index + 1) for index in indices)
        yield replace(scene, id=name, views=tuple(scene.views[index] for index in indices))


def group_jobs(
    scene: Scene, seed: int, distance: PerceptualDistance | None, build: Callable[[Scene], dict[str, Any]]
) -> Iterator[Job]:
    """A job for each group of views; one that is dropped, and so counted, where no pair of the scene fits.

    A scene of one view gives none: the questions compare views.
    """
    if len(scene.views) < 2:
        return
    try:
        groups = list(view_groups(scene, seed, distance))
    except DropItem as drop:
        yield scene.id, partial(_drop, drop)
        return
    for group in groups:
        yield group.id, partial(build, group)


def _drop(drop: DropItem) -> NoReturn:
    raise drop


def _pairs_in_band(scene: Scene, rng: random.Random, distance: PerceptualDistance) -> list[tuple[int, int]]:
    """Pairs of views within the band, drawn so that no view is in two of them, in the order of their first views."""
    distances = np.asarray(distance.distances([view.image for view in scene.views]))  # (V, V)
    first, second = np.nonzero(np.triu((distances >= MIN_LPIPS) & (distances <= MAX_LPIPS), k=1))
    candidates = list(zip(first.tolist(), second.tolist()))
    if not candidates:
        others = distances[np.triu_indices(len(scene.views), k=1)]
        raise DropItem(
            "no_pair_in_band",
            f"scene {scene.id!r}: LPIPS of its pairs of views is {others.min():.2f} to {others.max():.2f}, none is "
            f"between {MIN_LPIPS} and {MAX_LPIPS}",
        )
    rng.shuffle(candidates)
    taken: set[int] = set()
    pairs = []
    for pair in candidates:
        if taken.isdisjoint(pair):
            taken.update(pair)
            pairs.append(pair)
    return sorted(pairs)


def _grown(first: int, second: int, rng: random.Random) -> Sequence[int]:
    """The anchors and frames evenly between them: 2, 4 or 8 in all, or as many as there are frames for."""
    (wanted,) = rng.choices(GROUP_SIZES, GROUP_SHARES)
    size = max(one for one in GROUP_SIZES if one <= min(wanted, second - first + 1))
    return np.linspace(first, second, size).round().astype(int).tolist()
