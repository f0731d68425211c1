"""Dense metrics as the papers define them; every metric knows which direction is better."""

from dataclasses import dataclass

import numpy as np
import torch
from torchmetrics.functional.classification import multiclass_confusion_matrix

IGNORED_CLASS = 255


@dataclass(frozen=True)
class Metric:
    """A number of a task: its key in the results, its label, its direction."""

    name: str
    label: str
    higher_is_better: bool

    @property
    def arrow(self) -> str:
        """The direction that is better."""
        return "↑" if self.higher_is_better else "↓"

    def is_better(self, difference: float) -> bool:
        """Whether `boosted - base = difference` is an improvement."""
        return difference > 0 if self.higher_is_better else difference < 0


DEPTH_METRICS = (
    Metric("rmse_m", "RMSE (m)", higher_is_better=False),
    Metric("abs_rel", "AbsRel", higher_is_better=False),
    Metric("delta1", "δ1", higher_is_better=True),
)
SEGMENTATION_METRICS = (
    Metric("mean_iou", "mIoU (%)", higher_is_better=True),
    Metric("pixel_accuracy", "pixel accuracy (%)", higher_is_better=True),
)


def depth_errors(
    prediction_m: np.ndarray, truth_m: np.ndarray, min_depth_m: float, max_depth_m: float
) -> dict[str, float] | None:
    """Return the errors of one image.

    RMSE `sqrt(mean((p - t)^2))`, AbsRel `mean(|p - t| / t)`, delta1 the share with `max(p / t, t / p) < 1.25`.

    Args:
        prediction_m: (H, W) depth in metres, clamped here to [min_depth_m, max_depth_m].
        truth_m: (H, W); pixels outside (min_depth_m, max_depth_m) do not count, so 0 marks a missing reading.
        min_depth_m: lower end of the range.
        max_depth_m: upper end of the range.

    Returns:
        A value per name in DEPTH_METRICS, or None where no pixel counts.
    """
    valid = (truth_m > min_depth_m) & (truth_m < max_depth_m)
    if not valid.any():
        return None
    truth = truth_m[valid].astype(np.float64)
    prediction = prediction_m[valid].astype(np.float64).clip(min_depth_m, max_depth_m)
    error = prediction - truth
    return {
        "rmse_m": float(np.sqrt(np.mean(error**2))),
        "abs_rel": float(np.mean(np.abs(error) / truth)),
        "delta1": float(np.mean(np.maximum(prediction / truth, truth / prediction) < 1.25)),
    }


def overlap(prediction: np.ndarray, truth: np.ndarray, num_classes: int) -> np.ndarray:
    """Count the pixels of one image; 255 in the truth does not count.

    Args:
        prediction: (H, W) class ids.
        truth: (H, W) class ids or 255.
        num_classes: K.

    Returns:
        (3K,): per class the pixels that are it in both maps, in the prediction, in the truth.
    """
    counted = truth != IGNORED_CLASS
    confusion = multiclass_confusion_matrix(
        torch.from_numpy(prediction[counted].astype(np.int64)),
        torch.from_numpy(truth[counted].astype(np.int64)),
        num_classes,
    ).numpy()  # (truth, prediction)
    return np.concatenate([confusion.diagonal(), confusion.sum(0), confusion.sum(1)]).astype(np.float64)


def class_iou(items: np.ndarray) -> np.ndarray:
    """Return (K,) intersection over union in [0, 1] of (num_images, 3K) counts; NaN for a class that is nowhere."""
    both, predicted, true = items.sum(0).reshape(3, -1)
    union = predicted + true - both
    return np.divide(both, union, out=np.full_like(both, np.nan), where=union > 0)


def segmentation_scores(items: np.ndarray) -> dict[str, float]:
    """Return mIoU over the data set and pixel accuracy, per cent, of the (num_images, 3K) counts of `overlap`."""
    both, _, true = items.sum(0).reshape(3, -1)
    iou = class_iou(items)
    return {
        "mean_iou": float(100 * np.nanmean(iou)) if np.isfinite(iou).any() else float("nan"),
        "pixel_accuracy": float(100 * both.sum() / true.sum()) if true.any() else float("nan"),
    }
