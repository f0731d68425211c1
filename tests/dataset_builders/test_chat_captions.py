"""Turns 11 and 12 by a chat model: only what would pass the gate is taken, else the composed captions stay."""

from dataclasses import replace

import numpy as np
import pytest

from dataset_builders.budget import Usage
from dataset_builders.chat_captions import caption_prompt, form_problems, write_captions
from dataset_builders.chat_endpoint import ChatOptions
from dataset_builders.chat_estimate import cost_usd, estimate
from dataset_builders.perception.chat_namer import ChatNamer, crop
from dataset_builders.scene import UNKNOWN_INTRINSICS, DropItem, InputError
from dataset_builders.schema import message_text, validate
from dataset_builders.spatial_reasoning import base_record, build_record

GOOD = {
    "description": "A breakfast table with a cereal box, a mug and some other things on it.",
    "layout": "The mug is in front of the cereal box, and the lamp stands towards the back.",
}
WRONG = GOOD | {"layout": "As it looks, the mug is behind the cereal box, and the lamp stands towards the back."}


class Canned:
    """Answers in turn; an answer that a check refuses is followed by the next, as `ChatClient` does once."""

    options = ChatOptions("canned", concurrency=2)

    def __init__(self, *answers):
        self.answers, self.asked, self.problems = list(answers), [], []

    def ask(self, purpose, prompt, images=(), schema=None, check=None):
        self.asked.append((purpose, prompt, images, schema))
        for _ in range(2):
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if isinstance(answer, DropItem):
                raise answer
            problems = check(answer) if check else []
            if not problems:
                return answer
            self.problems.append(problems)
        raise DropItem("chat_invalid", str(problems))


def captions_of(record):
    texts = {turn["index"]: message_text(one) for turn, one in zip(record["turns"], record["messages"][1::2])}
    return texts[11], texts[12]


@pytest.mark.parametrize("order", ["forward", "reverse", "random"])
def test_captions_replace_those_composed(breakfast, order):
    chat = Canned(GOOD)
    record = build_record(breakfast, seed=3, order=order, chat=chat)
    assert captions_of(record) == tuple(GOOD.values())
    assert validate(record) == []
    external = {turn["index"] for turn in record["turns"] if turn["template"].endswith(".external")}
    assert external == {11, 12}
    composed = build_record(breakfast, seed=3, order=order)
    same = [(one, two) for one, two in zip(record["turns"], composed["turns"]) if one["index"] < 11]
    assert all(one == two for one, two in same)


def test_the_model_sees_the_images_and_is_told_the_facts(breakfast_twice):
    chat = Canned(GOOD)
    record = build_record(breakfast_twice, seed=0, chat=chat)
    ((purpose, prompt, images, _),) = chat.asked
    assert purpose == "captions"
    assert len(images) == 2
    assert "image 1 to image 2" in prompt
    assert "In view: cereal box, lamp, mug, scissors and table." in prompt
    for caption in captions_of(build_record(breakfast_twice, seed=0)):
        assert caption in prompt
    assert validate(record) == []


def test_a_claim_that_geometry_refutes_is_told_and_asked_again(breakfast):
    chat = Canned(WRONG, GOOD)
    record = build_record(breakfast, seed=1, chat=chat)
    assert captions_of(record)[1] == GOOD["layout"]
    assert "the mug is behind the cereal box" in str(chat.problems[0])


@pytest.mark.parametrize(
    "answer",
    [
        WRONG,
        GOOD | {"description": "A mug stands 1.2 m from the cereal box on a wooden table."},
        GOOD | {"description": "There are seven mugs beside the box on this table, all of them white."},
        GOOD | {"description": "A table."},
        GOOD | {"description": "A table with a mug and a box. " * 40},
        GOOD | {"description": "<image> A table with a mug and a box on it, nothing else."},
        DropItem("chat_refused", "no"),
        DropItem("chat_budget", "spent"),
        DropItem("chat_failed", "gone"),
    ],
)
def test_where_the_model_fails_the_composed_captions_stay(breakfast, answer):
    assert build_record(breakfast, seed=1, chat=Canned(answer)) == build_record(breakfast, seed=1)


def test_wrong_servers_are_not_swallowed(breakfast):
    class Refused:
        def ask(self, *args):
            raise InputError("the key is refused")

    with pytest.raises(InputError):
        build_record(breakfast, seed=1, chat=Refused())


def test_form():
    assert form_problems("The box of image 1 stands beside a mug on the table.") == []
    assert form_problems("The box of image 1 stands 2 steps from a mug here.") == ["a caption holds digits"]
    assert form_problems("# Title\nThe box stands beside the mug here.") == ["a caption holds markup"]


