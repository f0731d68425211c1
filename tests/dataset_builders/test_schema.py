import copy
import re

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from dataset_builders.phrasings import RELATIONS
from dataset_builders.schema import (
    ARITY,
    COLUMNS,
    KINDS,
    LEVELS,
    features,
    message,
    message_text,
    opening_parts,
    turn_order,
    validate,
)
from dataset_builders.spatial_reasoning import base_record, build_record
from tests.dataset_builders.scenes_for_tests import BREAKFAST, TABLE, TWO_POSES, Solid, camera_pose, scene_of

FLIPPED = {"left": "right", "right": "left"}


VGA = {"width": 640, "height": 480, "focal": 520.0}  # sizes of small things cannot be trusted on fewer pixels


@pytest.fixture(scope="module")
def scene():
    return scene_of(BREAKFAST, name="breakfast")


@pytest.fixture(scope="module")
def built(scene):
    """Records in which every kind of turn occurs."""
    shelf = [
        TABLE,
        Solid("clock", (-0.4, 1.6, 0.5), (0.2, 0.05, 0.2)),
        Solid("mug", (0.3, 1.3, 0.05), (0.1, 0.1, 0.1)),
    ]
    cut = [Solid("chest", (-0.75, 1.2, 0.1), (0.3, 0.2, 0.2)), Solid("bin", (-0.65, 1.45, 0.15), (0.2, 0.2, 0.3))]
    cut_scene = scene_of([TABLE, *cut], [camera_pose((0, 0, 0.3), pitch=10)], name="cut")
    others = [scene_of(shelf, name="shelf", **VGA), cut_scene]
    return [build_record(one, seed=seed) for one in (scene, *others) for seed in range(8)]


@pytest.fixture(scope="module")
def built_twice():
    return build_record(scene_of(BREAKFAST, TWO_POSES, name="twice"), seed=1)


@pytest.fixture
def record(built):
    return copy.deepcopy(built[0])


def with_kind(built, kind):
    """A copy of a record with such a turn, the turn, and the parts of its question and of its answer."""
    for one in built:
        for place, turn in enumerate(one["turns"]):
            if turn["kind"] == kind:
                changed = copy.deepcopy(one)
                question = changed["messages"][2 * place]["content"][-1]
                answer = changed["messages"][2 * place + 1]["content"][-1]
                return changed, changed["turns"][place], question, answer
    raise LookupError(kind)


def test_columns_and_kinds_agree_with_the_features():
    assert list(features()) == list(COLUMNS)
    assert set(KINDS.values()) == set(LEVELS)
    assert {kind for kind, level in KINDS.items() if level not in ("caption", "vqa")} == set(ARITY)


def test_records_validate_before_and_after_parquet(built, built_twice, tmp_path):
    from datasets import Dataset, Image, load_dataset

    records = [*built, built_twice]
    assert [validate(one) for one in records] == [[]] * len(records)
    Dataset.from_list(records, features=features()).to_parquet(tmp_path / "part.parquet")
    loaded = load_dataset("parquet", data_files=str(tmp_path / "part.parquet"), split="train", cache_dir=str(tmp_path))
    assert loaded.features["images"].feature == Image()
    for before, after in zip(records, loaded):
        assert validate(after) == []
        assert after["messages"] == before["messages"]
        assert after["images"][0].size in ((320, 240), (640, 480))


def test_trl_sees_as_many_placeholders_as_images(built_twice):
    first = built_twice["messages"][0]["content"]
    assert [part["type"] for part in first] == ["text", "image", "text", "image", "text"]
    assert [part["text"] for part in first[:4]] == ["Image 1: ", None, "Image 2: ", None]
    assert all(part["type"] == "text" for one in built_twice["messages"][1:] for part in one["content"])


def test_opening_of_one_and_of_several_images():
    assert opening_parts(1, "Hi") == [None, "Hi"]
    assert opening_parts(2, "Hi") == ["Image 1: ", None, "Image 2: ", None, "Hi"]


def test_turn_order():
    assert turn_order([3, 1, 2], "forward", 0, "a") == [1, 2, 3]
    assert turn_order([3, 1, 2], "reverse", 0, "a") == [3, 2, 1]
    shuffled = turn_order(range(12), "random", 0, "a")
    assert shuffled == turn_order(range(12), "random", 0, "a") != turn_order(range(12), "random", 1, "a")
    assert sorted(shuffled) == list(range(12))


