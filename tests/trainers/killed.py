"""Runs of the command in a process that is killed, or kills itself, at a chosen moment."""

import json
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cloudpickle
import torch
from safetensors.torch import load_file

from tests.commands import train as main
from trainers.resumable import ResumableTrainer


def run_in_child(argv: list[str], sabotage: Callable[[], None] = lambda: None) -> int:
    """Exit code of the command in a process of its own, or minus the signal that ended it.

    The process is forked from a server that has imported everything and trained nothing: one that is forked from the
    tests cannot train, once these have used the threads of autograd.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with tempfile.NamedTemporaryFile() as error:
        process = context.Process(target=_child, args=(argv, cloudpickle.dumps(sabotage), error.name))
        process.start()
        process.join()
        os.write(2, Path(error.name).read_bytes())
    return process.exitcode


def _child(argv: list[str], sabotage: bytes, error_file: str) -> None:
    os.dup2(os.open(error_file, os.O_WRONLY), 2)
    torch.set_num_threads(1)
    try:
        cloudpickle.loads(sabotage)()
        code = main(argv)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        code = 1
    sys.stderr.flush()
    os._exit(code)


def at_call(owner: object, name: str, number: int, action: Callable[..., None]) -> Callable[[], None]:
    """A sabotage: `action` takes the arguments of the call of that number (from 1), before it is made."""

    def sabotage() -> None:
        original, calls = getattr(owner, name), []

        def counted(*args, **kwargs):
            calls.append(1)
            if len(calls) == number:
                action(*args, **kwargs)
            return original(*args, **kwargs)

        setattr(owner, name, counted)

    return sabotage


def kill(*args, **kwargs) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_batch(number: int, action: Callable[..., None] = kill) -> Callable[[], None]:
    return at_call(ResumableTrainer, "training_step", number, action)


def half_written(tensors, path, *args, **kwargs) -> None:
    Path(path).write_bytes(b"half a file")
    kill()


def in_save(number: int) -> Callable[[], None]:
    """While the file of that number is written by `torch.save`: optimizer, schedule, random numbers, and again."""
    return at_call(torch, "save", number, half_written)


def losses(folder: Path) -> list[tuple]:
    """What was logged, times apart."""
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [
        tuple(
            entry[key] for key in ("step", "loss", "grad_norm", "num_tokens", "mean_token_accuracy", "learning_rate")
        )
        for entry in history
        if "loss" in entry
    ]


def assert_same_run(ours: Path, theirs: Path) -> None:
    """Losses, records and weights are equal to the last bit."""
    assert losses(ours) == losses(theirs)
    records = [json.loads((folder / "run.json").read_text()) for folder in (ours, theirs)]
    assert all(record["status"] == "finished" for record in records)
    assert records[0]["final_loss"] == records[1]["final_loss"]
    assert abs(records[0]["mean_loss"] - records[1]["mean_loss"]) < 1e-9
    for path in theirs.rglob("model.safetensors"):
        if "checkpoint" not in path.as_posix():
            weights, expected = load_file(ours / path.relative_to(theirs)), load_file(path)
            assert weights.keys() == expected.keys()
            assert all(torch.equal(tensor, expected[name]) for name, tensor in weights.items())
