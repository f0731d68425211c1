"""Work that is done once: pieces with markers, a budget of minutes, and commands that are printed before they run."""

import json
import os
import shlex
import shutil
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from experiments.fitting import hardware
from trainers.run_record import git_commit

MARKER = "piece.json"


class OutOfBudget(Exception):
    """The minutes are used up; everything that was finished stays."""


class Piece(NamedTuple):
    """A finished piece.

    Attributes:
        folder: where it is.
        key: stands for the command that made it and, through their keys, for all that it was made from.
    """

    folder: Path
    key: str


class Ledger:
    """Does pieces of work once, in order, until the budget is used up."""

    def __init__(self, budget_minutes: float | None = None) -> None:
        """The clock starts now; None = no limit."""
        self.start = time.monotonic()
        self.budget_minutes = budget_minutes
        self.finished: list[str] = []
        self.used: dict[str, dict[str, Any]] = {}  # records of all pieces that were asked for, by folder

    def do(self, folder: Path, command: str, inputs: list[Piece], work: Callable[[], Any]) -> Piece:
        """Do the work unless `folder` holds it, finished; the marker is written last.

        Args:
            folder: of the piece.
            command: as one would type it; with the keys of `inputs` it is the piece's identity.
            inputs: what the piece is made from.
            work: leaves everything in `folder`; called again after a kill, so that it may go on where it was.

        Raises:
            OutOfBudget: before the work, if the minutes are used up.
            ValueError: the folder holds another piece.
        """
        key = sha256("\n".join([command, *(piece.key for piece in inputs)]).encode()).hexdigest()[:16]
        marker = folder / MARKER
        if marker.is_file():
            found = json.loads(marker.read_text())
            if found["key"] != key:
                raise ValueError(
                    f"{folder} was made by another command or from other models ({found['command']}): remove it, or "
                    "pass another --output."
                )
            self.used[str(folder)] = found
            return Piece(folder, key)
        minutes = (time.monotonic() - self.start) / 60
        if self.budget_minutes is not None and minutes >= self.budget_minutes:
            raise OutOfBudget(f"{minutes:.1f} of {self.budget_minutes:g} minutes are used")
        print(f"\n$ {command}", flush=True)
        begun = time.monotonic()
        work()
        seconds = round(time.monotonic() - begun, 1)
        record = {"key": key, "command": command, "seconds": seconds, "hardware": hardware(device())}
        record["commit"] = git_commit()
        folder.mkdir(parents=True, exist_ok=True)
        partial = marker.with_suffix(".partial")
        partial.write_text(json.dumps(record, indent=1) + "\n")
        partial.replace(marker)
        self.finished.append(str(folder))
        self.used[str(folder)] = record
        return Piece(folder, key)


def device() -> str:
    """What the product's commands use by themselves."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def shown(path: Path) -> str:
    """A path as it stands in commands: relative to where the command was called, if it is below."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def run_verb(main: Callable[[list[str]], int | None], words: list[str]) -> None:
    """Run a verb of `spatialboost` in this process.

    Raises:
        ValueError: it refused its arguments, and has said why.
        SystemExit: a signal stopped it, with the signal's exit code; what it saved is gone on from the next time.
    """
    code = main(words)
    if code and code > 128:
        raise SystemExit(code)
    if code:
        raise ValueError("the command above stopped as it told.")


def typed(verb: str, words: list[str]) -> str:
    """A command as one would type it."""
    return f"spatialboost {verb} {shlex.join(words)}"


def remove_checkpoints(folder: Path) -> None:
    """Remove what only a run that goes on needs."""
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
