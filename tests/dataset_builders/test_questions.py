import json
import random
import re
import string
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from dataset_builders.facts import RecordFacts
from dataset_builders.phrasings import (
    ANSWERS,
    EVIDENCE,
    QUESTIONS,
    RECALL,
    RELATIONS,
    counted,
    is_plural,
    listed,
    pluralise,
    sentences,
)
from dataset_builders.pointing import point_at, steady_points
from dataset_builders.scene import DropItem, SceneObject
from dataset_builders.schema import KINDS, message_text, turn_order, validate
from dataset_builders.spatial_reasoning import build_record
from dataset_builders.verification import Reader
from tests.dataset_builders.scenes_for_tests import BREAKFAST, TABLE, Solid, camera_pose, scene_of

SNAPSHOT = Path(__file__).parent / "snapshots" / "dialogues.txt"
TWO_POSES = [camera_pose((-0.3, 0, 0.5), -10, 20), camera_pose((0.6, 0, 0.6), 15, 22)]
SLOTS = {
    "p", "q", "a", "b", "is", "camera", "seen", "phrase", "opposite", "evidence", "cited", "value", "near", "far",
    "shows", "things", "place", "there_is", "last", "a_value", "b_value", "p_value",
}  # fmt: skip


@pytest.fixture(scope="module")
def breakfast():
    return scene_of(BREAKFAST, name="breakfast")


@pytest.fixture(scope="module")
def breakfast_twice():
    return scene_of(BREAKFAST, TWO_POSES, name="breakfast_twice")


@pytest.fixture(scope="module")
def records(breakfast, breakfast_twice):
    return [
        build_record(scene, seed=seed, order=order)
        for scene in (breakfast, breakfast_twice)
        for order in ("forward", "reverse", "random")
        for seed in range(25)
    ]


def dialogue(record):
    texts = [message_text(one) for one in record["messages"]]
    return list(zip(record["turns"], texts[::2], texts[1::2]))


def indices(record):
    return [turn["index"] for turn in record["turns"]]


# Templates


def slots_of(template):
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def every_template():
    return [text for texts in (*QUESTIONS.values(), *ANSWERS.values()) for text in texts] + list(EVIDENCE.values())


def test_templates_have_known_slots_and_no_loose_ends():
    for text in every_template():
        assert slots_of(text) <= SLOTS, text
        assert "  " not in text and not re.search(r"\s[.,?;:]", text), text
        assert not re.search(r"\d(?!D)", text.replace("image 1", "").replace("3D", "")), f"a bare number in {text!r}"
        assert not re.search(r"\b(metres?|meters?|cm|centi)", text), f"a fixed unit in {text!r}"


@pytest.mark.parametrize("kind", QUESTIONS)
def test_every_kind_has_several_phrasings_without_repeats(kind):
    assert len(QUESTIONS[kind]) >= 4 == len({text.lower() for text in QUESTIONS[kind]}) - len(QUESTIONS[kind]) + 4
    assert all(text.endswith(("?", ".")) for text in QUESTIONS[kind])
    needed = slots_of(QUESTIONS[kind][0]) & {"p", "q", "a", "b"}
    assert all(needed <= slots_of(text) for text in QUESTIONS[kind])


def test_every_kind_of_reasoning_turn_has_answers_that_give_the_number():
    for kind, level in KINDS.items():
        if level in ("caption", "vqa") or kind in RELATIONS:
            continue
        assert len(ANSWERS[kind]) >= 4
        assert all("value" in slots_of(text) for text in ANSWERS[kind])


def reader_of(record):
    turn = next(turn for turn in record["turns"] if turn["level"] == "object" and len(turn["object_ids"]) == 2)
    return Reader(RecordFacts(record), turn, [])


