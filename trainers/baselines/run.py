"""A baseline from recipe to saved encoder: `spatialboost train` with an `objective` other than language.

    spatialboost train --config trainers/recipes/baselines/linear_depth.yaml

On a CPU, in seconds, with any small encoder and built data set:

    spatialboost train --config trainers/recipes/smoke/baseline.yaml --objective depth --encoder ENCODER \
        --datasets outputs/data:single_view outputs/data:multi_view --output_dir outputs/smoke/depth
"""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch.utils.data import Dataset
from transformers import set_seed
from trl import TrlParser

from modeling_spatialboost import SpatialBoostImageProcessor, SpatialBoostModel
from modeling_spatialboost.modeling_spatialboost_vlm import load_boosted_encoder
from modeling_spatialboost.patch_tokens import as_pair
from trainers.baselines.arguments import BaselineArguments, BaselineConfig
from trainers.baselines.objectives import LEARNS_FROM, SupervisedEncoder, ViewCollator, build_model
from trainers.baselines.self_distillation import SelfDistillation, TeacherUpdate
from trainers.baselines.trainer import BaselineTrainer
from trainers.baselines.view_data import load_view_data
from trainers.checkpoints import check_space, find_checkpoint, run_bytes
from trainers.progress import name_run
from trainers.run_record import differences, read_record
from trainers.scale_out import unsplit_loading
from trainers.sft import already_done, fit, starting_record, write_encoder
from trainers.stages import apply_stage

logger = logging.getLogger(__name__)
DECODER_FILE = "decoder.safetensors"


class BaselineRun(NamedTuple):
    """A baseline that is ready to train: everything that a user can get wrong has been checked."""

    arguments: BaselineArguments
    training: BaselineConfig
    dataset: Dataset
    model: SupervisedEncoder | SelfDistillation
    processor: SpatialBoostImageProcessor
    checkpoint: str | None
    record: dict[str, Any]


def make_parser() -> TrlParser:
    """The parser of `spatialboost train` for baselines; `--config FILE.yaml` sets any of its arguments."""
    return TrlParser(
        (BaselineArguments, BaselineConfig),
        prog="spatialboost train",
        usage="spatialboost train [--config RECIPE.yaml] [--ARGUMENT VALUE ...]",
        description=__doc__.split("\n")[0],
    )


def prepare(arguments: BaselineArguments, training: BaselineConfig) -> BaselineRun | None:
    """Check the data, load the encoder, join it to the decoder and open what trains.

    Returns:
        The run, or None if `output_dir` holds the same run, finished.

    Raises:
        ValueError: anything that the user got wrong, in one sentence.
    """
    checkpoint = find_checkpoint(training)
    earlier = read_record(training.output_dir) or {}
    name_run(training, earlier.get("config") if checkpoint else None)
    with training.main_process_first(desc="checking the data"):
        data = load_view_data(arguments.datasets, LEARNS_FROM[arguments.objective].needs, training.dataset_num_proc)
    logger.info("Data: " + ", ".join(f"{source.name} ({source.rows} rows)" for source in data.sources))
    record = starting_record(arguments, training, data.sources) | {"objective": arguments.objective}
    if already_done(training, record, arguments.force):
        return None
    changed = differences(earlier or record, record)
    if checkpoint and changed:
        logger.warning(f"Resuming {checkpoint} although {', '.join(changed)} differ from the run that wrote it")
    encoder = load_encoder(arguments)
    processor = SpatialBoostImageProcessor.from_encoder(arguments.encoder, arguments.image_size, arguments.revision)
    set_seed(training.seed)  # of the new decoder
    model = build_model(arguments, encoder, processor.size["height"], len(data.class_names))
    counts = apply_stage(model, arguments.row)
    check_space(str(training.output_dir), run_bytes(model, training), "a checkpoint and the trained model")
    record |= {"trainable_parameters": counts.by_group, "frozen_parameters": counts.frozen}
    return BaselineRun(arguments, training, data.dataset, model, processor, checkpoint, record)


@unsplit_loading()
def load_encoder(arguments: BaselineArguments) -> SpatialBoostModel:
    """The boosted encoder, in float32; one that is boosted already goes on from where it is.

    Raises:
        ValueError: no such encoder, one that cannot be boosted, or one that has other boosted layers.
    """
    wanted = arguments.boosted_layers
    encoder = load_boosted_encoder(arguments.encoder, wanted, arguments.revision, torch.float32)
    if encoder.config.boosted_layers != wanted and (wanted is not None or encoder.config.boosted_layers == []):
        raise ValueError(
            f"boosted_layers={wanted}, but encoder={arguments.encoder!r} has boosted_layers="
            f"{encoder.config.boosted_layers} already: pass the encoder that it was made from."
        )
    return encoder


def train(run: BaselineRun) -> int:
    """Train, and save the encoder, the decoder's weights and `run.json`; returns the exit code, as `sft.train`."""
    encoder, objective = run.model.encoder, run.arguments.objective
    assert encoder.config.patch_size is not None  # read off the encoder when it was loaded
    patch_size = as_pair(encoder.config.patch_size)[0] if objective == "masks" else None
    trainer = BaselineTrainer(
        run.arguments.row,
        run.training,
        model=run.model,
        train_dataset=run.dataset,
        data_collator=ViewCollator(run.processor, LEARNS_FROM[objective].targets, patch_size),
        callbacks=[TeacherUpdate()] if objective == "own" else None,
    )
    return fit(trainer, run, write_result)


def write_result(trainer: BaselineTrainer, run: BaselineRun, folder: Path, outcome: dict[str, Any]) -> dict[str, Any]:
    """Write encoder and decoder; returns what to add to the record."""
    if not trainer.is_world_process_zero():
        return {}
    added = write_encoder(run.model.encoder, run.processor, folder, run.record | outcome)
    state = {name: tensor.contiguous() for name, tensor in run.model.decoder.state_dict().items()}
    save_file(state, folder / DECODER_FILE, metadata={"format": "pt"})
    return added
