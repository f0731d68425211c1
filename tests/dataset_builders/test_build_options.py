"""Arguments of a build: recipes, budgets, models, and what is refused before work starts."""

from argparse import ArgumentParser
from pathlib import Path

import pytest
import yaml

from dataset_builders.build import _command, make_parser
from dataset_builders.build_options import chat_options, perception_options, read_recipe, source_options
from dataset_builders.scene import InputError
from tests.commands import build

RECIPES = sorted((Path(__file__).parents[2] / "dataset_builders" / "recipes").glob("*.yaml"))


def parsed(*words):
    return make_parser().parse_args(read_recipe(["--source", "synthetic", "--output", "out", *words]))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_understood(recipe):
    arguments = make_parser().parse_args(read_recipe(["--config", str(recipe), "--input", "in", "--output", "out"]))
    stated = yaml.safe_load(recipe.read_text())
    assert {name: getattr(arguments, name) for name in stated} == stated
    source_options(arguments)
    perception_options(arguments)
    chat_options(arguments)


def test_the_command_line_wins_over_the_recipe(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("seed: 3\nviews: 4\nallow_partial: true\nwith_held_out: false\nvocabulary: [mug, red chair]\n")
    arguments = parsed("--config", str(recipe), "--views", "8")
    assert (arguments.seed, arguments.views, arguments.allow_partial, arguments.with_held_out) == (3, 8, True, False)
    assert perception_options(arguments).vocabulary == ("mug", "red chair")


def test_a_recipe_may_hold_numbers_that_begin_with_a_minus(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("up_world: -1,0,0\n")
    assert source_options(parsed("--config", str(recipe), "--num-scenes", "2")).up_world == (-1, 0, 0)


def test_the_command_on_the_card_needs_no_recipe_and_leaves_out_what_changes_nothing(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("seed: 3\nworkers: 2\nchat_model: gpt-4o\n")
    command = _command(parsed("--config", str(recipe), "--num-scenes", "4", "--batch-size", "9"))
    words = "spatialboost build --source synthetic --num-scenes 4 --seed 3 --chat-model gpt-4o --output DIR"
    assert command == words


@pytest.mark.parametrize(
    ("text", "told"),
    [("- a\n- b\n", "holds no arguments"), ("a: [", "is not YAML"), ("\xff\xfe", "is not YAML")],
)
def test_what_is_no_recipe_is_refused(tmp_path, text, told):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=told):
        read_recipe(["--config", str(recipe)])


def test_a_recipe_that_does_not_exist_is_named():
    with pytest.raises(InputError, match="--config nowhere.yaml cannot be read"):
        read_recipe(["--config", "nowhere.yaml"])


def test_an_unknown_argument_in_a_recipe_is_named(tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("sede: 3\n")
    with pytest.raises(SystemExit) as stopped:
        parsed("--config", str(recipe))
    assert stopped.value.code == 2 and "--sede=3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--namer", "chat"], "--namer chat needs a chat model"),
        (["--vocabulary", "mug"], "--vocabulary 'mug' holds 1 names"),
        (["--chat-url", "http://localhost:1"], "need --chat-model"),
        (["--chat-model", "m", "--token-price", "3"], "--token-price '3' is not 2 numbers"),
        (["--chat-model", "m", "--chat-url", "http://key@localhost"], "carries a secret"),
        (["--batch-size", "0"], "--batch-size 0 is too small"),
        (["--file-size-mb", "0"], "--file-size-mb 0 is too small"),
        (["--frame-step", "0"], "--frame-step 0 is not positive"),
        (["--input", "somewhere"], "--input somewhere is of no use"),
        (["--dataset", "org/name"], "--dataset org/name"),
        (["--min-kept", "1.5"], "--min-kept 1.5 is no share"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_work_starts(words, told, tmp_path, capsys):
    output = tmp_path / "out"
    assert build(["--source", "synthetic", "--num-scenes", "2", *words, "--output", str(output)]) == 2
    errors = capsys.readouterr().err
    assert told in errors and errors.count("\n") == 1
    assert not output.exists()


def test_a_dry_run_asks_nobody_and_writes_nothing(tmp_path, capsys):
    words = ["--source", "synthetic", "--num-scenes", "4", "--resolution", "32", "--output", str(tmp_path / "out")]
    chat = ["--chat-model", "gpt-4o", "--chat-url", "http://127.0.0.1:9", "--token-price", "2.5,10"]
    assert build([*words, *chat, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "requests" in out and "about $" in out and "4 scenes would be read" in out
    assert list(tmp_path.iterdir()) == []


def test_a_chat_server_that_is_down_ends_the_build_before_it_starts(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # it forbids local servers, too
    words = ["--source", "synthetic", "--num-scenes", "4", "--resolution", "32", "--output", str(tmp_path / "out")]
    assert build([*words, "--chat-model", "gpt-4o", "--chat-url", "http://127.0.0.1:9"]) == 2
    assert "--chat-url http://127.0.0.1:9 cannot be reached" in capsys.readouterr().err


def test_every_argument_has_a_help_text():
    assert all(action.help for action in make_parser()._actions) and isinstance(make_parser(), ArgumentParser)
