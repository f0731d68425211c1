"""Masks of what boxes hold, of everything in an image, or of what words name: SAM, SAM 2 and SAM 3."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from dataset_builders.perception import Array, Box, PerceptionOptions, Region
from dataset_builders.perception.concepts import ARCHITECTURES as BY_CONCEPT
from dataset_builders.perception.concepts import ConceptSegmenter
from dataset_builders.perception.loading import LoadedModel, batches, load, sizes_of
from dataset_builders.perception.vocabulary import VOCABULARY

BY_PROMPT = {
    "sam": ("SamModel", "SamProcessor"),
    "sam2": ("Sam2Model", "Sam2Processor"),
    "sam2_video": ("Sam2Model", "Sam2Processor"),  # what the checkpoints on the Hub call themselves
    "sam3_tracker": ("Sam3TrackerModel", "Sam3TrackerProcessor"),
}
POINTS_PER_SIDE = 32  # of the grid that finds everything; this and the next three are SAM's own defaults
MIN_PREDICTED_IOU = 0.88
MIN_STABILITY = 0.95  # IoU of the masks at thresholds +1 and -1
MAX_BOX_IOU = 0.7
PROMPTS_PER_CALL = 64  # of the mask decoder


class TransformersSegmenter:
    """SAM, SAM 2 and the tracker of SAM 3 prompted by boxes or a grid of points; SAM 3 by boxes or words."""

    def __init__(self, name: str, options: PerceptionOptions) -> None:
        """Load by id or folder; see `loading.load` for errors."""
        loaded = load("segmenter", name, options, {**BY_PROMPT, **BY_CONCEPT})
        segmenter = ConceptSegmenter if loaded.architecture in BY_CONCEPT else PromptSegmenter
        self._segmenter = segmenter(loaded, options.batch_size)

    @torch.inference_mode()
    def segment(
        self, images: Sequence[Array], boxes: Sequence[Sequence[Box]] | None, vocabulary: Sequence[str]
    ) -> list[list[Region]]:
        """One region per box, in order; without boxes everything (SAM, SAM 2) or what the words name (SAM 3)."""
        if boxes is not None:
            return self._segmenter.in_boxes(images, boxes)
        return self._segmenter.find(images, vocabulary or VOCABULARY)


class PromptSegmenter:
    """The image is encoded once, in a batch; the light mask decoder then answers the prompts of each image."""

    def __init__(self, loaded: LoadedModel, batch_size: int) -> None:
        """Wrap a loaded model."""
        self._loaded = loaded
        self._batch_size = batch_size

    def in_boxes(self, images: Sequence[Array], boxes: Sequence[Sequence[Box]]) -> list[list[Region]]:
        """The best of the three masks of each box, by the model's own estimate."""
        found: list[list[Region]] = [[] for _ in images]
        for indices in batches(images, self._batch_size, equal_shape=False):
            most = max(len(boxes[k]) for k in indices)
            if most == 0:
                continue
            # the processors take equally many boxes per image: the lists are filled up and the filling is not asked
            full = [[list(map(float, box)) for box in [*boxes[k], *[(0, 0, 1, 1)] * most][:most]] for k in indices]
            inputs, embeddings = self._encode([images[k] for k in indices], input_boxes=full)
            for position, index in enumerate(indices):
                prompts = inputs["input_boxes"][position, : len(boxes[index])].float()  # (N, 4)
                for chunk in prompts.split(PROMPTS_PER_CALL) if len(prompts) else ():
                    logits, scores = self._decode(_one(embeddings, position), input_boxes=chunk[None])
                    best = scores.argmax(dim=1)  # of (N, 3)
                    rows = torch.arange(len(best), device=best.device)
                    masks = self._full_size(logits[rows, best], inputs, position)
                    found[index] += _regions(masks, scores[rows, best])
        return found

    def find(self, images: Sequence[Array], vocabulary: Sequence[str]) -> list[list[Region]]:
        """Sure and stable masks of a grid of points, duplicates removed; the words are ignored."""
        found: dict[int, list[Region]] = {}
        for indices in batches(images, self._batch_size, equal_shape=False):
            chosen = [images[k] for k in indices]
            points = [_grid(*size) for size in sizes_of(chosen)]
            inputs, embeddings = self._encode(chosen, input_points=points)
            for position, index in enumerate(indices):
                logits, scores = self._sure_masks(_one(embeddings, position), inputs["input_points"][position].float())
                found[index] = _regions(self._full_size(logits, inputs, position), scores)
        return [found[k] for k in range(len(images))]

    def _encode(self, images: list[Array], **prompts: Any) -> tuple[Any, Any]:
        inputs = self._loaded.prepare(images, **prompts)
        return inputs, self._loaded.model.get_image_embeddings(inputs["pixel_values"])

    def _decode(self, embeddings: Any, **prompts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mask logits (N, 3, h, w) and predicted IoU (N, 3) of the prompts of one image."""
        outputs = self._loaded.model(image_embeddings=embeddings, multimask_output=True, **prompts)
        return outputs.pred_masks[0].float(), outputs.iou_scores[0].float()

    def _sure_masks(self, embeddings: Any, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (N, h, w), at the decoder's resolution, and scores (N,) of what SAM's filters leave, best first."""
        import torchvision

        kept_logits, kept_scores = [], []
        for chunk in points.split(PROMPTS_PER_CALL):  # (N, 1, 2)
            logits, scores = (one.flatten(0, 1) for one in self._decode(embeddings, input_points=chunk[None]))
            inner, outer = (logits > 1).sum((1, 2)), (logits > -1).sum((1, 2))
            sure = (scores > MIN_PREDICTED_IOU) & (inner > MIN_STABILITY * outer) & (logits > 0).any(2).any(1)
            kept_logits.append(logits[sure])
            kept_scores.append(scores[sure])
        logits, scores = torch.cat(kept_logits), torch.cat(kept_scores)
        keep = torchvision.ops.nms(torchvision.ops.masks_to_boxes(logits > 0), scores, MAX_BOX_IOU)
        return logits[keep], scores[keep]

    def _full_size(self, logits: torch.Tensor, inputs: Any, position: int) -> torch.Tensor:
        """Bool (N, H, W), without the padding that SAM adds."""
        padded = inputs.get("reshaped_input_sizes")
        masks = self._loaded.processor.image_processor.post_process_masks(
            [logits[:, None]],
            [_pair(inputs["original_sizes"][position])],
            reshaped_input_sizes=None if padded is None else [_pair(padded[position])],
        )
        return masks[0][:, 0]


def _one(embeddings: Any, position: int) -> Any:
    """Those of one image of the batch: SAM gives one tensor, SAM 2 one per level."""
    if isinstance(embeddings, torch.Tensor):
        return embeddings[position : position + 1]
    return [level[position : position + 1] for level in embeddings]


def _grid(height: int, width: int) -> list[list[list[float]]]:
    """Points (x, y) in the middles of 32 x 32 equal cells of an image, one point per prompt."""
    middles = (np.arange(POINTS_PER_SIDE) + 0.5) / POINTS_PER_SIDE
    return [[[x, y]] for y in (middles * height).tolist() for x in (middles * width).tolist()]


def _pair(size: Any) -> tuple[int, int]:
    return int(size[0]), int(size[1])


def _regions(masks: torch.Tensor, scores: torch.Tensor) -> list[Region]:
    return [Region(mask, score) for mask, score in zip(masks.cpu().numpy(), scores.tolist())]
