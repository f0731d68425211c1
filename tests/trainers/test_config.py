from pathlib import Path

import pytest

from trainers.config import StageArguments, TrainingConfig
from trainers.sft import make_parser
from trainers.stages import STAGES

RECIPES = Path(__file__).parents[2] / "trainers" / "recipes"


def parse(*argv: str) -> tuple[StageArguments, TrainingConfig]:
    return make_parser().parse_args_and_config([str(argument) for argument in argv])


@pytest.mark.parametrize("stage, rates, batch", [
    (1, {"projector": 1e-3}, 256),
    (2, {"projector": 2e-5, "language_model": 2e-5}, 128),
    (3, {"attn_plus": 2e-5, "projector": 2e-5, "alpha": 1e-3}, 128),
])  # fmt: skip
def test_recipes_hold_the_method(stage, rates, batch):
    arguments, training = parse("--config", RECIPES / f"stage{stage}.yaml")
    assert arguments.stage == stage
    assert {group.name: training.learning_rate_of(group) for group in STAGES[stage].groups} == rates
    assert training.total_batch_size == batch
    assert training.per_device_train_batch_size * training.gradient_accumulation_steps == batch
    assert (training.lr_scheduler_type, training.warmup_steps, training.weight_decay) == ("cosine", 0.03, 0.0)
    assert training.num_train_epochs == 1
    assert training.max_length is None
    assert training.assistant_only_loss


def test_stages_chain_in_the_recipes():
    outputs = [parse("--config", RECIPES / f"stage{stage}.yaml")[1].output_dir for stage in (1, 2)]
    models = [parse("--config", RECIPES / f"stage{stage}.yaml")[0].model for stage in (2, 3)]
    assert models == outputs


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_smoke_recipes(stage):
    start = ["--encoder", "e", "--language_model", "l"] if stage == 1 else ["--model", "m"]
    arguments, training = parse(
        "--config", RECIPES / "smoke" / f"stage{stage}.yaml", *start, "--datasets", "d:c", "--output_dir", "o"
    )
    assert arguments.stage == stage
    assert 10 <= training.max_steps < 100


def test_command_line_overrides_the_recipe():
    arguments, training = parse(
        "--config",
        RECIPES / "stage3.yaml",
        "--learning_rate",
        1e-6,
        "--boosted_layers",
        0,
        2,
        "--datasets",
        "a",
        "b:c",
    )
    assert training.learning_rate == 1e-6
    assert arguments.boosted_layers == [0, 2]
    assert arguments.datasets == ["a", "b:c"]
    assert training.alpha_learning_rate == 1e-3


def test_rates_of_groups(tmp_path):
    attn_plus, projector, alpha = STAGES[3].groups

    def rates(**settings):
        training = TrainingConfig(output_dir=str(tmp_path), **settings)
        return tuple(training.learning_rate_of(group) for group in (attn_plus, projector, alpha))

    assert rates() == (2e-5, 2e-5, 1e-3)
    assert rates(learning_rate=1.0) == (1.0, 1.0, 1.0)
    assert rates(learning_rate=1.0, alpha_learning_rate=2.0, projector_learning_rate=3.0) == (1.0, 3.0, 2.0)


def test_precision_follows_the_device(tmp_path, monkeypatch):
    assert TrainingConfig(output_dir=str(tmp_path), use_cpu=True).bf16 is False
    monkeypatch.setattr("trainers.config.is_torch_bf16_gpu_available", lambda: True)
    monkeypatch.setattr("transformers.training_args.is_torch_bf16_gpu_available", lambda: True)
    assert TrainingConfig(output_dir=str(tmp_path)).bf16 is True


def test_activation_checkpointing_uses_the_current_name(tmp_path, recwarn):
    training = TrainingConfig(output_dir=str(tmp_path))
    assert training.activation_checkpointing
    assert not [w for w in recwarn if "deprecated" in str(w.message)]


@pytest.mark.parametrize("argv, message", [
    (["--stage", 0, "--datasets", "d"], "stage=0 is not a stage"),
    (["--stage", 1, "--datasets", "d", "--language_model", "l"], "encoder=None: stage 1 starts from it"),
    (["--stage", 2, "--datasets", "d"], "model=None: stage 2 starts from it"),
    (["--stage", 2, "--datasets", "d", "--model", "m", "--image_size", 32], "image_size=32 has no effect in stage 2"),
    (["--stage", 2, "--datasets", "d", "--model", "m", "--boosted_layers", 0], "boosted_layers=.* in stage 2"),
    (["--stage", 1, "--datasets", "d", "--encoder", "e", "--language_model", "l", "--model", "m"], "model='m' has no"),
    (["--stage", 2, "--datasets", "d", "--model", "m", "--max_length", 64, "--output_dir", "o"], "max_length=64"),
    (["--stage", 2, "--datasets", "d", "--model", "m"], "output_dir=None"),
    (["--stage", 2, "--datasets", "d", "--model", "m", "--output_dir", "o", "--push_to_hub"], "spatialboost publish"),
    (["--stage", 2, "--datasets", "d", "--model", "m", "--output_dir", "o", "--learing_rate", 1], "learing_rate"),
])  # fmt: skip
def test_wrong_arguments(argv, message):
    with pytest.raises(ValueError, match=message):
        parse(*argv)


def test_unknown_recipe_key(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("stage: 2\nmodel: m\ndatasets: d\noutput_dir: o\nalpha_rate: 1\n")
    with pytest.raises(ValueError, match="alpha_rate"):
        parse("--config", recipe)


def test_a_single_data_set_in_the_recipe(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("stage: 2\nmodel: m\ndatasets: d:c:train[:10]\noutput_dir: o\n")
    assert parse("--config", recipe)[0].datasets == ["d:c:train[:10]"]
