"""The verifier of VQA records refuses every wrong answer."""

import copy

import pytest

from dataset_builders.multi_view_vqa import build_record
from dataset_builders.scene import DropItem
from dataset_builders.schema import validate
from dataset_builders.sources import SourceOptions
from dataset_builders.sources.synthetic import SyntheticSource


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
