import io
import json
import os
import pickle
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset_builders.scene import DropItem, InputError, Intrinsics
from dataset_builders.schema import validate
from dataset_builders.sources import SourceOptions, open_source
from dataset_builders.sources.rgbd import RgbdSource
from dataset_builders.sources.synthetic import SyntheticSource
from dataset_builders.spatial_reasoning import build_record
from tests.dataset_builders.scenes_for_tests import BREAKFAST, UP, camera_pose, render, scene_of

POSE = camera_pose((0, 0, 0.5), pitch=20)


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


def write_view(folder, view, stem="", scale=1000):
    (folder / f"{stem}rgb.png").write_bytes(png(view.image))
    (folder / f"{stem}depth.png").write_bytes(png(np.round(view.depth_m * scale).astype(np.uint16)))
    (folder / f"{stem}instances.png").write_bytes(png(view.instances.astype(np.uint8)))
    return {"rgb": f"{stem}rgb.png", "depth": f"{stem}depth.png", "instances_map": f"{stem}instances.png"}


@cache
def still():
    return render(BREAKFAST, POSE)


def write_sample(folder, **changes):
    """A good sample of one view; `changes` replace manifest keys, None removes one."""
    folder.mkdir(parents=True, exist_ok=True)
    view = still()
    manifest = {"id": folder.name, "licence": "CC0-1.0", "depth_scale": 1000, "registered_to_rgb": True}
    manifest |= write_view(folder, view) | {"intrinsics": dict(vars(view.intrinsics))}
    manifest["instances"] = [
        {"value": number, "class_name": one.name, "is_support": one.is_support}
        for number, one in enumerate(BREAKFAST, start=1)
    ]
    manifest |= changes
    (folder / "manifest.json").write_text(json.dumps({key: value for key, value in manifest.items() if value != "-"}))
    return folder


def source(folder, **options):
    return RgbdSource(SourceOptions(input_dir=folder, **options))


def load(folder, **options):
    one = source(folder, **options)
    return one.load(one.list_items()[0])


def dropped(folder, **options):
    with pytest.raises(DropItem) as caught:
        load(folder, **options)
    assert str(folder.name) in caught.value.detail or "manifest" in caught.value.detail
    return caught.value.reason


def test_a_sample_becomes_a_scene(tmp_path):
    folder = write_sample(tmp_path / "good")
    scene, view = load(folder), render(BREAKFAST, POSE)
    assert (scene.id, scene.source, scene.licence, scene.split) == ("good", "rgbd", "CC0-1.0", "train")
    assert [one.name for one in scene.objects] == [one.name for one in BREAKFAST]
    assert scene.objects[0].is_support
    np.testing.assert_allclose(scene.views[0].depth_m, view.depth_m, atol=0.0006)
    np.testing.assert_array_equal(scene.views[0].instances, view.instances)
    assert scene.views[0].intrinsics == view.intrinsics
    assert scene.views[0].image_bytes == (folder / "rgb.png").read_bytes()
    assert validate(build_record(scene, seed=0)) == []


def test_gravity_comes_from_the_support_or_from_the_user_or_not_at_all(tmp_path):
    expected = POSE[:3, :3].T @ UP  # the single view's camera is the world
    assert load(write_sample(tmp_path / "a")).up_world @ expected > 0.9999
    instances = [{"value": 1, "class_name": "table"}, {"value": 2, "class_name": "box"}]
    bare = write_sample(tmp_path / "b", instances=instances)
    assert load(bare).up_world is None
    assert load(bare, up_world=(0, -2, 0)).up_world.tolist() == [0, -1, 0]
    told = write_sample(tmp_path / "c", instances=instances, up_world=[0, -3, -4])
    np.testing.assert_allclose(load(told, up_world=(1, 0, 0)).up_world, [0, -0.6, -0.8])
    assert dropped(write_sample(tmp_path / "d", up_world=[0, 0, 0])) == "bad_manifest"


def test_a_folder_of_samples_is_read_in_order_and_can_be_cut(tmp_path):
    for name in ("b", "a", "deep/c"):
        write_sample(tmp_path / name)
    assert list(source(tmp_path).list_items()) == ["a@0", "b@0", "deep/c@0"]
    assert list(source(tmp_path, num_scenes=2).list_items()) == ["a@0", "b@0"]
    assert source(tmp_path).load("deep/c@0").id == "c"
    assert isinstance(open_source("rgbd", SourceOptions(input_dir=tmp_path)), RgbdSource)