def test_caption_only_records_are_checked_too(scene):
    caption = {
        "index": 1,
        "level": "caption",
        "kind": "caption",
        "template": "x",
        "frame": 0,
        "value": None,
        "unit": "",
    }
    caption |= {"answer": "A table.", "margin": None, "points": [], "object_ids": [], "witness": []}
    record = base_record(scene, 0, "forward") | {"turns": [caption]}
    record["messages"] = [message("user", None, "Describe the image."), message("assistant", "A table.")]
    assert validate(record) == []
    record["cameras"] = []
    assert validate(record) == []
    record["messages"][1] = message("assistant", "A table, 1.2 m wide.")
    assert validate(record) == ["'1.2 m' in a record without cameras"]


# Each of these spoils one thing, and validate must say so


def test_missing_and_unknown_columns(record):
    del record["licence"]
    record["license"] = "MIT"
    assert validate(record) == ["column 'licence' is missing", "column 'license' is unknown"]


def test_an_image_too_few_and_an_image_of_another_size(record, built_twice):
    lacking = copy.deepcopy(built_twice)
    lacking["images"].pop()
    assert any("2 image placeholders in messages, 1 in images" in problem for problem in validate(lacking))
    record["cameras"][0]["width"] = 640
    assert any("image 1 measures (320, 240)" in problem for problem in validate(record))


def test_images_in_the_wrong_order_or_place(built_twice):
    swapped = copy.deepcopy(built_twice)
    swapped["messages"][0]["content"][0]["text"] = "Image 2: "
    assert any("introduce the images" in problem for problem in validate(swapped))
    late = copy.deepcopy(built_twice)
    late["messages"][2]["content"].insert(0, late["messages"][0]["content"].pop(1))
    assert validate(late)


def test_roles_and_silence(record):
    silent = copy.deepcopy(record)
    silent["messages"][1]["content"][0]["text"] = " "
    assert any("no text" in problem for problem in validate(silent))
    record["messages"][1]["role"] = "user"
    assert any("alternate" in problem for problem in validate(record))


def test_undeclared_coordinates(record):
    first = record["messages"][0]["content"][-1]
    first["text"] = first["text"].split("\n")[-1]
    assert validate(record) == ["coordinates are used but never declared"]


def test_order_is_kept(record):
    record["order"] = "reverse"
    assert any("not in reverse order" in problem for problem in validate(record))
    record["order"] = "sideways"
    assert any("is none of" in problem for problem in validate(record))


def test_turns_and_messages_belong_together(record):
    record["messages"] = record["messages"][:-2]
    assert any("12 turns for 22 messages" in problem for problem in validate(record))


def test_kind_level_and_arity(record):
    record["turns"][0]["level"] = "object"
    record["turns"][1]["points"] = []
    assert len(validate(record)) == 2


@pytest.mark.parametrize("spoil", ["nan", "scale", "focal"])
def test_cameras(record, spoil):
    camera = record["cameras"][0]
    if spoil == "focal":
        camera["fx"] = 0.0
    else:
        camera["camera_to_world"][0] = float("nan") if spoil == "nan" else camera["camera_to_world"][0] + 0.1
    assert any(problem.startswith("camera 1") for problem in validate(record))


def test_gravity_is_a_unit_vector(record):
    record["up_world"] = [0.0, 0.0, 2.0]
    assert validate(record) == ["up_world is not a unit vector"]


@pytest.mark.parametrize("column", ["dimensions", "box_rotation", "size", "depth_m", "centre", "mention"])
def test_objects_that_contradict_themselves(record, column):
    row = next(row for row in record["objects"] if row["usable"])
    if column == "mention":
        row["mention"] = "the thing"
    elif column == "dimensions":
        row["dimensions"] = row["dimensions"][::-1]
    elif column == "depth_m":
        row["depth_m"] += 1.0
    else:
        row[column] = [2 * value + 0.5 for value in row[column]]
    assert any(problem.startswith(f"object {row['id']}") for problem in validate(record))


