"""Points and regions in texts: the same words as the dialogues that the models are trained on."""

import pytest

from dataset_builders.grounding_phrasings import GROUNDING_ANSWERS
from dataset_builders.mentions import coordinates
from dataset_builders.phrasings import PREAMBLE
from dataset_builders.schema import opening_parts
from spatialboost_space import marks
from spatialboost_space.ask_tab import steps_of

POINT = {"image": 1, "x": 0.58649, "y": 0.2, "x1": None, "y1": None}
REGION = {"image": 0, "x": 0.5, "y": 0.6, "x1": 0.1, "y1": 0.2}


@pytest.mark.parametrize("num_images", [1, 2])
def test_a_question_reads_as_in_the_data_set(num_images):
    assert marks.PREAMBLE == PREAMBLE
    (point,) = marks.read_marks([{**POINT, "image": num_images - 1}], num_images)
    row = {"view": num_images - 1, "x": 0.586, "y": 0.2}
    assert marks.mention(point, num_images) == f"the point {coordinates(row, num_images)}"
    parts = [part.get("text") for part in marks.opening(num_images, "How deep?")]
    newline = "\n" if num_images > 1 else ""
    assert parts == opening_parts(num_images, f"{newline}{PREAMBLE}\nHow deep?")


def test_regions_get_letters_and_are_declared_where_a_question_names_them():
    found = marks.read_marks([REGION, POINT, {**REGION, "image": 1}], 2)
    assert [mark["label"] for mark in found] == ["A", "", "B"] and found[0]["x"] < found[0]["x1"]
    declared = marks.declarations("Is [B] large?", found, 2)
    assert declared == "[B] is the region from (0.100, 0.200) to (0.500, 0.600) in image 2."
    assert marks.declarations("Is it large?", found, 2) == ""


@pytest.mark.parametrize(
    "value", [None, 3, [None], [{}], [{"image": 0, "x": "a", "y": 1}], [{"image": 5, "x": 0, "y": 0}],
              [{"image": 0, "x": float("nan"), "y": 0}], ["x"]]
)  # fmt: skip
def test_what_is_no_mark_is_left_out(value):
    assert marks.read_marks(value, 1) == []


def test_marks_outside_the_image_are_brought_in():
    assert marks.read_marks([{"image": 0, "x": -3, "y": 9e9}], 1)[0] | {} == {
        "image": 0, "x": 0.0, "y": 1.0, "x1": None, "y1": None, "label": "",
    }  # fmt: skip


def test_what_an_answer_speaks_of_is_found_once():
    regions = marks.read_marks([REGION], 2)
    text = (
        "A box around the chair: the point (0.250, 0.300) to the point (0.300, 0.500). "
        "The depth at the point (0.586, 0.200) in image 2 is 1.2 m, (0.586, 0.200) in image 2 is behind [A], and the "
        "box from (0.1, 0.1) to (0.3, 0.4) is large; (0.1, 0.1) in image 9 is not there, (2.0, 0.1) is no point."
    )
    found = marks.spoken_marks(text, 2, regions)
    assert [(mark["image"], mark["x"], mark["x1"], mark["label"]) for mark in found] == [
        (0, 0.25, 0.3, ""),
        (0, 0.1, 0.3, ""),
        (1, 0.586, None, ""),
        (0, 0.1, 0.5, "A"),
    ]


def test_steps_lead_to_the_question_by_the_depth_of_its_points():
    question = "By how much does the depth change from the point (0.100, 0.200) to the point (0.300, 0.400)?"
    assert steps_of(question, 1) == [
        "What is the depth at the point (0.100, 0.200)?",
        "What is the depth at the point (0.300, 0.400)?",
        question,
    ]


def test_boxes_of_the_data_set_are_read_back():
    for text in GROUNDING_ANSWERS["thing_box"]:
        filled = text.format(
            the="the red chair", p="the point (0.102, 0.203)", q="the point (0.305, 0.406)", **{"is": "is"}
        )
        (box,) = marks.spoken_marks(filled, 1)
        assert (box["x"], box["y"], box["x1"], box["y1"]) == (0.102, 0.203, 0.305, 0.406)


def test_a_question_names_centres_of_the_models_pixels():
    text = "Is (0.5,0.25) nearer than the point (0, 1) in image 2, or (0.123456, 0.999)?"
    read = "Is (0.508, 0.266) nearer than the point (0.008, 0.984) in image 2, or (0.117, 0.984)?"
    assert marks.on_grid(text, (64, 32)) == marks.on_grid(read, (64, 32)) == read
    assert marks.on_grid(text, None) == text


def test_a_conversation_has_the_images_in_its_first_turn_only():
    messages = marks.conversation(1, [("How deep?", "1 m.")], "And here?")
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert [[part["type"] for part in message["content"]] for message in messages] == [
        ["image", "text"],
        ["text"],
        ["text"],
    ]
