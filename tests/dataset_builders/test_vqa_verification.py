"""The verifier of VQA records refuses every wrong answer."""

import copy

import pytest

from dataset_builders.multi_view_vqa import build_record
from dataset_builders.scene import DropItem
from dataset_builders.schema import message, validate
from dataset_builders.sources import SourceOptions
from dataset_builders.sources.synthetic import SyntheticSource
from dataset_builders.spatial_reasoning import base_record
from dataset_builders.spatial_reasoning import build_record as build_dialogue
from tests.dataset_builders.scenes_for_tests import BREAKFAST, scene_of


@pytest.fixture(scope="module")
def records():
    source = SyntheticSource(SourceOptions(num_scenes=12, seed=3, views=2, image_size=(96, 96)))
    scenes = [source.load(item) for item in source.list_items()]
    kept = []
    for seed in range(5):
        for scene in scenes:
            try:
                kept.append(build_record(scene, seed=seed))
            except DropItem as drop:
                assert drop.reason == "too_few_questions"
    return kept


def tampered(record, template, change):
    """A copy in which the first turn of a template was changed."""
    record = copy.deepcopy(record)
    place = next((i for i, turn in enumerate(record["turns"]) if turn["template"] == template), None)
    if place is None:
        return None
    change(record["turns"][place], record["messages"][2 * place + 1]["content"][0])
    return record


def flip(turn, reply):
    turn["answer"] = {"yes": "no", "no": "yes"}[turn["answer"]]
    reply["text"] = f"{turn['answer'].capitalize()}."


def next_letter(turn, reply):
    turn["answer"] = "BCDA"["ABCD".index(turn["answer"])]
    reply["text"] = f"{turn['answer']}."


def other_word(turn, reply):
    turn["answer"] = {"left": "right", "right": "left", "image 1": "image 2", "image 2": "image 1"}[turn["answer"]]
    reply["text"] = f"{turn['answer'].capitalize()}."


def wrong_number(turn, reply):
    turn["answer"] = {"one": "two", "two": "three", "three": "one"}[turn["answer"]]
    reply["text"] = f"{turn['answer'].capitalize()}."


@pytest.mark.parametrize(
    ("template", "change"),
    [(name, flip) for name in ("in_all", "in_one", "no_such_thing", "wrong_colour", "same_spot")]
    + [(name, next_letter) for name in ("name_at_point", "only_in_one", "matching_point", "which_colour")]
    + [("nearest_in_image", next_letter), ("camera_side", other_word), ("nearer_in", other_word)]
    + [("how_many_of", wrong_number)],
)
def test_a_wrong_answer_does_not_pass(records, template, change):
    changed = [one for record in records if (one := tampered(record, template, change)) is not None]
    assert changed
    assert all(validate(one) for one in changed[:5])


def test_a_point_beside_its_object_does_not_pass(records):
    def move(turn, reply):
        turn["points"][0] |= {"depth_m": turn["points"][0]["depth_m"] + 2}

    changed = [one for record in records if (one := tampered(record, "what_is_at", move)) is not None]
    assert all(validate(one) for one in changed[:5])


# What a chat model wrote


CHOICE = "Which is it?\nA. the mug\nB. the lamp\nC. a red box\nD. none of these"


def by_chat(question, reply, answer, kind="common", cameras=()):
    """A record of one question that a chat model wrote."""
    turn = {
        "index": 1, "level": "vqa", "kind": kind, "template": f"chat.{kind}", "frame": 0, "value": None, "unit": "",
        "answer": answer, "margin": None, "points": [], "object_ids": [], "witness": [],
    }  # fmt: skip
    record = base_record(scene_of(BREAKFAST), 0, "forward")
    messages = [message("user", None, question), message("assistant", reply)]
    return record | {"turns": [turn], "messages": messages, "cameras": [*cameras]}


@pytest.mark.parametrize("with_cameras", [False, True])
def test_what_a_chat_model_wrote_is_not_derived_again(with_cameras):
    cameras = base_record(scene_of(BREAKFAST), 0, "forward")["cameras"] if with_cameras else []
    for record in (
        by_chat("How many mugs are there?", "There are seven mugs, 3 of them red.", "seven", cameras=cameras),
        by_chat("Is the mug taller than the lamp?", "Yes, no doubt.", "yes", cameras=cameras),
        by_chat(CHOICE, "B. The lamp.", "B", "multiple_choice", cameras=cameras),
        by_chat(CHOICE, "B", "B", "multiple_choice", cameras=cameras),
    ):
        assert validate(record) == []


@pytest.mark.parametrize("with_cameras", [False, True])
@pytest.mark.parametrize("length", ["1.2 m", "30 cm", "about 3 metres", "two meters", "5 feet", "40 mm", "12 inches"])
def test_a_chat_model_does_not_measure(length, with_cameras):
    cameras = base_record(scene_of(BREAKFAST), 0, "forward")["cameras"] if with_cameras else []
    for question, reply in (("How wide is it?", f"It is {length} wide."), (f"Is it {length} wide?", "It is.")):
        problems = validate(by_chat(question, reply, "it is", cameras=cameras))
        assert len(problems) == 1 and length.removeprefix("about ") in problems[0]


@pytest.mark.parametrize(
    ("question", "reply", "answer", "problem"),
    [
        (CHOICE, "The lamp.", "B", "does not begin with the letter"),
        (CHOICE, "Because it is tall.", "B", "does not begin with the letter"),
        (CHOICE, "E. Something else.", "E", "does not begin with the letter"),
        (CHOICE.replace("D. none of these", ""), "B. The lamp.", "B", "four different options"),
        (CHOICE.replace("a red box", "The lamp."), "B. The lamp.", "B", "four different options"),
        (CHOICE.replace("D.", "E."), "B. The lamp.", "B", "four different options"),
    ],
)
def test_a_choice_of_a_chat_model_has_its_form(question, reply, answer, problem):
    assert any(problem in one for one in validate(by_chat(question, reply, answer, "multiple_choice")))


def test_geometry_needs_cameras():
    record = build_dialogue(scene_of(BREAKFAST), seed=0)
    record["cameras"] = []
    assert any("asks for geometry in a record without cameras" in one for one in validate(record))


def test_an_unknown_template_does_not_pass(records):
    changed = copy.deepcopy(records[0])
    changed["turns"][0]["template"] = "chatty"
    assert any("template 'chatty' is unknown" in one for one in validate(changed))
