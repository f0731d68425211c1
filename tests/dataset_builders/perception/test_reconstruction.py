"""Cameras from matched pixels and depth: exact rooms give exact poses; learned matchers and VGGT run through disk.

The learned matchers are tiny and random, so that only the path from disk to pixels is tested with them. VGGT stands on
a fake package `vggt` that has the calls of the real one and knows the answer: neither its weights nor its network are.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dataset_builders.filters import project
from dataset_builders.geometry import invert_pose, transform, valid_depth, view_points
from dataset_builders.perception import PerceptionOptions, open_model
from dataset_builders.perception.matching import SiftMatcher, TransformersMatcher
from dataset_builders.perception.reconstruction import (
    KeypointReconstructor,
    VggtReconstructor,
    pairs_to_match,
    reconstruct_from_matches,
)
from dataset_builders.scene import UNKNOWN_INTRINSICS, DropItem, InputError
from dataset_builders.sources import SourceOptions, open_source

HOLOLENS = Path(__file__).parents[4] / "shared" / "realdata" / "hololens_office"


@pytest.fixture(scope="module")
def rooms():
    source = open_source("synthetic", SourceOptions(num_scenes=2, views=4, image_size=(180, 240), seed=5))
    return [source.load(item).views for item in source.list_items()]


def true_matches(first, second, count=400):
    """Pixels of the first view and where the second sees the same points, by exact geometry."""
    v, u = np.argwhere(valid_depth(first.depth_m))[:: max(1, first.depth_m.size // 6000)].T
    seen = transform(view_points(first, u, v), invert_pose(second.camera_to_world))
    column, row, inside = project(seen, second)
    kept = inside & (np.abs(second.depth_m[row, column] / np.maximum(seen[:, 2], 1e-6) - 1) < 2e-3)
    there = seen[:, :2] / seen[:, 2:] * (second.intrinsics.fx, second.intrinsics.fy)
    there += (second.intrinsics.cx, second.intrinsics.cy)
    return np.column_stack([u, v, there])[kept][:: max(1, kept.sum() // count)]


def oracle(views, wrong_share=0.0):
    random, pairs = np.random.default_rng(0), pairs_to_match(len(views))
    matches = [true_matches(views[first], views[second]) for first, second in pairs]
    for found in matches:
        wrong = random.permutation(len(found))[: int(wrong_share * len(found))]
        found[wrong, 2:] = random.uniform((0, 0), views[0].depth_m.shape[::-1], (len(wrong), 2))
    return pairs, matches


def offsets(poses, views):
    """How far the cameras are off, in metres and degrees, in the world of the first view."""
    metres, degrees = [], []
    for pose, view in zip(poses, views):
        wrong = invert_pose(pose) @ invert_pose(views[0].camera_to_world) @ view.camera_to_world
        metres.append(np.linalg.norm(wrong[:3, 3]))
        degrees.append(np.rad2deg(np.linalg.norm(wrong[:3, :3] - wrong[:3, :3].T) / np.sqrt(8)))
    return max(metres), max(degrees)


@pytest.mark.parametrize("room", [0, 1])
@pytest.mark.parametrize(("wrong_share", "allowed_m"), [(0.0, 1e-3), (0.3, 1e-2)])
def test_exact_rooms_are_put_together(rooms, room, wrong_share, allowed_m):
    views = [replace(view, camera_to_world=np.eye(4)) for view in rooms[room]]
    found = reconstruct_from_matches(views, *oracle(rooms[room], wrong_share))
    metres, degrees = offsets(found.camera_to_world, rooms[room])
    assert metres < allowed_m and degrees < 20 * allowed_m
    assert found.metric and found.depth_m is None and found.intrinsics is None
    assert found.error < 0.01


def test_depth_of_another_scale_in_each_view_is_brought_to_one(rooms):
    factors = [1.1, 0.9, 1.2, 1.0]
    pairs, matches = oracle(rooms[0], wrong_share=0.2)
    views = [replace(view, depth_m=view.depth_m * factor) for view, factor in zip(rooms[0], factors)]
    found = reconstruct_from_matches(views, pairs, matches)
    common = np.median([depth / view.depth_m for depth, view in zip(found.depth_m, rooms[0])])
    assert common == pytest.approx(1.1 / np.median([1.1 / factor for factor in factors]), rel=2e-3)
    for depth, view in zip(found.depth_m, rooms[0]):
        assert np.allclose(depth, common * view.depth_m, rtol=5e-3)
    metric = [replace(view, camera_to_world=view.camera_to_world.copy()) for view in rooms[0]]
    for view in metric:
        view.camera_to_world[:3, 3] *= common
    metres, degrees = offsets(found.camera_to_world, metric)
    assert metres < 0.02 and degrees < 0.2


def test_a_view_that_shows_something_else_stays_without_a_pose(rooms):
    views = [*rooms[0][:3], rooms[1][0]]
    pairs, matches = oracle(views)
    random = np.random.default_rng(1)
    matches = [
        random.uniform((0, 0, 0, 0), (240, 180, 240, 180), (100, 4)) if 3 in pair else found
        for pair, found in zip(pairs, matches)
    ]
    found = reconstruct_from_matches(views, pairs, matches)
    assert found.camera_to_world[3] is None
    assert all(pose is not None for pose in found.camera_to_world[:3])


@pytest.mark.parametrize("spoiled", ["matches", "depth", "intrinsics"])
def test_nothing_to_go_by_is_a_counted_drop(rooms, spoiled):
    views, (pairs, matches) = rooms[0], oracle(rooms[0])
    if spoiled == "matches":
        matches = [np.empty((0, 4)) for _ in pairs]
    if spoiled == "depth":
        views = [replace(view, depth_m=np.zeros_like(view.depth_m)) for view in views]
    if spoiled == "intrinsics":
        views = [replace(view, intrinsics=UNKNOWN_INTRINSICS) for view in views]
    with pytest.raises(DropItem) as caught:
        reconstruct_from_matches(views, pairs, matches)
    assert caught.value.reason == "not_reconstructed"


def test_the_error_tells_depths_that_disagree(rooms):
    random = np.random.default_rng(0)
    views = [
        replace(view, depth_m=(view.depth_m * random.normal(1, 0.02, view.depth_m.shape)).astype(np.float32))
        for view in rooms[0]
    ]
    found = reconstruct_from_matches(views, *oracle(rooms[0]))
    assert 0.01 < found.error < 0.03


def test_the_same_views_give_the_same_bytes(rooms):
    first, second = (reconstruct_from_matches(rooms[0], *oracle(rooms[0], 0.3)) for _ in range(2))
    for one, other in zip(first.camera_to_world, second.camera_to_world):
        assert one.tobytes() == other.tobytes()


def test_long_sequences_match_neighbours_only():
    assert len(pairs_to_match(8)) == 28
    assert pairs_to_match(9)[:4] == [(0, 1), (0, 2), (1, 2), (1, 3)]
    assert len(pairs_to_match(64)) == 63 + 62


def test_sift_finds_the_shift_of_an_image():
    random = np.random.default_rng(0)
    blocks = np.kron(random.integers(0, 255, (20, 30)), np.ones((8, 8))).astype(np.uint8)
    image = np.repeat(blocks[..., None], 3, axis=2)
    matches = SiftMatcher().match([image[:, :200], image[:, 24:224], image[:1, :1]], [(0, 1), (0, 2)])
    assert len(matches[0]) > 30
    assert np.median(np.abs(matches[0][:, :2] - matches[0][:, 2:] - (24, 0))) < 0.05
    assert matches[1].shape == (0, 4)


def test_sift_counts_from_the_centre_of_a_pixel():
    """A blob's feature lies on the blob: COLMAP's own numbers are half a pixel larger."""
    v, u = np.mgrid[:61, :81]
    blob = (255 * np.exp(-((u - 40) ** 2 + (v - 30) ** 2) / 50)).astype(np.uint8)
    image = np.repeat(blob[..., None], 3, axis=2)
    (matches,) = SiftMatcher().match([image, image], [(0, 1)])
    assert np.abs(matches[:, :2] - (40, 30)).max(axis=1).min() < 0.1


@pytest.mark.skipif(not HOLOLENS.is_dir(), reason=f"{HOLOLENS} is absent")
def test_real_rooms_are_put_together_by_sift():
    """Two near views and a view of another room, which must stay out."""
    source = open_source("rgbd", SourceOptions(input_dir=HOLOLENS, views=8))
    cabinet, foosball, _ = (source.load(item).views for item in source.list_items())
    views = [cabinet[0], cabinet[5], foosball[0]]
    found = open_model("reconstructor", PerceptionOptions(reconstructor="keypoints:sift")).reconstruct(views)
    assert found.camera_to_world[2] is None
    metres, degrees = offsets(found.camera_to_world[:2], views)
    assert metres < 0.03 and degrees < 0.7
    assert found.error < 0.02 and found.depth_m is None


def save_matcher(kind, folder):
    from transformers import (
        EfficientLoFTRConfig,
        EfficientLoFTRForKeypointMatching,
        EfficientLoFTRImageProcessor,
        LightGlueConfig,
        LightGlueForKeypointMatching,
        LightGlueImageProcessor,
        SuperGlueConfig,
        SuperGlueForKeypointMatching,
        SuperGlueImageProcessor,
        SuperPointConfig,
    )

    detector = SuperPointConfig(
        encoder_hidden_sizes=[8, 8, 16, 16],
        decoder_hidden_size=16,
        descriptor_decoder_dim=16,
        keypoint_threshold=0.0,
        max_keypoints=64,
        border_removal_distance=2,
    )
    if kind == "efficientloftr":
        config = EfficientLoFTRConfig(
            stage_num_blocks=[1, 1, 1, 1],
            out_features=[8, 8, 16, 32],
            hidden_size=32,
            num_attention_layers=1,
            num_attention_heads=8,
            coarse_matching_threshold=0.0,
            fine_matching_slice_dim=2,
        )
        model, processor = EfficientLoFTRForKeypointMatching(config), EfficientLoFTRImageProcessor
    elif kind == "lightglue":
        config = LightGlueConfig(
            keypoint_detector_config=detector,
            descriptor_dim=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            filter_threshold=0.0,
        )
        model, processor = LightGlueForKeypointMatching(config), LightGlueImageProcessor
    else:
        config = SuperGlueConfig(
            keypoint_detector_config=detector,
            hidden_size=16,
            keypoint_encoder_sizes=[8, 16],
            gnn_layers_types=["self", "cross"],
            num_attention_heads=2,
            sinkhorn_iterations=5,
            matching_threshold=0.0,
        )
        model, processor = SuperGlueForKeypointMatching(config), SuperGlueImageProcessor
    model.save_pretrained(folder)
    processor(size={"height": 96, "width": 128}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["efficientloftr", "lightglue", "superglue"])
def test_learned_matchers_load_from_disk_and_give_pixels_of_the_images(kind, tmp_path, rooms):
    options = PerceptionOptions(reconstructor=f"keypoints:{save_matcher(kind, tmp_path)}", device="cpu", batch_size=2)
    reconstructor = open_model("reconstructor", options)
    assert isinstance(reconstructor, KeypointReconstructor)
    image = rooms[0][0].image
    images = [image, image, rooms[0][1].image[:120, :90]]
    matches = TransformersMatcher(str(tmp_path), options).match(images, [(0, 1), (0, 2), (1, 2)])
    assert [found.shape[1] for found in matches] == [4, 4, 4]
    assert len(matches[0]) > 2
    if kind != "efficientloftr":  # a random network, but the same image twice: every keypoint finds itself
        assert np.mean(np.abs(matches[0][:, :2] - matches[0][:, 2:]).max(axis=1) <= 1) > 0.5
    for found, first, second in zip(matches, (0, 0, 1), (1, 2, 2)):
        for pixels, index in ((found[:, :2], first), (found[:, 2:], second)):
            height, width = images[index].shape[:2]
            assert (pixels >= 0).all() and (pixels <= (width, height)).all()
    try:
        assert reconstructor.reconstruct(rooms[0][:2]).metric
    except DropItem as drop:
        assert drop.reason == "not_reconstructed"


def test_matchers_that_are_none_are_refused(tmp_path):
    from transformers import ViTConfig, ViTModel

    with pytest.raises(InputError, match="nowhere"):
        open_model("reconstructor", PerceptionOptions(reconstructor=f"keypoints:{tmp_path / 'nowhere'}"))
    ViTModel(
        ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    ).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"'vit'; pass one of efficientloftr, lightglue, superglue"):
        open_model("reconstructor", PerceptionOptions(reconstructor=f"keypoints:{tmp_path}"))


def test_sift_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with pytest.raises(InputError, match="pip install pycolmap"):
        open_model("reconstructor", PerceptionOptions(reconstructor="keypoints:sift"))


FAKE_VGGT = {
    "vggt/__init__.py": "",
    "vggt/models/__init__.py": "",
    "vggt/utils/__init__.py": "",
    "vggt/models/vggt.py": """