def test_instance_masks_in_files_of_their_own(tmp_path):
    folder = write_sample(tmp_path / "masks", instances_map="-")
    instances = render(BREAKFAST, POSE).instances
    listed = []
    for number in (2, 3):
        (folder / f"mask{number}.png").write_bytes(png((255 * (instances == number)).astype(np.uint8)))
        listed.append({"mask": f"mask{number}.png", "class_name": f"thing_{'ab'[number - 2]}"})
    manifest = json.loads((folder / "manifest.json").read_text()) | {"instances": listed}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    scene = load(folder)
    np.testing.assert_array_equal(scene.views[0].instances == 1, instances == 2)
    assert [(one.id, one.name) for one in scene.objects] == [(1, "thing a"), (2, "thing b")]


def test_instances_as_components_of_one_mask(tmp_path):
    mask = np.zeros((240, 320), np.uint8)
    mask[100:120, 30:60], mask[50:80, 200:240], mask[150:160, 10:20] = 255, 255, 255
    listed = [{"component": 2, "class_name": "glass"}, {"component": 1, "class_name": "vase"}]
    folder = write_sample(tmp_path / "sample", instances_map="-", mask="mask.png", instances=listed)
    (folder / "mask.png").write_bytes(png(mask))
    scene = load(folder)
    instances = scene.views[0].instances
    assert [(one.id, one.name) for one in scene.objects] == [(1, "glass"), (2, "vase")]
    assert (instances[100:120, 30:60] == 1).all() and (instances[50:80, 200:240] == 2).all()
    assert (instances > 0).sum() == 20 * 30 + 30 * 40
    assert scene.views[0].depth_m[110, 40] > 0  # what the mask means for the depth is for the gates to say


def test_a_crowd_is_no_object_and_boxes_without_masks_are_none(tmp_path):
    listed = [{"value": 1, "class_name": "table"}, {"value": 3, "class_name": "people", "iscrowd": 1}]
    scene = load(write_sample(tmp_path / "crowd", instances=listed))
    assert [one.name for one in scene.objects] == ["table"] and 3 not in scene.views[0].instances
    boxes = load(write_sample(tmp_path / "boxes", instances_map="-", instances=[{"class_name": "car"}]))
    assert boxes.objects == () and boxes.views[0].instances is None


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_dir": None}, "--input None is not a folder"),
        ({"input_dir": Path("/nowhere")}, "--input /nowhere is not a folder"),
        ({"input_dir": Path(__file__).parent / "snapshots"}, "holds no manifest.json"),
        ({"input_dir": Path(__file__).parent, "views": 65}, "--views 65 is out of range; choose 1 to 64"),
    ],
)
def test_mistakes_about_the_whole_input(options, message):
    with pytest.raises(InputError, match=message):
        RgbdSource(SourceOptions(**options))


def test_an_unknown_source_lists_the_known_ones():
    with pytest.raises(InputError, match=r"--source 'kinect' is unknown; choose one of dtu, .*rgbd, .*synthetic\."):
        open_source("kinect", SourceOptions())


@pytest.mark.parametrize("name", ["rgb.png", "depth.png", "instances.png"])
def test_missing_file(tmp_path, name):
    folder = write_sample(tmp_path / "sample")
    (folder / name).unlink()
    assert dropped(folder) == "missing_file"


