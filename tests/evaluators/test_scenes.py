"""Features that are fused over posed views, and what is measured with them: classes of points, registration."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from transformers import AutoModel

from evaluators.catalogue import parse_tasks
from evaluators.encoders import load_encoder
from evaluators.scenes import registration, scene_segmentation
from evaluators.scenes.alignment import kabsch, mutual_matches, pose_errors, ransac
from evaluators.scenes.fusion import Job, fuse, fused_features, sample_bicubic, seen_points
from evaluators.scenes.loading import load_scenes
from evaluators.scenes.rooms import load_rooms
from evaluators.scenes.scene import Camera, View, spread, thin_out, unproject
from tests.commands import build
from tests.commands import evaluate as main


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes") / "rooms"
    arguments = ["--source", "synthetic", "--num-scenes", "6", "--views", "4", "--resolution", "48"]
    assert build([*arguments, "--output", str(folder), "--seed", "1"]) == 0
    return folder


def flat_view(depth_m=2.0, size=(24, 32)):
    pose = np.eye(4)
    pose[:3, 3] = 1, 2, 3
    camera = Camera(20.0, 25.0, 15.5, 11.5, pose)
    return View(Image.new("RGB", (64, 48)), np.full(size, depth_m, np.float32), camera)


def test_points_are_seen_in_the_pixels_they_come_from():
    view = flat_view()
    xyz, pixels = unproject(view)
    assert xyz[0] == pytest.approx([1 - 15.5 / 20 * 2, 2 - 11.5 / 25 * 2, 5])
    places, rows, columns = seen_points(xyz, view)
    assert (rows * 32 + columns == pixels[places]).all()
    assert rows.min() == 1 and rows.max() == 22 and columns.min() == 1 and columns.max() == 30  # 10 / 320 of 32 cut


@pytest.mark.parametrize(("depth_m", "is_seen"), [(1.5, False), (1.61, True), (2.6, True), (2.7, False), (0, False)])
def test_the_depth_test_allows_a_quarter_of_the_depth(depth_m, is_seen):
    view = flat_view(depth_m)
    assert len(seen_points(np.array([[1, 2, 5]], np.float32), view)[0]) == is_seen  # the point is 2 m away


def test_what_is_behind_the_camera_is_not_seen():
    assert len(seen_points(np.array([[1, 2, 1]], np.float32), flat_view())[0]) == 0


def test_sampling_equals_the_whole_bicubic_map():
    features = torch.randn(3, 4, 5)
    whole = functional.interpolate(features[None], (24, 32), mode="bicubic", align_corners=False)[0]
    rows, columns = (grid.ravel() for grid in np.mgrid[:24, :32])
    sampled = sample_bicubic(features, rows, columns, (24, 32))
    assert torch.allclose(sampled, whole.flatten(1).T, atol=1e-5)


class _OneView:
    """A scene of given views."""

    id, fingerprint = "one", "one"

    def __init__(self, views):
        self.views, self.num_views = views, len(views)

    def view(self, index):
        return self.views[index]


def test_fusion_is_the_mean_over_the_views_that_see_a_point(encoder_folders):
    encoder = load_encoder(encoder_folders("dinov3"))
    random = np.random.default_rng(0)
    images = [Image.fromarray(random.integers(0, 255, (48, 64, 3), np.uint8)) for _ in range(2)]
    views = [flat_view()._replace(image=image) for image in images]
    views[1].depth_m[:, :16] = 0  # the second sees the right half
    xyz, pixels = unproject(views[0])
    scene = _OneView(views)
    one, two, both = (fuse(encoder, Job(scene, chosen, xyz), (32, 32)) for chosen in ([0], [1], [0, 1]))
    left = (pixels % 32 > 1) & (pixels % 32 < 16) & np.isfinite(one[:, 0])
    right = np.isfinite(two[:, 0])
    assert np.isnan(two[left]).all() and right.sum() == 22 * 15
    assert np.array_equal(both[left], one[left])
    assert np.allclose(both[right], (one[right].astype(float) + two[right]) / 2, atol=2e-3)
    assert np.isnan(both[0]).all()  # on the border


def test_an_encoder_runs_once_over_a_scene(encoder_folders, tmp_path, monkeypatch):
    encoder = load_encoder(encoder_folders("dinov3"))
    view = flat_view()
    jobs = [Job(_OneView([view]), [0], unproject(view)[0])]
    (first,) = fused_features(encoder, jobs, (32, 32), tmp_path)
    monkeypatch.setattr("evaluators.scenes.fusion.fuse", lambda *_: pytest.fail("the encoder ran again"))
    (second,) = fused_features(encoder, jobs, (32, 32), tmp_path)
    assert torch.equal(first.nan_to_num(), second.nan_to_num())


def test_thinning_keeps_the_first_point_of_each_cube():
    xyz = np.array([[0.01, 0.01, 0.01], [0.09, 0.02, 0.03], [0.11, 0, 0], [-0.01, 0, 0]])
    assert thin_out(xyz, 0.1).tolist() == [0, 2, 3]
    assert spread(5, None) == [0, 1, 2, 3, 4] and spread(5, 3) == [0, 2, 4] and spread(2, 3) == [0, 1]


def rotation_about_z(degrees):
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    pose = torch.eye(4, dtype=torch.float64)
    pose[:2, :2] = torch.tensor([[cosine, -sine], [sine, cosine]])
    pose[:3, 3] = torch.tensor([0.3, -0.4, 1.2])
    return pose


def test_kabsch_finds_the_pose_and_never_a_mirror_image():
    truth, points = rotation_about_z(120), torch.randn(20, 3, dtype=torch.float64)
    moved = points @ truth[:3, :3].T + truth[:3, 3]
    assert torch.allclose(kabsch(points, moved), truth)
    mirrored = kabsch(points, points * torch.tensor([-1.0, 1, 1]))
    assert torch.linalg.det(mirrored[:3, :3]) == pytest.approx(1)


def test_ransac_withstands_wrong_matches():
    truth, points = rotation_about_z(70), torch.randn(100, 3, dtype=torch.float64)
    moved = points @ truth[:3, :3].T + truth[:3, 3]
    moved[:70] = torch.randn(70, 3, dtype=torch.float64)  # seven in ten are wrong
    assert torch.allclose(ransac(points, moved, seed=0), truth, atol=1e-6)
    assert torch.equal(ransac(points[:2], moved[:2], seed=0), torch.eye(4, dtype=torch.float64))


def test_matches_are_mutual():
    source, target = torch.tensor([[1.0, 0], [0.9, 0.1], [0, 1]]), torch.tensor([[0, 2.0], [3, 0]])
    assert mutual_matches(source, target).tolist() == [[0, 1], [2, 0]]


def test_errors_of_a_pose_and_their_scores():
    turned = rotation_about_z(90)
    translation, rotation = pose_errors(turned, torch.eye(4))
    assert translation == pytest.approx(1.3) and rotation == pytest.approx(90)
    assert pose_errors(turned, turned) == (pytest.approx(0), pytest.approx(0, abs=1e-5))
    scores = registration.aggregate(np.array([[0.04, 1], [0.05, 2], [0.31, 9], [0, 0]]))
    assert scores == {"recall": 50.0, "rte_m": pytest.approx(0.1), "rre_deg": 3.0}


def test_scores_of_classes_are_over_the_data_set():
    # per class: right, predicted, true; two scenes; the third class is nowhere
    items = np.array([[3, 1, 0, 4, 1, 0, 3, 2, 0], [1, 0, 0, 1, 1, 0, 2, 0, 0]], float)
    scores = scene_segmentation.aggregate(items)
    assert scores["mean_iou"] == pytest.approx(100 * (4 / 6 + 1 / 3) / 2)
    assert scores["accuracy"] == pytest.approx(100 * 5 / 7)
    assert scores["mean_accuracy"] == pytest.approx(100 * (4 / 5 + 1 / 2) / 2)


def test_the_full_protocol_is_lexicon3d_s(tmp_path):
    config = scene_segmentation.Config(data_set="scannet", data="x", cache_dir=tmp_path)
    assert (config.epochs, config.learning_rate, config.weight_decay) == (20, 1e-4, 1e-5)
    assert config.resolution == (240, 320) and config.frame_step == 20 and config.max_views is None
    small = scene_segmentation.Config(data_set="scannet", data="x", cache_dir=tmp_path, preset="cpu")
    assert small.limit == 12 and small.max_points == 4000


def test_rooms_join_poses_and_depth(rooms):
    data = load_rooms(str(rooms))
    scene = data.train[0]
    assert scene.num_views == 4 and len(data.train) + len(data.test) <= 6
    xyz, _ = unproject(scene.view(0))
    places, *_ = seen_points(xyz, scene.view(1))
    assert 0.2 < len(places) / len(xyz) < 1  # the poses are those of the depth maps
    points = scene.points()
    assert points.class_ids.max() < len(data.class_names)
    assert points.xyz_m[:, 2].min() == pytest.approx(0, abs=0.01)  # the floor
    assert load_rooms(str(rooms), limit=1).describe()["splits"]["train"]["items"] == 1


def test_rooms_without_poses_are_not_measured(dense_folder, rooms, encoder_folders, tmp_path, capsys):
    folder, data = encoder_folders("dinov3"), tmp_path / "data"
    arguments = ["--base", folder, "--boosted", folder, "--output", str(tmp_path / "report"), "--preset", "cpu"]
    assert main([*arguments, "--data", str(dense_folder), "--tasks", "scenes"]) == 2
    assert "has no configuration 'multi_view', so no poses: build them with" in capsys.readouterr().err
    assert build(["--source", "synthetic", "--num-scenes", "4", "--resolution", "64", "--output", str(data)]) == 0
    assert main([*arguments, "--data", str(data), "--tasks", "scenes"]) == 2
    assert "has 4 posed views in split train: build them with" in capsys.readouterr().err


@pytest.fixture(scope="module")
def damaged(encoder_folders, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged") / "encoder"
    shutil.copytree(encoder_folders("dinov3"), folder)
    model = AutoModel.from_pretrained(folder)
    with torch.no_grad():
        model.norm.weight[:] = 0  # every token says the same
    model.save_pretrained(folder)
    return folder


def test_a_damaged_encoder_is_worse_and_an_equal_one_equal(rooms, encoder_folders, damaged, tmp_path):
    folder = encoder_folders("dinov3")
    arguments = ["--data", str(rooms), "--tasks", "scenes", "--preset", "cpu", "--resolution", "96"]
    arguments += ["--set", "scene_segmentation.epochs=30", "--cache-dir", str(tmp_path / "cache")]
    assert main(["--base", folder, "--boosted", str(damaged), "--output", str(tmp_path / "a"), *arguments]) == 0
    results = json.loads((tmp_path / "a" / "results.json").read_text())["tasks"]
    assert results.keys() == {"scene_segmentation/rooms", "registration/rooms"}
    for entry, metric in (("scene_segmentation/rooms", "accuracy"), ("registration/rooms", "rte_m")):
        row = results[entry]["metrics"][metric]
        loss = row["difference"]["mean"] * (-1 if row["higher_is_better"] else 1)
        assert loss > 0, entry
    rte = results["registration/rooms"]["metrics"]["recall"]
    assert rte["controls"]["constant"] == 0 and rte["controls"]["true_matches"] == 100
    for entry in results.values():
        with Image.open(tmp_path / "a" / entry["picture"]) as picture:
            assert picture.width > 600
    assert main(["--base", folder, "--boosted", folder, "--output", str(tmp_path / "b"), *arguments]) == 0
    equal = json.loads((tmp_path / "b" / "results.json").read_text())["tasks"]
    for row in (row for entry in equal.values() for row in entry["metrics"].values()):
        assert row["difference"]["mean"] == 0 and row["difference"]["interval"] == [0, 0]


def test_upstream_compat_repeats_the_double_softmax(rooms, encoder_folders, tmp_path):
    encoder = load_encoder(encoder_folders("dinov2"))
    common = {"data_set": "rooms", "data": str(rooms), "cache_dir": tmp_path, "preset": "cpu", "seeds": (0,)}
    ours, theirs = (
        scene_segmentation.evaluate(encoder, scene_segmentation.Config(**common, epochs=2, upstream_compat=compat))
        for compat in (False, True)
    )
    assert not np.array_equal(ours["items"][0], theirs["items"][0])
    assert theirs["encoder"]["preprocessing"]["mean"] == scene_segmentation.CLIP_MEAN
    assert any("softmax before" in note for note in theirs["protocol"]["notes"])


def test_the_family_has_its_tasks():
    assert {"scene_segmentation", "registration"} <= set(parse_tasks("scenes"))


def test_a_limit_cuts_scenes_and_zero_is_refused(rooms, tmp_path):
    common = {"data_set": "rooms", "data": str(rooms), "cache_dir": tmp_path, "preset": "cpu"}
    assert len(load_scenes(scene_segmentation.Config(**common, limit=1)).train) == 1
    with pytest.raises(ValueError, match="limit 0 leaves no image to fuse"):
        load_scenes(scene_segmentation.Config(**common, limit=0))
