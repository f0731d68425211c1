import pickle

import numpy as np
import pycolmap
import pytest
from PIL import Image

from dataset_builders.geometry import is_rigid, view_points
from dataset_builders.scene import DropItem, InputError
from dataset_builders.sources import SourceOptions, open_source
from dataset_builders.sources.colmap import DtuSource, MipNerf360Source, lens_displacement
from tests.dataset_builders.miniatures_views import colmap_model, colmap_scene, walk
from tests.dataset_builders.scenes_for_tests import BREAKFAST, render


def source(folder, kind=MipNerf360Source, **options):
    return kind(SourceOptions(input_dir=folder, **options))


def load(folder, kind=MipNerf360Source, **options):
    one = source(folder, kind, **options)
    return one.load(one.list_items()[0])


def dropped(folder, **options):
    with pytest.raises(DropItem) as caught:
        load(folder, **options)
    return caught.value.reason


def assert_points_on_surfaces(views, exact, unit=1.0, close=0.02):
    """The sparse points of every view lie on the boxes, where the exact depth of the first view put them."""
    for view in views:
        v, u = np.nonzero(view.depth_m)
        assert len(u) > 50
        world = view_points(view, u, v) * unit
        first = exact[0]
        dense = view_points(first, *np.nonzero(first.depth_m)[::-1])
        nearest = np.linalg.norm(world[:, None] - dense[None, ::7], axis=-1).min(axis=1)
        assert np.median(nearest) < close


@pytest.mark.parametrize("text", [False, True])
def test_a_scene_has_opencv_poses_and_our_pixel_centres(tmp_path, text):
    exact = colmap_scene(tmp_path, text=text)
    scene = load(tmp_path)
    assert (scene.id, scene.source, scene.scale_source) == ("garden_0_5v", "mipnerf360", "colmap")
    assert not scene.metric and scene.posed and scene.up_world is None and scene.objects == ()
    for k, (view, true) in enumerate(zip(scene.views, exact)):
        np.testing.assert_allclose(view.camera_to_world, true.camera_to_world, atol=1e-6)
        assert is_rigid(view.camera_to_world)
        assert vars(view.intrinsics) == pytest.approx(vars(true.intrinsics), abs=1e-5)
        assert view.image_bytes == (tmp_path / "garden" / "images" / f"IMG_{k:04d}.JPG").read_bytes()
    assert_points_on_surfaces(scene.views, exact)


def test_sparse_depth_is_z_at_the_pixel_that_saw_the_point(tmp_path):
    exact = colmap_scene(tmp_path)
    view = load(tmp_path).views[0]
    seen = view.depth_m > 0
    assert 150 < seen.sum() <= 200 and view.depth_m.dtype == np.float32
    np.testing.assert_allclose(view.depth_m[seen], exact[0].depth_m[seen], rtol=1e-4)


def test_depth_has_the_unit_of_the_poses(tmp_path):
    exact = colmap_scene(tmp_path, scale=4.0)
    scene = load(tmp_path)
    seen = scene.views[0].depth_m > 0
    np.testing.assert_allclose(4 * scene.views[0].depth_m[seen], exact[0].depth_m[seen], rtol=1e-4)
    assert_points_on_surfaces(scene.views, exact, unit=4.0)


def test_of_two_points_at_one_pixel_the_nearer_counts_and_none_behind_the_camera(tmp_path):
    colmap_scene(tmp_path, count=2, points=5)
    model = tmp_path / "garden" / "sparse" / "0"
    reconstruction = pycolmap.Reconstruction(model)
    image = reconstruction.image(1)
    first = image.point2D(0)
    nearer = reconstruction.point3D(first.point3D_id).xyz
    centre = image.projection_center()
    other = image.point2D(1).point3D_id
    reconstruction.point3D(other).xyz = centre + 1.5 * (nearer - centre)
    image.point2D(1).xy = first.xy
    behind = image.point2D(2).point3D_id
    reconstruction.point3D(behind).xyz = 2 * centre - reconstruction.point3D(behind).xyz
    reconstruction.write_binary(model)
    view = load(tmp_path).views[0]
    assert (view.depth_m != 0).sum() == 3
    depth = float((image.cam_from_world() * nearer)[2])
    assert np.isclose(view.depth_m, depth, rtol=1e-5).any() and not np.isclose(view.depth_m, 1.5 * depth).any()


def shrink(folder, name, size, suffix=".JPG"):
    (folder / name).mkdir()
    for path in (folder / "images").iterdir():
        Image.open(path).resize(size).save((folder / name / path.name).with_suffix(suffix))


