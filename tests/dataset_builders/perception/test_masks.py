import numpy as np
import pytest
import torch
import transformers
from transformers.models.sam3.modeling_sam3 import Sam3ImageSegmentationOutput

from dataset_builders.perception import PerceptionOptions, Region, concepts, masks
from dataset_builders.perception.masks import TransformersSegmenter
from dataset_builders.perception.regions import paint, tidy

BY_PROMPT = ("sam", "sam2", "sam2_video", "sam3_tracker")
BOXES = [[(1, 2, 20, 20), (10, 10, 30, 30)], [], [(5, 5, 40, 39)]]
WORDS = ("cup", "red box", "sofa")


def load(folder, **options):
    return TransformersSegmenter(folder, PerceptionOptions(**options))


@pytest.fixture
def lenient(monkeypatch):
    """What an untrained model finds passes no filter."""
    monkeypatch.setattr(masks, "MIN_PREDICTED_IOU", -10.0)
    monkeypatch.setattr(masks, "MIN_STABILITY", -1.0)
    monkeypatch.setattr(masks, "MAX_BOX_IOU", 1.0)
    monkeypatch.setattr(masks, "POINTS_PER_SIDE", 4)
    monkeypatch.setattr(concepts, "MIN_SCORE", 0.2)


@pytest.mark.parametrize("kind", [*BY_PROMPT, "sam3", "sam3_video"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_mask_per_box_in_order_at_the_images_size(kind, dtype, tiny, images):
    found = load(tiny(kind), dtype=dtype).segment(images, BOXES, ())
    assert [len(regions) for regions in found] == [2, 0, 1]
    for regions, image in zip(found, images):
        for region in regions:
            assert (region.mask.shape, region.mask.dtype) == (image.shape[:2], np.dtype(bool))
            assert region.name is None


@pytest.mark.parametrize("kind", [*BY_PROMPT, "sam3"])
def test_neither_batch_size_nor_neighbours_change_a_mask(kind, tiny, images, lenient):
    together, alone = load(tiny(kind), batch_size=3), load(tiny(kind), batch_size=1)
    for boxes in (BOXES, None):
        for index, regions in enumerate(together.segment(images, boxes, WORDS)):
            [expected] = alone.segment([images[index]], boxes and [boxes[index]], WORDS)
            assert len(regions) == len(expected)
            for one, other in zip(regions, expected):
                assert (one.mask == other.mask).mean() > 0.99
                assert one.score == pytest.approx(other.score, abs=1e-3)


@pytest.mark.parametrize(("kind", "classes"), masks.BY_PROMPT.items())
def test_a_box_gives_the_best_mask_of_the_model_asked_directly(kind, classes, tiny, images):
    model_class, processor_class = (getattr(transformers, one) for one in classes)
    model, processor = model_class.from_pretrained(tiny(kind)), processor_class.from_pretrained(tiny(kind))
    inputs = processor(
        images=images[0], input_boxes=[[list(map(float, box)) for box in BOXES[0]]], return_tensors="pt"
    )
    padded = inputs.pop("reshaped_input_sizes", None)
    sizes = inputs.pop("original_sizes")
    with torch.inference_mode():
        outputs = model(pixel_values=inputs["pixel_values"], input_boxes=inputs["input_boxes"].float())
    extra = {} if padded is None else {"reshaped_input_sizes": padded}
    expected = processor.image_processor.post_process_masks(outputs.pred_masks, sizes, **extra)[0]  # (N, 3, H, W)
    best = outputs.iou_scores[0].argmax(1)
    [found] = load(tiny(kind)).segment(images[:1], BOXES[:1], ())
    for region, of_box, index in zip(found, expected, best):
        assert (region.mask == of_box[index].numpy()).mean() > 0.99


@pytest.mark.parametrize("kind", BY_PROMPT)
def test_everything_is_found_without_boxes(kind, tiny, images, lenient):
    found = load(tiny(kind)).segment(images, None, WORDS)
    for regions, image in zip(found, images):
        assert regions
        assert all(region.mask.shape == image.shape[:2] and region.name is None for region in regions)
        scores = [region.score for region in regions]
        assert scores == sorted(scores, reverse=True)


def test_what_the_model_is_not_sure_of_is_left_out(tiny, images, lenient, monkeypatch):
    monkeypatch.setattr(masks, "MIN_PREDICTED_IOU", 0.88)
    assert load(tiny("sam")).segment(images, None, ()) == [[], [], []]


def test_the_grid_covers_the_image():
    points = np.array(masks._grid(64, 32))[:, 0]
    assert points.shape == (1024, 2)
    assert points[0].tolist() == [0.5, 1.0]
    assert points[-1].tolist() == [31.5, 63.0]


@pytest.mark.parametrize("kind", ["sam3", "sam3_video"])
def test_sam3_names_what_words_find(kind, tiny, images, lenient):
    found = load(tiny(kind), batch_size=2).segment(images, None, WORDS)
    for regions, image in zip(found, images):
        assert {region.name for region in regions} == set(WORDS)
        assert all(region.mask.shape == image.shape[:2] for region in regions)
        assert [region.score for region in regions] == sorted((region.score for region in regions), reverse=True)


def test_sam3_takes_the_sure_instance_that_fills_the_box(tiny):
    """Of three instances the first lies elsewhere, the second is doubtful, the third is meant."""
    corners = [[0.0, 0.0, 0.2, 0.2], [0.5, 0.5, 1.0, 1.0], [0.5, 0.5, 1.0, 0.9]]
    outputs = Sam3ImageSegmentationOutput(
        pred_boxes=torch.tensor([corners]),
        pred_logits=torch.tensor([[5.0, -3.0, 4.0]]),
        presence_logits=torch.tensor([[9.0]]),
        pred_masks=torch.arange(3.0).reshape(1, 3, 1, 1).expand(1, 3, 4, 4).clone(),
    )
    best = load(tiny("sam3"))._segmenter._best_in_boxes(outputs, [(20, 10, 40, 20)], [(20, 40)])
    assert best["pred_masks"].shape == (1, 1, 4, 4)
    assert best["pred_masks"].unique().tolist() == [2.0]
    assert best["pred_boxes"].flatten().tolist() == pytest.approx(corners[2])
    assert best["pred_logits"].tolist() == [[4.0]]


def square(top, left, side, score=0.9, name=None, shape=(100, 100)):
    mask = np.zeros(shape, dtype=bool)
    mask[top : top + side, left : left + side] = True
    return Region(mask, score, name)


def test_tidy_drops_specks_and_the_less_sure_duplicate():
    sure, doubtful, speck = square(10, 10, 40, 0.9), square(10, 11, 40, 0.8), square(80, 80, 3)
    assert tidy([doubtful, speck, sure]) == [sure]


def test_tidy_keeps_the_whole_and_drops_its_large_part():
    whole, half, small = square(0, 0, 60, 0.7), square(0, 0, 40, 0.99), square(5, 5, 10, 0.8)
    assert tidy([half, small, whole]) == [whole, small]


def test_tidy_keeps_a_part_of_another_name():
    table, box = square(0, 0, 60, name="table"), square(0, 0, 40, name="box")
    assert tidy([box, table]) == [table, box]


def test_tidy_sorts_by_size_and_keeps_the_largest():
    regions = [square(10 * k, 20 * (k % 5), 3 + k) for k in range(6)]
    assert tidy(regions, max_regions=2) == [regions[5], regions[4]]


def test_tidy_of_nothing():
    assert tidy([]) == []


def test_paint_shows_what_is_small_on_top():
    table, cup = square(0, 0, 60), square(10, 10, 10)
    instances = paint([table, cup], (100, 100))
    assert instances.dtype == np.int32
    assert (instances == 2).sum() == 100
    assert (instances == 1).sum() == 3500
    assert (paint([cup, table], (100, 100)) == 2).sum() == 3500, "the number is the place in the list"


def test_paint_leaves_out_what_would_hardly_show():
    back, hidden, front = square(0, 0, 90), square(20, 20, 50), square(20, 20, 40)
    instances = paint([back, hidden, front], (100, 100))
    assert set(np.unique(instances)) == {0, 1, 3}
    assert instances[65, 65] == 1, "what lies under it shows in its place"


def test_paint_of_nothing():
    assert not paint([], (4, 5)).any()
    assert not paint([Region(np.zeros((4, 5), dtype=bool), 1.0)], (4, 5)).any()