def test_points_that_are_elsewhere(record):
    record["turns"][0]["points"][0]["depth_m"] += 0.01
    assert any("position that its pixel and depth do not give" in problem for problem in validate(record))


REASONING = {kind for kind in ARITY if KINDS[kind] != "grounding"}  # test_grounding.py has the others


@pytest.mark.parametrize("kind", sorted(REASONING - {"point_distance", "depth_across_views"}))
def test_no_digit_of_an_answer_can_be_changed(built, kind):
    """Every number in the answer, a coordinate or a length, is altered in turn: each time validate objects."""
    changed, turn, _, answer = with_kind(built, kind)
    text = answer["text"]
    numbers = list(re.finditer(r"\d+\.\d+", text))
    assert numbers or turn["answer"] in ("yes", "no")
    for number in numbers:
        digit = str((int(number[0][-1]) + 3) % 10)
        answer["text"] = text[: number.end() - 1] + digit + text[number.end() :]
        assert validate(changed), answer["text"]


@pytest.mark.parametrize("kind", ["closer_point", "depth_difference", "front_behind", "bigger_smaller"])
def test_numbers_cannot_change_places(built, kind):
    changed, _, _, answer = with_kind(built, kind)
    lengths = re.findall(r"\d+\.\d+ c?m", answer["text"])
    first, last = lengths[0], next(one for one in lengths[1:] if one != lengths[0])
    swapped = answer["text"].replace(first, "@").replace(last, first).replace("@", last)
    answer["text"] = swapped
    assert any("follows from nothing" in problem for problem in validate(changed))


def test_units_cannot_change(built):
    near = [one for one in built if any(turn["index"] == 10 and turn["unit"] == "cm" for turn in one["turns"])]
    changed, _, _, answer = with_kind(near, "surface_distance")
    answer["text"] = re.sub(r"(\d) cm", r"\1 m", answer["text"])
    assert validate(changed)
    changed, turn, question, _ = with_kind(built, "point_depth")
    turn["unit"] = "cm"
    assert any("unit 'cm'" in problem for problem in validate(changed))
    turn["unit"] = "m"
    question["text"] += " Answer in centimetres."
    assert any("asks for centimetres" in problem for problem in validate(changed))


@pytest.mark.parametrize(("word", "other"), [("left", "right"), ("down", "up"), ("forward", "backward")])
def test_directions_cannot_flip(built, word, other):
    changed, turn, _, answer = with_kind(built, "point_position")
    there, instead = (word, other) if word in answer["text"] else (other, word)
    answer["text"] = answer["text"].replace(there, instead)
    turn["answer"] = turn["answer"].replace(there, instead)
    assert validate(changed)


def test_directions_in_a_rationale_cannot_flip(built):
    changed, _, _, answer = with_kind(built, "left_right")
    answer["text"] = re.sub(
        r"(c?m) to the (left|right)", lambda one: f"{one[1]} to the {FLIPPED[one[2]]}", answer["text"]
    )
    assert any("follows from nothing" in problem for problem in validate(changed))


@pytest.mark.parametrize("kind", ["left_right", "front_behind", "taller_shorter", "bigger_smaller"])
def test_yes_cannot_become_no(built, kind):
    changed, turn, _, answer = with_kind(built, kind)
    flipped = {"yes": "no", "no": "yes"}[turn["answer"]]
    text = answer["text"]
    answer["text"] = re.sub(r"\b(yes|no)\b", flipped, text, flags=re.IGNORECASE)
    assert any("says" in problem for problem in validate(changed))
    turn["answer"] = flipped
    assert any("contradicts the geometry" in problem for problem in validate(changed))


@pytest.mark.parametrize("kind", ["left_right", "front_behind", "taller_shorter", "bigger_smaller"])
def test_a_relation_cannot_be_reversed_in_question_or_answer(built, kind):
    for part in (2, 3):
        changed = with_kind(built, kind)
        text = changed[part]["text"]
        phrases = [[one.format(camera="the camera") for one in side] for side in RELATIONS[kind]]
        place, before, after = max(
            (text.rfind(one), one, phrases[1 - side][0]) for side in (0, 1) for one in phrases[side]
        )
        changed[part]["text"] = text[:place] + after + text[place + len(before) :]
        assert place > 0 and validate(changed[0]), changed[part]["text"]


