"""Questions by a chat model: what is taken, how it is worded, and what becomes of it when views are added."""

import copy
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from dataset_builders import chat_vqa
from dataset_builders.chat_questions import all_problems, fit_items, item_problems
from dataset_builders.scene import DropItem
from dataset_builders.schema import message_text, validate
from dataset_builders.text_client import ChatClient, ChatOptions
from tests.dataset_builders.misbehaving_server import ChatServer
from tests.dataset_builders.test_chat_captions import Canned
from tests.dataset_builders.test_pairing import Table, by_gap, sequence

QUESTIONS = {
    "common": [
        {"question": "What can be seen in image 1 but not in image 2?", "answer": "the lamp"},
        {"question": "How did the camera move from image 1 to image 2?", "answer": "It moved to the right."},
        {"question": "What is behind the chair in image 2?", "answer": "A window."},
    ],
    "adversarial": [
        {
            "question_with_true_premise": f"Is the {thing} in image 2 {colour}?",
            "question_with_false_premise": f"Is the {thing} in image 2 purple?",
            "fact": f"the {thing} is {colour}",
        }
        for thing, colour in (("mug", "white"), ("sofa", "grey"), ("door", "brown"))
    ],
    "multiple_choice": [
        {
            "question": f"Which thing stands {where} the table in image 1?",
            "right_option": right,
            "wrong_options": ["A. a cat", "a bicycle", "a piano"],
        }
        for where, right in (("on", "a mug"), ("under", "a rug"), ("beside", "a chair"))
    ],
}


def changed(kind, place, **fields):
    answer = copy.deepcopy(QUESTIONS)
    answer[kind][place] |= fields
    return answer


def verdicts(*valid):
    return {"verdicts": [{"number": number, "still_valid": one} for number, one in enumerate(valid, start=1)]}


def turns_of(record):
    texts = [message_text(one) for one in record["messages"]]
    return list(zip(record["turns"], texts[::2], texts[1::2]))


def build(scene, *answers, seed=0, paired=True):
    return chat_vqa.build_record(scene, seed=seed, chat=Canned(*answers), paired=paired)


def test_records_of_unposed_images_without_depth():
    record = build(sequence(2), QUESTIONS)
    assert validate(record) == []
    assert (record["cameras"], record["objects"], record["overlap"]) == ([], [], None)
    kinds = Counter((turn["kind"], turn["template"]) for turn in record["turns"])
    assert kinds == {(kind, f"chat.{kind}"): 3 for kind in ("common", "adversarial", "multiple_choice")}
    opening = record["messages"][0]["content"]
    assert [part["type"] for part in opening] == ["text", "image", "text", "image", "text"]
    assert opening[0]["text"] == "Image 1: "


def test_records_of_posed_scenes_keep_their_cameras(breakfast_twice):
    record = build(breakfast_twice, QUESTIONS, paired=False)
    assert validate(record) == []
    assert len(record["cameras"]) == 2
    assert record["overlap"] > 0.15


def test_without_distance_or_geometry_views_are_not_compared():
    with pytest.raises(DropItem) as error:
        build(sequence(2), QUESTIONS, paired=False)
    assert error.value.reason == "views_not_compared"


def test_paired_views_with_nothing_in_common_are_dropped(breakfast_twice):
    first, second = breakfast_twice.views
    turned = second.camera_to_world @ np.diag([-1.0, 1.0, -1.0, 1.0])  # looks the other way
    scene = replace(breakfast_twice, views=(first, replace(second, camera_to_world=turned)))
    with pytest.raises(DropItem) as error:
        build(scene, QUESTIONS)
    assert error.value.reason == "views_too_different"


def test_answers_are_balanced_whatever_the_model_prefers():
    answers = Counter()
    for seed in range(300):
        record = build(sequence(2), QUESTIONS, seed=seed)
        answers.update(turn["answer"] for turn in record["turns"])
    assert abs(answers["yes"] - answers["no"]) < 3 * np.sqrt(900)
    for letter in "ABCD":
        assert abs(answers[letter] - 225) < 3 * np.sqrt(900 * 3 / 16)


def test_answers_fit_what_was_asked():
    right = {item["question"]: item["right_option"] for item in QUESTIONS["multiple_choice"]}
    true = {item["question_with_true_premise"] for item in QUESTIONS["adversarial"]}
    for seed in range(20):
        record = build(sequence(2), QUESTIONS, seed=seed)
        for turn, question, reply in turns_of(record):
            stem = question.split("Image 2:")[-1].strip().split("\n")[0]
            if turn["kind"] == "adversarial":
                assert turn["answer"] == ("yes" if stem in true else "no")
                assert re.match(r"(Yes|No)\.( The \w+ is \w+\.)?$", reply)
                assert reply.lower().startswith(turn["answer"])
            elif turn["kind"] == "multiple_choice":
                options = dict(re.findall(r"^([A-D])\. (.+)$", question, re.MULTILINE))
                assert sorted(options.values()) == sorted(["a cat", "a bicycle", "a piano", right[stem]])
                assert options[turn["answer"]] == right[stem]
                assert reply.startswith(f"{turn['answer']}.")
            else:
                assert turn["answer"].lower() in reply.lower()
                assert reply[0].isupper() and reply.endswith(".") and not reply.endswith("..")


