import numpy as np
import pytest
import torch

from dataset_builders.perception import Detection, PerceptionOptions, concepts, detection
from dataset_builders.perception.detection import TransformersDetector, nearest_word, one_per_thing
from dataset_builders.perception.vocabulary import VOCABULARY

KINDS = ("owlv2", "owlvit", "grounding_dino", "mm_grounding_dino", "sam3")
WORDS = ("red cup", "box", "dining table")


def load(folder, **options):
    return TransformersDetector(folder, PerceptionOptions(**options))


@pytest.fixture(autouse=True)
def lenient(monkeypatch):
    """What an untrained model finds passes no filter."""
    for architecture in detection.MIN_SCORE:
        monkeypatch.setitem(detection.MIN_SCORE, architecture, 0.0)
    monkeypatch.setattr(detection, "MIN_WORD_SCORE", 0.0)
    monkeypatch.setattr(concepts, "MIN_SCORE", 0.2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_boxes_lie_in_the_image_and_have_names_of_the_vocabulary(kind, dtype, tiny, images):
    found = load(tiny(kind), dtype=dtype).detect(images, WORDS)
    assert len(found) == 3
    for detections, image in zip(found, images):
        assert detections
        height, width = image.shape[:2]
        for one in detections:
            x0, y0, x1, y1 = one.box
            assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
            assert one.name in WORDS
        scores = [one.score for one in detections]
        assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("kind", KINDS)
def test_neither_batch_size_nor_neighbours_change_a_box(kind, tiny, images):
    together, alone = load(tiny(kind), batch_size=3), load(tiny(kind), batch_size=1)
    for detections, image in zip(together.detect(images, WORDS), images):
        [expected] = alone.detect([image], WORDS)
        assert [one.name for one in detections] == [one.name for one in expected]
        for one, other in zip(detections, expected):
            np.testing.assert_allclose(one.box, other.box, atol=0.05)


def test_owlv2_boxes_are_in_pixels_of_the_image_and_not_of_its_padded_square(tiny, images):
    """Owlv2 pads to a square: a box over the whole square is clipped to the image."""
    model = load(tiny("owlv2"))
    head = model._loaded.model.box_head
    torch.nn.init.zeros_(head.dense2.weight)
    with torch.no_grad():
        head.dense2.bias.copy_(torch.tensor([0.0, 0.0, 20.0, 20.0]))  # as wide and as high as can be
        model._loaded.model.box_bias.zero_()
    [detections] = model.detect(images[:1], WORDS)
    assert detections[0].box == pytest.approx((0, 0, 60, 40), abs=0.1)


@pytest.mark.parametrize("kind", ["owlv2", "grounding_dino"])
def test_unsure_boxes_are_left_out(kind, tiny, images, monkeypatch):
    model = load(tiny(kind))
    monkeypatch.setitem(detection.MIN_SCORE, model._loaded.architecture, 1.1)
    assert model.detect(images, WORDS) == [[], [], []]


def test_the_default_vocabulary_is_used_and_read_to_its_end(tiny, images):
    assert 100 <= len(VOCABULARY) == len(set(VOCABULARY)) <= 150
    names = {one.name for one in load(tiny("owlv2")).detect(images[:1], ())[0]}
    assert names <= set(VOCABULARY)


def test_a_long_vocabulary_is_split_into_sentences_that_fit(tiny):
    model = load(tiny("grounding_dino"))
    parts = list(model._sentences(VOCABULARY))
    assert [word for part in parts for word in part] == list(VOCABULARY)
    assert len(parts) > 1
    for part in parts:
        tokens = model._loaded.processor(
            images=np.zeros((8, 8, 3), dtype=np.uint8), text=[list(part)], return_tensors="pt"
        ).input_ids
        assert tokens.shape[1] <= model._loaded.model.config.max_text_len


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("red cup", "red cup"),
        ("dining", "dining table"),
        ("Box .", "box"),
        ("table dining red", "dining table"),
        ("elephant", None),
        ("", None),
    ],
)
def test_a_text_is_matched_to_the_vocabulary(text, expected):
    assert nearest_word(text, WORDS) == expected


def test_one_thing_is_found_once_whatever_its_names():
    cup, mug = Detection((10.0, 10.0, 30.0, 30.0), "cup", 0.9), Detection((10.0, 10.0, 30.0, 31.0), "mug", 0.8)
    outside, table = Detection((-20.0, 0.0, -5.0, 5.0), "hat", 0.95), Detection((-5.0, 0.0, 50.0, 60.0), "table", 0.5)
    kept = one_per_thing([mug, table, outside, cup], (40, 50))
    assert [one.name for one in kept] == ["cup", "table"]
    assert kept[1].box == (0.0, 0.0, 50.0, 40.0)
