"""Dense metrics as the papers define them; every metric knows which direction is better."""

from dataclasses import dataclass

import numpy as np
import torch
from torchmetrics.classification import MulticlassConfusionMatrix

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


def mean_over_images(errors: list[dict[str, float] | None]) -> dict[str, float]:
    """Average per-image errors over the images that have any: the published RMSE is this, not the global one."""
    counted = [error for error in errors if error is not None]
    return {metric.name: float(np.mean([error[metric.name] for error in counted])) for metric in DEPTH_METRICS}


class SegmentationScores:
    """Pixel counts over a whole data set; 255 in the truth does not count."""

    def __init__(self, num_classes: int) -> None:
        """Start with no pixels."""
        self.confusion = MulticlassConfusionMatrix(num_classes, ignore_index=IGNORED_CLASS)

    def add(self, prediction: np.ndarray, truth: np.ndarray) -> None:
        """Count one image: (H, W) class ids each."""
        self.confusion.update(torch.from_numpy(prediction.astype(np.int64)), torch.from_numpy(truth.astype(np.int64)))

    def class_iou(self) -> np.ndarray:
        """Return (K,) intersection over union in [0, 1], NaN for a class in neither prediction nor truth."""
        counts = self.confusion.compute().numpy().astype(np.float64)  # (truth, prediction)
        correct = counts.diagonal()
        union = counts.sum(0) + counts.sum(1) - correct
        return np.divide(correct, union, out=np.full_like(correct, np.nan), where=union > 0)

    def compute(self) -> dict[str, float]:
        """Return a value per name in SEGMENTATION_METRICS, in percent."""
        counts = self.confusion.compute().numpy().astype(np.float64)
        return {
            "mean_iou": float(100 * np.nanmean(self.class_iou())),
            "pixel_accuracy": float(100 * counts.diagonal().sum() / counts.sum()),
        }