def test_quarter_size_images_are_preferred_and_rescale_the_camera(tmp_path):
    exact = colmap_scene(tmp_path)
    shrink(tmp_path / "garden", "images_2", (80, 60))
    shrink(tmp_path / "garden", "images_4", (40, 30), suffix=".png")
    view = load(tmp_path).views[0]
    assert view.image.shape == (30, 40, 3)
    old, new = exact[0].intrinsics, view.intrinsics
    assert (new.fx, new.fy) == pytest.approx((old.fx / 4, old.fy / 4))
    assert (new.cx, new.cy) == pytest.approx(((old.cx + 0.5) / 4 - 0.5, (old.cy + 0.5) / 4 - 0.5))
    assert_points_on_surfaces([view], exact, close=0.04)


def test_an_odd_size_is_rescaled_by_its_true_ratio(tmp_path):
    colmap_scene(tmp_path)
    shrink(tmp_path / "garden", "images_4", (81, 60))
    new = load(tmp_path).views[0].intrinsics
    assert new.fx / new.fy == pytest.approx(81 / 80)


def test_an_image_of_another_shape_is_left_out(tmp_path):
    colmap_scene(tmp_path)
    shrink(tmp_path / "garden", "images_4", (30, 30))
    assert dropped(tmp_path) == "size_mismatch"


# Lenses


def test_a_strong_lens_is_undistorted(tmp_path):
    """Draw what a distorting camera sees of the boxes, and find the boxes where a pinhole camera sees them."""
    views = [render(BREAKFAST, pose, width=160, height=120, focal=140.0) for pose in walk(2)]
    folder = tmp_path / "garden"
    camera = colmap_model(folder, views, ["0.png", "1.png"], model="SIMPLE_RADIAL", lens=[-0.12])
    assert lens_displacement(camera) > 0.01
    (folder / "images").mkdir()
    v, u = np.mgrid[:120, :160]
    rays = camera.cam_from_img(np.stack([u + 0.5, v + 0.5], axis=-1).reshape(-1, 2)).reshape(120, 160, 2)
    for k, view in enumerate(views):
        wide = render(BREAKFAST, view.camera_to_world, width=320, height=240, focal=140.0)
        at = np.rint(rays * 140.0 + (wide.intrinsics.cx, wide.intrinsics.cy)).astype(int)
        Image.fromarray(wide.image[at[..., 1], at[..., 0]]).save(folder / "images" / f"{k}.png")
    for view in load(tmp_path).views:
        new = view.intrinsics
        height, width = view.image.shape[:2]
        assert view.depth_m.shape == (height, width)
        true = render(BREAKFAST, view.camera_to_world, width=3 * width, height=3 * height, focal=new.fx)
        rows = np.rint(np.arange(height) - new.cy + true.intrinsics.cy).astype(int)
        columns = np.rint(np.arange(width) - new.cx + true.intrinsics.cx).astype(int)
        expected = true.image[rows][:, columns].astype(int)
        assert new.fx == pytest.approx(new.fy)
        assert np.mean(np.abs(view.image.astype(int) - expected).max(axis=-1) > 20) < 0.06
        assert view.image_bytes[:2] == b"\xff\xd8"  # a JPEG, whose pixels these are
    assert_points_on_surfaces(load(tmp_path).views, views, close=0.03)


@pytest.mark.parametrize("model", ["SIMPLE_RADIAL", "OPENCV"])
def test_a_weak_lens_leaves_the_file_alone(tmp_path, model):
    exact = colmap_scene(tmp_path, model=model, lens=[0.002] if model == "SIMPLE_RADIAL" else [0.002, 0, 0, 0])
    view = load(tmp_path).views[0]
    assert view.image.shape == exact[0].image.shape
    assert view.image_bytes == (tmp_path / "garden" / "images" / "IMG_0000.JPG").read_bytes()


# Items


def test_scenes_and_views(tmp_path):
    colmap_scene(tmp_path, "garden", count=5)
    colmap_scene(tmp_path, "bonsai", count=9)
    assert source(tmp_path).list_items() == ["bonsai@0", "garden@0"]
    assert source(tmp_path, views=2).list_items()[-2:] == ["garden@0", "garden@2"]
    stepped = source(tmp_path, views=2, frame_step=2)
    assert stepped.list_items() == ["bonsai@0", "bonsai@2", "garden@0"]
    whole = source(tmp_path, views=9).load("bonsai@0")
    np.testing.assert_array_equal(stepped.load("bonsai@2").views[0].image, whole.views[4].image)
    assert stepped.load("bonsai@2").id == "bonsai_2_2v"
    assert source(tmp_path, num_scenes=1).list_items() == ["bonsai@0"]


