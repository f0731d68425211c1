"""Each decoder by itself: its targets are true to the geometry, its loss is what its paper says, it learns."""

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import SamConfig, SamMaskDecoderConfig, SamModel, SamPromptEncoderConfig, SamVisionConfig

from tests.trainers.conftest import image
from trainers.baselines.linear_decoders import DepthDecoder, SegmentationDecoder, class_targets, depth_targets
from trainers.baselines.mask_decoder import MaskDecoder, dice_loss, draw_points, focal_loss, mask_targets
from trainers.baselines.point_decoder import PointDecoder, point_targets
from trainers.baselines.view_data import View, load_view_data

C, GRID, SIZE = 16, 4, 32
TWO_VIEWS = torch.tensor([2])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def pairs(rooms):
    """The views of every multi-view row, with all that is known of them."""
    data = load_view_data([f"{rooms}:multi_view"], ("depth", "classes", "masks", "cameras"))
    return [data.dataset[index]["views"] for index in range(len(data.dataset))]


def learns(decoder, targets, features, counts, steps=60, rate=1e-2):
    """The mean loss of the first five and of the last five steps, the features trained along."""
    features = features.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([features, *decoder.parameters()], lr=rate)
    losses = []
    for _ in range(steps):
        loss = decoder(features, counts, **targets)
        optimizer.zero_grad()
        loss.backward()
        assert features.grad.abs().sum() > 0
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[:5]) / 5, sum(losses[-5:]) / 5


