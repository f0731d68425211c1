"""Which views make a sample: neighbours, or pairs within the LPIPS band with frames between them."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from dataset_builders.pairing import MAX_LPIPS, MIN_LPIPS, group_jobs, view_groups
from dataset_builders.scene import UNKNOWN_INTRINSICS, DropItem, Scene, View


class Table:
    """A distance model that knows each image by its first pixel."""

    def __init__(self, distances):
        self.table = np.asarray(distances, dtype=float)

    def distances(self, images):
        order = [int(image[0, 0, 0]) for image in images]
        return self.table[np.ix_(order, order)]


def by_gap(count, scale=0.05):
    """Frames that differ in proportion to the time between them."""
    times = np.arange(count)
    return Table(scale * np.abs(times[:, None] - times))


def sequence(count, name="video"):
    views = tuple(
        View(np.full((4, 6, 3), k, dtype=np.uint8), np.zeros((4, 6), dtype=np.float32), UNKNOWN_INTRINSICS)
        for k in range(count)
    )
    return Scene(id=name, source="test", licence="CC0-1.0", views=views, metric=False, posed=False)


def frames(group):
    return [int(view.image[0, 0, 0]) for view in group.views]


def test_neighbours_without_a_distance():
    sizes = {count: [len(group.views) for group in view_groups(sequence(count))] for count in (1, 2, 3, 4, 8)}
    assert sizes == {1: [], 2: [2], 3: [2], 4: [2, 2, 4], 8: [2, 2, 2, 2, 4, 4, 8]}
    names = [group.id for group in view_groups(sequence(8))]
    assert len(set(names)) == len(names)


def test_only_pairs_within_the_band_and_no_anchor_twice():
    distance = by_gap(40)
    for seed in range(10):
        groups = list(view_groups(sequence(40), seed, distance))
        anchors = [(frames(group)[0], frames(group)[-1]) for group in groups]
        gaps = [distance.table[pair] for pair in anchors]
        assert groups
        assert min(gaps) >= MIN_LPIPS and max(gaps) <= MAX_LPIPS
        assert max(Counter(frame for pair in anchors for frame in pair).values()) == 1
        assert len({group.id for group in groups}) == len(groups)
        assert anchors == sorted(anchors)


def test_the_edges_of_the_band_belong_to_it():
    for value, kept in ((0.349, False), (0.35, True), (0.65, True), (0.651, False)):
        groups = group_jobs(sequence(2), 0, Table([[0, value], [value, 0]]), lambda group: {"id": group.id})
        ((_, build),) = groups
        if kept:
            assert build() == {"id": "video-views-1-2"}
        else:
            with pytest.raises(DropItem, match="none is between 0.35 and 0.65") as error:
                build()
            assert error.value.reason == "no_pair_in_band"


def test_sizes_are_mixed_as_in_the_paper():
    distance, sizes = by_gap(64), Counter()
    for seed in range(60):
        sizes.update(len(group.views) for group in view_groups(sequence(64), seed, distance))
    total = sum(sizes.values())
    assert total > 1000
    for size, share in ((2, 16 / 20), (4, 3 / 20), (8, 1 / 20)):
        assert abs(sizes[size] / total - share) < 3 * np.sqrt(share * (1 - share) / total)


def test_frames_between_are_even_and_in_order():
    for seed in range(60):
        for group in view_groups(sequence(64), seed, by_gap(64)):
            shown = frames(group)
            assert shown == sorted(set(shown))
            assert np.ptp(np.diff(shown)) <= 1


def test_a_group_grows_only_where_frames_lie_between():
    near = by_gap(6, scale=0.2)  # gaps of 2 and 3 frames are in the band
    sizes = Counter(len(group.views) for seed in range(100) for group in view_groups(sequence(6), seed, near))
    assert set(sizes) == {2, 4}


def test_the_seed_decides_and_nothing_else():
    chosen = [[group.id for group in view_groups(sequence(40), seed, by_gap(40))] for seed in (1, 1, 2)]
    assert chosen[0] == chosen[1] != chosen[2]
    renamed = [group.id for group in view_groups(sequence(40, "film"), 1, by_gap(40))]
    assert [name.replace("film", "video") for name in renamed] != chosen[0]


def test_one_view_gives_no_job_and_no_drop():
    assert list(group_jobs(sequence(1), 0, by_gap(1), dict)) == []
    assert list(group_jobs(sequence(1), 0, None, dict)) == []


def test_a_distance_that_cannot_be_had_is_a_drop_of_its_scene():
    class Broken:
        def distances(self, images):
            raise DropItem("no_distance", "too small")

    ((name, build),) = group_jobs(replace(sequence(2)), 0, Broken(), dict)
    assert name == "video"
    with pytest.raises(DropItem, match="too small"):
        build()
