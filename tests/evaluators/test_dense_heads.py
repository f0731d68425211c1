"""The losses and the loop that trains a head."""

import dataclasses
import itertools
import math
from functools import partial

import pytest
import torch
from torch.nn import functional

from evaluators.dense_heads import DPTDepthHead, UpsampledDepthHead, bin_depth, even_layers, last_layers
from evaluators.heads import (
    FitConfig,
    LinearDepthHead,
    LinearSegmentationHead,
    SigLoss,
    batch_order,
    fit_head,
    segmentation_loss,
)
from modeling_spatialboost.dense_heads import upsample

FIT = FitConfig(40, 4, learning_rate=1e-2, weight_decay=0.0, beta2=0.99, warmup_steps=10, gradient_clip=35.0)


def test_head_shapes_and_range():
    features = torch.randn(2, 6, 3, 4)
    depth_m = upsample(LinearDepthHead(6, 256, 0.5, 8.0)(features), (12, 20))
    assert depth_m.shape == (2, 12, 20)
    assert depth_m.min() >= 0.5 and depth_m.max() <= 8.0
    assert upsample(LinearSegmentationHead(6, 5)(features), (12, 20)).shape == (2, 5, 12, 20)


def test_sig_loss_by_hand():
    prediction_m = torch.tensor([[[2.0, 4.0, 3.0]]])
    truth_m = torch.tensor([[[1.0, 1.0, 0.0]]])  # the last has no reading
    g = [math.log(2.001 / 1.001), math.log(4.001 / 1.001)]
    mean = sum(g) / 2
    variance = sum((x - mean) ** 2 for x in g) / 2
    loss = SigLoss(1e-3, 10.0, warmup_steps=5)
    assert loss(prediction_m, truth_m, step=5).item() == pytest.approx(math.sqrt(variance + 0.15 * mean**2), rel=1e-4)
    assert loss(prediction_m, truth_m, step=4).item() == pytest.approx(math.sqrt(0.15) * mean, rel=1e-4)


def test_losses_of_batches_where_nothing_counts_are_zero_with_gradient():
    prediction_m = torch.ones(1, 2, 2, requires_grad=True)
    SigLoss(1e-3, 10.0)(prediction_m, torch.zeros(1, 2, 2), 0).backward()
    assert prediction_m.grad.abs().max() == 0
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = segmentation_loss(logits, torch.full((1, 2, 2), 255, dtype=torch.uint8), 0)
    loss.backward()
    assert loss.item() == 0 and logits.grad.abs().max() == 0


def test_segmentation_loss_is_cross_entropy_without_ignored_pixels():
    logits, truth = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    truth[0, 0] = 255
    expected = functional.cross_entropy(logits, truth, ignore_index=255)
    torch.testing.assert_close(segmentation_loss(logits, truth.to(torch.uint8), 0), expected)


def record_heads(seed, features):
    """Train a head and return its first weights and the trained head."""
    first = []

    def make_head():
        head = LinearSegmentationHead(features.shape[1], 2)
        first.append({name: value.clone() for name, value in head.state_dict().items()})
        return head

    targets = torch.randint(0, 2, (len(features), 8, 8), generator=torch.Generator().manual_seed(0))
    return first, fit_head(make_head, features, targets, segmentation_loss, FIT, seed)


def test_two_encoders_of_one_width_start_from_the_same_head():
    torch.manual_seed(11)
    first_base, _ = record_heads(3, torch.randn(8, 5, 2, 2))
    torch.manual_seed(12)  # the caller's random state must not matter
    first_boosted, _ = record_heads(3, torch.randn(8, 5, 2, 2))
    first_other, _ = record_heads(4, torch.randn(8, 5, 2, 2))
    assert all(torch.equal(first_base[0][name], first_boosted[0][name]) for name in first_base[0])
    assert not torch.equal(first_base[0]["class_logits.weight"], first_other[0]["class_logits.weight"])


def test_same_features_and_seed_give_the_same_head_and_leave_the_random_state_alone():
    features = torch.randn(8, 5, 2, 2)
    state = torch.get_rng_state()
    _, one = record_heads(3, features)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    _, two = record_heads(3, features)
    assert all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())
    assert not one.training
    assert not torch.are_deterministic_algorithms_enabled()