@pytest.mark.parametrize("kind", ["depth", "segmentation", "masks", "points"])
def test_every_decoder_lowers_its_loss_on_rooms(pairs, kind):
    views = pairs[0]
    decoder, targets, size, factor = {
        "depth": (lambda: DepthDecoder(C, 10.0), depth_targets, SIZE, 0.6),
        "segmentation": (lambda: SegmentationDecoder(C, 18), class_targets, SIZE, 0.6),
        "masks": (lambda: MaskDecoder(C, SIZE, GRID), mask_targets, 4 * GRID, 0.8),
        "points": (lambda: PointDecoder(C, SIZE // GRID), point_targets, SIZE, 0.5),
    }[kind]
    features = torch.randn(len(views), C, GRID, GRID)
    steps, rate = (12, 1e-3) if kind == "masks" else (60, 1e-2)
    first, last = learns(decoder(), targets([views], (size, size)), features, TWO_VIEWS, steps, rate)
    assert 0 < last < factor * first


@pytest.mark.parametrize("kind", ["depth", "segmentation", "masks", "points"])
def test_views_without_targets_give_a_loss_of_zero_that_can_be_trained_on(kind):
    decoder, targets, size = {
        "depth": (DepthDecoder(C, 10.0), depth_targets, SIZE),
        "segmentation": (SegmentationDecoder(C, 18), class_targets, SIZE),
        "masks": (MaskDecoder(C, SIZE, GRID), mask_targets, 4 * GRID),
        "points": (PointDecoder(C, SIZE // GRID), point_targets, SIZE),
    }[kind]
    views = [View(image(0)), View(image(1))]
    features = torch.randn(2, C, GRID, GRID, requires_grad=True)
    loss = decoder(features, TWO_VIEWS, **targets([views], (size, size)))
    assert loss.item() == 0
    loss.backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in decoder.parameters())


def test_depth_outside_the_range_does_not_count():
    decoder = DepthDecoder(C, max_depth_m=5.0)
    features = torch.randn(2, C, GRID, GRID)
    depth_m = torch.full((2, SIZE, SIZE), 2.0)
    depth_m[:, ::2] = 7.0
    halved = torch.where(depth_m == 7.0, 0.0, depth_m)
    assert torch.equal(decoder(features, TWO_VIEWS, depth_m=depth_m), decoder(features, TWO_VIEWS, depth_m=halved))


def test_targets_take_the_nearest_pixel_and_mark_what_is_unknown():
    depth_m = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    views = [View(image(0), depth_m=depth_m, classes=np.array([[0, 1], [2, 255]], np.uint8)), View(image(1))]
    depth = depth_targets([views], (4, 4))["depth_m"]
    assert depth.shape == (2, 4, 4) and depth[0, 0].tolist() == [1, 1, 2, 2] and not depth[1].any()
    classes = class_targets([views], (2, 2))["classes"]
    assert classes[0].tolist() == [[0, 1], [2, 255]] and (classes[1] == 255).all()


def test_points_of_two_views_are_one_room(pairs):
    """The second view's points, seen from the first camera, lie on what the first camera sees, or behind it."""
    for views in pairs:
        targets = point_targets([views], (64, 64))
        assert targets["valid"].all()
        first, second = targets["points"].double()
        assert torch.allclose(first[..., 2], torch.from_numpy(views[0].depth_m).double(), atol=1e-5)
        camera = views[0].camera
        seen = second[second[..., 2] > 0.1]
        u, v = seen[:, 0] / seen[:, 2] * camera.fx + camera.cx, seen[:, 1] / seen[:, 2] * camera.fy + camera.cy
        inside = (u.round() >= 0) & (u.round() <= 63) & (v.round() >= 0) & (v.round() <= 63)
        surface = first[v[inside].round().long(), u[inside].round().long(), 2]
        gap = seen[inside][:, 2] - surface
        assert inside.sum() > 100
        assert (gap > -0.15).float().mean() > 0.97  # nothing hangs in front of what is seen
        assert (gap.abs() < 0.15).float().mean() > 0.4  # and much of it is the same surface


def test_points_do_not_depend_on_the_unit_or_on_other_samples():
    decoder = PointDecoder(C, SIZE // GRID).eval()
    features = torch.randn(3, C, GRID, GRID)
    points, valid = torch.rand(3, SIZE, SIZE, 3) + 1, torch.rand(3, SIZE, SIZE) > 0.3
    counts = torch.tensor([1, 2])
    metres = decoder(features, counts, points, valid)
    assert torch.allclose(decoder(features, counts, 100 * points, valid), metres, rtol=1e-4)
    together, _ = decoder.predict(features, counts)
    alone, _ = decoder.predict(features[:1], torch.tensor([1]))
    pair, _ = decoder.predict(features[1:], torch.tensor([2]))
    assert torch.allclose(together[:1], alone, atol=1e-5) and torch.allclose(together[1:], pair, atol=1e-5)
    apart, _ = decoder.predict(features[1:], torch.tensor([1, 1]))
    assert not torch.allclose(pair[1], apart[1], atol=1e-3)  # views of one sample see each other


def test_confidence_weighs_the_distance():
    decoder = PointDecoder(C, SIZE // GRID)
    torch.nn.init.zeros_(decoder.head.weight)
    torch.nn.init.zeros_(decoder.head.bias)  # points at the origin, confidence 2
    points = torch.tensor([0.0, 0.0, 4.0]).expand(1, SIZE, SIZE, 3)
    loss = decoder(torch.randn(1, C, GRID, GRID), torch.tensor([1]), points, torch.ones(1, SIZE, SIZE).bool())
    assert loss.item() == pytest.approx(2 * 1 - 0.2 * np.log(2), abs=1e-5)


def test_points_are_drawn_inside_their_masks():
    masks = torch.zeros(3, 8, 8, dtype=torch.bool)
    masks[0, 2, 5] = masks[1, :4] = masks[2, 7, 0] = True
    points = draw_points(masks)
    assert points[0].tolist() == [5.5 / 8, 2.5 / 8] and points[2].tolist() == [0.5 / 8, 7.5 / 8]
    assert points[1, 1] < 0.5
    assert not torch.equal(torch.stack([draw_points(masks)[1] for _ in range(5)]).std(0), torch.zeros(2))


def test_mask_losses_by_hand():
    truth = torch.tensor([[[[1.0, 0.0]]]])
    sure = torch.tensor([[[[20.0, -20.0]]]])
    assert focal_loss(sure, truth).item() < 1e-6 and dice_loss(sure, truth).item() < 1e-6
    unsure = torch.zeros(1, 1, 1, 2)  # probability 0.5: weights 0.25 and 0.75, (1 - p)^2 = 0.25, entropy log 2
    assert focal_loss(unsure, truth).item() == pytest.approx(0.5 * 0.25 * np.log(2))
    assert dice_loss(unsure, truth).item() == pytest.approx(1 - (2 * 0.5 + 1) / (1 + 1 + 1))


def test_the_best_of_three_masks_is_trained(monkeypatch):
    decoder = MaskDecoder(C, SIZE, GRID)
    masks = torch.zeros(1, 16, 16, dtype=torch.bool)
    masks[:, :8] = True
    right = torch.where(masks, 20.0, -20.0)
    answers = torch.stack([-right, right, -right], 1), torch.tensor([[0.5, 0.9, 0.5]])  # logits and promised IoU
    monkeypatch.setattr(decoder, "predict", lambda features, points: answers)
    loss = decoder(torch.randn(2, C, GRID, GRID), TWO_VIEWS, masks, torch.tensor([0]))
    assert loss.item() == pytest.approx((0.9 - 1) ** 2, abs=1e-5)


def test_masks_that_vanish_at_the_decoder_size_are_left_out():
    small = np.zeros((64, 64), bool)
    small[0, 0] = True
    large = np.ones((64, 64), bool)
    targets = mask_targets([[View(image(0)), View(image(1), masks=[small, large])]], (16, 16))
    assert targets["mask_views"].tolist() == [1] and targets["masks"].all()
    assert mask_targets([[View(image(0))]], (16, 16))["masks"].shape == (0, 16, 16)


def test_a_mask_decoder_may_start_from_sam(tmp_path):
    vision = SamVisionConfig(
        hidden_size=32, output_channels=32, num_hidden_layers=1, num_attention_heads=2, image_size=64, patch_size=16,
        num_pos_feats=16, global_attn_indexes=[0],
    )  # fmt: skip
    prompts = SamPromptEncoderConfig(hidden_size=32, image_size=64, patch_size=16)
    masks = SamMaskDecoderConfig(hidden_size=32, mlp_dim=64, num_attention_heads=2, iou_head_hidden_dim=32)
    sam = SamModel(SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=masks))
    sam.save_pretrained(tmp_path)
    decoder = MaskDecoder(C, SIZE, GRID, str(tmp_path))
    own, theirs = decoder.mask_decoder.state_dict(), sam.mask_decoder.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in own.items())
    features, points = torch.randn(2, 32, 4, 4), torch.tensor([[0.25, 0.5], [0.7, 0.1]])
    logits, _ = decoder.predict(features, points)
    sam.prompt_encoder.input_image_size = SIZE
    expected = sam(image_embeddings=features, input_points=(points * SIZE - 0.5)[:, None, None], multimask_output=True)
    assert torch.allclose(logits, expected.pred_masks[:, 0], atol=1e-5)
    names = [name for name, _ in decoder.named_parameters()]
    assert not any("positional_embedding" in name or ".mask_embed." in name for name in names)
    with pytest.raises(ValueError, match="mask_decoder='no/such' is no SAM model"):
        MaskDecoder(C, SIZE, GRID, "no/such")


def test_new_positions_vary_slowly_enough_to_be_learnt():
    """transformers' default scale suits loaded weights only: neighbouring patches would get unrelated codes."""
    decoder = MaskDecoder(C, SIZE, 16)
    code = decoder._position_map(torch.zeros(1, 256, 16, 16))[0]  # (256, 16, 16)
    near = functional.cosine_similarity(code[:, 8, 8], code[:, 8, 9], dim=0)
    far = functional.cosine_similarity(code[:, 8, 8], code[:, 0, 15], dim=0)
    assert near > 0.5 > far
