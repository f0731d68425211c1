"""The picture beside a card's example, and the card's frozen text.

After a wanted change of the text: RENEW_SNAPSHOTS=1 pytest tests/dataset_builders/test_card_picture.py, and read what
git shows.
"""

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard
from PIL import Image, ImageChops
from pyarrow.parquet import ParquetFile

from dataset_builders.card import BuildSummary, dataset_card
from dataset_builders.card_picture import VIEW_HEIGHT_PX, draw_example, example_record
from dataset_builders.schema import GENERATOR_VERSION, message_text
from tests.dataset_builders.builds_for_tests import rooms_plan

SNAPSHOT = Path(__file__).parent / "snapshots" / "card.md"


def texts_of(record):
    return [message_text(one).strip() for one in record["messages"]]


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    """A small build through the command."""
    from dataset_builders import build

    folder = tmp_path_factory.mktemp("rooms") / "data"
    arguments = ["--source", "synthetic", "--num-scenes", "3", "--resolution", "64", "--output", str(folder)]
    assert build.main(arguments) == 0
    return folder


@pytest.fixture(scope="module")
def record(rooms):
    (file,) = rooms.glob("single_view/test-*.parquet")
    return ParquetFile(file).read().slice(0, 1).to_pylist()[0]


def test_a_build_draws_the_record_that_its_card_tells(rooms, record, tmp_path):
    card = (rooms / "README.md").read_text()
    assert "](example.png)" in card and texts_of(record)[0].splitlines()[0] in card
    draw_example(record, tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == (rooms / "example.png").read_bytes()
    assert DatasetCard.load(rooms / "README.md").data.configs[0]["config_name"] == "single_view"


def test_points_are_drawn_where_they_are_asked_about(record, tmp_path):
    silent = record | {"turns": []}
    one = record | {"turns": [record["turns"][0] | {"object_ids": [], "points": [{"view": 0, "x": 0.25, "y": 0.5}]}]}
    for name, drawn in {"silent": silent, "one": one}.items():
        draw_example(drawn, tmp_path / f"{name}.png")
    with Image.open(tmp_path / "silent.png") as silent_png, Image.open(tmp_path / "one.png") as one_png:
        left, top, right, bottom = ImageChops.difference(silent_png, one_png).getbbox()
        x, y = 0.25 * one_png.width, 0.5 * VIEW_HEIGHT_PX
    assert left == pytest.approx(x - 5, abs=1.5) and bottom == pytest.approx(y + 5, abs=1.5)
    assert right < x + 30 and top > y - 25  # the ring, and one number beside it


def test_turns_are_counted_as_they_stand(record, tmp_path):
    renumbered = record | {"turns": [turn | {"index": 99} for turn in record["turns"]]}
    for name, drawn in {"own": record, "renumbered": renumbered}.items():
        draw_example(drawn, tmp_path / f"{name}.png")
    assert (tmp_path / "own.png").read_bytes() == (tmp_path / "renumbered.png").read_bytes()


def test_several_views_stand_side_by_side_and_one_without_geometry_is_shown_as_it_is(record, tmp_path):
    draw_example(record | {"images": record["images"] * 5}, tmp_path / "views.png")
    with Image.open(tmp_path / "views.png") as picture:
        assert picture.size == (3 * VIEW_HEIGHT_PX + 16, VIEW_HEIGHT_PX)
    draw_example(record | {"cameras": [], "turns": []}, tmp_path / "plain.png")
    with Image.open(tmp_path / "plain.png") as picture:
        assert picture.size == (VIEW_HEIGHT_PX, VIEW_HEIGHT_PX)


def test_another_record_is_not_shown(rooms, record):
    files = sorted(rooms.glob("single_view/*.parquet"))
    assert example_record(files, texts_of(record))["id"] == record["id"]
    assert example_record(files, ["What is this?", "A chair."]) is None


def test_the_cards_text_is_frozen(tmp_path):
    plan = replace(rooms_plan(tmp_path, 2), notices=("The held-out scenes were left out: 3.",))
    summary = BuildSummary(
        rows={
            ("single_view", "train"): 7,
            ("single_view", "test"): 2,
            ("grounding", "train"): 7,
            ("dense", "train"): 7,
        },
        kept_items=9,
        num_items=11,
        drops=Counter({("*", "duplicate_image"): 2, ("single_view", "few_objects"): 1}),
        duplicates={"b": "a"},
        sources={"synthetic | CC0-1.0 | exact": 9},
        answers={"single_view | left_right | yes": 12, "single_view | left_right | no": 10},
        captions={"geometry": 9},
        examples={"single_view": ["How deep is the point (0.100, 0.200)?", "It is 1.234 m."]},
        fingerprint="0123456789abcdef",
    )
    text = dataset_card(plan, summary, "spatialboost build --output DIR", ("floor", "wall"), "example.png")
    text = text.replace(f"generator version {GENERATOR_VERSION}", "generator version N")
    if os.environ.get("RENEW_SNAPSHOTS"):
        SNAPSHOT.write_text(text)
    assert text == SNAPSHOT.read_text(), "the card changed; see the head of this file"
    without = dataset_card(plan, replace(summary, examples={}), "spatialboost build", ())
    assert "This data set has no dialogues." in without and "Class ids are not known here." in without