@pytest.mark.parametrize("name", ["rgb.png", "depth.png", "instances.png"])
@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_unreadable_images(tmp_path, name, damage):
    folder = write_sample(tmp_path / "sample")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes({"truncated": content[: len(content) // 2], "text": b"hello", "empty": b""}[damage])
    assert dropped(folder) == "unreadable_image"


def test_truncated_jpeg(tmp_path):
    folder = write_sample(tmp_path / "sample", rgb="rgb.jpg")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8))
    image.save(folder / "rgb.jpg")
    assert load(folder).views[0].image_bytes == (folder / "rgb.jpg").read_bytes()
    (folder / "rgb.jpg").write_bytes((folder / "rgb.jpg").read_bytes()[:5000])
    assert dropped(folder) == "unreadable_image"


@pytest.mark.parametrize("name", ["rgb.png", "instances.png"])
def test_sizes_that_differ(tmp_path, name):
    folder = write_sample(tmp_path / "sample")
    Image.open(folder / name).resize((160, 120)).save(folder / name)
    assert dropped(folder) == "size_mismatch"


def test_depth_of_all_zeros(tmp_path):
    folder = write_sample(tmp_path / "sample")
    (folder / "depth.png").write_bytes(png(np.zeros((240, 320), dtype=np.uint16)))
    assert dropped(folder) == "no_depth_readings"


@pytest.mark.parametrize("scale", [1, 1e6])
def test_wrong_depth_scale_is_refused_by_name(tmp_path, scale):
    folder = write_sample(tmp_path / "sample", depth_scale=scale)
    with pytest.raises(DropItem, match="depth_scale .* is wrong") as caught:
        load(folder)
    assert caught.value.reason == "depth_scale"


@pytest.mark.parametrize("kind", ["rgb", "eight bits"])
def test_depth_that_is_a_picture(tmp_path, kind):
    folder = write_sample(tmp_path / "sample")
    shape = (240, 320, 3) if kind == "rgb" else (240, 320)
    (folder / "depth.png").write_bytes(png(np.full(shape, 200, dtype=np.uint8)))
    assert dropped(folder) == "depth_format"


def test_values_that_mean_no_reading(tmp_path):
    folder = write_sample(tmp_path / "sample", depth_invalid_values=[0, 65535])
    depth = np.asarray(Image.open(folder / "depth.png")).copy()
    depth[:10] = 65535
    (folder / "depth.png").write_bytes(png(depth))
    assert (load(folder).views[0].depth_m[:10] == 0).all()


def test_far_readings_survive_storage_and_sky_does_not(tmp_path):
    folder = write_sample(tmp_path / "sample", depth="depth.tiff", depth_scale=1)
    depth = render(BREAKFAST, POSE).depth_m
    depth[0, :4] = [65.536, 99.0, 10000.0, np.inf]
    depth[1, 0] = np.nan
    Image.fromarray(depth).save(folder / "depth.tiff")
    found = load(folder).views[0].depth_m
    assert found[0, :4].tolist() == [np.float32(65.536), 99.0, 0.0, 0.0] and found[1, 0] == 0


def test_no_intrinsics_says_what_to_pass(tmp_path):
    folder = write_sample(tmp_path / "sample", intrinsics=None)
    with pytest.raises(DropItem, match="pass --intrinsics fx,fy,cx,cy in pixels") as caught:
        load(folder)
    assert caught.value.reason == "no_intrinsics"
    given = Intrinsics(300, 310, 150, 130)
    assert load(folder, intrinsics=given).views[0].intrinsics == given
    assert dropped(folder, intrinsics=Intrinsics(600, 620, 300, 260)) == "intrinsics_size"


@pytest.mark.parametrize("fx", [0, -500, float("nan")])
def test_impossible_intrinsics(tmp_path, fx):
    assert dropped(write_sample(tmp_path / "s", intrinsics={"fx": fx, "fy": 1, "cx": 1, "cy": 1})) == "bad_intrinsics"


def test_unregistered_depth(tmp_path):
    assert dropped(write_sample(tmp_path / "sample", registered_to_rgb=False)) == "not_registered"


@pytest.mark.parametrize("content", ["{", "[]", "null", '"text"'])
def test_a_manifest_that_is_none(tmp_path, content):
    folder = write_sample(tmp_path / "sample")
    (folder / "manifest.json").write_text(content)
    assert dropped(folder) == "bad_manifest"


@pytest.mark.parametrize("key", ["rgb", "depth_scale"])
def test_a_manifest_that_lacks_a_key(tmp_path, key):
    assert dropped(write_sample(tmp_path / "sample", **{key: "-"})) == "bad_manifest"


@pytest.mark.parametrize("depth", [None, "-"])
def test_a_sample_without_depth_waits_for_a_model(tmp_path, depth):
    folder = write_sample(tmp_path / "sample", depth=depth, depth_scale="-", intrinsics=None)
    (view,) = load(folder).views
    assert not view.has_depth and view.depth_m.shape == (240, 320) and not view.intrinsics.known
    np.testing.assert_array_equal(view.instances, render(BREAKFAST, POSE).instances)
    assert view.image_bytes is not None and load(folder).scale_source == "none" and load(folder).up_world is None
    given = Intrinsics(300, 310, 150, 130)
    assert load(folder, intrinsics=given).views[0].intrinsics == given
    stated = write_sample(tmp_path / "stated", depth=depth)
    assert load(stated, intrinsics=given).views[0].intrinsics == render(BREAKFAST, POSE).intrinsics


def test_the_focal_length_of_exif_serves_where_there_is_no_depth(tmp_path):
    folder = write_sample(tmp_path / "sample", rgb="rgb.jpg", depth=None, intrinsics=None)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[0xA405] = 36
    Image.open(folder / "rgb.png").save(folder / "rgb.jpg", exif=exif)
    (view,) = load(folder).views
    assert view.intrinsics == Intrinsics(320, 320, 119.5, 159.5) and view.image.shape == (320, 240, 3)


@pytest.mark.parametrize(
    "changes", [{"width": 640, "height": 480}, {"intrinsics": {"fx": 554, "fy": 554, "cx": 319.5, "cy": 239.5}}]
)
def test_intrinsics_of_another_resolution(tmp_path, changes):
    assert dropped(write_sample(tmp_path / "sample", **changes)) == "intrinsics_size"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -2.0])