@pytest.mark.parametrize("kind", [kind for kind in RELATIONS if kind != "closer_point"])
@pytest.mark.parametrize("asked", [1, -1])
@pytest.mark.parametrize("truth", [1, -1])
def test_no_wording_contradicts_its_own_yes_or_no(records, kind, asked, truth, monkeypatch):
    """Every question x every answer x every phrase, read back and judged against a geometry that is dictated."""
    reader = reader_of(records[0])
    first, second = (reader.facts.objects[name]["mention"] for name in reader.turn["object_ids"])
    monkeypatch.setattr(RecordFacts, "relation", lambda self, kind, one, other, view: (truth, 1.0))
    slots = {"a": first, "b": second, "camera": "the camera", "evidence": "it is measured", "cited": ""}
    yes = asked == truth
    phrases = RELATIONS[kind][0 if asked > 0 else 1]
    opposites = RELATIONS[kind][1 if asked > 0 else 0]
    for phrase, opposite, verb in product(phrases, opposites, ("is", "are")):
        words = slots | {"is": verb, "phrase": phrase.format(**slots), "opposite": opposite.format(**slots)}
        for text in QUESTIONS[kind]:
            (claim,) = reader.claims(sentences(text.format(**words)))
            assert claim[1] == yes
        for text in ANSWERS["yes" if yes else "no"]:
            answer = sentences(text.format(**words))
            (claim,) = reader.claims(answer)
            assert claim[1], answer
            assert re.findall(r"\b(yes|no)\b", answer.lower()) == ["yes" if yes else "no"]


def test_every_phrasing_is_used(records):
    asked, answered = Counter(), Counter()
    for record in records:
        for turn in record["turns"]:
            question, question_number, answer, answer_number = turn["template"].split(".")
            asked[question, int(question_number)] += 1
            answered[answer, int(answer_number)] += 1
    for kind in ("point_depth", "closer_point", "left_right", "front_behind", "nearer_farther", "surface_distance"):
        assert all(asked[kind, number] for number in range(len(QUESTIONS[kind])))
    for kind in ("point_depth", "closer_point", "yes", "no", "surface_distance", "caption"):
        assert all(answered[kind, number] for number in range(len(ANSWERS[kind])))


# Grammar


@pytest.mark.parametrize(
    ("name", "plural", "is_already"),
    [
        ("box", "boxes", False), ("berry", "berries", False), ("toy", "toys", False), ("person", "people", False),
        ("wine glass", "wine glasses", False), ("bus", "buses", False), ("lens", "lenses", False),
        ("hanes socks", "hanes socks", True), ("scissors", "scissors", True), ("people", "people", True),
        ("bookshelf", "bookshelfs", False), ("shelf", "shelves", False), ("cup", "cups", False),
    ],
)  # fmt: skip
def test_plurals(name, plural, is_already):
    assert (pluralise(name), is_plural(name)) == (plural, is_already)


def test_articles_counts_and_lists():
    assert [counted("apple", 1), counted("box", 1), counted("scissors", 1)] == ["an apple", "a box", "scissors"]
    assert [counted("box", 3), counted("box", 40)] == ["three boxes", "40 boxes"]
    assert listed(["a cup"]) == "a cup" and listed(["a", "b", "c"]) == "a, b and c"
    assert sentences("the mug is 1.5 m away. it is there") == "The mug is 1.5 m away. It is there"


def test_plural_names_take_are(records):
    text = " ".join(message_text(one) for record in records for one in record["messages"]).lower()
    assert "the scissors are" in text and "the mug is" in text
    assert not re.search(r"scissors is (?!\d)|(?<!and )the (mug|lamp|cereal box) are", text)
    assert not re.search(r"\bis the scissors\b|\bare the (mug|lamp|cereal box) (?!and)", text)


# The plan


def test_all_records_validate(records):
    assert [problem for record in records for problem in validate(record)] == []


def test_twelve_turns_by_level(records):
    levels = {1: "pixel", 2: "pixel", 3: "pixel", 4: "pixel", 5: "pixel", 6: "object", 7: "object", 8: "object"}
    levels |= {9: "object", 10: "scene", 11: "caption", 12: "caption"}
    for record in records:
        assert {turn["index"]: turn["level"] for turn in record["turns"]} == levels


@pytest.mark.parametrize("order", ["forward", "reverse", "random"])
def test_order_of_turns(records, order):
    for record in records:
        if record["order"] == order:
            assert indices(record) == turn_order(range(1, 13), order, record["seed"], record["id"])
    orders = {tuple(indices(record)) for record in records if record["order"] == order}
    assert len(orders) == (1 if order != "random" else 50)


