"""Augmented training: targets follow their images, items repeat, heads learn."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from torchvision import tv_tensors

from evaluators.dense_augmentation import (
    AugmentedItems,
    ColourAugmentation,
    DepthAugmentation,
    FixedCrop,
    MixedCrop,
    SegmentationAugmentation,
    fit_augmented,
)
from evaluators.dense_views import make_frame
from evaluators.features import load_encoder
from evaluators.heads import FitConfig, LinearSegmentationHead, segmentation_loss

FIT = FitConfig(12, 4, learning_rate=1e-2, weight_decay=0.0, beta2=0.99, warmup_steps=4)


def blocks(height, width, side=16, seed=0):
    """Class ids 1 to 3 in blocks, and an image whose red tells them."""
    ids = np.random.default_rng(seed).integers(1, 4, (height // side, width // side)).repeat(side, 0).repeat(side, 1)
    return np.dstack([ids * 80, ids * 0 + 100, ids * 0 + 100]).astype(np.uint8), ids


def both(image, ids):
    return tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1)), tv_tensors.Mask(torch.from_numpy(ids))


class Split(list):
    """(image, ids) pairs as a split."""

    def __getitem__(self, index):
        return Image.fromarray(super().__getitem__(index)[0])

    def dense_map(self, column, index):
        return super().__getitem__(index)[1].astype(np.uint8)


def test_depth_follows_its_image():
    image, ids = blocks(96, 128)
    transform = DepthAugmentation((64, 80), box=(8, 8, 80, 112), angle_degrees=2.5).transform((32, 40))
    plain = 0
    for seed in range(20):
        torch.manual_seed(seed)
        shown, depth_m = transform(*both(image, ids.astype(np.float32)))
        assert shown.shape == (3, 32, 40) and shown.dtype == torch.float32 and 0 <= shown.min() <= shown.max() <= 1
        assert set(depth_m.unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}  # nearest: no depth is invented
        correlation = np.corrcoef(shown[0].flatten(), depth_m.flatten())[0, 1]
        assert correlation > 0.9
        plain += torch.allclose(shown[1][depth_m > 0], torch.tensor(100 / 255), atol=1e-3)
    assert 4 < plain < 16  # the colours of about half of the images are changed


def test_colours_change_within_their_ranges_and_maps_do_not():
    image, depth_m = tv_tensors.Image(torch.full((3, 2, 2), 0.5)), tv_tensors.Mask(torch.ones(2, 2))
    means = []
    for seed in range(50):
        torch.manual_seed(seed)
        changed, kept = ColourAugmentation((0.75, 1.25))(image, depth_m)
        assert torch.equal(kept, depth_m)
        means.append(changed[:, 0, 0])
    low, high = 0.5**1.1 * 0.75 * 0.9, 0.5**0.9 * 1.25 * 1.1
    assert low <= torch.stack(means).min() < 0.42 and 0.58 < torch.stack(means).max() <= high


def test_the_border_of_nyud_is_cut_off_as_published():
    image = tv_tensors.Image(torch.arange(480 * 640).view(1, 480, 640))
    cut = FixedCrop(45, 43, 427, 565)(image)
    assert cut.shape == (1, 427, 565)
    assert cut[0, 0, 0] == 45 * 640 + 43 and cut[0, -1, -1] == 471 * 640 + 607  # PIL's box (43, 45, 608, 472)


def test_classes_follow_their_image_and_padding_is_ignored():
    image, ids = blocks(64, 96)
    transform = SegmentationAugmentation((0.5, 2.0)).transform((64, 64))
    ignored = []
    for seed in range(20):
        torch.manual_seed(seed)
        shown, classes = transform(*both(image, ids.astype(np.uint8)))
        assert shown.shape == (3, 64, 64) and classes.shape == (64, 64) and classes.dtype == torch.uint8
        valid = classes != 255
        ignored.append((~valid).any().item())
        assert set(classes[valid].unique().tolist()) <= {1, 2, 3}
        assert shown[:, ~valid].abs().sum() == pytest.approx(0, abs=0.6 * (~valid).sum().item() * 3)
    assert any(ignored) and not all(ignored)  # short sides from 32 to 128 pixels


def test_a_part_that_one_class_fills_is_drawn_again():
    ids = torch.ones(64, 256, dtype=torch.uint8)
    ids[:, 120:136] = 2
    mask, image = tv_tensors.Mask(ids), tv_tensors.Image(torch.zeros(3, 64, 256))
    mixed = 0
    for seed in range(20):
        torch.manual_seed(seed)
        _, part = MixedCrop((48, 48), 0.75)(image, mask)
        mixed += len(part.unique()) > 1
    assert mixed > 15  # without another try: about 6


def test_items_repeat_whoever_makes_them(encoder_folders):
    encoder = load_encoder(encoder_folders("dinov3"))
    split = Split([blocks(48, 64, seed=seed) for seed in range(3)])
    frame = make_frame(encoder, (28, 28), pad=True)
    transform = SegmentationAugmentation().transform(frame.size)
    items = AugmentedItems(split, "segmentation", transform, encoder, frame, [2, 0, 2], seed=5)
    state = torch.get_rng_state()
    (one, classes), (again, _), (other, _) = items[0], items[0], items[2]
    assert torch.equal(one, again) and not torch.equal(one, other) and torch.equal(torch.get_rng_state(), state)
    assert one.shape == (3, 32, 32) and classes.shape == (28, 28) and type(one) is torch.Tensor
    assert one[:, :2].abs().max() == 0 and one[:, 2].abs().max() > 0  # padded after the normalisation


def make_items(encoder, frame):
    split = Split([blocks(64, 64, seed=seed) for seed in range(8)])
    transform = SegmentationAugmentation().transform(frame.size)
    return lambda order: AugmentedItems(split, "segmentation", transform, encoder, frame, order, seed=0)


def test_heads_learn_with_the_encoder_in_the_loop(encoder_folders):
    encoder = load_encoder(encoder_folders("dinov3"))
    frame = make_frame(encoder, (28, 28), pad=True)
    items = make_items(encoder, frame)
    fit = dataclasses.replace(FIT, steps=60, batch_size=8, learning_rate=3e-2)
    state = torch.get_rng_state()
    heads = fit_augmented(
        lambda: LinearSegmentationHead(32, 4), items, encoder, segmentation_loss, fit, (0, 1), num_workers=0
    )
    assert torch.equal(torch.get_rng_state(), state) and not heads[0].training
    assert not torch.equal(heads[0].class_logits.weight, heads[1].class_logits.weight)
    pixel_values, classes = items(range(8))[3]
    with torch.no_grad():
        logits = heads[0](encoder.patch_features(pixel_values[None]))
    predicted = functional.interpolate(logits, frame.padded)[0].argmax(0)[2:30, 2:30]
    valid = classes != 255
    assert (predicted == classes)[valid].float().mean() > 0.6  # of three classes


def test_workers_and_seeds_change_nothing_for_the_first_head(encoder_folders):
    encoder = load_encoder(encoder_folders("dinov3"))
    items = make_items(encoder, make_frame(encoder, (28, 28), pad=True))

    def fit(num_workers):
        make_head = lambda: LinearSegmentationHead(32, 4, dropout=0.0)  # noqa: E731
        return fit_augmented(make_head, items, encoder, segmentation_loss, FIT, (3,), num_workers)[0]

    assert torch.equal(fit(0).class_logits.weight, fit(2).class_logits.weight)