def test_readings_that_are_none(tmp_path, bad):
    folder = write_sample(tmp_path / "sample", depth="depth.tiff", depth_scale=1)
    depth = render(BREAKFAST, POSE).depth_m
    depth[:100] = bad
    Image.fromarray(depth).save(folder / "depth.tiff")
    found = load(folder).views[0].depth_m
    assert (found[:100] == 0).all() and np.isfinite(found).all() and found.max() > 0
    Image.fromarray(np.full_like(depth, bad)).save(folder / "depth.tiff")
    assert dropped(folder) == "no_depth_readings"


@pytest.mark.parametrize("scale", [0, -1000, "Infinity", "many"])
def test_a_depth_scale_that_is_no_number(tmp_path, scale):
    reason = "bad_manifest" if scale == "many" else "depth_scale"
    assert dropped(write_sample(tmp_path / "sample", depth_scale=scale)) == reason


def test_samples_that_share_an_id_become_scenes_of_their_own(tmp_path):
    for name in ("a/sample", "b/sample", "b_sample", "c"):
        write_sample(tmp_path / name, id="c" if name == "c" else "sample")
    one = source(tmp_path)
    items = list(one.list_items())
    assert items == ["a/sample:shared-id@0", "b/sample:shared-id@0", "b_sample:shared-id@0", "c@0"]
    ids = [one.load(item).id for item in items]
    assert len(set(ids)) == 4 and ids[3] == "c" and all("/" not in name for name in ids)


def test_folders_whose_names_are_no_utf8(tmp_path):
    write_sample(tmp_path / os.fsdecode(b"caf\xe9"), id="-")
    one = source(tmp_path)
    (item,) = one.list_items()
    assert item == "caf%E9@0" and one.load(item).id.isascii()
    (tmp_path / os.fsdecode(b"caf\xe9") / "rgb.png").unlink()
    with pytest.raises(DropItem, match="caf%E9/rgb.png"):
        one.load(item)


def test_loading_is_pure_and_survives_pickling(tmp_path):
    one = source(write_sample(tmp_path / "sample"))
    first, second = one.load(".@0"), pickle.loads(pickle.dumps(one)).load(".@0")
    np.testing.assert_array_equal(first.views[0].depth_m, second.views[0].depth_m)
    assert RgbdSource.how_to_get.endswith(".") and SyntheticSource.how_to_get.endswith(".")


def test_instances_of_several_channels(tmp_path):
    folder = write_sample(tmp_path / "sample")
    (folder / "instances.png").write_bytes(png(np.zeros((240, 320, 3), dtype=np.uint8)))
    assert dropped(folder) == "bad_instances"


def test_an_instance_map_without_any_object(tmp_path):
    folder = write_sample(tmp_path / "sample")
    (folder / "instances.png").write_bytes(png(np.zeros((240, 320), dtype=np.uint8)))
    scene = load(folder)
    with pytest.raises(DropItem) as caught:
        build_record(scene, seed=0)
    assert caught.value.reason in ("no_objects", "fewer_than_two_objects")
    assert validate(build_record(scene, seed=0, allow_partial=True)) == []


def test_an_empty_mask_leaves_the_names_of_the_others_alone(tmp_path):
    folder = write_sample(tmp_path / "sample")
    instances = render(BREAKFAST, POSE).instances
    (folder / "instances.png").write_bytes(png(np.where(instances == 3, 0, instances).astype(np.uint8)))
    record = build_record(load(folder), seed=0)
    assert [row["name"] for row in record["objects"]] == ["table", "cereal box", "scissors", "lamp"]
    assert [row["id"] for row in record["objects"]] == [1, 2, 4, 5]


# Pictures of all kinds


