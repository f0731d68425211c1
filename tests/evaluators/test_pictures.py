"""Pictures of the dense tasks: what an encoder sees, as colours."""

import numpy as np
import pytest
from PIL import Image

from evaluators.pictures import feature_colours, save_picture

RANDOM = np.random.default_rng(0)
HALVES = np.zeros((4, 6), int)
HALVES[:, 3:] = 1


def features_of(classes, width=8, noise=0.01, seed=1):
    """(C, h, w): a direction per class."""
    centres = np.random.default_rng(seed).normal(size=(classes.max() + 1, width))
    return (centres[classes] + RANDOM.normal(0, noise, (*classes.shape, width))).transpose(2, 0, 1)


def test_equal_features_have_equal_colours_on_both_sides_and_others_differ():
    features = features_of(HALVES)
    ((base,), (boosted,)), together = feature_colours([[features], [features]])
    assert together and base.shape == (4, 6, 3) and (base == boosted).all() and 0 <= base.min() <= base.max() <= 1
    assert np.abs(base[:, 0] - base[:, -1]).max() > 0.8 > 0.3 > np.abs(base[:, 0, 0] - base[:, 1, 0]).max()
    ((base,), (boosted,)), _ = feature_colours([[features], [features * 0]])
    assert np.ptp(boosted[..., 0]) == 0 < np.ptp(base[..., 0])  # one scale for both: what is flat is shown flat


def test_encoders_of_different_widths_have_colours_of_their_own():
    (base, boosted), together = feature_colours([[features_of(HALVES)], [features_of(HALVES, width=5)] * 2])
    assert not together and len(base) == 1 and len(boosted) == 2


def test_a_single_patch_has_a_colour():
    ((base,), _), _ = feature_colours([[np.ones((8, 1, 1))], [np.zeros((8, 1, 1))]])
    assert base.shape == (1, 1, 3) and np.isfinite(base).all()


@pytest.mark.parametrize("names", [None, ["wall", "floor"]])
def test_a_row_per_image_with_truth_predictions_and_features(tmp_path, names):
    truth = HALVES.astype(np.uint8 if names else np.float32) + (0 if names else 1)
    image, features = np.zeros((4, 6, 3), np.uint8), features_of(HALVES)
    row = {"image": image, "truth": truth, "prediction": truth, "features": features}
    save_picture(tmp_path / "one.png", [row], [row], names)
    save_picture(tmp_path / "two.png", [row] * 2, [row] * 2, names)
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "two.png") as two:
        assert one.width == two.width > 1500 and two.height > 1.5 * one.height
