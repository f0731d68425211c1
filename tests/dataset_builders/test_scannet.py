import json
import pickle

import numpy as np
import pytest
from PIL import Image

from dataset_builders.geometry import valid_depth, view_points
from dataset_builders.scene import DropItem, InputError
from dataset_builders.schema import validate
from dataset_builders.sources import SourceOptions, open_source
from dataset_builders.sources.scannet import TEST_ROOMS, ScanNetSource, is_held_out
from dataset_builders.spatial_reasoning import build_record
from tests.dataset_builders.miniatures_views import jpeg, scannet_scan


def source(folder, frame_step=1, **options):
    return ScanNetSource(SourceOptions(input_dir=folder, frame_step=frame_step, **options))


def load(folder, **options):
    one = source(folder, **options)
    return one.load(one.list_items()[0])


def dropped(folder, **options):
    with pytest.raises(DropItem) as caught:
        load(folder, **options)
    return caught.value.reason


@pytest.fixture
def scan(tmp_path):
    """Folder of a scan of a training room (0011 is a validation room)."""
    return scannet_scan(tmp_path, "scene0000_00", frames=3)[0]


def test_a_scan_becomes_a_scene(tmp_path):
    folder, exact = scannet_scan(tmp_path, "scene0000_00", frames=3)
    scene = load(tmp_path)
    assert (scene.id, scene.source, scene.split) == ("scene0000_00_0_3v", "scannet", "train")
    assert scene.metric and scene.posed and scene.scale_source == "sensor"
    assert scene.up_world.tolist() == [0, 0, 1]
    for number, (view, true) in enumerate(zip(scene.views, exact)):
        assert view.image_bytes == (folder / "color" / f"{number}.jpg").read_bytes()
        np.testing.assert_allclose(view.camera_to_world, true.camera_to_world, atol=1e-5)
        np.testing.assert_array_equal(view.instances, true.instances)
        assert vars(view.intrinsics) == pytest.approx(vars(true.intrinsics), abs=1e-5)
        assert view.image.shape[:2] == view.depth_m.shape == (121, 162) and view.depth_m.dtype == np.float32


def test_depth_is_read_through_both_cameras(tmp_path):
    """Away from edges the depth at a colour pixel is that of its own ray, up to half a depth pixel of slope."""
    _, exact = scannet_scan(tmp_path, "scene0000_00", frames=2)
    for view, true in zip(load(tmp_path).views, exact):
        both = valid_depth(view.depth_m) & valid_depth(true.depth_m)
        error = np.abs(view.depth_m - true.depth_m)[both] / true.depth_m[both]
        assert both.mean() > 0.4 and np.median(error) < 0.01 and np.mean(error > 0.05) < 0.03
        table = (true.instances == 1) & both
        points = view_points(view, *np.nonzero(table)[::-1])
        assert abs(np.median(points[:, 2])) < 0.004  # the table top is at z = 0 in the world


def test_nothing_is_interpolated_at_edges_and_nothing_is_made_up_outside(tmp_path):
    folder, _ = scannet_scan(tmp_path, "scene0000_00", frames=1)
    depth = np.full((60, 80), 1000, np.uint16)
    depth[:, 40:] = 3000
    depth[:20] = 0
    Image.fromarray(depth).save(folder / "depth" / "0.png")
    found = load(tmp_path).views[0].depth_m
    assert set(np.unique(found)) == {np.float32(0), np.float32(1), np.float32(3)}
    matrix = np.diag([40.0, 40.0, 1, 1])  # a depth camera that sees twice as far to the sides
    matrix[:2, 2] = 39.5, 29.5
    (folder / "intrinsic" / "intrinsic_depth.txt").write_text("\n".join(" ".join(map(str, row)) for row in matrix))
    assert (load(tmp_path).views[0].depth_m[-1] > 0).all()
    matrix[[0, 1], [0, 1]] = 150.0  # and one that sees half as far
    (folder / "intrinsic" / "intrinsic_depth.txt").write_text("\n".join(" ".join(map(str, row)) for row in matrix))
    narrow = load(tmp_path).views[0].depth_m
    assert not narrow[:, :20].any() and not narrow[:, -20:].any() and narrow[60:80, 60:100].all()
    assert not narrow[-20:].any()