def test_batch_order_is_seeded_and_covers_every_epoch():
    batches = list(batch_order(10, 3, 6, seed=5))
    assert all(torch.equal(a, b) for a, b in zip(batches, batch_order(10, 3, 6, seed=5)))
    assert not all(torch.equal(a, b) for a, b in zip(batches, batch_order(10, 3, 6, seed=6)))
    for epoch in (batches[:3], batches[3:]):
        assert len(set(itertools.chain.from_iterable(batch.tolist() for batch in epoch))) == 9
    assert [len(batch) for batch in batch_order(2, 16, 3, seed=0)] == [2, 2, 2]


def test_depth_head_learns_depth_that_is_linear_in_the_features():
    torch.manual_seed(0)
    classes = torch.randint(0, 2, (16, 4, 4))
    features = functional.one_hot(classes, 2).permute(0, 3, 1, 2).float() + 0.01 * torch.randn(16, 2, 4, 4)
    truth_m = torch.where(classes == 0, 1.0, 4.0)
    config = dataclasses.replace(FIT, steps=200, batch_size=8, learning_rate=0.1)
    make_head = partial(LinearDepthHead, 2, 64, 1e-3, 10.0)
    head = fit_head(make_head, features, truth_m, SigLoss(1e-3, 10.0, 20), config, seed=0)
    error_m = (head(features) - truth_m).abs().mean()
    assert error_m < 0.3 < (truth_m - truth_m.mean()).abs().mean()


def test_the_expectation_over_bins_is_that_of_the_linear_head():
    head = LinearDepthHead(6, 16, 0.5, 8.0).eval()
    features = torch.randn(2, 6, 3, 4)
    logits = head.bin_logits(head.batch_norm(features))
    torch.testing.assert_close(bin_depth(logits, 0.5, 8.0), head(features))


def test_the_dpt_head_gives_depth_sixteen_times_as_fine_and_uses_all_layers():
    head = DPTDepthHead(4 * 6, 32, 0.5, 8.0, width=8)
    features = torch.randn(2, 24, 2, 4, requires_grad=True)
    depth_m = head(features)
    assert depth_m.shape == (2, 32, 64) and 0.5 <= depth_m.min() <= depth_m.max() <= 8.0
    depth_m.sum().backward()
    assert all(part.abs().max() > 0 for part in features.grad.chunk(4, dim=1))
    published = DPTDepthHead(4 * 384, 256, 1e-3, 10.0)
    assert [layer.projection.out_channels for layer in published.neck.reassemble_stage.layers] == [128, 256, 512, 1024]
    assert published.head.head[-2].out_channels == 256 and published.neck.config.fusion_hidden_size == 256


def test_layers_of_dpt_are_even_and_a_vit_larges_are_uneven_upstream():
    assert even_layers(12) == (2, 5, 8, 11) and even_layers(24) == (5, 11, 17, 23) and even_layers(40)[-1] == 39
    assert even_layers(24, upstream_compat=True) == (4, 11, 17, 23)
    assert even_layers(2) == (0, 0, 0, 1) and last_layers(12) == (8, 9, 10, 11) and last_layers(2) == (0, 1)


def test_upsampling_logits_is_upsampling_features():
    head = UpsampledDepthHead(6, 16, 0.5, 8.0)
    features = torch.randn(2, 6, 3, 4)
    expected = bin_depth(head.bin_logits(upsample(features, (12, 16))), 0.5, 8.0)  # as DINOv2 computes it
    torch.testing.assert_close(head(features), expected)


def test_a_dpt_head_learns_depth_that_is_in_the_features():
    torch.manual_seed(0)
    classes = torch.randint(0, 2, (8, 2, 2))
    features = functional.one_hot(classes, 2).permute(0, 3, 1, 2).float().repeat(1, 8, 1, 1)  # (8, 4 * 4, 2, 2)
    truth_m = torch.where(classes == 0, 1.0, 4.0).repeat_interleave(8, 1).repeat_interleave(8, 2)
    config = dataclasses.replace(FIT, steps=100, batch_size=8, learning_rate=1e-3)
    make_head = partial(DPTDepthHead, 16, 32, 1e-3, 10.0, width=32)
    head = fit_head(make_head, features, truth_m, SigLoss(1e-3, 10.0, 20), config, seed=0)
    with torch.no_grad():
        error_m = (upsample(head(features), (16, 16)) - truth_m).abs().mean()
    assert error_m < 0.7 < (truth_m - truth_m.mean()).abs().mean()
