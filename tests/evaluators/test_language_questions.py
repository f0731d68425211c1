"""Answers of vision-language models to held-out spatial turns, through the command and by themselves."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from evaluators.contract import TaskConfig
from evaluators.data_sets.conversations import NUMBERS, Turn, load_conversations
from evaluators.encoders import load_encoder
from evaluators.language import spatial_questions
from evaluators.language.asking import gathered, partners_of, single_rows
from evaluators.language.spatial_questions import Config, aggregate, constant_answers, messages_of, score
from evaluators.language.vlm import LOADED, Prompt, load_vlm
from evaluators.plan import make_plan
from evaluators.report import render_table
from evaluators.run import make_parser
from tests.commands import build
from tests.commands import evaluate as main
from tests.evaluators.language_models import answer_with, save_tiny_vlm

ALL = ("single_view", "multi_view", "multi_view_vqa")


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rooms") / "data"
    argv = ["--source", "synthetic", "--num-scenes", "8", "--resolution", "64", "--allow-partial"]
    assert build([*argv, "--output", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def vlms(tmp_path_factory):
    """Folders of two models, each beside the encoder that is in it."""
    return [save_tiny_vlm(tmp_path_factory.mktemp(f"vlm{seed}"), seed) for seed in (0, 1)]


@pytest.fixture
def run(rooms, vlms, tmp_path):
    """Return a function that measures two models; its result holds results.json, or the exit code if that is not 0."""

    def measure(*more, base=vlms[0], boosted=vlms[1]):
        sides = ["--base", str(vlms[0].parent / "encoder"), "--boosted", str(vlms[1].parent / "encoder")]
        sides += ["--base-vlm", str(base)] if base else []
        sides += ["--boosted-vlm", str(boosted)] if boosted else []
        code = main([*sides, "--data", str(rooms), "--output", str(tmp_path), "--preset", "cpu", *more])
        return code or json.loads((tmp_path / "results.json").read_text())

    return measure


def questions(results):
    return results["tasks"]["spatial_questions/rooms"]


def test_every_answer_of_the_data_is_read_as_its_truth(rooms):
    for split in ("train", "test"):
        data = load_conversations(str(rooms), split, ALL)
        turns = [turn for conversation in data.conversations for turn in conversation.turns if turn.form is not None]
        assert len({turn.kind for turn in turns}) > 10
        rows = np.array([score(turn, turn.read(turn.words)) for turn in turns])
        assert (rows[:, 2] == 1).all() and (rows[:, 4] == 1).all()
        assert np.nanmax(rows[:, 3]) < 0.02  # texts are rounded to the millimetre


def test_a_model_that_answers_right_scores_100_and_equal_models_differ_by_nothing(rooms, run, monkeypatch, tmp_path):
    test = load_conversations(str(rooms), "test", ("single_view", "multi_view"))
    truths = {
        (test.images(index)[0].tobytes(), turn.content[-1]["text"]): turn.words
        for index, conversation in enumerate(test.conversations)
        for turn in conversation.turns
    }

    def right(prompt):
        return truths.get((prompt.images[0].tobytes(), prompt.messages[-1]["content"][-1]["text"]), "I cannot see.")

    answer_with(monkeypatch, right)
    entry = questions(run("--tasks", "language"))
    for name, row in entry["metrics"].items():
        worst = name in ("unreadable", "numbers_error")
        assert row["base"]["mean"] == pytest.approx(0 if worst else 100, abs=0.5), name
        assert row["difference"]["mean"] == 0 and row["difference"]["interval"] == [0, 0]
    controls = entry["metrics"]["right"]["controls"]
    assert set(controls) == {"constant", "blind_base", "other_images_base", "blind_boosted", "other_images_boosted"}
    assert controls["blind_base"] == controls["other_images_boosted"] == 0
    assert 0 < controls["constant"] < 100 and not entry["warnings"]
    assert entry["num_items"] == len(test.conversations)
    with Image.open(tmp_path / entry["picture"]) as picture:
        assert picture.width > 1000


def test_unreadable_answers_are_wrong_and_counted(run, monkeypatch):
    answer_with(monkeypatch, lambda prompt: "It is 2 m, yes." if len(prompt.messages) == 1 else "Who knows?")
    results = run("--tasks", "spatial_questions")
    metrics = questions(results)["metrics"]
    assert 0 < metrics["unreadable"]["base"]["mean"] < 100
    assert metrics["yes_no"]["base"]["mean"] == metrics["choices"]["base"]["mean"] == 0
    assert metrics["right"]["base"]["mean"] <= 100 - metrics["unreadable"]["base"]["mean"]
    warnings = questions(results)["warnings"]
    assert any("does not answer better with the image than without it" in line for line in warnings)
    assert "| spatial questions | rooms | point depth, right (%) ↑ |" in render_table(results)


def test_real_models_answer_once_and_each_side_with_its_own(run, monkeypatch):
    quick = ("--tasks", "language", "--limit", "2", "--set", "spatial_questions.max_new_tokens=4")
    first = run(*quick)
    entry = questions(first)
    assert entry["base"]["weights_hash"] != entry["boosted"]["weights_hash"]
    assert entry["base"]["class"].endswith("SpatialBoostForConditionalGeneration") and first["partial"]
    assert entry["num_items"] == 2 and entry["seeds"] == [0]
    answer_with(monkeypatch, lambda _: pytest.fail("the model was asked again"))
    assert run(*quick) == first


def test_a_batch_gives_the_answers_of_single_prompts(vlms):
    vlm = load_vlm(str(vlms[0]), "", torch.device("cpu"), torch.float32)
    for parameter in vlm.model.parameters():
        parameter.mul_(4)  # random models as they come say one thing only
    pictures = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue", "white")]
    prompts = [
        Prompt(
            pictures[:count],
            [{"role": "user", "content": [{"type": "image"}] * count + [{"type": "text", "text": "depth " * count}]}],
        )
        for count in (1, 3, 2)
    ]
    together = vlm.answer(prompts.__getitem__, 3, max_new_tokens=6, batch_size=3)
    alone = vlm.answer(prompts.__getitem__, 3, max_new_tokens=6, batch_size=1)
    LOADED.clear()  # its weights were changed
    assert together == alone and len(set(together)) > 1


def test_later_turns_follow_the_models_own_answers_or_the_datas(rooms, vlms, monkeypatch, tmp_path):
    encoder = load_encoder(str(vlms[0].parent / "encoder"))
    told = {}
    for history in ("own", "data"):
        seen = []
        answer_with(monkeypatch, lambda prompt, seen=seen: seen.append(prompt.messages) or f"answer {len(seen)}")
        config = Config(
            data_set="rooms", data=str(rooms), cache_dir=tmp_path / history, num_items=1, image_controls=False,
            history=history,
        )  # fmt: skip
        spatial_questions.evaluate(encoder, config.for_side("base", str(vlms[0])))
        told[history] = [m["content"][0]["text"] for m in max(seen, key=len) if m["role"] == "assistant"]
    test = load_conversations(str(rooms), "test", ("single_view", "multi_view"), 1)
    words = [turn.words for turn in test.conversations[0].turns]
    assert told["data"] == words[: len(told["data"])] and len(told["data"]) > 5
    assert told["own"] == [f"answer {number}" for number in range(1, len(told["own"]) + 1)]


def test_the_image_reaches_the_answer(rooms, vlms):
    vlm = load_vlm(str(vlms[0]), "", torch.device("cpu"), torch.float32)
    for parameter in vlm.model.parameters():
        parameter.mul_(4)  # random models as they come say one thing only
    test = load_conversations(str(rooms), "test", ("single_view",))
    prompts = [Prompt(test.images(i), messages_of(c.turns[:1], [])) for i, c in enumerate(test.conversations)]
    seen = vlm.answer(prompts.__getitem__, len(prompts), 8, 4)
    blind = vlm.answer(lambda i: prompts[i]._replace(images=[Image.new("RGB", (64, 64))]), len(prompts), 8, 4)
    LOADED.clear()
    assert seen != blind and any(seen)


def test_numbers_positions_and_counts_are_scored_by_hand():
    length = Turn("point_depth", NUMBERS, [], "", 2.0)
    position = Turn("point_position", NUMBERS, [], "", (3.0, 0.0, 4.0))
    count = Turn("common", NUMBERS, [], "", 3.0)
    assert score(length, length.read("It is 2.4 m."))[2:] == (1.0, pytest.approx(0.2), 1.0)
    assert score(length, length.read("It is 260 cm."))[2:] == (0.0, pytest.approx(0.3), 1.0)
    assert np.isnan(score(length, length.read("far"))[3]) and score(length, None)[2:5:2] == (0.0, 0.0)
    said = position.read("3 m to the right, 1 m up and 4 m forward")
    assert score(position, said)[2:] == (1.0, pytest.approx(0.2), 1.0)
    assert score(count, count.read("Three: all of them."))[2] == 1.0
    rows = [(0, score(length, value)) for value in (2.0, 2.15, 2.4, 4.0, None)]
    scores = aggregate(gathered(rows))
    assert scores["numbers_within_10"] == pytest.approx(40) and scores["numbers_within_25"] == pytest.approx(60)
    assert scores["numbers_error"] == pytest.approx(100 * (0.075 + 0.2) / 2)
    assert scores["unreadable"] == pytest.approx(20) and np.isnan(scores["yes_no"])


def test_what_is_about_one_thing_is_resampled_together():
    items = gathered([("a", (1.0, 2.0)), ("b", (3.0, 4.0)), ("a", (5.0, 6.0))])
    assert items.shape == (2, 4) and np.isnan(items[1, 2:]).all()
    assert single_rows(items, 2).tolist() == [[1, 2], [5, 6], [3, 4]]


def test_partners_are_about_other_things_with_as_many_images():
    things = [("a", 1), ("a", 1), ("b", 1), ("c", 2), ("d", 2), ("e", 3)]
    partners = partners_of(things)
    assert [things[p][1] for p in partners] == [count for _, count in things]
    assert all(things[i][0] != things[p][0] for i, p in enumerate(partners[:5])) and partners[5] == 5


def test_constant_answers_are_the_medians_and_the_most_frequent_words(rooms):
    train = load_conversations(str(rooms), "train", ("single_view",))
    guess = constant_answers(train)
    depths = [turn.truth for c in train.conversations for turn in c.turns if turn.kind == "point_depth"]
    assert guess["point_depth", NUMBERS] == pytest.approx(float(np.median(depths)))
    assert len(guess["point_position", NUMBERS]) == 3


@pytest.mark.parametrize(
    ("more", "models", "message"),
    [
        (["--tasks", "language"], {"base": None, "boosted": None}, "spatial_questions has no vision-language models"),
        (["--tasks", "language"], {"boosted": None}, "--boosted-vlm is missing: questions are asked of both sides"),
        (["--tasks", "language"], {"base": "no/model"}, "--base-vlm: 'no/model' is no vision-language model"),
        (["--tasks", "depth"], {}, "--base-vlm and --boosted-vlm are asked nothing by --tasks depth: remove them"),
        (["--tasks", "language", "--set", "spatial_questions.history=mine"], {}, "'mine' is none of own, data"),
        (["--tasks", "language", "--set", "spatial_questions.configurations=x"], {}, "has no conversations (x)"),
    ],
)
def test_mistakes_end_in_one_sentence(run, capsys, more, models, message):
    assert run(*more, **models) == 2
    assert message in capsys.readouterr().err.strip().split("\n")[-1]


def test_without_models_all_lists_the_questions_as_not_measured(dense_folder):
    common = ["--base", "a", "--boosted", "b", "--output", "out", "--data", str(dense_folder)]
    why = make_plan(make_parser().parse_args(common)).not_measured
    assert "pass --base-vlm" in why["spatial_questions/rooms"]
    assert why["vsi_bench/vsi_bench"].startswith("no data: --data vsi_bench=FOLDER. Apache-2.0 on its card, but")


def test_a_configuration_knows_its_side_and_the_state_of_the_model(vlms, tmp_path):
    config = Config(data_set="rooms", data="x", cache_dir=tmp_path, preset="cpu", limit=5)
    assert isinstance(config, TaskConfig) and config.wanted_items == 5
    one, other = (config.for_side("base", str(folder)) for folder in vlms)
    assert one.vlm_state == config.for_side("boosted", str(vlms[0])).vlm_state != other.vlm_state
