import json
import pickle
from random import Random

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from dataset_builders.scene import DropItem, InputError
from dataset_builders.sources import SourceOptions, open_source
from dataset_builders.sources.sa1b import Sa1bSource, choose_masks, paint, run_lengths
from tests.dataset_builders.miniatures_images import (
    annotation,
    encoded,
    picture,
    rectangle,
    sa1b_annotations,
    sa1b_members,
    write_tar,
)

SHAPE = (60, 80)
BOX, CUP, WALL = (rectangle(box, *SHAPE) for box in ((10, 10, 40, 50), (50, 20, 70, 40), (0, 0, 80, 58)))


def source(folder, **options):
    return Sa1bSource(SourceOptions(input_dir=folder, **options))


def load(folder):
    one = source(folder)
    return one.load(one.list_items()[0])


def load_masks(tmp_path, *masks):
    write_tar(tmp_path / "sa_000000.tar", sa1b_members(1, masks))
    return load(tmp_path)


def reason(one, item):
    with pytest.raises(DropItem) as caught:
        one.load(item)
    return caught.value.reason


def test_shards_are_read_in_place(tmp_path):
    members = [member for number in (7, 23, 5) for member in sa1b_members(number, [BOX, CUP])]
    write_tar(tmp_path / "sa_000000.tar", members)
    write_tar(tmp_path / "more" / "sa_000001.tar", sa1b_members(100, [CUP]))
    one = source(tmp_path)
    items = list(one.list_items())
    assert items == sorted(items) and len(items) == 4
    scenes = {scene.id: scene for scene in map(one.load, items)}
    assert set(scenes) == {"sa_7", "sa_23", "sa_5", "sa_100"}
    for number in (5, 7, 23):
        scene = scenes[f"sa_{number}"]
        (view,) = scene.views
        assert view.image_bytes == encoded(picture(number, *SHAPE))
        np.testing.assert_array_equal(view.instances, BOX + 2 * CUP.astype(np.int32))
        assert [(item.id, item.name) for item in scene.objects] == [(1, ""), (2, "")]
        assert scene.licence == "SA-1B research licence" and not view.has_depth and not view.intrinsics.known
    assert [len(source(tmp_path, num_scenes=n).list_items()) for n in (1, 3, 9)] == [1, 3, 4]
    assert isinstance(open_source("sa1b", SourceOptions(input_dir=tmp_path)), Sa1bSource)
    assert Sa1bSource.how_to_get.endswith(".")


def test_extracted_folders(tmp_path):
    for name, content in sa1b_members(7, [BOX, CUP]):
        (tmp_path / "sa_000020").mkdir(exist_ok=True)
        (tmp_path / "sa_000020" / name).write_bytes(content)
    scene = load(tmp_path)
    assert scene.id == ["sa_000020", "sa_7"][1] and len(scene.objects) == 2
    (tmp_path / "sa_000020" / "sa_7.json").unlink()
    assert reason(source(tmp_path), "sa_000020/sa_7") == "missing_file"


def test_loading_is_pure_and_survives_pickling(tmp_path):
    write_tar(tmp_path / "sa_000000.tar", sa1b_members(1, [BOX, CUP]))
    one = source(tmp_path)
    (item,) = one.list_items()
    first, second = one.load(item), pickle.loads(pickle.dumps(one)).load(item)
    np.testing.assert_array_equal(first.views[0].instances, second.views[0].instances)


# Which masks


def test_parts_and_doubles_are_left_out_and_things_before_a_wall_stay(tmp_path):
    lid = rectangle((12, 12, 30, 20), *SHAPE)  # of the box
    double = rectangle((10, 10, 40, 49), *SHAPE)
    scene = load_masks(tmp_path, CUP, lid, WALL, double, BOX)
    instances = scene.views[0].instances
    assert len(scene.objects) == 3
    assert instances[5, 5] == 1 and instances[15, 15] == 2 and instances[30, 60] == 3
    np.testing.assert_array_equal(instances == 2, BOX == 1)


