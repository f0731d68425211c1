import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataset_builders.facts import RecordFacts
from dataset_builders.phrasings import RECALL
from dataset_builders.scene import DropItem, SceneObject
from dataset_builders.schema import message_text, turn_order, validate
from dataset_builders.spatial_reasoning import build_record
from tests.dataset_builders.scenes_for_tests import (
    BREAKFAST,
    TABLE,
    Solid,
    asked_objects,
    camera_pose,
    dialogue,
    scene_of,
)

SNAPSHOT = Path(__file__).parent / "snapshots" / "dialogues.txt"


def indices(record):
    return [turn["index"] for turn in record["turns"]]


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


def test_texts_are_frozen(breakfast, breakfast_twice):
    """After a wanted change of wording: RENEW_SNAPSHOTS=1 pytest, and read the difference that git shows."""
    lines = []
    for scene, order in ((breakfast, "forward"), (breakfast, "reverse"), (breakfast_twice, "random")):
        lines.append(f"# {scene.id} {order}")
        for turn, question, answer in dialogue(build_record(scene, seed=0, order=order)):
            lines += [f"{turn['index']} {turn['kind']}", f"  Q: {question}", f"  A: {answer}"]
    text = "\n".join(lines) + "\n"
    if os.environ.get("RENEW_SNAPSHOTS"):
        SNAPSHOT.write_text(text, encoding="utf-8")
    assert text == SNAPSHOT.read_text(encoding="utf-8")
