"""Self-distillation: for every encoder, through the second channel only, with a teacher that follows the student."""

import pytest
import torch

from modeling_spatialboost import SpatialBoostModel
from modeling_spatialboost.dual_channel_attention import is_second_channel
from tests.modeling_spatialboost.encoders import BUILDERS, SIZE, tiny_encoder
from trainers.baselines import self_distillation
from trainers.baselines.self_distillation import SelfDistillation, divergence, draw_hidden_patches, random_crops


@pytest.fixture(autouse=True)
def small(monkeypatch):
    torch.manual_seed(0)
    for name, value in {"HIDDEN": 32, "BOTTLENECK": 16, "NUM_PROTOTYPES": 32, "NUM_LOCAL_CROPS": 2}.items():
        monkeypatch.setattr(self_distillation, name, value)


def student(name: str) -> SelfDistillation:
    encoder = SpatialBoostModel.from_encoder(tiny_encoder(name)).freeze_base_channel()
    model = SelfDistillation(encoder).train()
    for key, parameter in model.named_parameters():
        if key.startswith("teacher"):
            parameter.requires_grad_(False)
    return model


IMAGES = torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
COUNTS = torch.ones(4, dtype=torch.long)


@pytest.mark.parametrize("name", list(BUILDERS))
def test_every_encoder_learns_through_its_second_channel_only(name):
    model = student(name)
    loss = model(IMAGES, COUNTS)["loss"]
    assert torch.isfinite(loss) and loss > 0
    loss.backward()
    with_gradient = {key for key, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert any(".attn_plus." in key for key in with_gradient)
    assert any(key.startswith("decoder.") for key in with_gradient)
    assert all(key.startswith("decoder.") or is_second_channel(key) for key in with_gradient)


def test_the_loss_falls():
    model = student("dinov2")
    # one colour an image, so that an untrained encoder can tell them apart
    images = torch.randn(4, 3, 1, 1).expand(4, 3, SIZE, SIZE) + 0.1 * IMAGES
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for step in range(40):
        loss = model(images, COUNTS)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.update_teacher(step / 40)
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_the_divergence_has_the_gradients_of_the_cross_entropy():
    truth = torch.randn(3, 8).softmax(-1)
    logits = torch.randn(3, 8, requires_grad=True)
    (ours,) = torch.autograd.grad(divergence(truth, logits).sum(), logits)
    cross_entropy = -(truth * (logits / 0.1).log_softmax(-1)).sum()
    (theirs,) = torch.autograd.grad(cross_entropy, logits)
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert divergence(truth, 0.1 * truth.log()).abs().max() < 1e-5


def test_the_teacher_shares_the_base_and_follows_the_second_channel():
    model = student("dinov3")
    pairs = list(zip(model.teacher_encoder.named_parameters(), model.encoder.named_parameters()))
    assert all((own is new) != is_second_channel(name) for (name, own), (_, new) in pairs)
    with torch.no_grad():
        for key, parameter in model.encoder.named_parameters():
            if is_second_channel(key):
                parameter.add_(1.0)
    before = {name: own.clone() for (name, own), _ in pairs}
    model.update_teacher(0.0)
    for (name, own), _ in pairs:
        assert torch.allclose(own - before[name], torch.full_like(own, 0.008 * is_second_channel(name)), atol=1e-5)
    before = {name: own.clone() for (name, own), _ in pairs}
    model.update_teacher(1.0)
    assert all(torch.equal(own, before[name]) for (name, own), _ in pairs)


@pytest.mark.parametrize("name, has_token", [("dinov2", True), ("dinov3", True), ("clip", False), ("siglip", False)])
def test_hidden_patches_are_hidden_from_the_student(name, has_token):
    model = student(name)
    assert model.has_mask_token == has_token
    hidden = torch.zeros(4, 16, dtype=torch.bool)
    hidden[:, 5] = True
    other = IMAGES.clone()
    other[:, :, 8:16, 8:16] = 3.0  # patch 5 of a 4 x 4 grid
    with torch.no_grad():
        first, second = (model._tokens(model.encoder, images, hidden)[1] for images in (IMAGES, other))
        assert torch.equal(first, second)
        first, second = (model._tokens(model.encoder, images)[1] for images in (IMAGES, other))
        assert not torch.equal(first, second)


def test_every_other_crop_hides_a_share_of_its_patches():
    hidden = draw_hidden_patches(8, (10, 10), torch.device("cpu"))
    assert not hidden[1::2].any()
    assert ((hidden[::2].sum(1) >= 10) & (hidden[::2].sum(1) <= 50)).all()


def test_crops_are_parts_of_their_image_and_repeat_with_the_seed():
    ramp = torch.linspace(0, 1, 64)[None, None, None].expand(64, 3, 64, 64)  # tells the column
    torch.manual_seed(3)
    crops = random_crops(ramp, (0.05, 0.3), (16, 16))
    torch.manual_seed(3)
    assert torch.equal(crops, random_crops(ramp, (0.05, 0.3), (16, 16)))
    steps = crops.diff(dim=-1)
    slope = steps.mean((1, 2, 3))
    assert torch.allclose(steps, slope[:, None, None, None].expand_as(steps), atol=1e-3)  # straight, not warped
    assert 10 < (slope > 0).sum() < 54  # some are mirrored
    assert crops.diff(dim=-2).abs().max() < 1e-5
    # columns that a crop spans: a slope is (share of the width) / 16 times the contrast, 0.6 to 1.4
    assert slope.abs().min() * 16 > 0.19 * 0.6 and slope.abs().max() * 16 < 0.64 * 1.4


def test_one_size_encoders_get_local_crops_of_that_size():
    sizes = {}
    for name in ("dinov2", "pe_core"):
        sizes[name] = student(name)._local_size((SIZE, SIZE))
    assert sizes == {"dinov2": (16, 16), "pe_core": (SIZE, SIZE)}


def test_no_crop_is_compared_with_itself(monkeypatch):
    compared = []
    monkeypatch.setattr(self_distillation, "divergence", lambda *pair: compared.append(pair) or divergence(*pair))
    student("dinov2")(IMAGES, COUNTS)
    assert len(compared) == 2 * (2 + 2) - 2 + 1  # two truths, two whole and two small crops; hidden patches


def test_the_centre_follows_the_teacher():
    model = student("dinov2")
    model(IMAGES, COUNTS)
    assert model.image_centre.abs().sum() > 0 and model.patch_centre.abs().sum() > 0
    model.eval()
    before = model.image_centre.clone()
    model(IMAGES, COUNTS)
    assert torch.equal(model.image_centre, before)