@pytest.mark.parametrize("mode", ["RGBA", "P", "L", "LA", "CMYK", "1"])
def test_other_modes_become_rgb_and_are_stored_anew(tmp_path, mode):
    folder = write_sample(tmp_path / "sample", rgb="picture.tiff" if mode == "CMYK" else "picture.png")
    picture = Image.open(folder / "rgb.png").convert(mode)
    picture.save(folder / ("picture.tiff" if mode == "CMYK" else "picture.png"))
    view = load(folder).views[0]
    assert view.image.shape == (240, 320, 3) and view.image.dtype == np.uint8
    assert view.image_bytes is None


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (6, 1), (3, 2), (8, 3)])
def test_a_rotation_in_exif_turns_picture_depth_masks_and_camera(tmp_path, orientation, turns):
    folder = write_sample(tmp_path / "sample", rgb="rgb.jpg")
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.open(folder / "rgb.png").save(folder / "rgb.jpg", exif=exif, quality=95)
    straight = load(write_sample(tmp_path / "straight")).views[0]
    view = load(folder).views[0]
    np.testing.assert_array_equal(view.depth_m, np.rot90(straight.depth_m, -turns))
    np.testing.assert_array_equal(view.instances, np.rot90(straight.instances, -turns))
    assert np.abs(view.image.astype(int) - np.rot90(straight.image, -turns)).mean() < 3
    assert (view.image_bytes is None) == bool(turns)
    from dataset_builders.geometry import view_points

    v, u = np.nonzero(straight.instances == 3)
    turned_v, turned_u = np.nonzero(view.instances == 3)
    there = view_points(straight, u, v)
    here = view_points(view, turned_u, turned_v)
    order = np.lexsort(there.round(6).T), np.lexsort(here.round(6).T)
    np.testing.assert_allclose(there[order[0]], here[order[1]], atol=1e-5)
    assert validate(build_record(load(folder), seed=0)) == []


def test_a_mirrored_picture_is_left_out(tmp_path):
    folder = write_sample(tmp_path / "sample", rgb="rgb.jpg")
    exif = Image.Exif()
    exif[0x0112] = 2
    Image.open(folder / "rgb.png").save(folder / "rgb.jpg", exif=exif)
    assert dropped(folder) == "mirrored_image"


# Several posed views


def write_sequence(folder, count=5, **changes):
    folder.mkdir(parents=True)
    frames = []
    for number in range(count):
        pose = camera_pose((0.1 * number, 0, 0.5), yaw=3 * number, pitch=20)
        frame = write_view(folder, render(BREAKFAST, pose), stem=f"{number}_")
        frames.append(frame | {"pose_cam_to_world": pose.tolist()} | changes.get(f"frame{number}", {}))
    listed = [{"value": k, "class_name": one.name, "is_support": one.is_support} for k, one in enumerate(BREAKFAST, 1)]
    manifest = {"id": folder.name, "depth_scale": 1000, "frames": frames, "instances": listed}
    manifest["intrinsics"] = dict(vars(render(BREAKFAST, POSE).intrinsics))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_sequence_is_one_scene_or_several(tmp_path):
    folder = write_sequence(tmp_path / "walk")
    assert list(source(folder).list_items()) == [".@0"]
    whole = load(folder)
    assert len(whole.views) == 5 and whole.id == "walk"
    pairs = source(folder, views=2)
    assert list(pairs.list_items()) == [".@0", ".@2"]
    scenes = [pairs.load(item) for item in pairs.list_items()]
    assert [scene.id for scene in scenes] == ["walk_0_2v", "walk_2_2v"]
    np.testing.assert_allclose(scenes[1].views[0].camera_to_world, whole.views[2].camera_to_world)
    assert whole.up_world @ UP > 0.9999
    single = build_record(scenes[0], seed=0)
    assert len(single["images"]) == 2 and validate(single) == []


def test_too_few_views(tmp_path):
    assert dropped(write_sequence(tmp_path / "walk", count=2), views=4) == "too_few_views"
    assert dropped(write_sample(tmp_path / "sample"), views=2) == "too_few_views"


