"""What objects are called: never two alike, never by a doubtful relation, never by the answer to the question."""

import copy
import re
from collections import Counter

import pytest

from dataset_builders.facts import RecordFacts
from dataset_builders.mentions import may_be_called, stated
from dataset_builders.schema import message_text, validate
from dataset_builders.spatial_reasoning import build_record
from tests.dataset_builders.scenes_for_tests import TABLE, TWO_POSES, Solid, camera_pose, dialogue, scene_of

BOX_SIZE = (0.2, 0.1, 0.2)
BOXES = (
    TABLE,
    Solid("box", (-0.45, 1.3, 0.1), BOX_SIZE, 20),
    Solid("box", (0.45, 1.7, 0.1), BOX_SIZE, 20),
    Solid("mug", (0.0, 1.1, 0.05), (0.1, 0.1, 0.1)),
    Solid("lamp", (0.1, 1.9, 0.2), (0.15, 0.15, 0.4)),
)
TOLD = re.compile(r"the (?:leftmost |rightmost |largest |smallest )?box(?: that is [a-z ]+?(?=mug|lamp|camera)\w+)?")
LEVEL = [camera_pose((0, 0, 0.4), pitch=15)]


def records_of(solids, count=30, poses=None):
    scene = scene_of(solids, LEVEL if poses is None else poses)
    return [build_record(scene, seed=seed) for seed in range(count)]


@pytest.fixture(scope="module")
def boxes():
    return records_of(BOXES, 60)


def true_of(mention, solid, others):
    """Whether a mention is true of a solid and of none of the others, read from where they were put."""
    axis = 0 if re.search("left|right", mention) else 1
    more = bool(re.search("right|behind|farthest", mention))
    anchor = next((one for one in BOXES if f"the {one.name}" in mention[5:]), None)
    if anchor is not None:
        return all(((one.centre[axis] > anchor.centre[axis]) == more) == (one is solid) for one in (solid, *others))
    return all((solid.centre[axis] > one.centre[axis]) == more for one in others)


def test_two_boxes_are_told_apart_by_what_is_true_of_one(boxes):
    seen = Counter()
    for record in boxes:
        assert validate(record) == []
        rows = {row["id"]: row for row in record["objects"]}
        assert rows[4]["mention"] == "the mug" and rows[5]["mention"] == "the lamp"
        for one, other in ((2, 3), (3, 2)):
            mention = rows[one]["mention"]
            assert TOLD.fullmatch(mention), mention
            assert true_of(mention, BOXES[one - 1], [BOXES[other - 1]]), mention
            seen[mention] += 1
    assert len(seen) >= 8
    assert all(word in " ".join(seen) for word in ("leftmost", "closest", "right of the mug"))


def test_no_question_is_answered_by_the_name_of_its_object(boxes):
    fallen_back = 0
    for record in boxes:
        facts = RecordFacts(record)
        for turn, question, _ in dialogue(record):
            for row in (facts.objects[name] for name in turn["object_ids"] if turn["level"] in ("object", "scene")):
                what = stated(facts, row)
                if what is not None and (what.kind == turn["kind"] or what.anchor in turn["object_ids"]):
                    assert row["mention"] not in question.lower()
                    assert f"the box at ({row['x']:.3f}, {row['y']:.3f})" in question.lower()
                    fallen_back += 1
    assert fallen_back > 20


def test_things_in_doubt_are_told_apart_by_a_point():
    """Two boxes side by side at the same distance, hardly apart, and alike."""
    pair = [Solid("box", (x, 1.4, 0.1), (0.1, 0.1, 0.2)) for x in (-0.055, 0.055)]
    scene = scene_of([TABLE, *pair], LEVEL, noise=0.1)
    record = build_record(scene, seed=0, allow_partial=True)
    facts = RecordFacts(record)
    for name in (2, 3):
        row = facts.objects[name]
        assert re.fullmatch(r"the box at \(0\.\d{3}, 0\.\d{3}\)", row["mention"])
        u, v = facts.pixel(row)
        assert scene.views[0].instances[v, u] == name
    assert validate(record) == []


