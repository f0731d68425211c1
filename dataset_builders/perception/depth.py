"""Metric depth from one image, with the focal length where the model knows it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from dataset_builders.perception import Array, DepthEstimate, PerceptionOptions
from dataset_builders.perception.loading import LoadedModel, as_float32, batches, load, sizes_of
from dataset_builders.scene import InputError

ARCHITECTURES = {
    "depth_pro": ("DepthProForDepthEstimation", "DepthProImageProcessor"),
    "depth_anything": ("DepthAnythingForDepthEstimation", "DPTImageProcessor"),
    "zoedepth": ("ZoeDepthForDepthEstimation", "ZoeDepthImageProcessor"),
}
# Standard deviation of the depth in relation to itself. Assumed, not measured: ZoeDepth and Depth Anything report mean
# relative errors of 0.06 to 0.08 indoors (NYU); Depth Pro is taken as equal to the better. Part of it is an error of
# scale common to the image, which changes no relation, so that the margins are on the safe side.
RELATIVE_NOISE = {"depth_pro": 0.06, "depth_anything": 0.06, "zoedepth": 0.08}
FARTHEST_M = 100.0  # beyond: sky, to which Depth Pro gives 10,000 m
SATURATED = 0.98  # of the largest depth that a model can say at all, which is what it says of the sky


class TransformersDepth:
    """Depth Pro, metric Depth Anything or ZoeDepth.

    Depth Pro predicts inverse depth `c` for a camera whose focal length is the image's width, and the field of view;
    `depth = focal_length / (width * c)`, so that a known focal length replaces the predicted one exactly. The two
    others predict metres directly and were trained on few cameras: a focal length does not enter and none is told.
    """

    def __init__(self, name: str, options: PerceptionOptions) -> None:
        """Load by id or folder; see `loading.load` for errors."""
        self._batch_size = options.batch_size
        self._loaded = load("depth", name, options, ARCHITECTURES)
        self._farthest_m = _farthest_m(name, self._loaded)
        self.relative_noise = RELATIVE_NOISE[self._loaded.architecture]

    @torch.inference_mode()
    def estimate(self, images: Sequence[Array], focal_lengths_px: Sequence[float | None]) -> list[DepthEstimate]:
        """Depth in metres at the size of each image; 0 for what is farther than 100 m or than the model can tell."""
        estimates: dict[int, DepthEstimate] = {}
        equal_shape = self._loaded.architecture != "depth_pro"  # which squashes every image to one square
        for indices in batches(images, self._batch_size, equal_shape=equal_shape):
            chosen, focal_lengths = [images[k] for k in indices], [focal_lengths_px[k] for k in indices]
            outputs = as_float32(self._loaded.model(pixel_values=self._loaded.prepare(chosen)["pixel_values"]))
            results = self._in_metres(outputs, sizes_of(chosen), focal_lengths)
            for index, result, known in zip(indices, results, focal_lengths):
                estimates[index] = DepthEstimate(
                    self._without_far(result["predicted_depth"]), known or _focal_length(result)
                )
        return [estimates[k] for k in range(len(images))]

    def _in_metres(
        self, outputs: Any, sizes: list[tuple[int, int]], focal_lengths_px: list[float | None]
    ) -> list[dict[str, Any]]:
        processor = self._loaded.processor
        if self._loaded.architecture == "zoedepth":
            return processor.post_process_depth_estimation(outputs, source_sizes=sizes, target_sizes=sizes)
        if self._loaded.architecture == "depth_pro":
            for index, known in enumerate(focal_lengths_px):
                if known is not None:
                    half_angle = np.arctan(0.5 * sizes[index][1] / known)
                    outputs.field_of_view[index] = float(np.rad2deg(2 * half_angle))
        return processor.post_process_depth_estimation(outputs, target_sizes=sizes)

    def _without_far(self, depth_m: torch.Tensor) -> Array:
        valid = torch.isfinite(depth_m) & (depth_m > 0) & (depth_m < self._farthest_m)
        return torch.where(valid, depth_m, 0).float().cpu().numpy()


def _focal_length(result: dict[str, Any]) -> float | None:
    """What Depth Pro says, unless it is no focal length at all."""
    focal_length_px = float(result.get("focal_length") or 0)
    return focal_length_px if np.isfinite(focal_length_px) and focal_length_px > 0 else None


def _farthest_m(name: str, loaded: LoadedModel) -> float:
    """Refuse what does not tell metres; beyond the result nothing that the model says is a measurement."""
    config = loaded.model.config
    if loaded.architecture == "depth_pro":
        if not config.use_fov_model:
            raise InputError(
                f"depth model {name!r} has no field-of-view head, so its depth has no scale; pass apple/DepthPro-hf."
            )
        return FARTHEST_M
    if loaded.architecture == "depth_anything":
        if config.depth_estimation_type != "metric":
            raise InputError(
                f"depth model {name!r} gives relative depth, not metres; pass a metric one, such as "
                "depth-anything/Depth-Anything-V2-Metric-Indoor-Large-hf."
            )
        return min(FARTHEST_M, SATURATED * config.max_depth)
    return min(FARTHEST_M, SATURATED * max(head["max_depth"] for head in config.bin_configurations))
