"""Arrays that are computed once and then memory-mapped, so that memory stays bounded."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import DTypeLike


def cached_array(cache_dir: Path, key: str, make: Callable[[Path], None]) -> torch.Tensor:
    """Return the array that `make(file)` writes as .npy, made only where `cache_dir` has none under `key`.

    The file appears by rename, so that an interrupted run leaves nothing that looks finished.
    """
    file = array_file(cache_dir, key)
    if not file.is_file():
        partial = file.with_suffix(f".{os.getpid()}.partial")
        try:
            make(partial)
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
    return torch.from_numpy(np.load(file, mmap_mode="c"))


def cached_value(cache_dir: Path, key: str, compute: Callable[[], np.ndarray]) -> torch.Tensor:
    """As `cached_array`, for an array that `compute()` returns."""

    def make(file: Path) -> None:
        with file.open("wb") as stream:  # np.save would add a suffix to a path
            np.save(stream, compute())

    return cached_array(cache_dir, key, make)


def shared_array(cache_dir: Path, key: str, make: Callable[[Path], None]) -> torch.Tensor:
    """As `cached_array`, made by all processes together: `make` is called in each, with one file.

    The processes of a run on several machines need a `cache_dir` that all of them see.
    """
    state, file = PartialState(), array_file(cache_dir, key)
    if state.num_processes == 1:
        return cached_array(cache_dir, key, make)
    state.wait_for_everyone()  # all of them look before one of them writes
    missing = not file.is_file()
    state.wait_for_everyone()
    if missing:
        partial = file.with_suffix(".shared.partial")
        make(partial)
        state.wait_for_everyone()
        if state.is_main_process:
            partial.replace(file)
        state.wait_for_everyone()
    return torch.from_numpy(np.load(file, mmap_mode="c"))


def array_file(cache_dir: Path, key: str) -> Path:
    """Where the array of `key` is kept; the folder is made."""
    cache_dir.mkdir(parents=True, exist_ok=True)
    return cache_dir / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"


@contextmanager
def row_writer(
    file: Path, shape: Sequence[int], dtype: DTypeLike
) -> Iterator[Callable[[int, np.ndarray | torch.Tensor], None]]:
    """Make a .npy file and give what writes `rows` into it from row `start` on: `write(start, rows)`.

    Processes of one run write into one file. Not through a memory map: its pages would count as the memory of the
    process, and a full disk would end it by a signal, not by an error.
    """
    state = PartialState()
    if state.is_main_process:
        np.lib.format.open_memmap(file, "w+", dtype, tuple(shape))  # the header, and a size without content
    state.wait_for_everyone()
    empty = np.load(file, mmap_mode="r")
    offset, row_bytes = empty.offset, empty.nbytes // max(1, len(empty))
    del empty
    with file.open("r+b") as handle:

        def write(start: int, rows: np.ndarray | torch.Tensor) -> None:
            handle.seek(offset + start * row_bytes)
            handle.write(np.ascontiguousarray(rows, dtype).data.cast("B"))

        yield write