def test_a_background_is_taken_once_and_tiny_masks_leave_no_hole_in_it(tmp_path):
    again, tiny = rectangle((0, 0, 80, 57), *SHAPE), rectangle((60, 5, 62, 7), *SHAPE)
    instances = load_masks(tmp_path, again, WALL, tiny).views[0].instances
    np.testing.assert_array_equal(instances, WALL)


def test_a_smaller_mask_that_overlaps_a_larger_lies_on_top(tmp_path):
    before = rectangle((30, 20, 50, 40), *SHAPE)
    instances = load_masks(tmp_path, before, BOX).views[0].instances
    np.testing.assert_array_equal(instances == 2, before == 1)
    assert (instances == 1).sum() == BOX.sum() - 10 * 20


@pytest.mark.parametrize("changes", [{"predicted_iou": 0.5}, {"stability_score": 0.5}])
def test_poor_masks_are_left_out(tmp_path, changes):
    poor = annotation(BOX, 0, **changes)
    assert len(load_masks(tmp_path, poor, CUP).objects) == 1


def test_tiny_and_empty_masks_are_left_out(tmp_path):
    tiny, empty, edge = (rectangle(box, *SHAPE) for box in ((1, 1, 3, 3), (0, 0, 0, 0), (70, 50, 80, 60)))
    scene = load_masks(tmp_path, tiny, empty, edge)
    assert len(scene.objects) == 1 and (scene.views[0].instances == 1).sum() == 100


def test_what_disappears_under_others_is_no_object(tmp_path):
    halves = [rectangle((0, 0, 30, 15), 40, 30), rectangle((0, 15, 30, 40), 40, 30)]
    wall = rectangle((0, 0, 30, 40), 40, 30)
    write_tar(tmp_path / "sa_000000.tar", sa1b_members(1, [wall, *halves], 40, 30))
    scene = load(tmp_path)
    assert len(scene.objects) == 2 and set(np.unique(scene.views[0].instances)) == {1, 2}


def test_at_most_32_masks_the_largest(tmp_path):
    masks = [rectangle((x, y, x + 6, y + 4 + (x == 0)), *SHAPE) for x in range(0, 80, 8) for y in range(0, 60, 6)]
    scene = load_masks(tmp_path, *masks)
    assert len(scene.objects) == 32 and scene.views[0].instances.max() == 32
    assert all((scene.views[0].instances[y, 0] > 0) for y in range(0, 60, 6))


def test_no_masks_at_all(tmp_path):
    scene = load_masks(tmp_path)
    assert scene.objects == () and not scene.views[0].instances.any()


def test_masks_turn_with_the_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    document = json.dumps(sa1b_annotations(1, [BOX, CUP], *SHAPE)).encode()
    photo = encoded(picture(1, *SHAPE), exif=exif)
    write_tar(tmp_path / "sa_000000.tar", [("sa_1.jpg", photo), ("sa_1.json", document)])
    (view,) = load(tmp_path).views
    assert view.image.shape == (80, 60, 3)
    np.testing.assert_array_equal(view.instances == 1, np.rot90(BOX, -1) == 1)


# Bad input


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (b"{", "bad_annotation"),
        (b"[]", "bad_annotation"),
        (b'{"annotations": {}}', "bad_annotation"),
        (b'{"annotations": [{"predicted_iou": 1}]}', "bad_annotation"),
        (b'{"annotations": [{"segmentation": {"size": [60, 80], "counts": "~~~9"}}]}', "bad_annotation"),
        (b'{"annotations": [{"segmentation": {"size": [60, 80], "counts": [1, 2]}}]}', "bad_annotation"),
        (b'{"annotations": [{"segmentation": {"size": [30, 40], "counts": "0"}}]}', "size_mismatch"),
    ],
)
def test_bad_annotations(tmp_path, document, why):
    photo = encoded(picture(1, *SHAPE))
    write_tar(tmp_path / "sa_000000.tar", [("sa_1.jpg", photo), ("sa_1.json", document)])
    one = source(tmp_path)
    with pytest.raises(DropItem, match="sa_000000.tar/sa_1") as caught:
        one.load(one.list_items()[0])
    assert caught.value.reason == why