def test_with_several_views_a_point_decides():
    for record in records_of(BOXES, 5, TWO_POSES):
        for row in record["objects"]:
            if row["name"] == "box":
                assert re.fullmatch(r"the box at \(0\.\d{3}, 0\.\d{3}\) in image [12]", row["mention"])


def test_a_box_among_red_boxes_is_not_just_the_box():
    solids = (TABLE, BOXES[1], Solid("red box", (0.45, 1.7, 0.1), BOX_SIZE, 20), *BOXES[3:])
    for record in records_of(solids, 10):
        mentions = {row["name"]: row["mention"] for row in record["objects"]}
        assert mentions["box"] != "the box" and mentions["red box"] == "the red box"
        assert validate(record) == []


def test_a_thing_too_small_to_measure_can_be_meant_as_well():
    speck = Solid("box", (0.45, 1.2, 0.01), (0.02, 0.02, 0.02))
    solids = (TABLE, BOXES[1], *BOXES[3:], speck)
    for record in records_of(solids, 5):
        assert 5 not in {row["id"] for row in record["objects"]}, "it was meant to be too small"
        (row,) = (row for row in record["objects"] if row["name"] == "box")
        assert "box at (" in row["mention"]


@pytest.mark.parametrize(
    ("name", "other", "fits"),
    [
        ("box", "Box", True), ("box", "red box", True), ("red box", "box", False), ("box", "boxer", False),
        ("glass", "wine  glass", True), ("lass", "glass", False),
    ],
)  # fmt: skip
def test_which_names_fit(name, other, fits):
    assert may_be_called(name, other) == fits


# validate refuses


def spoilt(record, mention):
    """The record with another mention of the first box, in its columns and in its texts."""
    changed = copy.deepcopy(record)
    row = next(row for row in changed["objects"] if row["name"] == "box")
    for message in changed["messages"]:
        for part in message["content"]:
            if part["text"]:
                part["text"] = part["text"].replace(row["mention"], mention)
    row["mention"] = mention
    return changed


@pytest.mark.parametrize(
    ("mention", "problem"),
    [
        ("the box", "fits other objects"), ("the rightmost box", "does not bear out of it alone"),
        ("the box that is behind the mug", "does not bear out of it alone"), ("the left box", "does not name it"),
        ("the box that is to the right of the mug", "does not bear out of it alone"),
        ("the box that is behind the table", "does not name it"),
    ],
)  # fmt: skip
def test_a_wrong_mention_does_not_pass(boxes, mention, problem):
    assert any(problem in one for one in validate(spoilt(boxes[0], mention)))


def test_the_same_mention_twice_does_not_pass(boxes):
    changed = copy.deepcopy(boxes[0])
    first, second = (row for row in changed["objects"] if row["name"] == "box")
    second["mention"] = first["mention"]
    assert any("is not unique" in one for one in validate(changed))


def test_a_mention_that_gives_the_answer_away_does_not_pass(boxes):
    checked = 0
    for record in boxes:
        for place, turn in enumerate(record["turns"]):
            rows = [row for row in record["objects"] if row["id"] in turn["object_ids"]]
            for row in rows if turn["kind"] == "left_right" else ():
                point = f"box at ({row['x']:.3f}, {row['y']:.3f})"
                question = message_text(record["messages"][2 * place])
                if point in question and row["mention"].startswith(("the leftmost", "the rightmost")):
                    changed = copy.deepcopy(record)
                    part = changed["messages"][2 * place]["content"][-1]
                    part["text"] = part["text"].replace(point, row["mention"].removeprefix("the "))
                    assert any("gives the answer away" in one for one in validate(changed))
                    checked += 1
    assert checked > 3
