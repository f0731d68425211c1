"""SAM 3: masks and boxes of all that a word names, or of what a box shows."""

from collections.abc import Iterator, Sequence
from typing import Any

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
        for index, words, outputs, sizes in self._search(images, vocabulary):
            results = self._loaded.processor.post_process_instance_segmentation(outputs, MIN_SCORE, target_sizes=sizes)
            for word, result in zip(words, results):
                masks = result["masks"].bool().cpu().numpy()
                found[index] += [Region(mask, score, word) for mask, score in zip(masks, result["scores"].tolist())]
        return [sorted(regions, key=lambda one: -one.score) for regions in found]

    def detect(self, images: Sequence[Array], vocabulary: Sequence[str]) -> list[list[Detection]]:
        """The same as boxes, in no order."""
        found: list[list[Detection]] = [[] for _ in images]
        for index, words, outputs, sizes in self._search(images, vocabulary):
            results = self._loaded.processor.post_process_object_detection(outputs, MIN_SCORE, target_sizes=sizes)
            for word, result in zip(words, results):
                rows = zip(result["boxes"].tolist(), result["scores"].tolist())
                found[index] += [Detection(tuple(box), word, score) for box, score in rows]
        return found

    def in_boxes(self, images: Sequence[Array], boxes: Sequence[Sequence[Box]]) -> list[list[Region]]:
        """Of all that looks like the box's content, the instance that fills the box best."""
        found: list[list[Region]] = [[] for _ in images]
        for index, image, features in self._encoded(images):
            for chunk in _chunks(boxes[index], self._batch_size):
                prompts = [[list(map(float, box))] for box in chunk]
                sizes = sizes_of([image] * len(chunk))
                inputs = self._loaded.processor(
                    text=["visual"] * len(chunk), input_boxes=prompts, original_sizes=sizes, return_tensors="pt"
                )
                outputs = self._best_in_boxes(self._answers(features, inputs, len(chunk)), chunk, sizes)
                results = self._loaded.processor.post_process_instance_segmentation(outputs, -1.0, target_sizes=sizes)
                for result in results:
                    found[index].append(Region(result["masks"][0].bool().cpu().numpy(), float(result["scores"][0])))
        return found

    def _best_in_boxes(self, outputs: Any, boxes: Sequence[Box], sizes: list[tuple[int, int]]) -> Any:
        """The outputs with one of their instances per box: the sure one that overlaps most."""
        import torchvision

        results = self._loaded.processor.post_process_object_detection(outputs, -1.0, target_sizes=sizes)
        for row, (box, result) in enumerate(zip(boxes, results)):
            overlap = torchvision.ops.box_iou(result["boxes"].new_tensor([box]), result["boxes"])[0]
            best = (overlap * result["scores"]).argmax()
            for key in ("pred_logits", "pred_boxes", "pred_masks"):
                outputs[key][row, 0] = outputs[key][row, best]
        for key in ("pred_logits", "pred_boxes", "pred_masks"):
            outputs[key] = outputs[key][:, :1]
        return outputs

    def _search(
        self, images: Sequence[Array], vocabulary: Sequence[str]
    ) -> Iterator[tuple[int, Sequence[str], Any, list[tuple[int, int]]]]:
        """Index of the image, some words, the answers to each of them, and (H, W) of the image for each of them."""
        for index, image, features in self._encoded(images):
            for words in _chunks(vocabulary, self._batch_size):
                inputs = self._loaded.processor(text=list(words), return_tensors="pt")
                yield index, words, self._answers(features, inputs, len(words)), sizes_of([image] * len(words))

    def _encoded(self, images: Sequence[Array]) -> Iterator[tuple[int, Array, Any]]:
        """Index, image and its features, as tuples of (1, C, h, w) per level."""
        for indices in batches(images, self._batch_size, equal_shape=False):
            inputs = self._loaded.prepare([images[k] for k in indices])
            features = self._loaded.model.get_vision_features(pixel_values=inputs["pixel_values"])
            for position, index in enumerate(indices):
                yield index, images[index], _one(features, position)

    def _answers(self, features: Any, inputs: Any, count: int) -> Any:
        """Boxes (B, N, 4), logits (B, N) and masks (B, N, h, w) that answer each of B prompts about one image."""
        prompts = {key: value.to(self._loaded.device) for key, value in inputs.items() if key != "original_sizes"}
        if "input_boxes" in prompts:
            prompts["input_boxes"] = prompts["input_boxes"].to(self._loaded.dtype)
        return as_float32(self._loaded.model(vision_embeds=_repeated(features, count), **prompts))


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _one(features: Any, position: int) -> Any:
    return _each_level(features, lambda level: level[position : position + 1])


def _repeated(features: Any, count: int) -> Any:
    return _each_level(features, lambda level: level.expand(count, -1, -1, -1))


def _each_level(features: Any, change: Any) -> Any:
    """The same kind of output with each level of its pyramid, (B, C, h, w), changed."""
    return type(features)(
        fpn_hidden_states=tuple(change(level) for level in features.fpn_hidden_states),
        fpn_position_encoding=tuple(change(level) for level in features.fpn_position_encoding),
    )
