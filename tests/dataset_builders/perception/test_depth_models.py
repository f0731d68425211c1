import numpy as np
import pytest
import torch

from dataset_builders.perception import PerceptionOptions, depth
from dataset_builders.perception.depth import TransformersDepth
from dataset_builders.scene import InputError

KINDS = ("depth_pro", "depth_anything", "zoedepth")
UNKNOWN = (None, None, None)


def load(folder, **options):
    return TransformersDepth(folder, PerceptionOptions(**options))


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


def test_depth_has_the_size_of_each_image_and_is_in_plausible_metres(kind, tiny, images):
    estimates = load(tiny(kind)).estimate(images, UNKNOWN)
    for estimate, image in zip(estimates, images, strict=True):
        assert estimate.depth_m.shape == image.shape[:2]
        assert estimate.depth_m.dtype == np.float32
        assert estimate.depth_m.max() > 0
        assert estimate.depth_m.min() >= 0 and estimate.depth_m.max() < 100


def test_the_batch_size_changes_nothing_and_the_order_is_kept(kind, tiny, images):
    together = load(tiny(kind), batch_size=3).estimate(images, UNKNOWN)
    alone = [load(tiny(kind), batch_size=1).estimate([image], [None])[0] for image in images]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.depth_m, other.depth_m, rtol=1e-3, atol=1e-4)
    assert not np.allclose(together[0].depth_m, together[2].depth_m, rtol=1e-3, atol=1e-4)


def test_bfloat16_agrees_roughly(kind, tiny, images):
    exact = load(tiny(kind)).estimate(images, UNKNOWN)
    rounded = load(tiny(kind), dtype="bfloat16").estimate(images, UNKNOWN)
    for one, other in zip(exact, rounded, strict=True):
        assert other.depth_m.dtype == np.float32
        assert np.median(other.depth_m) == pytest.approx(np.median(one.depth_m), rel=0.05)


def test_doubling_a_known_focal_length_doubles_depth_pros_depth(tiny, images):
    model = load(tiny("depth_pro"))
    near, far = model.estimate(images, (50.0, 50.0, 50.0)), model.estimate(images, (100.0, 100.0, None))
    for one, other in zip(near[:2], far[:2]):
        valid = (one.depth_m > 0) & (other.depth_m > 0)
        assert valid.mean() > 0.9
        np.testing.assert_allclose(2 * one.depth_m[valid], other.depth_m[valid], rtol=1e-4)
        assert (one.focal_length_px, other.focal_length_px) == (50.0, 100.0)
    assert far[2].focal_length_px not in (None, 100.0), "an unknown one beside known ones is the model's own"


def test_a_known_focal_length_equal_to_the_predicted_one_changes_nothing(tiny, images):
    model = load(tiny("depth_pro"))
    guessed = model.estimate(images, UNKNOWN)
    told = model.estimate(images, [one.focal_length_px for one in guessed])
    for one, other in zip(guessed, told):
        np.testing.assert_allclose(one.depth_m, other.depth_m, rtol=1e-4)


def test_depth_pros_field_of_view_spans_the_width(tiny, images):
    """The tiny model says about 60 degrees, which is 0.87 widths."""
    for image, estimate in zip(images, load(tiny("depth_pro")).estimate(images, UNKNOWN)):
        assert estimate.focal_length_px == pytest.approx(0.87 * image.shape[1], rel=0.15)


@pytest.mark.parametrize("kind", ["depth_anything", "zoedepth"])
def test_models_of_one_camera_tell_no_focal_length_and_do_not_use_one(kind, tiny, images):
    model = load(tiny(kind))
    unknown, known = model.estimate(images, UNKNOWN), model.estimate(images, (50.0, 60.0, 70.0))
    assert [one.focal_length_px for one in unknown] == [None, None, None]
    assert [one.focal_length_px for one in known] == [50.0, 60.0, 70.0]
    assert all((one.depth_m == other.depth_m).all() for one, other in zip(unknown, known))


def test_sky_is_no_depth(tiny, images, monkeypatch):
    """Depth Pro says 10,000 m of what its head calls infinitely far; other models say the most they can."""
    model = load(tiny("depth_pro"))
    for layer in model._loaded.model.head.layers:
        if isinstance(layer, torch.nn.Conv2d):
            layer.bias.data.fill_(-100.0)
            layer.weight.data.zero_()
    assert all((one.depth_m == 0).all() for one in model.estimate(images, UNKNOWN))
    metric = load(tiny("depth_anything"))
    assert metric._farthest_m == pytest.approx(0.98 * 20)
    monkeypatch.setattr(metric, "_farthest_m", 5.0)
    estimates = metric.estimate(images, UNKNOWN)
    assert all(one.depth_m.max() < 5.0 for one in estimates)
    assert any((one.depth_m == 0).any() for one in estimates)


def test_an_impossible_field_of_view_gives_neither_focal_length_nor_depth(tiny, images):
    model = load(tiny("depth_pro"))
    model._loaded.model.fov_model.head.layers[-1].bias.data.fill_(-60.0)
    for estimate in model.estimate(images, UNKNOWN):
        assert estimate.focal_length_px is None
        assert (estimate.depth_m == 0).all()


def test_every_model_states_its_noise(kind, tiny):
    assert load(tiny(kind)).relative_noise == depth.RELATIVE_NOISE[kind]


@pytest.mark.parametrize(
    ("kind", "changes", "expected"),
    [
        ("depth_anything", {"depth_estimation_type": "relative"}, "relative depth, not metres; pass a metric one"),
        ("depth_pro", {"use_fov_model": False}, "no field-of-view head"),
    ],
)
def test_models_without_metres_are_refused(kind, changes, expected, tiny):
    with pytest.raises(InputError, match=expected):
        load(tiny(kind, **changes))