def test_objects_are_those_that_the_views_show(tmp_path):
    folder, _ = scannet_scan(tmp_path, "scene0000_00", frames=2)
    names = {one.id: one.name for one in load(tmp_path).objects}
    assert names == {1: "dining table", 2: "cereal box", 3: "mug", 4: "scissors", 5: "lamp"}  # and no wall
    assert [one.is_support for one in load(tmp_path).objects] == [True, False, False, False, False]
    for path in (folder / "instance-filt").iterdir():
        stored = np.asarray(Image.open(path))
        Image.fromarray(np.where(stored == 3, 6, stored).astype(np.uint8)).save(path)
    assert [one.name for one in load(tmp_path).objects][-1] == "wall"
    assert "mug" not in [one.name for one in load(tmp_path).objects]
    (folder / "scene0000_00.aggregation.json").rename(folder / "scene0000_00_vh_clean.aggregation.json")
    assert len(load(tmp_path).objects) == 5


def test_a_dialogue_about_a_scan_verifies(tmp_path):
    scannet_scan(tmp_path, "scene0000_00", frames=2)
    record = build_record(load(tmp_path), seed=0, allow_partial=True)
    assert validate(record) == []
    assert {row["name"] for row in record["objects"]} >= {"cereal box", "lamp"}


def test_without_annotation_there_are_no_objects(tmp_path):
    scannet_scan(tmp_path, "scene0000_00", frames=1, instances=False)
    scene = load(tmp_path)
    assert scene.objects == () and scene.views[0].instances is None


# Held-out rooms


def test_validation_and_test_rooms_are_left_out_and_counted(tmp_path):
    for name in ("scene0000_00", "scene0011_00", "scene0011_07", "scene0806_00", "scene0706_00"):
        scannet_scan(tmp_path, name, frames=1)
    one = source(tmp_path)
    assert one.list_items() == ["scene0000_00@0", "scene0706_00@0"]
    assert "3 of 5 ScanNet scans" in one.notices[0] and "left out" in one.notices[0]
    both = source(tmp_path, with_held_out=True)
    assert len(both.list_items()) == 5 and "included" in both.notices[0]
    assert both.load("scene0011_07@0").split == "test" and both.load("scene0000_00@0").split == "train"


def test_the_list_of_held_out_rooms():
    held_out = [room for room in range(807) if is_held_out(f"scene{room:04d}_00")]
    assert len(held_out) == 142 + 100 == len(TEST_ROOMS) + 142
    assert is_held_out("scene0568_02") and is_held_out("scene0685_99") and not is_held_out("scene0001_00")


def test_only_held_out_scans_is_a_mistake(tmp_path):
    scannet_scan(tmp_path, "scene0011_00", frames=1)
    with pytest.raises(InputError, match="only scans of ScanNet's validation and test rooms.*pass --with-held-out"):
        source(tmp_path)


# Frames and views


def test_a_long_scan_becomes_several_scenes(tmp_path):
    scannet_scan(tmp_path, "scene0000_00", frames=11)
    assert source(tmp_path).list_items() == ["scene0000_00@0"]  # 8 of 11
    assert source(tmp_path, views=4).list_items() == ["scene0000_00@0", "scene0000_00@4"]
    assert source(tmp_path, views=2, frame_step=3).list_items() == ["scene0000_00@0", "scene0000_00@2"]
    assert source(tmp_path, views=2, num_scenes=3).list_items()[-1] == "scene0000_00@4"
    second = source(tmp_path, views=2, frame_step=3).load("scene0000_00@2")
    assert second.id == "scene0000_00_2_2v"
    whole = source(tmp_path, views=11).load("scene0000_00@0")
    for view, number in zip(second.views, (6, 9)):
        np.testing.assert_array_equal(view.camera_to_world, whole.views[number].camera_to_world)


def test_frames_are_taken_in_the_order_of_their_numbers(tmp_path):
    """Also from an export that skipped frames, as SensReader's --frame_skip does."""
    _, exact = scannet_scan(tmp_path, "scene0000_00", frames=4, numbers=[0, 20, 100, 120])
    scene = load(tmp_path, frame_step=None)
    assert len(scene.views) == 4
    for view, true in zip(scene.views, exact):
        np.testing.assert_allclose(view.camera_to_world, true.camera_to_world, atol=1e-5)


def test_the_scans_may_lie_in_the_folder_itself(tmp_path):
    scannet_scan(tmp_path, "scene0000_00", frames=1)
    assert source(tmp_path / "scans").list_items() == ["scene0000_00@0"]
    assert isinstance(open_source("scannet", SourceOptions(input_dir=tmp_path)), ScanNetSource)


def test_it_travels_to_a_worker_and_loads_the_same(tmp_path):
    scannet_scan(tmp_path, "scene0000_00", frames=2)
    here, there = load(tmp_path), pickle.loads(pickle.dumps(source(tmp_path))).load("scene0000_00@0")
    assert here.id == there.id
    np.testing.assert_array_equal(here.views[1].depth_m, there.views[1].depth_m)


