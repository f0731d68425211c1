"""Open-vocabulary boxes: OWLv2 and OWL-ViT (CLIP inside, as in the paper), Grounding DINO, SAM 3."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from dataset_builders.perception import Array, Detection, PerceptionOptions
from dataset_builders.perception.concepts import ARCHITECTURES as BY_CONCEPT
from dataset_builders.perception.concepts import ConceptSegmenter
from dataset_builders.perception.loading import as_float32, batches, load, sizes_of
from dataset_builders.perception.vocabulary import VOCABULARY

__all__ = ["VOCABULARY", "TransformersDetector", "nearest_word", "one_per_thing"]

BY_QUERY = {
    "owlv2": ("Owlv2ForObjectDetection", "Owlv2Processor"),
    "owlvit": ("OwlViTForObjectDetection", "OwlViTProcessor"),
}
BY_SENTENCE = {
    "grounding-dino": ("GroundingDinoForObjectDetection", "GroundingDinoProcessor"),
    "mm-grounding-dino": ("MMGroundingDinoForObjectDetection", "GroundingDinoProcessor"),
}
MIN_SCORE = {"owlv2": 0.2, "owlvit": 0.1, "grounding-dino": 0.3, "mm-grounding-dino": 0.3}
MIN_WORD_SCORE = 0.25  # of a word of the sentence that Grounding DINO reads, to belong to the box's name
MAX_IOU = 0.7  # of two boxes that are kept, whatever their names: one thing is not two


class TransformersDetector:
    """What of a vocabulary an image shows."""

    def __init__(self, name: str, options: PerceptionOptions) -> None:
        """Load by id or folder; see `loading.load` for errors."""
        self._loaded = load("detector", name, options, {**BY_QUERY, **BY_SENTENCE, **BY_CONCEPT})
        self._batch_size = options.batch_size

    @torch.inference_mode()
    def detect(self, images: Sequence[Array], vocabulary: Sequence[str]) -> list[list[Detection]]:
        """Boxes inside each image, the surest first, one per thing; `VOCABULARY` where none is given."""
        vocabulary = vocabulary or VOCABULARY
        if self._loaded.architecture in BY_CONCEPT:
            found = ConceptSegmenter(self._loaded, self._batch_size).detect(images, vocabulary)
        else:
            found = self._detect_in_batches(images, vocabulary)
        return [one_per_thing(detections, size) for detections, size in zip(found, sizes_of(images))]

    def _detect_in_batches(self, images: Sequence[Array], vocabulary: Sequence[str]) -> list[list[Detection]]:
        found: list[list[Detection]] = [[] for _ in images]
        for indices in batches(images, self._batch_size, equal_shape=True):
            chosen = [images[k] for k in indices]
            for words in self._sentences(vocabulary):
                answers = self._by_query if self._loaded.architecture in BY_QUERY else self._by_sentence
                for index, result, names in answers(chosen, words):
                    rows = zip(result["boxes"].tolist(), names, result["scores"].tolist())
                    found[indices[index]] += [Detection(tuple(box), name, score) for box, name, score in rows if name]
        return found

    def _by_query(self, images: list[Array], words: Sequence[str]) -> Iterator[tuple[int, Any, list[str]]]:
        text = [[f"a photo of a {word}" for word in words]] * len(images)  # the prompt that CLIP was made for
        inputs = self._loaded.prepare(images, text=text)
        results = self._loaded.processor.post_process_grounded_object_detection(
            as_float32(self._loaded.model(**inputs)), threshold=self._min_score, target_sizes=sizes_of(images)
        )
        for index, result in enumerate(results):
            yield index, result, [words[label] for label in result["labels"].tolist()]

    def _by_sentence(self, images: list[Array], words: Sequence[str]) -> Iterator[tuple[int, Any, list[str]]]:
        inputs = self._loaded.prepare(images, text=[list(words)] * len(images))
        results = self._loaded.processor.post_process_grounded_object_detection(
            as_float32(self._loaded.model(**inputs)),
            inputs["input_ids"],
            threshold=self._min_score,
            text_threshold=MIN_WORD_SCORE,
            target_sizes=sizes_of(images),
        )
        for index, result in enumerate(results):
            yield index, result, [nearest_word(text, words) or "" for text in result["text_labels"]]

    @property
    def _min_score(self) -> float:
        return MIN_SCORE[self._loaded.architecture]

    def _sentences(self, vocabulary: Sequence[str]) -> Iterator[Sequence[str]]:
        """The vocabulary in parts that are read to the end: Grounding DINO cuts a sentence after 256 tokens."""
        if self._loaded.architecture in BY_QUERY:
            yield vocabulary
            return
        lengths = [len(self._loaded.processor.tokenizer.tokenize(f"{word}. ")) for word in vocabulary]
        room = self._loaded.model.config.max_text_len - 2  # the sentence's first and last token
        start, used = 0, 0
        for index, length in enumerate(lengths):
            if used + length > room and index > start:
                yield vocabulary[start:index]
                start, used = index, 0
            used += length
        yield vocabulary[start:]


def nearest_word(text: str, vocabulary: Sequence[str]) -> str | None:
    """The entry of the vocabulary that shares most of its words with a piece of text; None if it shares none.

    Grounding DINO names a box by those tokens of its sentence that it is sure of: "dining" for "dining table", or
    "chair table" where it hesitates.
    """
    said = set(text.lower().split())
    shared = [len(said & set(word.lower().split())) / len(said | set(word.lower().split())) for word in vocabulary]
    best = max(range(len(shared)), key=shared.__getitem__)
    return vocabulary[best] if shared[best] > 0 else None


def one_per_thing(detections: Sequence[Detection], size: tuple[int, int]) -> list[Detection]:
    """Clip the boxes to an image of (H, W), leave out the empty ones and the less sure of two nearly equal ones."""
    import torchvision

    if not detections:
        return []
    boxes = torchvision.ops.clip_boxes_to_image(torch.tensor([one.box for one in detections]), size)
    scores = torch.tensor([one.score for one in detections])
    keep = torchvision.ops.nms(boxes, scores, MAX_IOU)  # sorted by score
    keep = keep[(boxes[keep, 2:] - boxes[keep, :2]).amin(1) >= 1]
    return [Detection(tuple(boxes[k].tolist()), detections[k].name, detections[k].score) for k in keep.tolist()]
