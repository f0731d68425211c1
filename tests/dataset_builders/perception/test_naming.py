import pytest
import torch
import transformers

from dataset_builders.perception import PerceptionOptions, naming
from dataset_builders.perception.naming import FlorenceNamer, location_tokens, short_name

BOXES = [[(1, 2, 20, 20), (10, 10, 30, 30)], [], [(5, 5, 40, 39)]]


def load(folder, **options):
    return FlorenceNamer(folder, PerceptionOptions(**options))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A small red box on the table.", "small red box"),
        ("The object is a small red box on a table.", "small red box"),
        ("The object in the highlighted box is likely a potted plant with leaves", "potted plant"),
        ("chair<loc_1><loc_2>", "chair"),
        ("</s><s>human face</s>", "human face"),
        ("It's a mug.", "mug"),
        ("There are two chairs", "chairs"),
        ("An image of a red car parked", "red car"),
        ("black and white cat sleeping", "cat"),
        ("a pair of brown shoes", "brown shoes"),
        ("Cup of coffee", "cup of coffee"),
        ("a bottle of red wine on a shelf", "bottle"),
        ("large old round wooden table", "round wooden table"),
        ("man riding a horse", "man"),
        ("a brick building", "brick building"),
        ("Answer: **wooden chair**", "wooden chair"),
        ("“The Lamp”", "lamp"),
        ("sofa.\nIt is big.", "sofa"),
        ("a man's T-shirt", "man's t-shirt"),
        ("I cannot identify it", ""),
        ("No object", ""),
        ("unknown", ""),
        ("the box is red", ""),
        ("桌子", ""),
        ("123", ""),
        ("<loc_1>", ""),
        ("", ""),
    ],
)
def test_an_answer_becomes_a_short_name(text, expected):
    assert short_name(text) == expected


def test_a_short_name_is_its_own_short_name():
    for text in ("small red box", "cup of coffee", "man's t-shirt", "brick building"):
        assert short_name(text) == text


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0, 0, 200, 100), "<loc_0><loc_0><loc_999><loc_999>"),
        ((50, 10, 100, 90), "<loc_250><loc_100><loc_500><loc_900>"),
        ((-5, -5, 300, 300), "<loc_0><loc_0><loc_999><loc_999>"),
    ],
)
def test_a_box_is_written_in_thousandths(box, expected):
    assert location_tokens(box, (100, 200)) == expected


def test_location_tokens_are_those_of_the_processor(tiny):
    processor = transformers.Florence2Processor.from_pretrained(tiny("florence2"))
    for box in ((3.2, 4.9, 33.33, 21.01), (0.0, 0.0, 59.9, 39.9)):
        bins = processor.post_processor.quantize(torch.tensor([box]), size=(60, 40))[0].tolist()
        assert location_tokens(box, (40, 60)) == "".join(f"<loc_{one}>" for one in bins)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_name_per_box(dtype, tiny, images):
    names = load(tiny("florence2"), dtype=dtype, batch_size=2).name(images, BOXES)
    assert [len(one) for one in names] == [2, 0, 1]
    assert all(isinstance(name, str) for one in names for name in one)


def test_no_boxes_at_all(tiny, images):
    assert load(tiny("florence2")).name(images, [[], [], []]) == [[], [], []]


def test_each_question_is_about_its_own_box_and_image(tiny, images, monkeypatch):
    namer, asked = load(tiny("florence2"), batch_size=3), []

    def answers(features, prompts):
        asked.extend(zip(features, prompts))
        return ["a cup", "a mug", "a hat"][len(asked) - len(prompts) :]

    monkeypatch.setattr(namer, "_answers", answers)
    assert namer.name(images, BOXES) == [["cup", "mug"], [], ["hat"]]
    for (_, prompt), box, image in zip(asked, BOXES[0] + BOXES[2], (images[0], images[0], images[2])):
        assert location_tokens(box, image.shape[:2]) in prompt
    (first, _), (second, _), (third, _) = asked
    assert torch.equal(first, second)
    assert not torch.allclose(first, third)


def test_the_answer_is_that_of_the_model_asked_directly(tiny, images, monkeypatch):
    """Encoding the image once for all its boxes changes nothing."""
    monkeypatch.setattr(naming, "short_name", lambda text: text)
    folder = tiny("florence2")
    processor = transformers.Florence2Processor.from_pretrained(folder)
    model = transformers.Florence2ForConditionalGeneration.from_pretrained(folder)
    expected = []
    for box in BOXES[0]:
        text = naming.TASK + location_tokens(box, images[0].shape[:2])
        inputs = processor(images=[images[0]], text=[text], return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=naming.MAX_NEW_TOKENS, do_sample=False, num_beams=1)
        expected += processor.batch_decode(tokens, skip_special_tokens=True)
    assert expected[0]
    assert load(folder).name(images[:1], BOXES[:1]) == [expected]
