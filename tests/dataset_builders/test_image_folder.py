import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset_builders.scene import DropItem, InputError, Intrinsics
from dataset_builders.sources import SourceOptions, open_source
from dataset_builders.sources.image_folder import ImageFolderSource
from tests.dataset_builders.miniatures_images import encoded, picture, write_image

LUND = Path(__file__).parents[3] / "shared" / "realdata" / "opensfm_lund"


def source(folder, **options):
    return ImageFolderSource(SourceOptions(input_dir=folder, **options))


def dropped(one, item):
    with pytest.raises(DropItem) as caught:
        one.load(item)
    assert item.split("@")[0] in caught.value.detail
    return caught.value.reason


def test_every_image_at_any_depth_is_a_scene(tmp_path):
    contents = {
        name: write_image(tmp_path / name, seed)
        for seed, name in enumerate(("b.jpg", "a.b.jpg", "a.c.jpg", "x/a.jpg", "y/a.jpg", "y/deep/er/a.JPG"))
    }
    (tmp_path / "notes.txt").write_text("no image")
    write_image(tmp_path / "._b.jpg")
    write_image(tmp_path / ".thumbnails" / "b.jpg")
    one = source(tmp_path)
    assert list(one.list_items()) == sorted(contents)
    scenes = [one.load(item) for item in one.list_items()]
    assert len({scene.id for scene in scenes}) == len(contents)
    for item, scene in zip(one.list_items(), scenes):
        (view,) = scene.views
        assert view.image_bytes == contents[item] and not view.has_depth and not view.intrinsics.known
        assert (scene.source, scene.licence, scene.split, scene.posed) == ("images", "unknown", "train", True)
    assert list(source(tmp_path, num_scenes=2).list_items()) == ["a.b.jpg", "a.c.jpg"]
    assert isinstance(open_source("images", SourceOptions(input_dir=tmp_path)), ImageFolderSource)
    assert ImageFolderSource.how_to_get.endswith(".")


def test_loading_is_pure_and_survives_pickling(tmp_path):
    write_image(tmp_path / "x" / "a.jpg", 1)
    one = source(tmp_path)
    again = pickle.loads(pickle.dumps(one))
    first, second = one.load("x/a.jpg"), again.load("x/a.jpg")
    assert first.id == second.id and first.views[0].image_bytes == second.views[0].image_bytes


def test_names_that_are_no_utf8(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    path = tmp_path / os.fsdecode(b"caf\xe9") / os.fsdecode(b"m\xfcll 100%.png")
    path.write_bytes(encoded(picture(), "PNG"))
    one = source(tmp_path)
    (item,) = json.loads(json.dumps(list(one.list_items())))
    assert item == "caf%E9/m%FCll%20100%25.png"
    assert one.load(item).id.isascii()
    path.write_bytes(b"no image")
    assert dropped(one, item) == "unreadable_image"


def test_the_camera_comes_from_exif_or_from_the_user(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 36
    write_image(tmp_path / "a.jpg", exif=exif)
    write_image(tmp_path / "b.jpg")
    given = Intrinsics(40, 40, 16, 12)
    one = source(tmp_path, intrinsics=given)
    assert one.load("a.jpg").views[0].intrinsics == Intrinsics(32, 32, 15.5, 11.5)
    assert one.load("b.jpg").views[0].intrinsics == given
    other = source(tmp_path, intrinsics=Intrinsics(80, 80, 32, 24))
    assert dropped(other, "b.jpg") == "intrinsics_size"


@pytest.mark.parametrize(
    ("name", "why"),
    [("empty.jpg", "unreadable_image"), ("phone.heic", "unreadable_image"), ("gone.jpg", "missing_file")],
)
def test_bad_files_are_items_that_are_dropped(tmp_path, name, why):
    write_image(tmp_path / "good.jpg")
    (tmp_path / name).write_bytes(b"")
    one = source(tmp_path)
    assert list(one.list_items()) == sorted(["good.jpg", name])
    if why == "missing_file":
        (tmp_path / name).unlink()
    assert dropped(one, name) == why


# Sequences


def write_walk(folder, count, stem="frame_"):
    for number in range(count):
        write_image(folder / f"{stem}{number}.jpg", number)


def test_folders_are_sequences_in_the_order_of_their_numbers(tmp_path):
    write_walk(tmp_path / "kitchen", 12)
    write_walk(tmp_path / "hall", 3)
    one = source(tmp_path, views=4)
    assert list(one.list_items()) == ["hall@0", "kitchen@0", "kitchen@4", "kitchen@8"]
    scene = one.load("kitchen@8")
    assert not scene.posed and len(scene.views) == 4
    for number, view in zip((8, 9, 10, 11), scene.views):
        assert view.image_bytes == encoded(picture(number))
    assert dropped(one, "hall@0") == "too_few_views"
    ids = [one.load(item).id for item in one.list_items()[1:]]
    assert len(set(ids)) == 3


def test_every_nth_frame(tmp_path):
    write_walk(tmp_path, 11)
    one = source(tmp_path, views=2, frame_step=5.0)
    assert list(one.list_items()) == [".@0"]
    first, second = one.load(".@0").views
    assert first.image_bytes == encoded(picture(0)) and second.image_bytes == encoded(picture(5))
    three = source(tmp_path, views=3, frame_step=5)
    np.testing.assert_array_equal(
        three.load(".@0").views[2].image, source(tmp_path).load("frame_10.jpg").views[0].image
    )


def test_one_bad_frame_drops_its_scene_only(tmp_path):
    write_walk(tmp_path, 4)
    (tmp_path / "frame_1.jpg").write_bytes(b"no")
    one = source(tmp_path, views=2)
    with pytest.raises(DropItem, match="frame_1"):
        one.load(".@0")
    assert len(one.load(".@2").views) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_dir": None}, "--input None is not a folder"),
        ({"input_dir": Path("/nowhere")}, "--input /nowhere is not a folder"),
        ({"input_dir": Path(__file__).parent / "snapshots"}, "holds no image"),
        ({"views": 65}, "--views 65 is out of range"),
        ({"views": 2, "frame_step": 0.5}, "--frame-step 0.5 is no whole number"),
    ],
)
def test_mistakes(tmp_path, options, message):
    write_image(tmp_path / "a.jpg")
    with pytest.raises(InputError, match=message):
        ImageFolderSource(SourceOptions(**({"input_dir": tmp_path} | options))).list_items()


@pytest.mark.skipif(not LUND.is_dir(), reason=f"no real data in {LUND}")
def test_eight_real_photographs(tmp_path):
    one = source(LUND, views=8)
    (item,) = one.list_items()
    scene = one.load(item)
    assert len(scene.views) == 8 and not scene.posed
    for view in scene.views:  # an iPhone 4S, which says 35 mm
        assert view.intrinsics.fx == pytest.approx(35 / 36 * 1024) and view.image_bytes is not None
    shutil.copytree(LUND, tmp_path / "copy", copy_function=os.symlink)
    assert len(source(tmp_path).list_items()) == 8
