"""VQA and captions, with every answer worked out a second time from the masks and depth maps themselves."""

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from dataset_builders import multi_view_vqa
from dataset_builders.multi_view_vqa import build_caption, build_record
from dataset_builders.pairing import view_groups
from dataset_builders.scene import DropItem, SceneObject
from dataset_builders.schema import message_text, validate
from dataset_builders.sources import SourceOptions
from dataset_builders.sources.synthetic import SyntheticSource
from dataset_builders.sources.synthetic_objects import CLASSES, COLOURS
from dataset_builders.vqa_ground import LOOKALIKES, things_of

POINT = re.compile(r"\((\d\.\d{3}), (\d\.\d{3})\) in image (\d)")
OPTION = re.compile(r"^([A-D])\. (.+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def scenes():
    source = SyntheticSource(SourceOptions(num_scenes=12, seed=3, views=2, image_size=(96, 96)))
    return [source.load(item) for item in source.list_items()]


@pytest.fixture(scope="module")
def records(scenes):
    """(scene, record) of several seeds, those that were kept."""
    kept = []
    for seed in range(8):
        for scene in scenes:
            try:
                kept.append((scene, build_record(scene, seed=seed)))
            except DropItem as drop:
                assert drop.reason == "too_few_questions"
    assert len(kept) > 80
    return kept


def turns_of(record):
    texts = [message_text(one) for one in record["messages"]]
    return list(zip(record["turns"], texts[::2], texts[1::2]))


# an independent reading of the scene: names, pixels, depth


def owner(scene, text):
    """Instance id at a point that a text names, and that point's place in the world."""
    x, y, image = re.search(POINT, text).groups()
    view = scene.views[int(image) - 1]
    height, width = view.depth_m.shape
    u, v = int(float(x) * width), int(float(y) * height)
    k, z = view.intrinsics, float(view.depth_m[v, u])
    place = view.camera_to_world @ ((u - k.cx) * z / k.fx, (v - k.cy) * z / k.fy, z, 1)
    return int(view.instances[v, u]), place[:3]


def pixels(scene, name, view):
    """How many pixels of a view show the thing of that name; 0 for a thing that does not exist."""
    return sum(int((scene.views[view].instances == one.id).sum()) for one in scene.objects if one.name == name)


def names_in(text):
    """Names of things, real or not, in a text."""
    return re.findall(rf"\b(?:[Tt]he|an?) ((?:(?:{'|'.join(COLOURS)}) )?(?:{'|'.join(CLASSES)}))\b", text)


def check_yes_no(scene, turn, question):
    template, answer = turn["template"], turn["answer"]
    if template == "same_spot":
        first, second = (owner(scene, part)[1] for part in re.findall(r"\([^)]*\) in image \d", question))
        return (answer == "yes") == (np.linalg.norm(first - second) < 0.15)
    if template == "wrong_colour":
        noun, colour = re.search(r"[Tt]he ([a-z]+) (?:is|are) ([a-z]+)", question).groups()
        (real,) = [one.name for one in scene.objects if one.name.split()[-1] == noun]
        return (answer == "yes") == (real.split()[0] == colour)
    (name,) = names_in(question.split("\n")[-1])
    views = range(len(scene.views))
    if template == "in_one":
        seen = pixels(scene, name, int(re.search(r"image (\d)", question)[1]) - 1) > 0
    elif template == "in_all":
        seen = all(pixels(scene, name, view) for view in views)
    else:
        seen = any(pixels(scene, name, view) for view in views)
    return (answer == "yes") == seen


def check_words(scene, turn, question, reply):
    template = turn["template"]
    if template == "what_is_at":
        identity, _ = owner(scene, question)
        return any(one.id == identity and one.name in reply for one in scene.objects)
    if template == "where_is":
        identity, _ = owner(scene, reply)
        return any(one.id == identity and one.name in question for one in scene.objects)
    if template == "hidden_there":
        view = int(re.search(r"image (\d)", question)[1]) - 1
        (name,) = names_in(question)
        return pixels(scene, name, view) == 0
    if template == "which_images":
        (name,) = names_in(question)
        seen = {view + 1 for view in range(2) if pixels(scene, name, view)}
        expected = {(1, 2): "both images", (1,): "only image 1", (2,): "only image 2", (): "neither image"}
        return expected[tuple(sorted(seen))] in reply.lower()
    if template == "how_many_of":
        view = int(re.search(r"image (\d)", question.split("\n")[-1])[1]) - 1
        names = names_in(question)
        assert len(names) == 3
        return ["no", "one", "two", "three"][sum(pixels(scene, name, view) > 0 for name in names)] == turn["answer"]
    if template == "what_colour":
        (noun,) = names_in(question)
        (real,) = [one.name for one in scene.objects if one.name.split()[-1] == noun]
        return real.split()[0] == turn["answer"]
    return template in ("nearer_in", "camera_side")  # checked below


def check_choice(scene, turn, question):
    template, options = turn["template"], dict(re.findall(OPTION, question))
    right = options[turn["answer"]].removeprefix("the ")
    stem = question.split("\nA. ")[0].split("\n")[-1]
    if template == "name_at_point":
        identity, _ = owner(scene, stem)
        return [one.name for one in scene.objects if one.id == identity] == [right]
    if template == "matching_point":
        gaps = {
            letter: np.linalg.norm(owner(scene, text)[1] - owner(scene, stem)[1]) for letter, text in options.items()
        }
        return min(gaps, key=gaps.get) == turn["answer"] and sorted(gaps.values())[1] > 0.15
    if template == "which_colour":
        (noun,) = names_in(stem)
        (real,) = [one.name for one in scene.objects if one.name.split()[-1] == noun]
        return real.split()[0] == right
    if template == "only_in_one":
        view = int(re.search(r"image (\d)", stem)[1]) - 1
        alone = [
            letter
            for letter, text in options.items()
            if pixels(scene, text[4:], view) and not pixels(scene, text[4:], 1 - view)
        ]
        return alone == [turn["answer"]]
    return template == "nearest_in_image"  # checked below


def test_records_pass_the_gate(records):
    for _, record in records[::3]:
        assert validate(record) == []


def test_answers_hold_in_the_scene_itself(records):
    seen = Counter()
    for scene, record in records:
        for turn, question, reply in turns_of(record):
            if turn["kind"] == "multiple_choice":
                holds = check_choice(scene, turn, question)
            elif turn["answer"] in ("yes", "no"):
                holds = check_yes_no(scene, turn, question)
            else:
                holds = check_words(scene, turn, question, reply)
            assert holds, (record["id"], turn["template"], question, reply)
            seen[turn["template"]] += 1
    assert set(seen) == {
        one.__name__
        for group in (
            multi_view_vqa.COMMON,
            multi_view_vqa.PRESENCE,
            multi_view_vqa.POINTING,
            multi_view_vqa.ADVERSARIAL,
            multi_view_vqa.CHOICES,
        )
        for one in group
    }


def visible_centres(scene, view):
    """Mean position of each thing's pixels in a view, camera frame, by name."""
    one = scene.views[view]
    v, u = np.mgrid[: one.depth_m.shape[0], : one.depth_m.shape[1]]
    k = one.intrinsics
    points = np.stack([(u - k.cx) * one.depth_m / k.fx, (v - k.cy) * one.depth_m / k.fy, one.depth_m], axis=-1)
    return {
        item.name: points[one.instances == item.id].mean(axis=0)
        for item in scene.objects
        if (one.instances == item.id).any()
    }


def test_nearness_and_camera_motion_hold_in_the_scene(records):
    checked = Counter()
    for scene, record in records:
        for turn, question, _ in turns_of(record):
            stem = question.split("\nA. ")[0].split("\n")[-1]
            if turn["template"] == "nearest_in_image":
                options = {letter: text[4:] for letter, text in re.findall(OPTION, question)}
                centres = visible_centres(scene, turn["frame"])
                ranges = {letter: np.linalg.norm(centres[name]) for letter, name in options.items()}
                assert ranges[turn["answer"]] <= min(ranges.values()) * 1.1
            elif turn["template"] == "nearer_in":
                (name,) = names_in(stem)
                ranges = [np.linalg.norm(visible_centres(scene, view)[name]) for view in range(2)]
                wanted = np.argmax(ranges) if "farther" in stem else np.argmin(ranges)
                assert turn["answer"] == f"image {1 + int(wanted)}"
            elif turn["template"] == "camera_side":
                first, second = (scene.views[view].camera_to_world for view in (turn["frame"], 1 - turn["frame"]))
                step = np.linalg.inv(first) @ second[:, 3]
                assert turn["answer"] == ("left" if step[0] < 0 else "right")
                wordings = (r"Was image (\d)", r" to image (\d)", r"that of image (\d)", r"camera of image (\d)")
                subject = next(found for found in (re.search(one, stem) for one in wordings) if found)
                assert int(subject[1]) - 1 == 1 - turn["frame"]
            else:
                continue
            checked[turn["template"]] += 1
    assert len(checked) == 3


def test_yes_no_and_letters_are_balanced(records):
    answers = Counter()
    for _, record in records:
        answers.update(turn["answer"] for turn in record["turns"])
    assert abs(answers["yes"] - answers["no"]) < 3 * np.sqrt(answers["yes"] + answers["no"])
    letters = [answers[letter] for letter in "ABCD"]
    assert max(abs(count - sum(letters) / 4) for count in letters) < 3 * np.sqrt(sum(letters) * 3 / 16)


def test_all_three_kinds_and_pointing_occur(records):
    kinds = Counter(turn["kind"] for _, record in records for turn in record["turns"])
    assert set(kinds) == {"common", "adversarial", "multiple_choice"}
    assert min(kinds.values()) > 0.5 * len(records)
    pointing = [any(turn["points"] for turn in record["turns"]) for _, record in records]
    assert np.mean(pointing) > 0.95


def test_colour_questions_come_before_the_colour_is_told(records):
    for _, record in records:
        earlier = ""
        for turn, question, reply in turns_of(record):
            if turn["template"] in ("what_colour", "which_colour", "wrong_colour"):
                name = next(row["name"] for row in record["objects"] if row["id"] == turn["object_ids"][0])
                assert name not in earlier
            earlier += question + reply


def test_false_colours_are_no_lookalikes(records):
    for _, record in records:
        names = {row["id"]: row["name"] for row in record["objects"]}
        for turn, question, _ in turns_of(record):
            if turn["template"] in ("wrong_colour", "which_colour"):
                own = names[turn["object_ids"][0]].split()[0]
                said = {word for word in re.findall(r"[a-z]+", question) if word in LOOKALIKES} - {own}
                assert not said & LOOKALIKES[own]


def test_same_arguments_same_record(scenes):
    first, again = (build_record(scenes[0], seed=1) for _ in range(2))
    assert first == again
    assert first["messages"] != build_record(scenes[0], seed=2)["messages"]


def test_things_that_share_a_name_are_not_asked_about(scenes):
    scene = scenes[1]
    twin = SceneObject(max(one.id for one in scene.objects) + 1, scene.objects[-1].name)  # never in view
    rows = build_record(scene, seed=0)["objects"]
    before = {one.name for one in things_of(scene, rows)}
    after = {one.name for one in things_of(replace(scene, objects=(*scene.objects, twin)), rows)}
    assert after == before - {twin.name}


def test_a_thing_that_barely_shows_is_neither_seen_nor_absent(scenes):
    scene = scenes[0]
    rows = build_record(scene, seed=0)["objects"]
    thing = next(one for one in things_of(scene, rows) if len(one.seen) == 2)
    second = scene.views[1]
    instances = np.where(second.instances == thing.id, 0, second.instances)
    v, u = np.argwhere(second.instances == thing.id)[0]
    instances[v, u] = thing.id  # one pixel of it is left
    altered = replace(scene, views=(scene.views[0], replace(second, instances=instances)))
    for seed in range(12):
        for turn, question, _ in turns_of(build_record(altered, seed=seed)):
            if turn["template"] in ("in_all", "in_one", "which_images", "how_many_of", "hidden_there"):
                asked_there = "image 2" in question or turn["template"] in ("in_all", "which_images")
                assert not (thing.name in question and asked_there)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda scene: replace(scene, views=scene.views[:1]), "single_view"),
        (lambda scene: replace(scene, metric=False), "not_metric"),
        (lambda scene: replace(scene, views=(scene.views[0],) * 2), "views_too_similar"),
    ],
)
def test_drops(scenes, change, reason):
    with pytest.raises(DropItem) as error:
        build_record(change(scenes[0]), seed=0)
    assert error.value.reason == reason


