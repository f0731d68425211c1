"""How a run is seen: a progress bar on a terminal, a line at each log elsewhere, and the trackers of `report_to`."""

import importlib.util
import logging
import math
import os
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import huggingface_hub
from huggingface_hub.errors import LocalTokenNotFoundError
from tqdm.auto import tqdm
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.integrations import TrackioCallback, get_reporting_integration_callbacks

logger = logging.getLogger(__name__)
LINES_APART_S = 5.0


class ProgressBar(ProgressCallback):
    """transformers' bar with the figures behind it, not as a dictionary above it; a resumed run starts in place."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar at the step that the run starts from."""
        self.current_step = state.global_step
        if state.is_world_process_zero:
            self.training_bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", dynamic_ncols=True)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Show the last figures behind the bar, those of an evaluation above it."""
        if self.training_bar is None or not (text := figures_text(logs)):
            return
        if "loss" in logs:
            self.training_bar.set_postfix_str(text)
        else:
            self.training_bar.write(f"step {state.global_step}: {text}")


class ProgressLines(TrainerCallback):
    """Lines for files and pipes, where a bar would write hundreds: one at a log, at most one in some seconds."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remember the start, to foretell the end."""
        self.start, self.first_step = time.monotonic(), state.global_step
        self.last_line = -math.inf

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Write step, figures and time left."""
        if not state.is_world_process_zero or not (text := figures_text(logs)):
            return
        now, steps = time.monotonic(), state.global_step - self.first_step
        if "loss" in logs and now - self.last_line < LINES_APART_S and state.global_step < state.max_steps:
            return
        self.last_line = now
        seconds_left = (now - self.start) / max(steps, 1) * (state.max_steps - state.global_step)
        left = f", {tqdm.format_interval(seconds_left)} left" if steps and "loss" in logs else ""
        logger.info(f"step {state.global_step}/{state.max_steps}: {text}{left}")


class LocalTrackio(TrackioCallback):
    """transformers' callback, without a question to the Hub where the curves stay on this machine.

    By itself trackio asks who is logged in, where a token is stored: behind a firewall that drops packets, that took
    137 s.
    """

    def setup(self, args: Any, state: Any, model: Any, **kwargs: Any) -> None:
        """Open the run."""
        if args.trackio_space_id or os.environ.get("TRACKIO_SPACE_ID"):
            super().setup(args, state, model, **kwargs)
            return
        with patch.object(huggingface_hub, "whoami", side_effect=LocalTokenNotFoundError("not asked for")):
            super().setup(args, state, model, **kwargs)


def figures_text(logs: dict[str, Any]) -> str:
    """The few figures that a line has room for; "" for logs of another kind."""
    parts = [f"{name} {logs[name]:.4f}" for name in ("loss", "eval_loss") if name in logs]
    for name, unit in (("tokens", "tokens/s"), ("images", "images/s")):
        if f"speed/{name}_per_second" in logs:
            rate = logs[f"speed/{name}_per_second"]
            parts.append(f"{rate:,.{0 if rate >= 100 else 1}f} {unit}")
    if "data/waiting_share" in logs:
        parts.append(f"{logs['data/waiting_share']:.0%} waiting")
    if "memory/peak_gb" in logs:
        parts.append(f"{logs['memory/peak_gb']:.3g} GB")
    return ", ".join(parts)


def show_progress(trainer: Trainer) -> None:
    """Put ours in the place of transformers' bar, which prints every figure of every layer, and of its trackio."""
    if trainer.pop_callback(TrackioCallback):
        trainer.add_callback(LocalTrackio)
    replaced = [trainer.pop_callback(callback) for callback in (ProgressCallback, PrinterCallback)]
    if any(replaced):  # a notebook has a table of its own
        on_terminal = sys.stderr.isatty() and not trainer.args.disable_tqdm
        trainer.add_callback(ProgressBar if on_terminal else ProgressLines)


def check_reporters(report_to: list[str]) -> None:
    """Refuse trackers that cannot be used, before any work.

    Raises:
        ValueError: transformers knows no such tracker, or its package is not installed.
    """
    try:
        get_reporting_integration_callbacks(report_to)
    except ValueError as error:
        raise ValueError(f"report_to={report_to}: {error} Pass trackio, tensorboard, wandb or none.") from error
    for name in report_to:
        if name in ("trackio", "tensorboard", "wandb") and importlib.util.find_spec(name) is None:
            raise ValueError(
                f"report_to={name!r}: the package is missing: pip install {name}, or pass report_to none."
            )


def name_run(args: TrainingArguments, earlier: dict[str, Any] | None) -> None:
    """Give the run a name in the trackers: a resumed one keeps its own, a new one gets folder and time.

    Args:
        args: `run_name` is set where the user gave none.
        earlier: settings of the run that is resumed, None for a new one.
    """
    if args.run_name is None:
        folder = Path(str(args.output_dir)).resolve().name
        args.run_name = (earlier or {}).get("run_name") or f"{folder}-{datetime.now():%Y%m%d-%H%M%S}"


def where_to_look(args: TrainingArguments) -> list[str]:
    """Commands that show the curves of a run."""
    commands = {
        "trackio": f'trackio show --project "{args.project}"',
        "tensorboard": f"tensorboard --logdir {args.output_dir}",
    }
    return [commands[name] for name in args.report_to if name in commands]