def test_captions_are_one_line(breakfast):
    broken = {name: text.replace(" and", "\n\nand") for name, text in GOOD.items()}
    assert write_captions(breakfast, "", Canned(broken)) == list(GOOD.values())


def test_prompts_differ_by_number_of_views():
    assert "image 1" not in caption_prompt(1, "facts")
    assert "image 1 to image 4" in caption_prompt(4, "facts")


def test_unlocated_scenes_have_no_cameras_and_no_dialogue(breakfast, breakfast_twice):
    blind = replace(breakfast, views=(replace(breakfast.views[0], intrinsics=UNKNOWN_INTRINSICS),))
    assert base_record(blind, 0, "forward")["cameras"] == []
    assert base_record(replace(breakfast_twice, posed=False), 0, "forward")["cameras"] == []
    assert len(base_record(replace(breakfast, posed=False), 0, "forward")["cameras"]) == 1
    for scene in (blind, replace(breakfast_twice, posed=False)):
        with pytest.raises(DropItem) as error:
            build_record(scene, seed=0)
        assert error.value.reason == "no_cameras"


# names


def test_names_of_crops():
    chat = Canned({"name": "The red mug"})
    image = np.zeros((100, 200, 3), dtype=np.uint8)
    names = ChatNamer(chat).name([image, image], [[(10, 10, 50, 60), (0, 0, 199, 99)], [(20, 30, 80, 70)]])
    assert names == [["red mug", "red mug"], ["red mug"]]
    assert [purpose for purpose, *_ in chat.asked] == ["name"] * 3


def test_names_that_cannot_be_had_are_empty():
    image = np.zeros((100, 200, 3), dtype=np.uint8)
    boxes = [[(10, 10, 50, 60)]]
    assert ChatNamer(Canned(DropItem("chat_failed", "gone"))).name([image], boxes) == [[""]]
    assert ChatNamer(Canned({"name": "I cannot tell"})).name([image], boxes) == [[""]]
    tiny = Canned({"name": "speck"})
    assert ChatNamer(tiny).name([image], [[(10, 10, 12, 12)]]) == [[""]]
    assert tiny.asked == []


def test_crops_have_a_margin_and_stay_inside():
    image = np.arange(100 * 200 * 3).reshape(100, 200, 3)
    assert crop(image, (50, 20, 100, 60)).shape == (49, 61, 3)
    assert (crop(image, (50, 20, 100, 60))[0, 0] == image[16, 45]).all()
    assert crop(image, (0, 0, 199, 99)).shape == image.shape


# cost


def test_estimate_counts_every_purpose(breakfast, breakfast_twice):
    options = ChatOptions("gpt-4o", prices=(2.5, 10.0))
    scenes = [breakfast_twice] * 2
    found = estimate(scenes, 1000, {"single_view", "multi_view", "multi_view_vqa"}, options, regions_per_view=1.5)
    requests = {purpose: usage.requests for purpose, usage in found.by_purpose.items()}
    assert requests == {"name": 3000, "captions": 3000, "questions": 1000}
    assert found.total.requests == 7000
    assert found.usd == pytest.approx(cost_usd(found.total, (2.5, 10.0)))
    assert found.lines()[-1].strip() == f"cost: about ${found.usd:,.2f}"
    assert estimate([breakfast], 10, {"dense"}, options).total == Usage()


def test_estimate_of_pairs_by_distance(breakfast_twice):
    eight = replace(breakfast_twice, views=breakfast_twice.views * 4)
    options = ChatOptions("gpt-4o")
    found = estimate([eight], 100, {"multi_view_vqa"}, options, by_distance=True)
    assert found.by_purpose["questions"].requests == 400
    assert found.by_purpose["verdicts"].requests == 80  # 4 of 20 pairs are grown
    assert found.usd is None
    assert "--token-price" in found.lines()[-1]


def test_estimate_is_near_what_is_asked(breakfast_twice):
    from dataset_builders.chat_messages import Message, expected_usage, with_schema

    chat = Canned(GOOD)
    build_record(breakfast_twice, seed=0, chat=chat)
    ((_, prompt, images, schema),) = chat.asked
    asked = expected_usage([Message("user", with_schema(prompt, schema), tuple(images))], 0)
    projected = estimate([breakfast_twice], 1, {"multi_view"}, ChatOptions("gpt-4o")).total
    assert projected.prompt_tokens == pytest.approx(asked.prompt_tokens, rel=0.15)


def test_nothing_to_estimate_from():
    with pytest.raises(InputError, match="found no scene"):
        estimate([], 10, {"single_view"}, ChatOptions("gpt-4o"))