def test_blank_views_give_too_few_questions(scenes):
    views = tuple(
        replace(view, image=np.zeros_like(view.image), instances=np.zeros_like(view.instances))
        for view in scenes[0].views
    )
    with pytest.raises(DropItem) as error:
        build_record(replace(scenes[0], views=views), seed=0)
    assert error.value.reason == "too_few_questions"


def test_four_views():
    source = SyntheticSource(SourceOptions(num_scenes=6, seed=8, views=4, image_size=(80, 80)))
    for item in source.list_items():
        group = list(view_groups(source.load(item)))[-1]
        for seed in range(6):
            record = build_record(group, seed=seed)
            assert len(record["images"]) == 4
            assert validate(record) == []
            assert "both images" not in str(record["messages"])


def test_caption_names_what_is_in_view(scenes):
    for scene in scenes[:8]:
        one = replace(scene, views=scene.views[:1])
        record = build_caption(one, seed=0)
        assert validate(record) == []
        text = message_text(record["messages"][1])
        for item in scene.objects:
            if re.search(rf"\b{item.name}\b", text):
                assert pixels(one, item.name, 0) > 0


def test_nothing_to_describe_is_dropped(scenes):
    view = replace(scenes[0].views[0], instances=None)
    with pytest.raises(DropItem) as error:
        build_caption(replace(scenes[0], views=(view,)), seed=0)
    assert error.value.reason == "no_objects"
