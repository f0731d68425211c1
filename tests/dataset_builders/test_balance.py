"""No answer is more likely than the other before the picture was seen: shares over many small rooms.

Within 45-55 %, or within three standard deviations of a fair coin where that is wider (fewer than 900 answers).
"""

import math
from collections import Counter, defaultdict
from dataclasses import replace

import pytest

from dataset_builders import multi_view_vqa, spatial_reasoning
from dataset_builders.scene import DropItem
from dataset_builders.schema import message_text
from dataset_builders.sources import SourceOptions
from dataset_builders.sources.synthetic import SyntheticSource

ROOMS, LARGE_ROOMS, SEEDS = 90, 20, 4
YES_NO = ("in_all", "in_one", "no_such_thing", "wrong_colour", "same_spot")
RELATIONS = ("left_right", "front_behind", "taller_shorter", "bigger_smaller")
CHOICES = ("name_at_point", "matching_point", "which_colour", "nearest_in_image")


@pytest.fixture(scope="module")
def rooms():
    """Many small ones, and a few with the pixels that it takes to trust the size of a thing."""
    small = SyntheticSource(SourceOptions(num_scenes=ROOMS, seed=11, views=2, image_size=(64, 64)))
    large = SyntheticSource(SourceOptions(num_scenes=LARGE_ROOMS, seed=12, views=2, image_size=(192, 256)))
    return [source.load(item) for source in (small, large) for item in source.list_items()]


def built(scene, seed):
    """The records of a room: its first view, both views, and the VQA about both."""
    single = replace(scene, id=f"{scene.id}-single", views=scene.views[:1])
    for one, build in ((single, spatial_reasoning), (scene, spatial_reasoning), (scene, multi_view_vqa)):
        try:
            yield build.build_record(one, seed=seed)
        except DropItem:
            continue


def answers_of(record):
    """Pairs of what is counted and the answer that was given."""
    questions = map(message_text, record["messages"][::2])
    for turn, question in zip(record["turns"], questions):
        kind = turn["template"] if turn["level"] == "vqa" else turn["kind"]
        if kind == "closer_point":
            first, second = (point["position_m"][2] for point in turn["points"])
            yield kind, "first" if first < second else "second"
        elif kind in (*RELATIONS, *YES_NO, "camera_side", "nearer_in"):
            yield kind, turn["answer"]
        elif turn["kind"] == "multiple_choice":
            yield kind, turn["answer"]
            yield "letters", turn["answer"]
        if kind == "left_right":
            yield "left or right in the question", "left" if "left" in question else "right"
            yield "left_right, the first is", "left" if ("left" in question) == (turn["answer"] == "yes") else "right"


@pytest.fixture(scope="module")
def shares(rooms):
    counts: dict[str, Counter] = defaultdict(Counter)
    counts["records"]["all"] = 0
    for scene in rooms:
        for seed in range(SEEDS):
            for record in built(scene, seed):
                counts["records"]["all"] += 1
                for kind, answer in answers_of(record):
                    counts[kind][answer] += 1
    for kind, found in counts.items():
        print(f"{kind:32}{found.total():6}", {one: f"{n / found.total():.3f}" for one, n in sorted(found.items())})
    return counts


def test_enough_was_built(shares):
    assert shares["records"]["all"] >= 300
    for kind in (
        "left_right",
        "front_behind",
        "closer_point",
        "same_spot",
        "camera_side",
        "letters",
    ):
        assert shares[kind].total() >= 150, kind


@pytest.mark.parametrize(
    ("kind", "answers"),
    [(kind, ("yes", "no")) for kind in (*RELATIONS, *YES_NO)]
    + [(kind, ("left", "right")) for kind in ("camera_side", "left or right in the question")]
    + [("left_right, the first is", ("left", "right"))]
    + [("closer_point", ("first", "second")), ("nearer_in", ("image 1", "image 2"))]
    + [(kind, tuple("ABCD")) for kind in ("letters", *CHOICES)],
)
def test_every_answer_is_as_likely(shares, kind, answers):
    found, fair = shares[kind], 1 / len(answers)
    assert set(found) <= set(answers) and found.total() >= 30
    slack = max(0.1 * fair, 3 * math.sqrt(fair * (1 - fair) / found.total()))
    for answer in answers:
        assert abs(found[answer] / found.total() - fair) <= slack, (kind, dict(found))