def test_dtu_has_its_own_folders(tmp_path):
    colmap_scene(tmp_path, "scan24", count=3, image_folder="image", suffix=".png")
    scene = load(tmp_path, DtuSource)
    assert (scene.source, scene.metric, scene.id) == ("dtu", False, "scan24_0_3v")
    assert isinstance(open_source("dtu", SourceOptions(input_dir=tmp_path)), DtuSource)
    with pytest.raises(InputError, match=r"holds no scene of mipnerf360; it should hold garden/\{images_4"):
        source(tmp_path)


def test_gravity_may_be_stated(tmp_path):
    colmap_scene(tmp_path, count=2)
    assert load(tmp_path, up_world=(0, 0, 2)).up_world.tolist() == [0, 0, 1]


def test_a_scene_name_in_other_bytes(tmp_path):
    name = b"gr\xfcn @ 1".decode("utf-8", "surrogateescape")
    colmap_scene(tmp_path, name, count=2)
    item = source(tmp_path).list_items()[0]
    item.encode("ascii")
    assert load(tmp_path).id.encode("ascii")


def test_it_travels_to_a_worker_and_loads_the_same(tmp_path):
    colmap_scene(tmp_path, count=2)
    here, there = load(tmp_path), pickle.loads(pickle.dumps(source(tmp_path))).load("garden@0")
    np.testing.assert_array_equal(here.views[1].depth_m, there.views[1].depth_m)


# Bad input


def test_images_without_a_pose_are_left_off(tmp_path):
    colmap_scene(tmp_path, count=3)
    extra = tmp_path / "garden" / "images" / "IMG_0001b.JPG"
    extra.write_bytes((tmp_path / "garden" / "images" / "IMG_0001.JPG").read_bytes())
    assert len(load(tmp_path).views) == 3
    assert dropped(tmp_path, views=4) == "too_few_views"


@pytest.mark.parametrize("name", ["images", "points3D"])
@pytest.mark.parametrize("damage", ["missing", "half", "last byte", "text"])
def test_a_damaged_model(tmp_path, name, damage):
    colmap_scene(tmp_path, count=2)
    path = tmp_path / "garden" / "sparse" / "0" / f"{name}.bin"
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        kept = {"half": content[: len(content) // 2], "last byte": content[:-1], "text": b"hello world"}
        path.write_bytes(kept[damage])
    assert dropped(tmp_path) == ("missing_file" if (name, damage) == ("images", "missing") else "bad_reconstruction")


def test_a_camera_file_that_ends_early(tmp_path):
    """pycolmap reads it as if nothing was missing, with whatever numbers memory holds."""
    colmap_scene(tmp_path, count=2)
    path = tmp_path / "garden" / "sparse" / "0" / "cameras.bin"
    path.write_bytes(path.read_bytes()[:-24])
    assert dropped(tmp_path) == "bad_reconstruction"


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ("0 140 80 60", "bad_intrinsics"),
        ("nan 140 80 60", "bad_reconstruction"),
        ("140 140 320 60", "intrinsics_size"),
    ],
)
def test_a_camera_that_is_none(tmp_path, parameters, reason):
    colmap_scene(tmp_path, count=2, text=True)
    (tmp_path / "garden/sparse/0/cameras.txt").write_text(f"1 PINHOLE 160 120 {parameters}\n")
    assert dropped(tmp_path) == reason


def test_a_damaged_image_and_a_turned_one(tmp_path):
    colmap_scene(tmp_path, count=2)
    path = tmp_path / "garden" / "images" / "IMG_0001.JPG"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path, exif=exif)
    assert dropped(tmp_path) == "rotated_image"
    path.write_bytes(path.read_bytes()[:300])
    assert dropped(tmp_path) == "unreadable_image"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_dir": None}, r"--input None is not a folder; give one with garden/\{images_4"),
        ({"views": 0}, "--views 0 is out of range"),
        ({"frame_step": 1.5}, "--frame-step 1.5 is no whole number"),
    ],
)
def test_mistakes_about_the_options(tmp_path, options, message):
    colmap_scene(tmp_path, count=2)
    with pytest.raises(InputError, match=message):
        MipNerf360Source(SourceOptions(**{"input_dir": tmp_path} | options))
