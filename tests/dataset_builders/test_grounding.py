"""The grounding set: every answer worked out again from the instance map, no answer likelier, no wrong one passes.

After a wanted change of wording: RENEW_SNAPSHOTS=1 pytest tests/dataset_builders/test_grounding.py, and read the
difference that git shows.
"""

import copy
import json
import math
import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataset_builders.configs import CONFIGS, DialogueOptions, single_views
from dataset_builders.grounding import build_record
from dataset_builders.grounding_phrasings import GROUNDING_ANSWERS, GROUNDING_QUESTIONS
from dataset_builders.phrasings import RELATIONS
from dataset_builders.scene import DropItem
from dataset_builders.schema import KINDS, message_text, validate
from dataset_builders.sources import SourceOptions
from dataset_builders.sources.synthetic import SyntheticSource

SNAPSHOT = Path(__file__).parent / "snapshots" / "grounding.txt"
POINT = re.compile(r"the point \((\d\.\d{3}), (\d\.\d{3})\)", re.IGNORECASE)
GROUNDING_KINDS = {kind for kind, level in KINDS.items() if level == "grounding"}


@pytest.fixture(scope="module")
def scenes():
    source = SyntheticSource(SourceOptions(num_scenes=12, seed=3, views=2, image_size=(96, 96)))
    return [one for item in source.list_items() for one in single_views(source.load(item))]


def attempt(scene, seed):
    try:
        return [build_record(scene, seed=seed)]
    except DropItem as drop:
        assert drop.reason in ("fewer_than_two_objects", "too_few_questions")
        return []


@pytest.fixture(scope="module")
def records(scenes):
    kept = [(scene, record) for seed in range(18) for scene in scenes for record in attempt(scene, seed)]
    assert len(kept) > 300
    return kept


def turns_of(record):
    texts = [message_text(one).split("\n")[-1] for one in record["messages"]]
    return list(zip(record["turns"], texts[::2], texts[1::2]))


def points_in(text):
    return [(float(x), float(y)) for x, y in POINT.findall(text)]


def owner(scene, point):
    """Name of the thing at a point, by the instance map."""
    view = scene.views[0]
    height, width = view.instances.shape
    identity = view.instances[int(point[1] * height), int(point[0] * width)]
    return next((one.name for one in scene.objects if one.id == identity), None)


