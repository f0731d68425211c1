import pickle

import numpy as np
import pytest
from PIL import Image

from dataset_builders.scene import DropItem, InputError, SceneObject
from dataset_builders.sources import SourceOptions, open_source
from dataset_builders.sources.mvimgnet import MvImgNetSource
from tests.dataset_builders.miniatures_views import mvimgnet_object


def source(folder, **options):
    return MvImgNetSource(SourceOptions(input_dir=folder, **options))


def load(folder, **options):
    one = source(folder, **options)
    return one.load(one.list_items()[0])


def dropped(folder, **options):
    with pytest.raises(DropItem) as caught:
        load(folder, **options)
    return caught.value.reason


def test_a_video_becomes_a_scene(tmp_path):
    exact = mvimgnet_object(tmp_path)
    scene = load(tmp_path, views=4)
    assert (scene.id, scene.source, scene.metric, scene.posed) == ("7_2701abcd_4v", "mvimgnet", False, True)
    assert scene.objects == (SceneObject(1, "stove"),)
    for view, number in zip(scene.views, (0, 3, 6, 9)):  # spread over the walk
        np.testing.assert_allclose(view.camera_to_world, exact[number].camera_to_world, atol=1e-6)
        np.testing.assert_array_equal(view.instances == 1, exact[number].instances == 2)
        assert view.image_bytes == (tmp_path / "7/2701abcd/images" / f"{number + 1:03d}.jpg").read_bytes()
    assert isinstance(open_source("mvimgnet", SourceOptions(input_dir=tmp_path)), MvImgNetSource)


def test_a_lens_bends_image_mask_and_points_alike(tmp_path):
    mvimgnet_object(tmp_path, lens=[0.2], count=3)
    for view in load(tmp_path).views:
        assert view.image.shape[:2] == view.instances.shape == view.depth_m.shape
        assert view.image.shape[0] < 120
        inside = view.image[view.instances == 1].astype(int)  # the box is drawn in one colour
        assert np.abs(inside - np.median(inside, axis=0)).max(axis=-1).mean() < 8
        assert (view.depth_m > 0).any()


@pytest.mark.parametrize("where", ["beside", "other name", "none", "ones"])
def test_masks_lie_in_several_places_or_nowhere(tmp_path, where):
    root = tmp_path / "data"
    exact = mvimgnet_object(root, masks={"beside": "beside", "none": ""}.get(where, "masks"), count=3)
    for path in (root / "7/2701abcd/masks").glob("*") if where in ("other name", "ones") else ():
        if where == "ones":
            Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8)).save(path)
        else:
            path.rename(path.with_name(path.name.replace(".jpg", "")))
    scene = load(root)
    if where == "none":
        assert scene.objects == () and scene.views[0].instances is None
    else:
        np.testing.assert_array_equal(scene.views[0].instances == 1, exact[0].instances == 2)


def test_names_are_those_of_the_category_file(tmp_path):
    for category in ("2", "141", "203", "9"):
        mvimgnet_object(tmp_path, category, f"object{category}", count=2)
    one = source(tmp_path)
    assert one.list_items() == ["141/object141", "2/object2", "203/object203", "9/object9"]
    names = [one.load(item).objects[0].name for item in one.list_items()[:3]]
    assert names == ["flower", "washer", "toy butterfly"]
    with pytest.raises(DropItem, match="no category 9") as caught:
        one.load("9/object9")
    assert caught.value.reason == "unknown_category"
    assert one.list_items()[:1] == source(tmp_path, num_scenes=1).list_items()


def test_it_travels_to_a_worker_and_loads_the_same(tmp_path):
    mvimgnet_object(tmp_path, count=2)
    here, there = load(tmp_path), pickle.loads(pickle.dumps(source(tmp_path))).load("7/2701abcd")
    np.testing.assert_array_equal(here.views[1].depth_m, there.views[1].depth_m)


def test_damage_is_counted(tmp_path):
    mvimgnet_object(tmp_path, count=2)
    folder = tmp_path / "7" / "2701abcd"
    assert dropped(tmp_path, views=3) == "too_few_views"
    Image.new("L", (10, 10)).save(folder / "masks" / "001.jpg.png")
    assert dropped(tmp_path) == "size_mismatch"
    (folder / "masks" / "001.jpg.png").write_bytes(b"hello")
    assert dropped(tmp_path) == "unreadable_image"
    for path in (folder / "images").iterdir():
        path.unlink()
    assert dropped(tmp_path) == "no_images"
    mvimgnet_object(tmp_path, name="2701abcc", count=2)
    (tmp_path / "7/2701abcc/sparse/0/images.bin").unlink()
    assert dropped(tmp_path) == "missing_file"


def test_mistakes_about_the_whole_input(tmp_path):
    with pytest.raises(InputError, match=r"holds no object video of MVImgNet; it should hold 7/<object>/\{images"):
        source(tmp_path)
    mvimgnet_object(tmp_path, count=2)
    (tmp_path / "mvimgnet_category.txt").unlink()
    with pytest.raises(InputError, match="lacks mvimgnet_category.txt.*take it from github.com"):
        source(tmp_path)
    with pytest.raises(InputError, match="--input None is not a folder"):
        source(None)