def test_rationale_cites_only_what_came_before(records):
    recall = re.compile("|".join(RECALL), re.IGNORECASE)
    cited = Counter()
    for record in records:
        said = set()
        for turn, question, answer in dialogue(record):
            if recall.search(answer):
                cited[record["order"], turn["level"]] += 1
                recalled = set(re.findall(r"\(0\.\d+, 0\.\d+\)", answer))
                own = {f"({point['x']:.3f}, {point['y']:.3f})" for point in turn["points"]}
                assert recalled - own <= said
            said |= set(re.findall(r"\(0\.\d+, 0\.\d+\)", answer + question))
    assert cited["forward", "object"] > 150 and cited["forward", "scene"] >= 45
    assert cited["reverse", "object"] == cited["reverse", "scene"] == 0


def test_scene_turn_recalls_the_relations_found_before(records):
    forward = [record for record in records if record["order"] == "forward" and len(record["images"]) == 1]
    recalling = sum(
        bool(re.search(r"(left|right|front|behind|taller|shorter|above|below|closer|farther)", answer))
        for record in forward
        for turn, _, answer in dialogue(record)
        if turn["index"] == 10
    )
    assert recalling > 0.8 * len(forward)


def test_questions_are_balanced():
    answers = Counter()
    for seed in range(60):
        record = build_record(scene_of(BREAKFAST, name=f"room {seed}"), seed=seed)
        answers.update(turn["answer"] for turn in record["turns"] if turn["answer"] in ("yes", "no"))
    assert 0.4 < answers["yes"] / answers.total() < 0.6


def test_questions_ask_in_both_directions(records):
    asked = Counter()
    for record in records:
        for turn, question, _ in dialogue(record):
            if turn["kind"] == "left_right":
                asked["left" if "left" in question else "right", turn["answer"]] += 1
    assert len(asked) == 4 and min(asked.values()) > 10


def test_sides_too_short_to_measure_are_not_told():
    plate = Solid("plate", (0, 2.0, 0.3), (0.4, 0.01, 0.3), 8)
    scene = scene_of([TABLE, plate, BREAKFAST[2]], [camera_pose((0, 0, 0.3))])
    told = set()
    for seed in range(12):
        for _, _, answer in dialogue(build_record(scene, seed=seed)):
            told.update(re.findall(r"part of the plate measures ((?:[\d.]+ c?m(?: by )?)+)", answer))
    assert told and all(len(sides.split(" by ")) == 2 for sides in told)


def test_same_seed_same_dialogue_in_any_process(breakfast):
    program = """
import json
from dataset_builders.spatial_reasoning import build_record
from tests.dataset_builders.scenes_for_tests import BREAKFAST, scene_of
record = build_record(scene_of(BREAKFAST, name="breakfast"), seed=5, order="random")
record["images"] = [len(one["bytes"]) for one in record["images"]]
print(json.dumps(record))
"""
    here = build_record(breakfast, seed=5, order="random")
    here["images"] = [len(one["bytes"]) for one in here["images"]]
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", program]
    there = subprocess.run(command, cwd=root, env={"PYTHONHASHSEED": "7"}, capture_output=True, check=True, text=True)
    assert there.stdout.strip() == json.dumps(here)


def test_other_seeds_and_other_scenes_differ(breakfast):
    texts = {
        json.dumps(build_record(replace(breakfast, id=name), seed=seed)["messages"])
        for name in "ab"
        for seed in (0, 1)
    }
    assert len(texts) == 4


# What is never asked


def asked_objects(record):
    return {name for turn in record["turns"] if turn["level"] in ("object", "scene") for name in turn["object_ids"]}


def test_supports_are_never_asked_about(records):
    assert all(1 not in asked_objects(record) for record in records)


def test_sizes_of_cut_and_covered_things_are_not_asked():
    solids = [
        TABLE,
        Solid("near crate", (0.0, 1.0, 0.1), (0.2, 0.2, 0.2)),
        Solid("far crate", (0.05, 1.6, 0.2), (0.4, 0.2, 0.4)),
        Solid("edge crate", (-0.72, 1.2, 0.1), (0.3, 0.2, 0.2)),
    ]
    scene = scene_of(solids, [camera_pose((0, 0, 0.3), pitch=10)])
    sized = Counter()
    for seed in range(30):
        for turn in build_record(scene, seed=seed)["turns"]:
            if turn["kind"] in ("longest_side", "bigger_smaller", "taller_shorter"):
                sized.update(turn["object_ids"])
    assert set(sized) == {2}


