"""Metrics against values worked out by hand."""

import math

import numpy as np
import pytest

from evaluators.dense_protocols import DEPTH, crop_truth
from evaluators.depth import aggregate
from evaluators.metrics import (
    DEPTH_METRICS,
    SEGMENTATION_METRICS,
    class_iou,
    depth_errors,
    overlap,
    segmentation_scores,
)


def test_depth_errors_by_hand():
    truth_m = np.array([[1.0, 2.0], [4.0, 0.0]])  # 0 = no reading
    prediction_m = np.array([[1.5, 2.0], [3.0, 9.0]])
    errors = depth_errors(prediction_m, truth_m, 1e-3, 10.0)
    assert errors["rmse_m"] == pytest.approx(math.sqrt((0.5**2 + 0 + 1**2) / 3))
    assert errors["abs_rel"] == pytest.approx((0.5 / 1 + 0 + 1 / 4) / 3)
    assert errors["delta1"] == pytest.approx(1 / 3)  # ratios 1.5, 1, 4/3


def test_delta1_excludes_the_threshold_itself():
    assert depth_errors(np.array([1.25]), np.array([1.0]), 1e-3, 10.0)["delta1"] == 0.0
    assert depth_errors(np.array([1.2]), np.array([1.0]), 1e-3, 10.0)["delta1"] == 1.0


def test_depth_is_clamped_and_truth_outside_the_range_does_not_count():
    truth_m = np.array([9.0, 12.0, 10.0, 1e-3])
    prediction_m = np.array([50.0, 0.0, 0.0, 0.0])
    errors = depth_errors(prediction_m, truth_m, 1e-3, 10.0)  # only 9 m counts, predicted as 10 m
    assert errors["rmse_m"] == pytest.approx(1.0)
    assert depth_errors(np.array([-3.0]), np.array([2.0]), 0.5, 10.0)["rmse_m"] == pytest.approx(1.5)


def test_depth_without_a_reading_gives_none():
    assert depth_errors(np.ones((2, 2)), np.zeros((2, 2)), 1e-3, 10.0) is None


def test_rmse_is_the_mean_of_images_not_of_pixels():
    one = depth_errors(np.array([3.0]), np.array([2.0]), 1e-3, 10.0)  # RMSE 1, one pixel
    many = depth_errors(np.full(99, 5.0), np.full(99, 2.0), 1e-3, 10.0)  # RMSE 3, 99 pixels
    items = np.array([list(one.values()), [np.nan] * 3, list(many.values())])
    assert aggregate(items)["rmse_m"] == pytest.approx(2.0)  # global RMSE would be 2.99


def test_mean_iou_over_the_data_set_by_hand():
    one = overlap(np.array([[0, 0, 1]]), np.array([[0, 1, 1]]), 4)
    two = overlap(np.array([[0, 2, 3]]), np.array([[0, 0, 255]]), 4)  # the 3 lies on an ignored pixel
    items = np.stack([one, two])
    # class 0: 2 correct, union 4; class 1: 1 of 2; class 2: predicted only, 0 of 1; class 3: absent
    iou = class_iou(items)
    assert iou[:3].tolist() == [0.5, 0.5, 0.0]
    assert np.isnan(iou[3])
    values = segmentation_scores(items)
    assert values["mean_iou"] == pytest.approx(100 * (0.5 + 0.5 + 0.0) / 3)
    assert values["pixel_accuracy"] == pytest.approx(100 * 3 / 5)


def test_metrics_know_their_direction():
    rmse, _, delta1 = DEPTH_METRICS
    assert rmse.arrow == "↓" and rmse.is_better(-0.1) and not rmse.is_better(0.1) and not rmse.is_better(0.0)
    assert delta1.arrow == "↑" and delta1.is_better(0.1) and not delta1.is_better(-0.1)
    assert all(metric.higher_is_better for metric in SEGMENTATION_METRICS)


def test_mean_iou_is_the_upstream_definition_with_absent_classes():
    random = np.random.default_rng(0)
    truths = [random.choice([0, 1, 3, 6, 255], (20, 30)) for _ in range(4)]  # 2, 4 and 5 are nowhere in the truth
    predictions = [random.choice([0, 1, 2, 3, 6], (20, 30)) for _ in range(4)]  # 4 and 5 are nowhere at all
    both, predicted, true = np.zeros((3, 7))
    for prediction, truth in zip(predictions, truths):  # intersect_and_union of mmsegmentation and DINOv3
        prediction, truth = prediction[truth != 255], truth[truth != 255]
        both += np.histogram(prediction[prediction == truth], bins=7, range=(0, 6))[0]
        predicted += np.histogram(prediction, bins=7, range=(0, 6))[0]
        true += np.histogram(truth, bins=7, range=(0, 6))[0]
    with np.errstate(invalid="ignore"):
        expected = np.nanmean(both / (predicted + true - both))
    items = np.stack([overlap(prediction, truth, 7) for prediction, truth in zip(predictions, truths)])
    assert segmentation_scores(items)["mean_iou"] == pytest.approx(100 * expected, rel=1e-12)


def test_published_crops_by_hand():
    nyud, kitti = np.ones((480, 640)), np.ones((352, 1216))
    kept = crop_truth(nyud, DEPTH["nyud"].crops["eigen"]).nonzero()
    assert [(axis.min(), axis.max() + 1) for axis in kept] == [(45, 471), (41, 601)]
    kept = crop_truth(kitti, DEPTH["kitti"].crops["garg"]).nonzero()
    assert [(axis.min(), axis.max() + 1) for axis in kept] == [(143, 349), (43, 1172)]
    kept = crop_truth(kitti, DEPTH["kitti"].crops["eigen"]).nonzero()
    assert [(axis.min(), axis.max() + 1) for axis in kept] == [(117, 321), (43, 1172)]
    assert crop_truth(nyud, DEPTH["nyud"].crops["none"]).all()
    odd = np.random.default_rng(0).random((37, 53))
    cut = crop_truth(odd, DEPTH["nyud"].crops["eigen"])
    assert np.array_equal(cut[cut > 0], odd[3:36, 3:49].flatten())
