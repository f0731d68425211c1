"""A trainer that may be killed at any moment: whole checkpoints, exact continuation, signals, a watch on the loss."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from trainers.checkpoints import (
    checkpoint_bytes,
    gigabytes,
    go_on,
    is_write_error,
    load_tensors,
    not_written,
    partial_folder,
    publish_checkpoint,
    remove_partial,
    rotate,
    save_tensors,
    trained_tensors,
)
from trainers.data import ROW_COLUMN
from trainers.interruption import Interruption
from trainers.loss_guard import LossGuard

PROGRESS_FILE = "progress.json"


class CollatorWithRows:
    """A collator that hands the ids of the rows on, as `rows` of the batch."""

    def __init__(self, collator: Any) -> None:
        """`collator` does all else."""
        self.collator = collator

    def __call__(self, examples: list[dict[str, Any]]) -> Any:
        """A batch; `rows` is a list of texts, empty if the data set has no ids."""
        rows = [example[ROW_COLUMN] for example in examples if ROW_COLUMN in example]
        batch = self.collator(examples)
        batch["rows"] = rows
        return batch


class Resumption(TrainerCallback):
    """Calls back where transformers has reset the sums that a resumed run has to go on with."""

    def __init__(self, trainer: "ResumableTrainer") -> None:
        """`trainer` that is resumed."""
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Restore the sums."""
        self.trainer.restore_progress()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at the losses before they are logged."""
        if control.should_log or control.should_training_stop:
            self.trainer.check_losses()


class ResumableTrainer(Trainer):
    """Adds to any trainer of transformers what a run needs that may end at any moment; TRL's may come behind it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Arguments are the trainer's own."""
        super().__init__(*args, **kwargs)
        self.interruption = Interruption()
        self.loss_guard = LossGuard(self.accelerator)
        self.earlier_loss = 0.0  # sum over the steps before the checkpoint
        self._checkpoint: str | None = None
        self._partial: Path | None = None  # where a checkpoint is being written
        self.add_callback(self.interruption)
        self.add_callback(Resumption(self))

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """As transformers'; `interruption.stopped_by` tells the signal that stopped it before its end, if one did.

        Raises:
            ValueError: a checkpoint of other parameters, no space for one, a loss that is no number.
        """
        self._checkpoint = resume_from_checkpoint if isinstance(resume_from_checkpoint, str) else None
        self.earlier_loss = 0.0
        if self.args.should_save:
            remove_partial(self.args.output_dir)
        with self.interruption:
            result = super().train(resume_from_checkpoint, *args, **kwargs)
        self.check_losses()
        return result

    @property
    def mean_loss(self) -> float:
        """Over all steps of the run, those before the checkpoint included."""
        return (self.earlier_loss + self._total_loss_scalar) / max(self.state.global_step, 1)

    def checkpoint_tensors(self) -> dict[str, torch.Tensor]:
        """What a checkpoint holds of the model, by name; a trainer whose frozen parameters change adds them."""
        return trained_tensors(self.accelerator.unwrap_model(self.model, keep_torch_compile=False))

    def check_losses(self) -> None:
        """Stop the run if a loss since the last call was no number."""
        rate, output_dir = self.args.learning_rate, str(self.args.output_dir)
        self.loss_guard.check(lambda: f"lower --learning_rate (now {rate:g}), and {go_on(output_dir)}")

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """As transformers', which makes one step too many where the checkpoint is of the last one."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)

    # Rows of the batches

    def get_train_dataloader(self) -> DataLoader:
        """As transformers', with the ids of the rows in the batches."""
        collator: Any = self.data_collator  # type: ignore[has-type]
        self.data_collator: Any = CollatorWithRows(collator)
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = collator

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        columns: list[str] = self._signature_columns  # type: ignore[has-type]
        if ROW_COLUMN not in columns:
            self._signature_columns = [*columns, ROW_COLUMN]

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """As transformers', the loss noted with its rows."""
        rows = inputs.pop("rows", [])
        loss = super().training_step(model, inputs, *args, **kwargs)
        self.loss_guard.note_loss(self.state.global_step + 1, rows, loss)
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.loss_guard.note_gradients(self.state.global_step + 1, norm)
        return norm

    # Checkpoints

    @property
    def _saved_by_accelerate(self) -> bool:
        return self.is_fsdp_enabled or self.is_deepspeed_enabled

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._partial is None else str(self._partial)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write the checkpoint beside its place, and rename it when the disk has all of it."""
        self.check_losses()
        output_dir = Path(self.args.output_dir)
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        progress = self._progress()
        self._partial = partial_folder(output_dir)
        with self._one_error_for_all(name):
            try:
                super()._save_checkpoint(model, trial)
                if self.args.should_save:
                    (self._partial / name / PROGRESS_FILE).write_text(json.dumps(progress))
            finally:
                self._partial = None
        with self._one_error_for_all(name):
            if self.args.should_save:
                publish_checkpoint(partial_folder(output_dir) / name, output_dir)
                rotate(output_dir, self.args.save_total_limit)

    @contextmanager
    def _one_error_for_all(self, name: str) -> Iterator[None]:
        """Turn a file that one process cannot write into one error in all processes, which wait for each other."""
        problem = ""
        try:
            yield
        except Exception as error:
            if not is_write_error(error):
                raise
            problem = " ".join(str(error).split()) or type(error).__name__
        problems = gather_object([problem]) if self.args.world_size > 1 else [problem]
        if problem := next(filter(None, problems), ""):
            output_dir = str(self.args.output_dir)
            what = f"{name}, of about {gigabytes(checkpoint_bytes(self.model, self.args))},"
            if self.args.should_save:
                remove_partial(output_dir)
            raise ValueError(not_written(output_dir, what, problem))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As transformers'; into a checkpoint goes only what trains."""
        if self._partial is None or self._saved_by_accelerate:
            super().save_model(output_dir, _internal_call)
        elif self.args.should_save:
            save_tensors(self.checkpoint_tensors(), Path(str(output_dir)))

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        super()._save(output_dir, state_dict)
        # a pickle that nothing reads; the settings are in run.json
        (Path(output_dir or self.args.output_dir) / TRAINING_ARGS_NAME).unlink(missing_ok=True)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self._saved_by_accelerate:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_tensors(self.checkpoint_tensors(), resume_from_checkpoint)

    # Sums between two logs

    def _progress(self) -> dict[str, Any]:
        """What is summed up for the next log and is no part of transformers' state; every process must call it."""
        return {
            "loss_since_log": self.accelerator.gather(self._tr_loss.reshape(1)).tolist(),  # of each process
            "last_logged_step": self._globalstep_last_logged,
            "loss_until_log": self.earlier_loss + self._total_loss_scalar,
            "metrics": dict(getattr(self, "_metrics", {}).get("train", {})),  # TRL's
            "tokens": getattr(self, "_total_train_tokens", 0),
        }

    def restore_progress(self) -> None:
        """Go on with the sums of the checkpoint."""
        path = Path(self._checkpoint or "") / PROGRESS_FILE
        if self._checkpoint is None or not path.is_file():
            return
        progress = json.loads(path.read_text())
        losses = progress["loss_since_log"]
        same_processes = len(losses) == self.args.world_size
        self._tr_loss += losses[self.args.process_index] if same_processes else sum(losses) / len(losses)
        self._globalstep_last_logged = progress["last_logged_step"]
        self.earlier_loss = progress["loss_until_log"]
        if hasattr(self, "_metrics"):
            self._metrics["train"].update(progress["metrics"])
            self._total_train_tokens = progress["tokens"]
