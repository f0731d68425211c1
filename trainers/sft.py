r"""Train one of the three stages: `spatialboost train`.

The paper's scale; stage 3 continues from the folder that stage 2 wrote, stage 2 from stage 1's:

    spatialboost train --config trainers/recipes/stage1.yaml
    spatialboost train --config trainers/recipes/stage2.yaml
    spatialboost train --config trainers/recipes/stage3.yaml --learning_rate 1e-5 --output_dir outputs/stage3_slow

On a CPU, in seconds, with any small encoder, language model and built data set:

    spatialboost train --config trainers/recipes/smoke/stage1.yaml --encoder ENCODER --language_model LANGUAGE_MODEL \
        --datasets outputs/data:single_view --output_dir outputs/smoke/stage1

`--resume_from_checkpoint true` goes on from the last checkpoint in `output_dir`.
"""

import dataclasses
import logging
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset
from transformers import set_seed
from transformers.trainer_utils import get_last_checkpoint
from trl import TrlParser

from trainers.cards import write_encoder_card, write_vlm_card
from trainers.config import StageArguments, TrainingConfig
from trainers.data import DataSource, load_training_data
from trainers.feature_cache import cache_features
from trainers.feature_shards import FeatureCache
from trainers.models import ModelAndProcessor, cast_frozen_language_model, load_model, provenance
from trainers.run_record import (
    FILE_NAME,
    differences,
    git_commit,
    is_finished,
    package_versions,
    read_record,
    write_record,
)
from trainers.stages import STAGES, ParameterCounts, apply_stage
from trainers.trainer import StageTrainer

logger = logging.getLogger(__name__)
ENCODER_FOLDER = "encoder"


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


def make_parser() -> TrlParser:
    """The parser of `spatialboost train`; `--config FILE.yaml` sets any of its arguments."""
    return TrlParser(
        (StageArguments, TrainingConfig),
        prog="spatialboost train",
        usage="spatialboost train [--config RECIPE.yaml] [--ARGUMENT VALUE ...]",
        description=__doc__.split("\n")[0],
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command; return 0 when the stage is trained, or was finished already.

    Raises:
        ValueError: bad arguments or input.
    """
    logging.basicConfig(format="%(message)s")
    logging.getLogger("trainers").setLevel(logging.INFO)
    try:
        arguments, training = make_parser().parse_args_and_config(argv)
        run = prepare(arguments, training)
    except (ValueError, OSError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    if run is not None:
        train(run)
    return 0


def prepare(arguments: StageArguments, training: TrainingConfig) -> Run | None:
    """Check the data, load the model and open what the stage trains.

    Returns:
        The run, or None if `output_dir` holds the same run, finished.

    Raises:
        ValueError: anything that the user got wrong, in one sentence.
    """
    stage = STAGES[arguments.stage]
    checkpoint = find_checkpoint(training)
    with training.main_process_first(desc="checking the data"):
        dataset, sources = load_training_data(
            arguments.datasets, not stage.trains("language_model"), training.dataset_num_proc
        )
    logger.info("Data: " + ", ".join(f"{source.name} ({source.rows} rows)" for source in sources))
    record = starting_record(arguments, training, sources)
    if already_done(training, record, arguments.force):
        return None
    changed = differences(read_record(training.output_dir) or record, record)
    if checkpoint and changed:
        logger.warning(f"Resuming {checkpoint} although {', '.join(changed)} differ from the run that wrote it")
    set_seed(training.seed)  # of the new projector
    model, processor = load_model(arguments)
    counts = apply_stage(model, stage)
    if training.bf16 and not stage.trains("language_model"):
        cast_frozen_language_model(model)
    record |= {"trainable_parameters": counts.by_group, "frozen_parameters": counts.frozen}
    features = None
    if arguments.cache_features is not None:
        dataset, features = cache_features(arguments.cache_features, dataset, (model, processor), training)
    return Run(arguments, training, dataset, (model, processor), counts, checkpoint, record, features)


def starting_record(arguments: StageArguments, training: TrainingConfig, sources: list[DataSource]) -> dict[str, Any]:
    """What `run.json` says before the first step: settings, data, starting weights, versions."""
    stage = STAGES[arguments.stage]
    started_from = {}
    for argument in ("encoder", "language_model", "model"):
        name = getattr(arguments, argument)
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


def find_checkpoint(training: TrainingConfig) -> str | None:
    """The checkpoint that `resume_from_checkpoint` names; "true" names the last one in `output_dir`.

    Raises:
        ValueError: there is none.
    """
    wanted = training.resume_from_checkpoint
    if wanted is None or str(wanted).lower() == "false":
        return None
    folder = str(wanted)
    if folder.lower() == "true":
        output_dir = Path(training.output_dir)
        folder = (get_last_checkpoint(output_dir) if output_dir.is_dir() else None) or ""
    if not (Path(folder) / "trainer_state.json").is_file():
        raise ValueError(
            f"resume_from_checkpoint={wanted!r}: no checkpoint "
            f"{'in output_dir=' + repr(training.output_dir) if not folder else 'there'}; pass the path of a "
            "checkpoint-N folder, or remove the argument to start from the beginning."
        )
    return folder


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


def train(run: Run) -> None:
    """Train, and save the model, its processor, after stage 3 the encoder by itself, and `run.json`."""
    output_dir = Path(run.training.output_dir)
    model, processor = run.parts
    stage = STAGES[run.arguments.stage]
    trainer = StageTrainer(
        stage,
        run.training,
        features=run.features,
        model=model,
        train_dataset=run.dataset,
        processing_class=processor,
    )
    if trainer.is_world_process_zero():
        write_record(output_dir, run.record)
    start = time.monotonic()
    result = trainer.train(resume_from_checkpoint=run.checkpoint)
    seconds = time.monotonic() - start
    trainer.save_model()
    trainer.save_state()
    if not trainer.is_world_process_zero():
        return
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    outcome = {
        "status": "finished",
        "steps": trainer.state.global_step,
        "learning_rates": trainer.learning_rates,
        "seconds": round(seconds, 3),
        "mean_loss": result.training_loss,
        "final_loss": losses[-1] if losses else result.training_loss,
    }
    if stage.trains("attn_plus"):
        model.vision_tower.save_pretrained(output_dir / ENCODER_FOLDER)
        processor.image_processor.save_pretrained(output_dir / ENCODER_FOLDER)
        outcome["alpha"] = model.vision_tower.alpha_table()
        write_encoder_card(output_dir / ENCODER_FOLDER, run.record | outcome, model.vision_tower.config)
    write_vlm_card(output_dir, run.record | outcome)
    write_record(output_dir, run.record | outcome)
    logger.info(f"Stage {stage.number}: {outcome['steps']} steps in {seconds:.1f} s, saved in {output_dir}")


if __name__ == "__main__":
    sys.exit(main())