def test_things_cannot_change_places(built):
    changed, turn, _, answer = with_kind(built, "left_right")
    first, second = (
        next(row["mention"] for row in changed["objects"] if row["id"] == name) for name in turn["object_ids"]
    )
    text = answer["text"].replace(first, "@").replace(second, first).replace("@", second)
    answer["text"] = text.replace(first.capitalize(), second.capitalize())
    assert validate(changed)


def test_points_that_nobody_marked(built):
    changed, _, question, _ = with_kind(built, "point_depth")
    question["text"] = re.sub(r"\(0\.\d+, 0\.\d+\)", "(0.999, 0.001)", question["text"])
    assert any("no turn has marked" in problem for problem in validate(changed))


def test_metadata_must_agree_with_the_text(built):
    changed, turn, _, _ = with_kind(built, "longest_side")
    turn["value"] += 0.1
    assert any("is not the answer" in problem for problem in validate(changed))
    changed, turn, _, _ = with_kind(built, "left_right")
    turn["margin"] += 0.1
    assert any("margin" in problem for problem in validate(changed))
    changed, turn, _, _ = with_kind(built, "surface_distance")
    turn["witness"][0] = [value + 1 for value in turn["witness"][0]]
    assert any("not on object" in problem for problem in validate(changed))


def test_what_may_not_be_asked(built):
    changed, turn, _, _ = with_kind(built, "longest_side")
    row = next(row for row in changed["objects"] if row["id"] == turn["object_ids"][0])
    row["truncated"] = True
    assert any("not wholly visible" in problem for problem in validate(changed))
    row["truncated"], row["usable"] = False, False
    assert any("not usable" in problem for problem in validate(changed))


def test_noise_makes_a_relation_undecidable(built):
    changed, _, _, _ = with_kind(built, "left_right")
    changed["depth_noise"] = 0.5
    assert any("noise could flip" in problem for problem in validate(changed))


@pytest.mark.parametrize(
    "caption",
    [
        "There are seven cups.", "There are 3 cups.", "The mug is 2.000 m away.", "The mug is taller than the lamp.",
        "Image 2 shows a table.", "The lamp is to the left of the cereal box.", "The mug is above the table.",
    ],
)  # fmt: skip
def test_captions_cannot_invent(built, caption):
    changed, _, _, answer = with_kind(built, "caption")
    assert validate(changed) == []
    answer["text"] = caption
    assert validate(changed)


def test_no_metres_without_scale(record):
    record["metric"] = False
    assert any("without metric scale" in problem for problem in validate(record))


def test_numbers_agree_with_the_scene_itself(scene, built):
    """An independent look: every depth that a text gives for a point is in the depth map at that pixel."""
    view = scene.views[0]
    checked = 0
    for one in (one for one in built if one["id"] == scene.id):
        for text in map(message_text, one["messages"][1::2]):
            for x, y, number, unit in re.findall(
                r"depth at the point \((\S+), (\S+)\)(?: on the [a-z ]+)? is (\d+\.\d+) (c?m)", text
            ):
                depth = view.depth_m[int(float(y) * 240), int(float(x) * 320)]
                assert float(number) * (0.01 if unit == "cm" else 1) == pytest.approx(depth, abs=0.0006)
                checked += 1
    assert checked > 40


def test_distances_agree_with_the_scene_itself():
    """Another independent look: the smallest distance between any two pixels of the two masks."""
    scene = scene_of(BREAKFAST, name="breakfast", **VGA)
    view = scene.views[0]
    for one in (build_record(scene, seed=seed) for seed in range(8)):
        turn = next(turn for turn in one["turns"] if turn["kind"] == "surface_distance")
        clouds = []
        for name in turn["object_ids"]:
            v, u = np.nonzero(view.instances == name)
            rays = np.stack([(u - view.intrinsics.cx) / 520, (v - view.intrinsics.cy) / 520, np.ones(len(u))], axis=1)
            clouds.append(rays * view.depth_m[v, u, None])
        exact = cdist(*clouds).min()
        assert turn["value"] == pytest.approx(exact, rel=0.05, abs=0.02)
