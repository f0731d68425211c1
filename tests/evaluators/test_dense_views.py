"""Padding, sliding windows, scales and mirror images."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from evaluators.dense_data import centre_box, resize_nearest
from evaluators.dense_features import in_frame, with_layers
from evaluators.dense_features import test_features as features_of
from evaluators.dense_views import CentreViews, Frame, Slide, Views, make_frame
from evaluators.features import load_encoder


class Images(list):
    """A split that holds images only."""

    fingerprint = "images"

    def image_size(self, index):
        return self[index].height, self[index].width


def noise(height, width, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def as_outputs(views):
    return torch.stack([torch.from_numpy(np.array(view)).permute(2, 0, 1).float() for view in views])


def test_padding_is_centred_and_cut_off_again():
    frame = Frame((6, 9), (8, 12))
    pixels = torch.rand(2, 3, 6, 9)
    padded = frame.pad(pixels)
    assert padded.shape == (2, 3, 8, 12) and frame.corner == (1, 1)
    assert padded[:, :, 0].abs().max() == 0 and padded[..., -2:].abs().max() == 0
    assert torch.equal(frame.resize(padded), pixels)
    assert not torch.equal(dataclasses.replace(frame, stretch=True).resize(padded), pixels)  # DINOv2's habit
    assert frame.resize(padded, (12, 18)).shape == (2, 3, 12, 18)


def test_frames_are_whole_patches(encoder_folders):
    encoder = load_encoder(encoder_folders("dinov3"))
    assert make_frame(encoder, (20, 33), pad=True) == Frame((20, 33), (24, 40))
    assert make_frame(encoder, (20, 33), pad=False) == Frame((16, 32), (16, 32))
    fixed = dataclasses.replace(encoder, any_size=False)
    assert make_frame(fixed, (32, 30), pad=True).padded == (32, 32)
    with pytest.raises(ValueError, match=r"one size only, not \(40, 40\): pass --resolution 32x32"):
        make_frame(fixed, (40, 40), pad=True)


def test_padding_comes_after_the_normalisation(encoder_folders):
    encoder = load_encoder(encoder_folders("dinov3"))
    frame = make_frame(encoder, (20, 33), pad=True)
    values = in_frame(encoder, frame).preprocessing(noise(20, 33), frame.padded)
    assert values.shape == (3, 24, 40) and values[:, :2].abs().max() == 0 and values[:, 2, 3].abs().min() > 0
    torch.testing.assert_close(values[:, 2:22, 3:36], encoder.preprocessing(noise(20, 33), (20, 33)))


@pytest.mark.parametrize("side", [512, 513, 683, 853, 854, 1200])
def test_windows_lie_where_mmsegmentation_puts_them(side):
    (part,) = Slide((512, 512), (341, 341), keep_aspect=True).passes((512, side))
    grids = max(side - 512 + 341 - 1, 0) // 341 + 1  # slide_inference of mmsegmentation
    ends = [min(index * 341 + 512, side) for index in range(grids)]
    assert part.corners == [(0, max(end - 512, 0)) for end in ends]


def test_short_side_is_resized_to_the_window_and_scales_multiply_it():
    passes = Slide((512, 512), (341, 341), (1.0, 1.5), flip=True, keep_aspect=True).passes((480, 640))
    assert [(part.size, part.mirrored) for part in passes] == [
        ((512, 683), False),
        ((512, 683), True),
        ((768, 1024), False),
        ((768, 1024), True),
    ]
    assert passes[0].corners == [(0, 0), (0, 171)] and len(passes[2].corners) == 2 * 3
    (squashed,) = Slide((32, 48), (16, 16)).passes((480, 640))
    assert squashed.size == (32, 48) and squashed.corners == [(0, 0)]


def test_windows_of_a_constant_predictor_weigh_every_pixel_the_same():
    slide, frame = Slide((16, 16), (5, 5), keep_aspect=True), Frame((16, 16), (16, 16))
    (part,) = slide.passes((16, 43))
    merged = slide.merge(torch.full((len(part.corners), 2, 4, 4), 3.0), frame, (16, 43))
    assert len(part.corners) == 7 and merged.shape == (1, 2, 16, 43)
    assert torch.equal(merged, torch.full((1, 2, 16, 43), 3.0))


def test_a_predictor_that_returns_its_input_gives_the_image_back():
    image = noise(16, 43)
    slide = Slide((16, 16), (7, 7), flip=True, keep_aspect=True)
    merged = slide.merge(as_outputs(slide.views(image, 2)), Frame((16, 16), (16, 16)), (16, 43))
    torch.testing.assert_close(merged, as_outputs([image]))


def test_image_and_mirror_image_are_averaged():
    slide, frame = Slide((4, 6), (4, 6), flip=True), Frame((4, 6), (4, 6))
    ramp = torch.arange(6.0).expand(2, 4, 6)  # the same for both views: position is all that it sees
    assert torch.equal(slide.merge(ramp, frame, (4, 6)), torch.full((1, 4, 6), 2.5))


def test_passes_are_averaged_as_probabilities():
    slide, frame = Slide((1, 1), (1, 1), flip=True), Frame((1, 1), (1, 1))
    logits = torch.tensor([[9.0, 0.0], [0.0, 2.0]])[:, :, None, None]
    expected = (logits[:1].softmax(1) + logits[1:].softmax(1)) / 2
    torch.testing.assert_close(slide.merge(logits, frame, (1, 1), softmax=True), expected)


def test_views_of_all_images_lie_in_one_row():
    images, slide = Images([noise(16, 16), noise(16, 40, 1)]), Slide((16, 16), (12, 12), keep_aspect=True)
    views = Views(images, slide, 2)
    assert views.starts == [0, 1, 4] and len(views) == 4
    assert np.array_equal(np.asarray(views[3]), np.asarray(images[1])[:, 24:])
    assert np.array_equal(np.asarray(views[0]), np.asarray(images[0]))


def test_cached_and_computed_test_features_are_the_same(encoder_folders, tmp_path):
    encoder = load_encoder(encoder_folders("dinov3"))
    images, slide = Images([noise(20, 30), noise(24, 20, 1)]), Slide((18, 18), (9, 9), flip=True, keep_aspect=True)
    frame = make_frame(encoder, slide.window, pad=True)
    cached = features_of(encoder, images, slide, frame, tmp_path)
    computed = features_of(encoder, images, slide, frame, None)
    for index in range(2):
        torch.testing.assert_close(cached(index), computed(index))


def test_images_and_maps_are_cut_around_the_same_centre():
    assert centre_box((30, 60), (10, 10)) == (0.0, 15.0, 30.0, 30.0)
    ramp = np.tile(np.arange(60, dtype=np.uint8), (30, 1))
    box = centre_box(ramp.shape, (30, 30))
    assert np.array_equal(resize_nearest(ramp, (30, 30), box)[0], np.arange(15, 45))
    images = Images([Image.fromarray(np.dstack([ramp] * 3))])
    assert np.array_equal(np.asarray(CentreViews(images, (30, 30), 2)[0])[0, :, 0], np.arange(15, 45))


@pytest.mark.parametrize("kind", ["dinov3", "clip_tower", "siglip", "siglip2", "vit"])
def test_several_layers_are_laid_side_by_side(encoder_folders, kind):
    encoder = load_encoder(encoder_folders(kind))
    pixel_values = torch.randn(2, 3, 32, 48)
    both = with_layers(encoder, (0, 1))
    features = both.patch_features(pixel_values)
    assert both.hidden_size == 64 and features.shape == (2, 64, 4, 6) and encoder.num_layers == 2
    assert torch.equal(features[:, 32:], encoder.patch_features(pixel_values))
    torch.testing.assert_close(features[:, :32].mean(1), torch.zeros(2, 4, 6), atol=1e-5, rtol=0)  # normalised, too
    assert both.weights_hash != encoder.weights_hash and with_layers(encoder, (-1,)) is encoder
    with_token = with_layers(encoder, (-1,), class_token=True).patch_features(pixel_values)
    assert with_token.shape == (2, 64, 4, 6) and with_token[:, 32:].std((2, 3)).max() == 0
