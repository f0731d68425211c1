r"""Train one of the three stages: `spatialboost train`.

The paper's scale; stage 3 continues from the folder that stage 2 wrote, stage 2 from stage 1's:

    spatialboost train --config trainers/recipes/stage1.yaml
    spatialboost train --config trainers/recipes/stage2.yaml
    spatialboost train --config trainers/recipes/stage3.yaml --learning_rate 1e-5 --output_dir outputs/stage3_slow

On a CPU, in seconds, with any small encoder, language model and built data set:

    spatialboost train --config trainers/recipes/smoke/stage1.yaml --encoder ENCODER --language_model LANGUAGE_MODEL \
        --datasets outputs/data:single_view --output_dir outputs/smoke/stage1

`--resume_from_checkpoint true` goes on from the last checkpoint in `output_dir`; `auto` starts where there is none.
"""

import dataclasses
import logging
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from transformers import set_seed

from trainers.baselines.arguments import objective_of
from trainers.cards import write_encoder_card, write_vlm_card
from trainers.checkpoints import (
    STATE_FILE,
    check_space,
    find_checkpoint,
    last_checkpoint,
    partial_folder,
    publish_result,
    run_bytes,
    write_errors,
)
from trainers.command_line import RecipeParser
from trainers.config import StageArguments, TrainingConfig
from trainers.data import DataSource, damage_named, load_training_data
from trainers.feature_cache import cache_features
from trainers.feature_shards import FeatureCache
from trainers.lengths import settle_long_rows, with_lengths
from trainers.loss_guard import NonFiniteLossError
from trainers.low_rank import rank_of_adapters
from trainers.models import ModelAndProcessor, load_model, provenance, to_plain_model
from trainers.parameter_groups import GroupedRatesTrainer
from trainers.progress import name_run, where_to_look
from trainers.run_record import (
    FILE_NAME,
    differences,
    git_commit,
    is_finished,
    package_versions,
    read_record,
    write_record,
)
from trainers.run_report import write_report
from trainers.scale_out import compute_once, leave_at_exit, make_whole, speak_once
from trainers.stages import ParameterCounts, apply_stage
from trainers.starting_point import check_starting_point
from trainers.trainer import StageTrainer

logger = logging.getLogger(__name__)
ENCODER_FOLDER = "encoder"
Write = Callable[[Any, Any, Path, dict[str, Any]], dict[str, Any]]


class Run(NamedTuple):
    """A stage that is ready to train: everything that a user can get wrong has been checked."""

    arguments: StageArguments
    training: TrainingConfig
    dataset: Dataset
    parts: ModelAndProcessor
    counts: ParameterCounts
    checkpoint: str | None
    record: dict[str, Any]
    features: FeatureCache | None