@pytest.mark.parametrize("spoil", ["nan", "inf", "mirror", "missing", "shape"])
def test_poses_that_are_not_rigid(tmp_path, spoil):
    pose = camera_pose((0.1, 0, 0.5), pitch=20)
    if spoil in ("nan", "inf"):
        pose[0, 3] = float(spoil)
    elif spoil == "mirror":
        pose[:3, 0] *= -1
    folder = write_sequence(
        tmp_path / "walk", frame1={"pose_cam_to_world": pose[: 3 if spoil == "shape" else 4].tolist()}
    )
    if spoil == "missing":
        manifest = json.loads((folder / "manifest.json").read_text())
        del manifest["frames"][1]["pose_cam_to_world"]
        (folder / "manifest.json").write_text(json.dumps(manifest))
    assert dropped(folder) == "bad_pose"


def test_a_sequence_without_any_pose_is_not_posed(tmp_path):
    folder = write_sequence(tmp_path / "walk", count=3)
    manifest = json.loads((folder / "manifest.json").read_text())
    for frame in manifest["frames"]:
        del frame["pose_cam_to_world"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert not load(folder).posed and len(load(folder).views) == 3
    assert load(folder, views=1).posed


def test_the_scale_of_poses_may_be_unknown(tmp_path):
    folder = write_sequence(tmp_path / "walk", count=2)
    manifest = json.loads((folder / "manifest.json").read_text()) | {"metric_scale": False, "depth": None}
    for frame in manifest["frames"]:
        del frame["depth"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    scene = load(folder)
    assert scene.posed and not scene.metric and scene.scale_source == "poses"


def test_a_long_sequence_is_cut_into_eights_unless_more_are_asked_for(tmp_path):
    folder = write_sequence(tmp_path / "walk", count=10)
    assert list(source(folder).list_items()) == [".@0"] and len(load(folder).views) == 8
    assert len(load(folder, views=10).views) == 10


def test_one_bad_sample_touches_no_other(tmp_path):
    for number in range(6):
        write_sample(tmp_path / f"s{number}")
    (tmp_path / "s3" / "rgb.png").write_bytes(b"no")
    one, reasons = source(tmp_path), []
    for item in one.list_items():
        try:
            one.load(item)
        except DropItem as drop:
            reasons.append((item, drop.reason))
    assert reasons == [("s3@0", "unreadable_image")]


def test_loading_and_rendering_agree_on_the_dialogue(tmp_path):
    """The same place through files and directly: the millimetres of the PNG are all that may differ."""
    built = build_record(load(write_sample(tmp_path / "boxes")), seed=0)
    direct = build_record(scene_of(BREAKFAST, [POSE]), seed=0)
    assert [turn["kind"] for turn in built["turns"]] == [turn["kind"] for turn in direct["turns"]]
    for here, there in zip(built["turns"], direct["turns"]):
        assert here["object_ids"] == there["object_ids"]
        if here["value"] is not None and here["object_ids"]:  # which points are drawn depends on every millimetre
            assert here["value"] == pytest.approx(there["value"], abs=0.02)


# Real samples

REALDATA = Path(__file__).parents[3] / "shared" / "realdata"
with_realdata = pytest.mark.skipif(not REALDATA.is_dir(), reason=f"no real data in {REALDATA}")


@with_realdata
@pytest.mark.parametrize(
    "folder", ["coco_tiny", "research_only/coco_tiny", "research_only/kitti_object", "research_only/nyuv2_mini"]
)
def test_real_samples_load(folder):
    one = source(REALDATA / folder)
    scenes = [one.load(item) for item in one.list_items()]
    assert len(scenes) > 2 and len({scene.id for scene in scenes}) == len(scenes)
    for scene in scenes:
        (view,) = scene.views
        assert view.has_depth != ("coco" in folder) and view.intrinsics.known == view.has_depth
        seen = set() if view.instances is None else set(np.unique(view.instances)) - {0}
        assert seen <= {item.id for item in scene.objects}


@with_realdata
def test_components_of_real_masks_have_the_pixels_that_their_manifests_count():
    one = source(REALDATA / "cleargrasp_d435")
    for item in one.list_items():
        scene = one.load(item)
        manifest = json.loads((REALDATA / "cleargrasp_d435" / item.split("@")[0] / "manifest.json").read_text())
        for found, listed in zip(scene.objects, manifest["instances"], strict=True):
            assert (scene.views[0].instances == found.id).sum() == listed["pixels"]


@with_realdata
@pytest.mark.parametrize(("folder", "posed"), [("opensfm_lund", False), ("research_only/ngp_fox", True)])
def test_real_sequences_without_depth(folder, posed):
    scene = load(REALDATA / folder)
    assert scene.posed == posed and scene.metric != posed and not scene.views[0].has_depth
    assert scene.views[0].intrinsics.known