def test_run_lengths_are_those_of_pycocotools():
    generator = np.random.default_rng(0)
    for share in (0.0, 0.02, 0.5, 1.0):
        mask = (generator.random((37, 53)) < share).astype(np.uint8)
        runs = run_lengths(coco.encode(np.asfortranarray(mask))["counts"].decode())
        inside = np.repeat(np.arange(runs.size) % 2, runs)
        np.testing.assert_array_equal(inside.reshape(53, 37).T, mask)


def packed(number):
    """A number as compressed COCO masks write it."""
    text = ""
    while True:
        group, number = number & 31, number >> 5
        last = number == (-1 if group & 16 else 0)
        text += chr(48 + group + (0 if last else 32))
        if last:
            return text


def test_run_lengths_below_zero_are_garbled():
    counts = "".join(map(packed, (10, -5, SHAPE[0] * SHAPE[1] - 5)))
    assert run_lengths(counts).tolist() == [10, -5, 4795]
    with pytest.raises(DropItem, match="do not add up"):
        choose_masks([{"segmentation": {"size": SHAPE, "counts": counts}}], SHAPE, "x")


def test_no_garbled_mask_hangs_or_crashes():
    """pycocotools alone would never return from some of these."""
    random = Random(0)
    good = coco.encode(np.asfortranarray(BOX | CUP))["counts"].decode()
    refused = 0
    for _ in range(500):
        text = list(good)
        for _ in range(random.randint(1, 4)):
            text[random.randrange(len(text))] = chr(random.randint(40, 120))
        try:
            paint(choose_masks([{"segmentation": {"size": SHAPE, "counts": "".join(text)}}], SHAPE, "x"), SHAPE)
        except DropItem as drop:
            assert drop.reason == "bad_annotation"
            refused += 1
    assert refused > 450


def test_a_picture_without_masks_and_a_broken_picture(tmp_path):
    photo, document = (content for _, content in sa1b_members(1, [BOX]))
    write_tar(tmp_path / "sa_000000.tar", [("sa_1.jpg", photo)])
    one = source(tmp_path)
    assert reason(one, one.list_items()[0]) == "missing_file"
    write_tar(tmp_path / "sa_000000.tar", [("sa_1.jpg", photo[:500]), ("sa_1.json", document)])
    assert reason(one, one.list_items()[0]) == "unreadable_image"


def test_a_shard_that_was_not_downloaded_whole(tmp_path):
    path = tmp_path / "sa_000000.tar"
    write_tar(path, [member for number in range(4) for member in sa1b_members(number, [BOX])])
    items = list(source(tmp_path).list_items())
    path.write_bytes(path.read_bytes()[: int(items[2].split("@")[1].split("+")[0]) + 100])
    one = source(tmp_path)
    found = {item.rpartition(":")[2].rpartition("@")[2]: item for item in one.list_items()}
    assert set(found) == {"sa_0", "sa_1", "sa_2", "damaged"}
    assert one.load(found["sa_1"]).id == "sa_1"
    assert reason(one, found["sa_2"]) == "missing_file" and reason(one, found["damaged"]) == "damaged_shard"
    path.write_bytes(b"<html>expired link</html>" * 100)
    assert [reason(one, item) for item in one.list_items()] == ["damaged_shard"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_dir": None}, "--input None is not a folder; give one with shards like sa_000000.tar"),
        ({"views": 2}, "--views 2 is of no use to --source sa1b"),
        ({}, "holds no image and no shard"),
    ],
)
def test_mistakes(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        Sa1bSource(SourceOptions(**({"input_dir": tmp_path} | options))).list_items()
