"""One id for one thing in all views, by geometry alone."""

from dataclasses import replace

import numpy as np
import pytest

from dataset_builders.perception import Region
from dataset_builders.perception.association import associate
from dataset_builders.sources import SourceOptions, open_source
from tests.dataset_builders.scenes_for_tests import BREAKFAST, TWO_POSES, Solid, camera_pose, scene_of


def regions_of(scene, seed=None):
    """The true masks as regions, each view in an order of its own, with the true object of each."""
    random = np.random.default_rng(seed)
    regions, objects = [], []
    for view in scene.views:
        ids = [one.id for one in scene.objects if (view.instances == one.id).sum() > 20]
        ids = list(random.permutation(ids)) if seed is not None else ids
        regions.append([Region(view.instances == one, 0.9) for one in ids])
        objects.append(ids)
    return regions, objects


def names_of(scene, objects):
    known = {one.id: one.name for one in scene.objects}
    return [[known[one] for one in found] for found in objects]


def share_right(scene, instances):
    """Of the pixels of true objects, how many carry the id that the object has in most of its pixels."""
    right = total = 0
    for item in scene.objects:
        painted = np.concatenate([found[view.instances == item.id] for found, view in zip(instances, scene.views)])
        if painted.any():
            right += np.bincount(painted[painted > 0]).max()
            total += (painted > 0).sum()
    return right / total


def test_two_views_share_their_objects():
    scene = scene_of(BREAKFAST, TWO_POSES)
    regions, objects = regions_of(scene, seed=1)
    instances, found = associate(scene.views, regions, names_of(scene, objects))
    assert sorted(one.name for one in found) == sorted(one.name for one in scene.objects)
    assert [one.id for one in found] == list(range(1, len(found) + 1))
    assert [one.name for one in found if one.is_support] == ["table"]
    assert share_right(scene, instances) == 1
    assert all(one.dtype == np.int32 and one.shape == scene.views[0].depth_m.shape for one in instances)


def test_real_sized_rooms_keep_their_objects_apart():
    source = open_source("synthetic", SourceOptions(num_scenes=4, views=4, image_size=(120, 160), seed=2))
    shares, extra = [], []
    for item in source.list_items():
        scene = source.load(item)
        regions, objects = regions_of(scene, seed=0)
        instances, found = associate(scene.views, regions, names_of(scene, objects), scene.depth_noise)
        shares.append(share_right(scene, instances))
        extra.append(len(found) - len({one for ids in objects for one in ids}))
    assert np.mean(shares) > 0.97
    assert min(extra) >= 0  # two true objects never become one
    assert np.mean(extra) <= 1


def test_one_view_is_numbered_in_order():
    scene = scene_of(BREAKFAST, TWO_POSES[:1])
    regions, objects = regions_of(scene)
    instances, found = associate(scene.views, regions, names_of(scene, objects))
    assert [one.name for one in found] == names_of(scene, objects)[0]
    assert np.array_equal(instances[0], scene.views[0].instances)


def test_two_equal_things_stay_two():
    twins = [Solid("mug", (x, 1.2, 0.05), (0.1, 0.1, 0.1)) for x in (-0.15, 0.15)]
    scene = scene_of([BREAKFAST[0], *twins], TWO_POSES)
    regions, objects = regions_of(scene, seed=3)
    instances, found = associate(scene.views, regions, names_of(scene, objects))
    assert sorted(one.name for one in found) == ["mug", "mug", "table"]
    assert share_right(scene, instances) == 1


def test_things_hidden_behind_others_are_not_linked_to_them():
    """From the front the board hides the ball, from the back the ball the board: the same place in both images."""
    solids = [Solid("board", (0, 1.5, 0), (0.6, 0.02, 0.6)), Solid("ball", (0, 2.5, 0), (0.4, 0.4, 0.4))]
    scene = scene_of(solids, [camera_pose(), camera_pose((0, 4.3, 0), yaw=180)])
    regions, objects = regions_of(scene)
    assert objects == [[1], [2]]
    _, found = associate(scene.views, regions, names_of(scene, objects))
    assert sorted(one.name for one in found) == ["ball", "board"]


def test_the_name_is_the_one_that_most_views_gave():
    poses = [camera_pose((x, 0, 0.5), pitch=20) for x in (-0.1, 0.0, 0.1)]
    scene = scene_of(BREAKFAST[:2], poses)
    regions, _ = regions_of(scene)
    names = [["table", "box"], ["table", "cereal box"], ["", "box"]]
    _, found = associate(scene.views, regions, names)
    assert [one.name for one in found] == ["table", "box"]
    _, found = associate(scene.views, regions, [["", ""], ["", ""], ["", ""]])
    assert [one.name for one in found] == ["", ""]


def test_of_equal_votes_the_larger_region_names():
    scene = scene_of(BREAKFAST[:2], TWO_POSES)
    regions, _ = regions_of(scene)
    larger = int(regions[1][1].mask.sum() > regions[0][1].mask.sum())
    for votes in (["alpha", "beta"], ["beta", "alpha"]):
        _, found = associate(scene.views, regions, [["table", votes[0]], ["table", votes[1]]])
        assert found[1].name == votes[larger]


def test_regions_of_one_view_never_become_one_object():
    """The second view's table is one region, the first view's is cut in two: both halves lie on it."""
    scene = scene_of(BREAKFAST[:1], TWO_POSES)
    regions, _ = regions_of(scene)
    mask = regions[0][0].mask
    left = mask & (np.arange(mask.shape[1]) < 180)
    _, found = associate(scene.views, [[Region(left, 1), Region(mask & ~left, 1)], regions[1]], [["a", "b"], ["c"]])
    assert len(found) in (2, 3)


def test_without_depth_or_poses_nothing_is_linked():
    scene = scene_of(BREAKFAST, TWO_POSES)
    regions, objects = regions_of(scene)
    views = [replace(view, depth_m=np.zeros_like(view.depth_m)) for view in scene.views]
    _, found = associate(views, regions, names_of(scene, objects))
    assert len(found) == sum(len(one) for one in objects)


def test_no_regions_are_no_objects():
    scene = scene_of(BREAKFAST, TWO_POSES)
    instances, found = associate(scene.views, [[], []], [[], []])
    assert found == () and not any(one.any() for one in instances)


def test_a_chain_of_links_does_not_join_two_regions_of_one_view():
    """Three equal views of a table: its two halves, its left 70 %, its right 70 %, which overlap by most of either."""
    scene = scene_of(BREAKFAST[:1], [TWO_POSES[0]] * 3)
    mask = scene.views[0].instances == 1
    left, middle, right = np.quantile(np.nonzero(mask)[1], [0.3, 0.5, 0.7])
    column = np.broadcast_to(np.arange(mask.shape[1]), mask.shape)
    parts = [[column < middle, column >= middle], [column < right], [column >= left]]
    regions = [[Region(mask & part, 1.0) for part in found] for found in parts]
    instances, found = associate(scene.views, regions, [["a", "b"], ["a"], ["b"]])
    assert [one.name for one in found] == ["a", "b"]
    assert set(np.unique(instances[0])) == {0, 1, 2}


@pytest.mark.parametrize("seed", [1, 2])
def test_the_order_of_regions_changes_numbers_only(seed):
    scene = scene_of(BREAKFAST, TWO_POSES)
    regions, objects = regions_of(scene, seed=seed)
    _, found = associate(scene.views, regions, names_of(scene, objects))
    assert sorted(one.name for one in found) == sorted(one.name for one in scene.objects)
