"""Arrays that are computed once and then memory-mapped, so that memory stays bounded."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch


def cached_array(cache_dir: Path, key: str, make: Callable[[Path], None]) -> torch.Tensor:
    """Return the array that `make(file)` writes as .npy, made only where `cache_dir` has none under `key`.

    The file appears by rename, so that an interrupted run leaves nothing that looks finished.
    """
    file = cache_dir / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
    if not file.is_file():
        cache_dir.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}.partial")
        try:
            make(partial)
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
    return torch.from_numpy(np.load(file, mmap_mode="c"))
