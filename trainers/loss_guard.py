"""Stops a run whose loss or gradients are no longer numbers, and names the rows of the batch."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

ROWS_SHOWN = 32
NEVER = 2**62


class NonFiniteLossError(ValueError):
    """The loss or the gradients of a step are NaN or infinite.

    Attributes:
        step: its number, from 1.
        rows: ids of all rows that may be to blame.
    """

    def __init__(self, message: str, step: int, rows: list[str]) -> None:
        """`message` is for the user."""
        super().__init__(message)
        self.step, self.rows = step, rows


@dataclass
class _Step:
    rows: list[list[str]] = field(default_factory=list)  # of each batch
    losses: list[torch.Tensor] = field(default_factory=list)  # of each batch, on the device
    gradient_norm: torch.Tensor | None = None


class LossGuard:
    """Keeps the losses of the steps since the last look on the device, and looks at them together.

    So nothing waits for the device between two logs, and the rows of the first bad step are still known then.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        """`accelerator` of the trainer; with fp16 its scaler skips steps of infinite gradients, which is no fault."""
        self.accelerator = accelerator
        self.scaled = accelerator.scaler is not None
        self.steps: dict[int, _Step] = {}

    def note_loss(self, step: int, rows: list[str], loss: torch.Tensor) -> None:
        """Remember a batch of a step."""
        noted = self.steps.setdefault(step, _Step())
        noted.rows.append(rows)
        noted.losses.append(loss.detach())

    def note_gradients(self, step: int, norm: Any) -> None:
        """Remember the norm of the gradients of a step."""
        if norm is not None and not self.scaled:
            norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
            self.steps.setdefault(step, _Step()).gradient_norm = torch.as_tensor(norm, device=self.accelerator.device)

    def check(self, remedy: Callable[[], str]) -> None:
        """Look at what was noted since the last call; every process must call it.

        Args:
            remedy: what to do besides looking at the rows.

        Raises:
            NonFiniteLossError: in every process, if a loss in any of them is NaN or infinite.
        """
        steps, self.steps = self.steps, {}
        bad = {number: found for number, found in _values(steps).items() if not all(map(_is_finite, found))}
        first = torch.tensor(min(bad, default=NEVER), device=self.accelerator.device)
        step = int(self.accelerator.gather(first).min().item())
        if step == NEVER:
            return
        own = _own_part(steps.get(step), bad.get(step, []))
        parts = gather_object([own]) if self.accelerator.num_processes > 1 else [own]
        # a batch whose loss is a number is not to blame for gradients that are none, where another's loss is none
        by_loss = [row for part in parts for row in part["bad_rows"]]
        rows = by_loss or [row for part in parts for row in part["rows"]]
        value = next((part["value"] for part in parts if part["value"] and (part["bad_rows"] or not by_loss)), "nan")
        what = f"the loss of step {step} is {value}" if by_loss else f"the gradients of step {step} are {value}"
        raise NonFiniteLossError(f"{what} (rows {_listed(rows)}): look at these rows or {remedy()}.", step, rows)


def _values(steps: dict[int, _Step]) -> dict[int, list[float]]:
    """The numbers of each step, losses first, fetched from the device at once."""
    tensors = {
        number: [*step.losses, *([] if step.gradient_norm is None else [step.gradient_norm])]
        for number, step in steps.items()
    }
    if not tensors:
        return {}
    flat = iter(torch.stack([one.float().reshape(()) for many in tensors.values() for one in many]).tolist())
    return {number: [next(flat) for _ in many] for number, many in tensors.items()}


def _own_part(step: _Step | None, values: list[float]) -> dict[str, Any]:
    if step is None:
        return {"rows": [], "bad_rows": [], "value": ""}
    bad_rows = [row for rows, value in zip(step.rows, values) if not _is_finite(value) for row in rows]
    value = next((str(value) for value in values if not _is_finite(value)), "")
    return {"rows": [row for rows in step.rows for row in rows], "bad_rows": bad_rows, "value": value}


def _is_finite(value: float) -> bool:
    return abs(value) < float("inf")  # which NaN is not


def _listed(rows: list[str]) -> str:
    if not rows:
        return "without ids"
    more = f" and {len(rows) - ROWS_SHOWN} more, all in run.json" if len(rows) > ROWS_SHOWN else ""
    return ", ".join(map(repr, rows[:ROWS_SHOWN])) + more
