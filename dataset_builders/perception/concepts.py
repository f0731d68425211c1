"""SAM 3: masks and boxes of all that a word names, or of what a box shows."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from dataset_builders.perception import Array, Box, Detection, Region
from dataset_builders.perception.loading import LoadedModel, as_float32, batches, sizes_of

ARCHITECTURES = {
    "sam3": ("Sam3Model", "Sam3Processor"),
    "sam3_video": ("Sam3Model", "Sam3Processor"),  # what the checkpoint on the Hub calls itself
}
MIN_SCORE = 0.5


class ConceptSegmenter:
    """The image is encoded once, in a batch; then as many prompts as the batch has images are answered at a time."""

    def __init__(self, loaded: LoadedModel, batch_size: int) -> None:
        """Wrap a loaded `Sam3Model`."""
        self._loaded = loaded
        self._batch_size = batch_size

    def find(self, images: Sequence[Array], vocabulary: Sequence[str]) -> list[list[Region]]:
        """Every instance of every word, named, the surest first."""
        found: list[list[Region]] = [[] for _ in images]
        for index, words, results in self._search(images, vocabulary):
            for word, result in zip(words, results):
                masks = result["masks"].bool().cpu().numpy()
                found[index] += [Region(mask, score, word) for mask, score in zip(masks, result["scores"].tolist())]
        return [sorted(regions, key=lambda one: -one.score) for regions in found]

    def detect(self, images: Sequence[Array], vocabulary: Sequence[str]) -> list[list[Detection]]:
        """The same as boxes."""
        found: list[list[Detection]] = [[] for _ in images]
        for index, words, results in self._search(images, vocabulary):
            for word, result in zip(words, results):
                rows = zip(result["boxes"].tolist(), result["scores"].tolist())
                found[index] += [Detection(tuple(box), word, score) for box, score in rows]
        return found

    def in_boxes(self, images: Sequence[Array], boxes: Sequence[Sequence[Box]]) -> list[list[Region]]:
        """Of all that looks like the box's content, the instance that fills the box best."""
        import torchvision

        found: list[list[Region]] = [[] for _ in images]
        for index, image, features in self._encoded(images):
            for chunk in _chunks(boxes[index], self._batch_size):
                prompts = [[list(map(float, box))] for box in chunk]
                sizes = sizes_of([image] * len(chunk))
                inputs = self._loaded.processor(
                    text=["visual"] * len(chunk), input_boxes=prompts, original_sizes=sizes, return_tensors="pt"
                )
                for box, result in zip(chunk, self._answers(features, inputs, sizes, min_score=-1.0)):
                    overlaps = torchvision.ops.box_iou(result["boxes"].new_tensor([box]), result["boxes"])[0]
                    best = int((overlaps * result["scores"]).argmax())
                    mask = result["masks"][best].bool().cpu().numpy()
                    found[index].append(Region(mask, float(result["scores"][best])))
        return found

    def _search(self, images: Sequence[Array], vocabulary: Sequence[str]) -> Iterator[tuple[int, Sequence[str], Any]]:
        """Index of the image, some words and the answer to each of them."""
        for index, image, features in self._encoded(images):
            for words in _chunks(vocabulary, self._batch_size):
                inputs = self._loaded.processor(text=list(words), return_tensors="pt")
                yield index, words, self._answers(features, inputs, sizes_of([image] * len(words)), MIN_SCORE)

    def _encoded(self, images: Sequence[Array]) -> Iterator[tuple[int, Array, Any]]:
        """Index, image and its features, as tuples of (1, C, h, w) per level."""
        for indices in batches(images, self._batch_size, equal_shape=False):
            inputs = self._loaded.prepare([images[k] for k in indices])
            features = self._loaded.model.get_vision_features(pixel_values=inputs["pixel_values"])
            for position, index in enumerate(indices):
                yield index, images[index], _one(features, position)

    def _answers(self, features: Any, inputs: Any, sizes: list[tuple[int, int]], min_score: float) -> list[dict]:
        """Boxes (N, 4) in pixels, scores (N,) and masks (N, H, W) that answer each of B prompts."""
        prompts = {key: value.to(self._loaded.device) for key, value in inputs.items() if key != "original_sizes"}
        if "input_boxes" in prompts:
            prompts["input_boxes"] = prompts["input_boxes"].to(self._loaded.dtype)
        outputs = self._loaded.model(vision_embeds=_repeated(features, len(sizes)), **prompts)
        return self._loaded.processor.post_process_instance_segmentation(
            as_float32(outputs), threshold=min_score, target_sizes=sizes
        )


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _one(features: Any, position: int) -> Any:
    return _each_level(features, lambda level: level[position : position + 1])


def _repeated(features: Any, count: int) -> Any:
    return _each_level(features, lambda level: level.expand(count, -1, -1, -1))


def _each_level(features: Any, change: Any) -> Any:
    return type(features)(
        fpn_hidden_states=tuple(change(level) for level in features.fpn_hidden_states),
        fpn_position_encoding=tuple(change(level) for level in features.fpn_position_encoding),
    )
