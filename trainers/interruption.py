"""SIGTERM and Ctrl-C: training stops after the step at hand, with a checkpoint."""

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist
from transformers import TrainerCallback

SIGNALS = (signal.SIGTERM, signal.SIGINT)
REPEAT_S = 1.0  # torchrun passes a terminal's Ctrl-C on to workers that have it already: no second one by the user


class Interruption(TrainerCallback):
    """Stops training, after the step that was begun, when the process is told to end.

    As a context manager it takes over the signals SIGTERM (spot instances, Slurm) and SIGINT (Ctrl-C). With several
    processes a signal to one of them stops all of them after the same step; a second Ctrl-C stops at once.
    """

    def __init__(self) -> None:
        """Nothing is taken over before `with`."""
        self.received: signal.Signals | None = None
        self.stopped_by: signal.Signals | None = None
        self._received_at = 0.0
        self._previous: dict[signal.Signals, Any] = {}
        self._group: Any = None

    def __enter__(self) -> Self:
        """Take over the signals; only the main thread may."""
        self._process = os.getpid()
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open a channel between the CPUs of all processes: asking the others must not wait for the devices."""
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            self._group = dist.new_group(backend="gloo")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop here if any process was told to; a run at its last step just ends."""
        number = self._agreed()
        if number and state.global_step < state.max_steps:
            self.stopped_by = signal.Signals(number)
            control.should_save = control.should_training_stop = True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The checkpoint of this step is written already."""
        if self.stopped_by:
            control.should_save = False

    def _agreed(self) -> int:
        """The signal that any process has received, 0 for none."""
        number = int(self.received or 0)
        if self._group is None:
            return number
        numbers = torch.tensor(number)
        dist.all_reduce(numbers, dist.ReduceOp.MAX, group=self._group)
        return int(numbers.item())

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a data-loading worker, which the main process ends
            signal.signal(number, signal.SIG_DFL)
            return
        if self.received is None:
            self.received, self._received_at = signal.Signals(number), time.monotonic()
            if os.environ.get("RANK", "0") == "0":
                again = "; press Ctrl-C again to stop at once" if number == signal.SIGINT else ""
                # print is not for signal handlers
                os.write(2, f"\n{self.received.name}: stopping after this step, with a checkpoint{again}\n".encode())
        elif number == signal.SIGINT and time.monotonic() - self._received_at > REPEAT_S:
            raise KeyboardInterrupt