def test_tiny_things_are_not_asked_about():
    scene = scene_of([*BREAKFAST, Solid("pea", (-0.05, 1.2, 0.004), (0.008, 0.008, 0.008))])
    assert all(6 not in asked_objects(build_record(scene, seed=seed)) for seed in range(10))


def test_without_gravity_nothing_is_above_or_taller_or_in_front(breakfast):
    for seed in range(20):
        record = build_record(replace(breakfast, up_world=None), seed=seed)
        assert not {"above_below", "taller_shorter"} & {turn["kind"] for turn in record["turns"]}
        text = " ".join(message_text(one) for one in record["messages"])
        assert "in front of" not in text and "behind" not in text
        assert validate(record) == []


# Naming


def test_things_of_one_name_are_told_apart_by_a_point_on_them():
    solids = [TABLE] + [Solid("box", (x, 1.3 + 0.3 * (x > 0), 0.1), (0.2, 0.1, 0.2), 20) for x in (-0.4, 0.0, 0.4)]
    scene = scene_of([*solids, Solid("mug", (0.2, 1.0, 0.05), (0.1, 0.1, 0.1))])
    record = build_record(scene, seed=0)
    rows = {row["id"]: row for row in record["objects"]}
    assert rows[5]["mention"] == "the mug"
    assert len({rows[name]["mention"] for name in (2, 3, 4)}) == 3
    facts = RecordFacts(record)
    for name in (2, 3, 4):
        u, v = facts.pixel(rows[name])
        assert scene.views[0].instances[v, u] == name
        assert re.fullmatch(r"the box at \(0\.\d{3}, 0\.\d{3}\)", rows[name]["mention"])
    assert validate(record) == []


def test_names_that_would_confuse_a_reader_are_not_used(breakfast):
    renamed = tuple(replace(one, name="camera") if one.name == "mug" else one for one in breakfast.objects)
    for seed in range(5):
        assert 3 not in asked_objects(build_record(replace(breakfast, objects=renamed), seed=seed))


def test_names_with_digits_and_odd_letters_survive(breakfast):
    odd = {"mug": "7up can (0.5 l)", "lamp": "Möbelhaus* lamp", "cereal box": "box 12"}
    objects = tuple(replace(one, name=odd.get(one.name, one.name)) for one in breakfast.objects)
    for seed in range(10):
        assert validate(build_record(replace(breakfast, objects=objects), seed=seed)) == []


# Points