# Bad input


def lose_tracking(folder, *numbers):
    for number in numbers:
        (folder / "pose" / f"{number}.txt").write_text("-inf -inf -inf -inf\n" * 4)


def test_lost_tracking_is_skipped(tmp_path):
    folder, exact = scannet_scan(tmp_path, "scene0000_00", frames=6)
    lose_tracking(folder, 0, 2, 3)
    scene = load(tmp_path, frame_step=2)  # frame 1 stands in for 0; the step of 2 and 3 has none
    assert len(scene.views) == 2
    for view, number in zip(scene.views, (1, 4)):
        np.testing.assert_allclose(view.camera_to_world, exact[number].camera_to_world, atol=1e-5)
    assert dropped(tmp_path, frame_step=2, views=3) == "too_few_views"
    lose_tracking(folder, *range(6))
    assert dropped(tmp_path) == "too_few_views"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("pose/1.txt", None, "missing_file"),
        ("pose/1.txt", "1 0 0 0\n", "bad_pose"),
        ("pose/1.txt", "hello", "bad_pose"),
        ("pose/1.txt", "2 0 0 0\n0 2 0 0\n0 0 2 0\n0 0 0 1\n", "bad_pose"),
        ("pose/1.txt", "1 0 0 0\n0 1 0 0\n0 0 -1 0\n0 0 0 1\n", "bad_pose"),
        ("color/1.jpg", b"", "unreadable_image"),
        ("color/1.jpg", jpeg(np.zeros((121, 162, 3), np.uint8))[:500], "unreadable_image"),
        ("depth/1.png", None, "missing_file"),
        ("depth/1.png", b"hello", "unreadable_image"),
        ("instance-filt/1.png", None, "missing_file"),
        ("intrinsic/intrinsic_color.txt", None, "missing_file"),
        ("intrinsic/intrinsic_color.txt", "nan 0 80 0\n0 146 60 0\n0 0 1 0\n0 0 0 1\n", "bad_intrinsics"),
        ("intrinsic/intrinsic_color.txt", "0 0 80 0\n0 146 60 0\n0 0 1 0\n0 0 0 1\n", "bad_intrinsics"),
        ("intrinsic/intrinsic_color.txt", "1 2 3", "bad_intrinsics"),
        ("scene0000_00.aggregation.json", "{", "bad_instances"),
        ("scene0000_00.aggregation.json", json.dumps({"segGroups": [{"label": "chair"}]}), "bad_instances"),
    ],
)
def test_damaged_files(scan, name, content, reason):
    if content is None:
        (scan / name).unlink()
    else:
        (scan / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert dropped(scan.parents[1]) == reason


@pytest.mark.parametrize(
    ("name", "array", "reason"),
    [
        ("depth/1.png", np.full((60, 80), 200, np.uint8), "depth_format"),
        ("depth/1.png", np.zeros((60, 80), np.uint16), "no_depth_readings"),
        ("depth/1.png", np.full((480, 640), 1500, np.uint16), "intrinsics_size"),
        ("color/1.jpg", np.zeros((484, 648, 3), np.uint8), "intrinsics_size"),
        ("instance-filt/1.png", np.zeros((60, 80), np.uint8), "size_mismatch"),
        ("instance-filt/1.png", np.zeros((121, 162), np.uint16), "bad_instances"),
        ("instance-filt/1.png", np.zeros((121, 162, 3), np.uint8), "bad_instances"),
    ],
)
def test_images_of_the_wrong_kind(scan, name, array, reason):
    Image.fromarray(array).save(scan / name)
    assert dropped(scan.parents[1]) == reason


def test_a_turned_image_is_left_out(scan):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(scan / "color" / "1.jpg").save(scan / "color" / "1.jpg", exif=exif)
    assert dropped(scan.parents[1]) == "rotated_image"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_dir": None}, r"--input None is not a folder; give one with scans/scene0000_00"),
        ({"views": 65}, "--views 65 is out of range"),
        ({"frame_step": 0.5}, "--frame-step 0.5 is no whole number of frames"),
        ({"frame_step": 0}, "--frame-step 0 is no whole number"),
    ],
)
def test_mistakes_about_the_options(scan, options, message):
    with pytest.raises(InputError, match=message):
        ScanNetSource(SourceOptions(**{"input_dir": scan.parents[1]} | options))


def test_a_folder_of_something_else(tmp_path):
    (tmp_path / "scene0000_00").mkdir()  # not exported yet
    with pytest.raises(InputError, match=r"holds no exported ScanNet scan; it should hold scans/scene0000_00/\{color"):
        source(tmp_path)