def make_parser() -> RecipeParser:
    """The parser of `spatialboost train`; `--config FILE.yaml` sets any of its arguments."""
    return RecipeParser(
        (StageArguments, TrainingConfig),
        prog="spatialboost train",
        usage="spatialboost train [--config RECIPE.yaml] [--ARGUMENT VALUE ...]",
        description=__doc__.split("\n")[0],
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command; return 0 when the stage is trained, or was finished already; 130 or 143 when it was stopped.

    Raises:
        ValueError: bad arguments or input.
    """
    logging.basicConfig(format="%(message)s")
    logging.getLogger("trainers").setLevel(logging.INFO)
    speak_once()
    parser, prepare_run, train_run = make_parser, prepare, train
    if objective_of(argv) != "language":
        from trainers.baselines import run as baseline

        parser, prepare_run, train_run = baseline.make_parser, baseline.prepare, baseline.train  # type: ignore
    try:
        arguments, training = parser().parse_args_and_config(argv)
        run = prepare_run(arguments, training)
    except (ValueError, OSError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    try:
        code = 0 if run is None else train_run(run)
        leave_at_exit()
        return code
    except KeyboardInterrupt:
        checkpoint = last_checkpoint(str(training.output_dir))
        remedy = f"go on with --resume_from_checkpoint {checkpoint}" if checkpoint else "nothing is saved"
        print(f"Stopped at once: {remedy}", file=sys.stderr)
        return 128 + signal.SIGINT


def prepare(arguments: StageArguments, training: TrainingConfig) -> Run | None:
    """Check the data, load the model and open what the stage trains.

    Returns:
        The run, or None if `output_dir` holds the same run, finished.

    Raises:
        ValueError: anything that the user got wrong, in one sentence.
    """
    stage = arguments.row
    checkpoint = find_checkpoint(training)
    check_starting_point(arguments)
    name_run(training, (read_record(training.output_dir) or {}).get("config") if checkpoint else None)
    with training.main_process_first(desc="checking the data"):
        dataset, sources = load_training_data(
            arguments.datasets, not stage.trains("language_model"), training.dataset_num_proc
        )
    logger.info("Data: " + ", ".join(f"{source.name} ({source.rows} rows)" for source in sources))
    record = compute_once(lambda: starting_record(arguments, training, sources))  # it reads all weights
    if already_done(training, record, arguments.force):
        return None
    changed = differences(read_record(training.output_dir) or record, record)
    if checkpoint and changed:
        logger.warning(f"Resuming {checkpoint} although {', '.join(changed)} differ from the run that wrote it")
    set_seed(training.seed)  # of the new projector
    frozen_in_bf16 = training.bf16 and not stage.opens("language_model")
    model, processor = load_model(arguments, torch.bfloat16 if frozen_in_bf16 else torch.float32)
    counts = apply_stage(model, stage)
    record |= {"trainable_parameters": counts.by_group, "frozen_parameters": counts.frozen}
    record |= {"lora_rank": rank_of_adapters(model)}
    with training.main_process_first(desc="counting tokens"):
        dataset = with_lengths(dataset, processor, training.dataset_num_proc)
    dataset, dropped = settle_long_rows(dataset, sources, model.config.text_config, arguments.long_samples)
    record |= {"dropped_rows": dropped}
    features = None
    if arguments.cache_features is not None:
        with damage_named(arguments.datasets, training.dataset_num_proc):
            dataset, features = cache_features(arguments.cache_features, dataset, (model, processor), training)
    encoder = model.vision_tower if stage.number == 3 else None
    check_space(str(training.output_dir), run_bytes(model, training, encoder), "a checkpoint and the trained model")
    return Run(arguments, training, dataset, (model, processor), counts, checkpoint, record, features)


def starting_record(arguments: Any, training: TrainingConfig, sources: list[DataSource]) -> dict[str, Any]:
    """What `run.json` says before the first step: settings, data, starting weights, versions."""
    stage = arguments.row
    started_from = {}
    for argument in ("encoder", "language_model", "model"):
        name = getattr(arguments, argument, None)
        if name is not None:
            revision = None if argument == "language_model" else arguments.revision
            started_from[argument] = {"name": name, "weights": provenance(name, revision)}
    return {
        "status": "started",
        "stage": stage.number,
        "description": stage.description,
        "config": dataclasses.asdict(arguments) | training.to_dict(),
        "data": [dataclasses.asdict(source) for source in sources],
        "started_from": started_from,
        "versions": package_versions(),
        "git_commit": git_commit(),
    }


def already_done(training: TrainingConfig, record: dict[str, Any], force: bool) -> bool:
    """Whether `output_dir` holds this very run, finished.

    Raises:
        ValueError: it holds another finished run, which would be overwritten.
    """
    if force or not is_finished(training.output_dir):
        return False
    changed = differences(read_record(training.output_dir) or {}, record)
    if changed:
        raise ValueError(
            f"output_dir={training.output_dir!r} holds a finished run that differs in {', '.join(changed)}: pass "
            "another output_dir, or --force to replace it."
        )
    logger.info(f"{training.output_dir} holds this run, finished (see {FILE_NAME}); pass --force to repeat it")
    return True


def train(run: Run) -> int:
    """Train, and save the model, its processor, after stage 3 the encoder by itself, and `run.json`.

    Returns:
        Exit code: 0, or 128 + the number of the signal that stopped the run before its end (143, Ctrl-C: 130).

    Raises:
        ValueError: a loss that is no number, a checkpoint of another stage, a disk that is full.
    """
    trainer = StageTrainer(
        run.arguments.row,
        run.training,
        features=run.features,
        model=run.parts[0],
        train_dataset=run.dataset,
        processing_class=run.parts[1],
    )
    with damage_named(run.arguments.datasets, run.training.dataset_num_proc):
        return fit(trainer, run, write_stage)


def fit(trainer: GroupedRatesTrainer, run: Any, write: Write) -> int:
    """Train and save; see `train`. `run` has `training`, `record` and `checkpoint`; `write` writes the result."""
    if trainer.is_world_process_zero():
        write_record(run.training.output_dir, run.record)
    start = time.monotonic()
    try:
        trainer.train(resume_from_checkpoint=run.checkpoint)
    except NonFiniteLossError as error:
        if trainer.is_world_process_zero():
            outcome = {"status": "failed", "steps": error.step, "rows": error.rows}
            write_record(run.training.output_dir, run.record | outcome)
        raise
    if trainer.interruption.stopped_by is not None:
        return report_stop(trainer, run)
    with write_errors(run.training.output_dir, "the trained model"):
        save(trainer, run, write, time.monotonic() - start)
    return 0


def report_stop(trainer: GroupedRatesTrainer, run: Any) -> int:
    """Tell where a run that a signal stopped goes on; returns the exit code."""
    number = trainer.interruption.stopped_by
    assert number is not None
    if trainer.is_world_process_zero():
        outcome = {"status": "interrupted", "steps": trainer.state.global_step, "signal": number.name}
        write_record(run.training.output_dir, run.record | outcome)
        print(
            f"Stopped by {number.name} after step {outcome['steps']}: go on with the same command and "
            f"--resume_from_checkpoint {last_checkpoint(run.training.output_dir)}",
            file=sys.stderr,
        )
    return 128 + number


def save(trainer: GroupedRatesTrainer, run: Any, write: Write, seconds: float) -> None:
    """Save what was trained: everything is written to one side, appears by rename, and `run.json` comes last."""
    output_dir = Path(run.training.output_dir)
    written = partial_folder(output_dir)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    outcome = {
        "status": "finished",
        "steps": trainer.state.global_step,
        "learning_rates": trainer.learning_rates,
        "seconds": round(seconds, 3),
        "mean_loss": trainer.mean_loss,
        "final_loss": losses[-1] if losses else trainer.mean_loss,
    }
    make_whole(trainer)
    if not trainer.is_world_process_zero():
        return
    outcome |= write(trainer, run, written, outcome)
    trainer.state.save_to_json(str(written / STATE_FILE))
    publish_result(written, output_dir)
    write_record(output_dir, run.record | outcome)
    report = write_report(output_dir)
    logger.info(f"Stage {run.record['stage']}: {outcome['steps']} steps in {seconds:.1f} s, saved in {output_dir}")
    logger.info("Curves: " + ", or ".join([str(report), *where_to_look(run.training)]))


def write_stage(trainer: GroupedRatesTrainer, run: Run, folder: Path, outcome: dict[str, Any]) -> dict[str, Any]:
    """Write the model, its processor and after stage 3 the encoder by itself; returns what to add to the record."""
    model, processor = run.parts
    to_plain_model(model, run.arguments)
    # transformers' trainer turns the cache off for good: answers would be generated twenty times as slowly
    model.config.use_cache = model.generation_config.use_cache = model.config.text_config.use_cache = True
    trainer._save(str(folder))
    added = {}
    if run.arguments.stage == 3:
        added = write_encoder(model.vision_tower, processor.image_processor, folder, run.record | outcome)
    write_vlm_card(folder, run.record | outcome | added, model.config)
    return added


def write_encoder(encoder: Any, image_processor: Any, folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Write the boosted encoder by itself, with its card; returns alpha per layer, for the record."""
    image_processor.save_pretrained(folder / ENCODER_FOLDER)
    encoder.save_pretrained(folder / ENCODER_FOLDER)
    alpha = {"alpha": encoder.alpha_table()}
    write_encoder_card(folder / ENCODER_FOLDER, record | alpha, encoder.config)
    write_record(folder / ENCODER_FOLDER, record | alpha)  # it is published without the folder around it
    return alpha


if __name__ == "__main__":
    sys.exit(main())