def middle(scene, name):
    (identity,) = [one.id for one in scene.objects if one.name == name]
    rows, columns = np.nonzero(scene.views[0].instances == identity)
    return (columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2


def order_holds(text, first, second):
    """Whether what the text asks for holds of the first of two places."""
    if "further left" in text or "further right" in text:
        return (first[0] < second[0]) == ("further left" in text)
    return (first[1] < second[1]) == ("higher" in text)


def right(scene, turn, question, reply):
    """Whether an answer is right, from the texts and the instance map alone."""
    kind = turn["kind"]
    names = sorted((one.name for one in scene.objects), key=len, reverse=True)
    if kind == "named_point":
        return f"the {owner(scene, points_in(question)[0])}" in reply.lower()
    if kind == "pointed_thing":
        return f"the {owner(scene, points_in(reply)[0])}" in question.lower()
    if kind == "point_on_thing":
        on = f"the {owner(scene, points_in(question)[0])}" in question.lower()
        return bool(re.search(r"\byes\b", reply.lower())) == on and bool(re.search(r"\bno\b", reply.lower())) != on
    if kind == "which_point":
        (said,) = points_in(reply)
        (other,) = [point for point in points_in(question) if point != said]
        asked = question.lower()
        return f"the {owner(scene, said)}" in asked and f"the {owner(scene, other)}" not in asked
    if kind == "thing_box":
        (name,) = [name for name in names if f"the {name}" in question.lower()]
        (left, top), (end, bottom) = points_in(reply)
        x, y = middle(scene, name)
        return abs((left + end) / 2 - x / 96) < 0.002 and abs((top + bottom) / 2 - y / 96) < 0.002
    if kind == "point_order":
        (said,) = points_in(reply)
        (other,) = [point for point in points_in(question) if point != said]
        return order_holds(question, said, other)
    said = [name for name in names if f"the {name}" in reply.lower()]
    (other,) = [name for name in names if f"the {name}" in question.lower() and name != said[0]]
    return len(said) == 1 and order_holds(question, middle(scene, said[0]), middle(scene, other))


def test_every_answer_is_right_by_the_instance_map(records):
    kinds = Counter()
    for scene, record in records:
        for turn, question, reply in turns_of(record):
            assert right(scene, turn, question, reply), (turn["kind"], question, reply)
            kinds[turn["kind"]] += 1
    assert set(kinds) == GROUNDING_KINDS and min(kinds.values()) > 90


def test_every_record_is_valid_and_has_several_turns(records):
    for _, record in records[::4]:
        assert validate(record) == []
    lengths = [len(record["turns"]) for _, record in records]
    assert min(lengths) >= 3 and max(lengths) == 8 and np.mean(lengths) > 5.5


def test_nothing_is_said_of_depth_or_size(records):
    """Of space no model shall hear before stage 3; the preamble alone speaks of depth."""
    spatial = [
        phrase.replace("{camera}", "the camera") for pairs in RELATIONS.values() for one in pairs for phrase in one
    ]
    for _, record in records:
        text = " ".join(f"{question} {reply}" for _, question, reply in turns_of(record)).lower()
        assert not re.search(r"\b(depth|deep|metres?|cm|closer|nearer|farther|behind|size|tall|camera)\b|\d m\b", text)
        assert not any(phrase in text for phrase in spatial)


def test_no_thing_is_located_twice(records):
    for _, record in records:
        located = [turn["object_ids"][0] for turn in record["turns"] if len(turn["object_ids"]) == 1]
        assert len(located) == len(set(located))


def test_no_answer_is_likelier(records):
    counts = {
        "point_on_thing": Counter(),
        "which_point": Counter(),
        "point_order": Counter(),
        "thing_order": Counter(),
    }
    words = Counter()
    for _, record in records:
        for turn, question, reply in turns_of(record):
            if turn["kind"] == "point_on_thing":
                counts["point_on_thing"][turn["answer"]] += 1
            elif turn["kind"] in ("which_point", "point_order"):
                counts[turn["kind"]][points_in(question).index(points_in(reply)[0])] += 1
            elif turn["kind"] == "thing_order":
                (other,) = {row["name"] for row in record["objects"] if row["id"] in turn["object_ids"]} - {
                    turn["answer"]
                }
                first = question.lower().index(f"the {turn['answer']}") < question.lower().index(f"the {other}")
                counts["thing_order"][first] += 1
            if turn["kind"].endswith("order"):
                words[re.search(r"\b(higher|lower|left|right)\b", question)[0]] += 1
    for kind, found in counts.items():
        total = found.total()
        assert len(found) == 2 and abs(max(found.values()) / total - 0.5) < max(0.05, 1.5 / math.sqrt(total)), (
            kind,
            found,
        )
    assert max(words.values()) < 1.4 * min(words.values())


def flip(turn, reply):
    turn["answer"] = {"yes": "no", "no": "yes"}[turn["answer"]]
    reply["text"] = f"{turn['answer'].capitalize()}."


def other_point(turn, reply):
    point = next(one for one in turn["points"] if f"({one['x']:.3f}, {one['y']:.3f})" != turn["answer"])
    turn["answer"] = f"({point['x']:.3f}, {point['y']:.3f})"
    reply["text"] = f"The point {turn['answer']}."


def swapped_corners(turn, reply):
    turn["points"] = turn["points"][::-1]
    first, last = (f"({point['x']:.3f}, {point['y']:.3f})" for point in turn["points"])
    turn["answer"] = f"{first} to the point {last}"
    reply["text"] = f"From the point {turn['answer']}."


def other_reply(turn, reply):
    reply["text"] = "It is the thing over there."


@pytest.mark.parametrize(
    ("kind", "change"),
    [("point_on_thing", flip), ("which_point", other_point), ("point_order", other_point)]
    + [("thing_box", swapped_corners)]
    + [(kind, other_reply) for kind in sorted(GROUNDING_KINDS - {"point_on_thing"})],
)
def test_a_wrong_answer_does_not_pass(records, kind, change):
    tampered = 0
    for _, record in records:
        changed = copy.deepcopy(record)
        place = next((place for place, turn in enumerate(changed["turns"]) if turn["kind"] == kind), None)
        if place is not None:
            change(changed["turns"][place], changed["messages"][2 * place + 1]["content"][0])
            assert validate(changed)
            tampered += 1
        if tampered == 4:
            return
    raise AssertionError("nothing was tampered with")


def test_no_digit_of_an_answer_can_be_changed(records):
    changed = copy.deepcopy(records[0][1])
    for message in changed["messages"][1::2]:
        text = message["content"][0]["text"]
        for number in re.finditer(r"\d+\.\d+", text):
            digit = str((int(number[0][-1]) + 3) % 10)
            message["content"][0]["text"] = text[: number.end() - 1] + digit + text[number.end() :]
            assert validate(changed), message["content"][0]["text"]
        message["content"][0]["text"] = text
    assert validate(changed) == []


def test_another_name_does_not_pass(records):
    changed = copy.deepcopy(next(one for _, one in records if one["turns"][0]["kind"] == "named_point"))
    turn, reply = changed["turns"][0], changed["messages"][1]["content"][0]
    (wrong,) = [row for row in changed["objects"] if not row["is_support"] and row["id"] != turn["object_ids"][0]][:1]
    turn["object_ids"], turn["answer"], reply["text"] = [wrong["id"]], wrong["name"], f"The {wrong['name']}."
    assert any("elsewhere" in problem for problem in validate(changed))


def test_the_same_seed_gives_the_same_record(scenes):
    for scene in scenes[:4]:
        assert attempt(scene, 5) == attempt(scene, 5)
    assert attempt(scenes[0], 5) != attempt(scenes[0], 6)


def test_drops(scenes):
    view = scenes[0].views[0]
    with pytest.raises(DropItem, match="fewer_than_two_objects"):
        build_record(replace(scenes[0], views=(replace(view, instances=np.zeros_like(view.instances)),)), seed=0)
    with pytest.raises(DropItem, match="no_masks"):
        build_record(replace(scenes[0], views=(replace(view, instances=None),)), seed=0)


def test_only_views_with_masks_concern_it(scenes):
    jobs = CONFIGS["grounding"].jobs
    assert [name for name, _ in jobs(scenes[0], DialogueOptions(), None)] == [scenes[0].id]
    without = replace(scenes[0], views=(replace(scenes[0].views[0], instances=None),))
    assert not list(jobs(without, DialogueOptions(), None))
    assert not list(jobs(replace(scenes[0], conversation=(("What?", "That."),)), DialogueOptions(), None))


def test_wordings_and_dialogues_are_frozen(records):
    parts = [json.dumps({"questions": GROUNDING_QUESTIONS, "answers": GROUNDING_ANSWERS}, indent=1)]
    for _, record in records[:6]:
        parts.append(f"# {record['id']}")
        parts += [f"{turn['kind']}\n  Q: {question}\n  A: {reply}" for turn, question, reply in turns_of(record)]
    text = "\n".join(parts) + "\n"
    if os.environ.get("RENEW_SNAPSHOTS"):
        SNAPSHOT.write_text(text, encoding="utf-8")
    assert text == SNAPSHOT.read_text(encoding="utf-8"), "the wording changed; see the head of this file"