def test_the_seed_decides_and_nothing_else():
    first, again, other = (build(sequence(2), QUESTIONS, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first["messages"] != other["messages"]


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        ("common", {"answer": "Yes, the lamp."}, "answered by yes or no"),
        ("common", {"answer": ""}, "is empty"),
        ("common", {"answer": "About 2.5 m away."}, "holds a number"),
        ("common", {"answer": "three chairs"}, "holds a number"),
        ("common", {"answer": "one metre away"}, "holds a number"),
        ("common", {"question": "What does image 3 show?"}, "not there"),
        ("common", {"question": "What does the second image show?"}, "image 1 and image 2"),
        ("common", {"question": "Describe the lamp of image 1."}, "is no question"),
        ("common", {"question": "What does <image> show?"}, "markup"),
        ("adversarial", {"fact": "Yes, the mug is white."}, "says yes or no"),
        ("adversarial", {"question_with_true_premise": "Is the mug in image 2 purple?"}, "are the same"),
        ("multiple_choice", {"wrong_options": ["a cat", "a dog"]}, "three wrong options"),
        ("multiple_choice", {"wrong_options": ["a cat", "A cat.", "a dog"]}, "all different"),
        ("multiple_choice", {"wrong_options": ["a mug", "a cat", "a dog"]}, "all different"),
        ("multiple_choice", {"wrong_options": ["a cat", "a dog", "none of these"]}, "speaks of the others"),
        ("multiple_choice", {"right_option": "12 cups"}, "holds a number"),
    ],
)
def test_unfit_questions_are_left_out(kind, fields, words):
    item = changed(kind, 0, **fields)[kind][0]
    assert any(words in problem for problem in item_problems(kind, item))
    assert (
        item_problems(
            kind,
            QUESTIONS[kind][0] | {"wrong_options": ["a cat", "a dog", "a cow"]}
            if kind == "multiple_choice"
            else QUESTIONS[kind][0],
        )
        == []
    )
    record = build(sequence(2), changed(kind, 0, **fields))
    assert len(record["turns"]) == 8
    assert validate(record) == []


def test_the_same_question_is_asked_once():
    answer = changed("common", 1, **QUESTIONS["common"][0])
    assert len(fit_items(answer, 2)) == 8


def test_too_few_fit_questions_are_told_to_the_model():
    bad = {kind: [] for kind in QUESTIONS} | {"common": [{"question": "What?", "answer": "9"}]}
    assert "'9' holds a number" in all_problems(bad, 4)
    assert all_problems(QUESTIONS, 4) == []
    assert len(build(sequence(2), bad, QUESTIONS)["turns"]) == 9
    with pytest.raises(DropItem) as error:
        build(sequence(2), bad)
    assert error.value.reason == "chat_invalid"


def test_added_views_have_every_answer_checked_again():
    chat = Canned(QUESTIONS, verdicts(*[number != 4 for number in range(9)]))
    record = chat_vqa.build_record(sequence(4), seed=0, chat=chat, paired=True)
    assert len(record["turns"]) == 8
    assert [turn["index"] for turn in record["turns"]] == list(range(1, 9))
    assert validate(record) == []
    (purpose, _, pair, _), (again, prompt, shown, _) = chat.asked
    assert (purpose, again) == ("questions", "verdicts")
    assert (len(pair), len(shown)) == (2, 4)
    assert (pair[0], pair[1]) == (shown[0], shown[3])
    texts = [message_text(one) for one in record["messages"]]
    assert any("image 4" in text for text in texts)
    assert not any("image 2" in text for text in texts[1:])
    assert "9. Question:" in prompt and "image 4" in prompt


def test_what_makes_sense_for_two_images_only_is_left_out():
    answer = changed("common", 0, question="What do both images show?")
    assert len(fit_items(answer, 2)) == 9
    assert len(fit_items(answer, 8)) == 8


def test_too_few_left_after_the_check():
    with pytest.raises(DropItem) as error:
        build(sequence(8), QUESTIONS, verdicts(*[number < 3 for number in range(9)]))
    assert error.value.reason == "too_few_questions"


def test_verdicts_on_other_questions_are_asked_again():
    chat = Canned(QUESTIONS, verdicts(*[True] * 8), verdicts(*[True] * 9))
    assert len(chat_vqa.build_record(sequence(4), seed=0, chat=chat, paired=True)["turns"]) == 9
    assert "not one on each" in str(chat.problems)


def test_jobs_of_a_sequence():
    chat = Canned(QUESTIONS)
    jobs = list(chat_vqa.jobs(sequence(20), 0, chat, by_gap(20)))
    assert chat.asked == []  # nothing is asked before a job is run
    pairs = [(name, job) for name, job in jobs if name.count("-") == 3]
    assert pairs
    for name, job in pairs:
        assert job()["id"] == name
    ((_, job),) = chat_vqa.jobs(sequence(3), 0, chat, Table(np.zeros((3, 3))))
    with pytest.raises(DropItem) as error:
        job()
    assert error.value.reason == "no_pair_in_band"


def test_over_http(tmp_path, monkeypatch):
    """The whole way, through a server: the second run asks nothing and gives the same records."""
    import json

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    def script(number, body):
        text = body["messages"][0]["content"][-1]["text"]
        return json.dumps(QUESTIONS if "Write $" in text or "Write 3" in text else verdicts(*[True] * 9))

    server = ChatServer(script)
    with server.running():
        options = ChatOptions("test", server.url, cache_dir=tmp_path)
        scene = sequence(20)
        runs = [[job() for _, job in chat_vqa.jobs(scene, 5, ChatClient(options), by_gap(20))] for _ in range(2)]
        asked = len(server.requests)
    assert runs[0] == runs[1]
    assert asked == len(runs[0]) + sum(len(record["images"]) > 2 for record in runs[0])
    assert all(validate(record) == [] for record in runs[0])
