import pytest

from tests.commands import train as main
from trainers.sft import make_parser

GOOD = "stage: 2\nmodel: m\ndatasets: d\noutput_dir: o\n"


@pytest.mark.parametrize("text, message", [
    (GOOD + "alpha_rate: 1\n", "recipe.yaml: there is no setting 'alpha_rate': did you mean alpha_learning_rate?"),
    ("stage: 2\nmodle: m\n", "there is no setting 'modle': did you mean model?"),
    (GOOD + "zzz: 1\n", "there is no setting 'zzz': spatialboost train --help-all lists all."),
    ("stage: two\n", "recipe.yaml: stage must be a whole number, not 'two'."),
    (GOOD + "max_steps: 1.5\n", "max_steps must be a whole number, not 1.5."),
    (GOOD + "learning_rate: [1, 2]\n", "learning_rate must be a number, not [1, 2]."),
    (GOOD + "boosted_layers: [1, two]\n", "boosted_layers must be a whole number, not 'two'."),
    (GOOD + "activation_checkpointing: perhaps\n", "activation_checkpointing must be true or false, not 'perhaps'."),
    (GOOD + "lr_scheduler_type: cosin\n", "cosin is not a valid SchedulerType"),
    ("stage: [2\n", "recipe.yaml is no YAML: while parsing"),
    ("- stage\n", "recipe.yaml holds no settings: write one"),
])  # fmt: skip
def test_a_recipe_that_is_wrong_ends_with_one_sentence_and_code_2(text, message, tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    assert main(["--config", str(recipe)]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(error) == 1
    assert message in error[0]


@pytest.mark.parametrize("argv, message", [
    (["--learing_rate", "1"], "--learing_rate is no argument of spatialboost train: did you mean --learning_rate?"),
    (["--alpha-rate=1"], "--alpha-rate is no argument of spatialboost train: did you mean --alpha_learning_rate?"),
    (["--stage", "2", "--datasets", "d", "--model", "m", "--output_dir", "o", "stray"], "'stray' belongs to no"),
])  # fmt: skip
def test_an_argument_that_is_wrong_ends_with_one_sentence_and_code_2(argv, message, capsys):
    assert main(argv) == 2
    assert message in capsys.readouterr().err


def test_arguments_may_be_joined_and_shortened(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(GOOD + "boosted_layers: null\nlearning_rate: 1e-3\nbf16: false\nlr_scheduler_kwargs: {a: 1}\n")
    arguments, training = make_parser().parse_args_and_config([f"--config={recipe}", "--stage=3", "--seed", "7"])
    assert (arguments.stage, training.learning_rate, training.seed) == (3, 1e-3, 7)


def test_help_starts_with_our_own_settings(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    short = capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--help-all"])
    whole = capsys.readouterr().out
    assert short.index("--stage") < short.index("--encoder") < short.index("--alpha_learning_rate")
    assert "--adam_beta1" in whole and "--adam_beta1" not in short
    assert "all of TRL's SFTConfig: --help-all" in short
    assert len(short) < len(whole) / 3