import torch
from huggingface_hub import PyTorchModelHubMixin

class VGGT(torch.nn.Module, PyTorchModelHubMixin):
    def __init__(self, num_views=4, height=392, width=518):
        super().__init__()
        self.register_buffer("extrinsics", torch.zeros(num_views, 3, 4))
        self.register_buffer("cameras", torch.zeros(num_views, 3, 3))
        self.register_buffer("depth", torch.zeros(num_views, height, width, 1))

    def forward(self, images):
        assert images.ndim == 4 and images.shape[1] == 3 and 0 <= images.min() and images.max() <= 1
        assert images.shape[-2] % 14 == 0 and images.shape[-1] == 518
        encoded = torch.cat([self.extrinsics.flatten(1), self.cameras.flatten(1)], dim=1)
        return {"pose_enc": encoded[None], "depth": self.depth[None], "depth_conf": self.depth[None, ..., 0]}
""",
    "vggt/utils/pose_enc.py": """
def pose_encoding_to_extri_intri(pose_encoding, image_size_hw=None):
    views = pose_encoding.shape[1]
    assert tuple(image_size_hw) == (392, 518)
    return pose_encoding[..., :12].reshape(1, views, 3, 4), pose_encoding[..., 12:].reshape(1, views, 3, 3)
""",
}


@pytest.fixture
def vggt_folder(tmp_path, monkeypatch, rooms):
    """A fake package on the path, and a checkpoint that tells the exact cameras of a room in a unit of 0.4 m."""
    for name, text in FAKE_VGGT.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    from vggt.models.vggt import VGGT

    model = VGGT()
    for index, view in enumerate(rooms[0]):  # 240 x 180 pixels become 518 x 392
        to_camera = invert_pose(view.camera_to_world)
        to_camera[:3, 3] *= 2.5
        across, down, inner = 518 / 240, 392 / 180, view.intrinsics
        camera = [
            [inner.fx * across, 0, (inner.cx + 0.5) * across],
            [0, inner.fy * down, (inner.cy + 0.5) * down],
            [0, 0, 1],
        ]
        model.extrinsics[index] = torch.tensor(to_camera[:3])
        model.cameras[index] = torch.tensor(camera)
        depth = torch.tensor(view.depth_m)[None, None] * 2.5
        model.depth[index, ..., 0] = torch.nn.functional.interpolate(depth, (392, 518), mode="nearest")[0, 0]
    model.save_pretrained(tmp_path / "checkpoint")
    yield str(tmp_path / "checkpoint")
    for name in [name for name in sys.modules if name.partition(".")[0] == "vggt"]:
        del sys.modules[name]


def test_vggt_gives_cameras_and_depth_in_its_own_unit(vggt_folder, rooms):
    reconstructor = open_model("reconstructor", PerceptionOptions(reconstructor=vggt_folder, device="cpu"))
    assert isinstance(reconstructor, VggtReconstructor)
    views = [replace(view, camera_to_world=np.eye(4), intrinsics=UNKNOWN_INTRINSICS) for view in rooms[0]]
    found = reconstructor.reconstruct(views)
    assert not found.metric and found.error < 0.01
    assert np.allclose(found.camera_to_world[0], np.eye(4), atol=1e-6)
    for pose, intrinsics, depth, view in zip(found.camera_to_world, found.intrinsics, found.depth_m, rooms[0]):
        expected = invert_pose(rooms[0][0].camera_to_world) @ view.camera_to_world
        expected[:3, 3] *= 2.5
        assert np.allclose(pose, expected, atol=1e-4)
        assert np.allclose(list(vars(intrinsics).values()), list(vars(view.intrinsics).values()), atol=1e-3)
        assert np.mean(np.abs(depth / (2.5 * view.depth_m) - 1) < 0.01) > 0.97  # nearest pixels, twice


def test_images_of_several_shapes_share_a_white_canvas():
    from dataset_builders.perception.reconstruction import _cut, _in_image, _on_canvas

    images = [np.zeros((180, 240, 3), np.uint8), np.zeros((300, 200, 3), np.uint8)]
    canvas, boxes = _on_canvas(images)
    assert canvas.shape == (2, 3, 518, 518)
    assert boxes == [(0, 63, 518, 455), (84, 0, 434, 518)]
    for picture, (left, top, right, bottom), image in zip(canvas, boxes, images):
        assert picture[:, top:bottom, left:right].max() == 0
        assert picture.sum() == 3 * (518 * 518 - (right - left) * (bottom - top))
        depth = np.zeros((518, 518))
        depth[top:bottom, left:right] = 3
        assert _cut(depth, (left, top, right, bottom), image).shape == image.shape[:2]
        assert (_cut(depth, (left, top, right, bottom), image) == 3).all()
    middle = _in_image(np.array([[500.0, 0, 259], [0, 500, 259], [0, 0, 1]]), boxes[1], images[1])
    assert (middle.cx, middle.cy) == pytest.approx((99.5, 149.5))


def test_vggt_says_what_to_install_and_what_to_pass(monkeypatch, vggt_folder):
    with pytest.raises(InputError, match="nowhere' cannot be loaded"):
        open_model("reconstructor", PerceptionOptions(reconstructor="/nowhere"))
    monkeypatch.setitem(sys.modules, "vggt.models.vggt", None)
    with pytest.raises(InputError, match="pip install git"):
        open_model("reconstructor", PerceptionOptions(reconstructor=vggt_folder))