@pytest.mark.parametrize("width", [128, 640, 1000, 1536])
def test_written_coordinates_lead_back_to_the_depth(width):
    scene = scene_of(BREAKFAST, width=width, height=width * 3 // 4, focal=0.8 * width, noise=0.0)
    record = build_record(scene, seed=3)
    view = scene.views[0]
    for turn in record["turns"]:
        for point in turn["points"]:
            row = min(int(point["y"] * view.depth_m.shape[0]), view.depth_m.shape[0] - 1)
            column = min(int(point["x"] * width), width - 1)
            assert point["depth_m"] == round(float(view.depth_m[row, column]), 3)
            assert round(point["x"], 3) == point["x"] and round(point["y"], 3) == point["y"]


@pytest.mark.parametrize("width", [128, 333, 640, 998])
def test_a_coordinate_names_the_pixel_it_was_made_from(width):
    view = scene_of(BREAKFAST, width=width, height=width // 2, focal=width).views[0]
    view = replace(view, depth_m=np.ones_like(view.depth_m))
    for u, v in [(0, 0), (1, width // 4), (width // 3, 5), (width - 1, width // 2 - 1)]:
        point = point_at(view, 0, u, v)
        assert (int(point["x"] * width), int(point["y"] * (width // 2))) == (u, v)


def test_free_points_keep_away_from_steps_and_noise(breakfast):
    view = breakfast.views[0]
    step = np.where(np.arange(320) < 160, 1.0, 2.0) * np.ones((240, 1))
    stepped = replace(breakfast, views=(replace(view, depth_m=step.astype(np.float32)),))
    points = steady_points(stepped, 0, random.Random(0), 60)
    assert len(points) == 60 and all(abs(point["x"] * 320 - 160) >= 3 for point in points)
    noise = np.random.default_rng(0).uniform(1, 2, (240, 320)).astype(np.float32)
    assert steady_points(replace(breakfast, views=(replace(view, depth_m=noise),)), 0, random.Random(0), 9) == []


def test_points_stand_on_steady_depth(records, breakfast):
    view = breakfast.views[0]
    for record in (one for one in records if len(one["images"]) == 1):
        for turn in record["turns"]:
            for point in turn["points"]:
                v, u = int(point["y"] * 240), int(point["x"] * 320)
                around = view.depth_m[v - 1 : v + 2, u - 1 : u + 2]
                assert (abs(around - point["depth_m"]) < 0.05 * point["depth_m"]).all()


# Several views


def test_every_view_is_numbered_and_cross_view_answers_are_right(breakfast_twice):
    kinds = Counter()
    for seed in range(20):
        record = build_record(breakfast_twice, seed=seed)
        facts = RecordFacts(record)
        for turn, question, answer in dialogue(record):
            assert "image 1" in question + answer or "image 2" in question + answer or turn["level"] != "pixel"
            kinds[turn["kind"], any(point["view"] != turn["frame"] for point in turn["points"])] += 1
            for point in turn["points"]:
                world = np.append(facts.position(point, point["view"]), 1) @ facts.poses[point["view"]].T
                expected = np.linalg.inv(facts.poses[turn["frame"]]) @ world
                np.testing.assert_allclose(point["position_m"], expected[:3], atol=1e-6)
    assert kinds["point_position", True] == kinds["depth_across_views", True] == 20
    assert kinds["closer_point", True] > 3


def test_depth_across_views_agrees_with_the_other_depth_map(breakfast_twice):
    for seed in range(20):
        (turn,) = (one for one in build_record(breakfast_twice, seed=seed)["turns"] if one["index"] == 5)
        (point,), view = turn["points"], breakfast_twice.views[turn["frame"]]
        x, y, z = point["position_m"]
        u = round(view.intrinsics.fx * x / z + view.intrinsics.cx)
        v = round(view.intrinsics.fy * y / z + view.intrinsics.cy)
        assert view.depth_m[v, u] == pytest.approx(turn["value"], rel=0.03)


def test_distance_between_things_that_no_view_shows_together():
    solids = [
        TABLE,
        *(Solid(name, (x, 1.5, 0.1), (0.2, 0.2, 0.2)) for name, x in [("a", -1.2), ("b", -0.7), ("c", 1.2)]),
    ]
    solids = [replace(one, name={"a": "drum", "b": "bowl", "c": "vase"}.get(one.name, one.name)) for one in solids]
    scene = scene_of(solids, [camera_pose((-0.95, 0.3, 0.4), pitch=15), camera_pose((0.95, 0.3, 0.4), pitch=15)])
    distances = {}
    for seed in range(20):
        record = build_record(scene, seed=seed)
        turn = next(one for one in record["turns"] if one["index"] == 10)
        distances[frozenset(turn["object_ids"])] = turn["value"]
        assert validate(record) == []
    assert distances[frozenset((2, 3))] == pytest.approx(0.3, abs=0.03)
    assert distances.get(frozenset((3, 4)), distances.get(frozenset((2, 4)))) in (
        pytest.approx(1.7, abs=0.05),
        pytest.approx(2.2, abs=0.05),
    )


# Scenes that cannot carry every turn


def test_scene_without_objects(breakfast):
    bare = replace(breakfast, objects=())
    with pytest.raises(DropItem, match="--allow-partial") as caught:
        build_record(bare, seed=0)
    assert caught.value.reason == "no_objects" and "turns 6-10 cannot be asked" in str(caught.value)
    record = build_record(bare, seed=0, allow_partial=True)
    assert indices(record) == [1, 2, 3, 4, 5, 10, 11, 12] and validate(record) == []


def test_scene_with_one_object(breakfast):
    lonely = replace(breakfast, objects=breakfast.objects[:2])
    with pytest.raises(DropItem, match="6-10 cannot be asked") as caught:
        build_record(lonely, seed=0)
    assert caught.value.reason == "fewer_than_two_objects"
    record = build_record(lonely, seed=0, allow_partial=True)
    assert record["turns"][5]["kind"] == "point_distance" and validate(record) == []


def test_objects_that_no_view_shows_together():
    solids = [TABLE, Solid("drum", (-1.2, 1.5, 0.1), (0.2, 0.2, 0.2)), Solid("vase", (1.2, 1.5, 0.1), (0.2, 0.2, 0.2))]
    scene = scene_of(solids, [camera_pose((-0.95, 0.3, 0.4), pitch=15), camera_pose((0.95, 0.3, 0.4), pitch=15)])
    with pytest.raises(DropItem) as caught:
        build_record(scene, seed=0)
    assert caught.value.reason == "no_common_view"
    assert validate(build_record(scene, seed=0, allow_partial=True)) == []


def test_scene_without_metres_or_without_depth(breakfast):
    with pytest.raises(DropItem) as caught:
        build_record(replace(breakfast, metric=False), seed=0, allow_partial=True)
    assert caught.value.reason == "not_metric"
    sky = replace(breakfast.views[0], depth_m=np.full((240, 320), 1e4, dtype=np.float32))
    with pytest.raises(DropItem) as caught:
        build_record(replace(breakfast, views=(sky,)), seed=0, allow_partial=True)
    assert caught.value.reason == "no_steady_points"


def test_two_things_a_millimetre_apart_are_not_compared_by_place():
    twins = [Solid("salt", (0.0, 1.2, 0.05), (0.1, 0.1, 0.1)), Solid("pepper", (0.0, 1.2, 0.05), (0.1, 0.1, 0.1))]
    scene = scene_of([TABLE, twins[0]], [camera_pose((0, 0, 0.4), pitch=15)])
    view = scene.views[0]
    instances = view.instances.copy()
    instances[:, 160:][instances[:, 160:] == 2] = 3  # two halves of one box
    scene = replace(
        scene, views=(replace(view, instances=instances),), objects=(*scene.objects, SceneObject(3, "pepper"))
    )
    for seed in range(5):
        record = build_record(scene, seed=seed)
        kinds = {turn["kind"] for turn in record["turns"] if turn["level"] == "object"}
        assert not kinds & {"front_behind", "above_below", "taller_shorter", "bigger_smaller"}
        distance = next(turn["value"] for turn in record["turns"] if turn["index"] == 10)
        assert distance < 0.02


def test_captions_can_be_given(breakfast):
    record = build_record(breakfast, seed=0, captions=["A table laid for breakfast.", "The mug is on the right."])
    given = {turn["index"]: (turn["template"], answer) for turn, _, answer in dialogue(record)}
    assert given[11][1] == "A table laid for breakfast." and given[12][1] == "The mug is on the right."
    assert given[11][0].endswith(".external")
    assert validate(record) == []
    lying = build_record(breakfast, seed=0, captions=["Seven cups on a table.", "The mug is 3.000 m away."])
    assert len(validate(lying)) == 2


def test_random_module_state_does_not_matter(breakfast):
    random.seed(1)
    first = build_record(breakfast, seed=2)
    random.seed(2)
    assert build_record(breakfast, seed=2) == first


def test_texts_are_frozen(breakfast, breakfast_twice, request):
    """After a wanted change of wording: delete the file, run the test twice and read the difference."""
    lines = []
    for scene, order in ((breakfast, "forward"), (breakfast, "reverse"), (breakfast_twice, "random")):
        lines.append(f"# {scene.id} {order}")
        for turn, question, answer in dialogue(build_record(scene, seed=0, order=order)):
            lines += [f"{turn['index']} {turn['kind']}", f"  Q: {question}", f"  A: {answer}"]
    text = "\n".join(lines) + "\n"
    if not SNAPSHOT.exists():
        SNAPSHOT.parent.mkdir(exist_ok=True)
        SNAPSHOT.write_text(text, encoding="utf-8")
        pytest.fail(f"{SNAPSHOT.name} was missing and has been written; read it and run again")
    assert text == SNAPSHOT.read_text(encoding="utf-8")
