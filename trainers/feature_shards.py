"""The shards of cached features: written by rename, found again by what they say of themselves, read memory-mapped.

A cache folder holds a folder for each key, and that holds shards: safetensors files of (images, N, C) features in the
number format that the projector reads, with the SHA-256 of every image file and a checksum of its features.
"""

import hashlib
import logging
import os
import shutil
import time
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

logger = logging.getLogger(__name__)
STALE_SECONDS = 3600  # no shard takes that long to write: what is older is left of a killed run


class FeatureCache:
    """Features of the images of one run: `cache[number]` is (N, C), read from a memory-mapped shard.

    It holds names and positions only, so that it travels to the workers of a data loader.
    """

    def __init__(self, root: str, key: str, hashes: list[bytes]) -> None:
        """Find what is there already.

        Args:
            root: folder of all caches, as the user named it.
            key: of encoder and preprocessing, from `cache_key`.
            hashes: SHA-256 of the image files; an image's number is its place in this list.
        """
        self.root, self.key, self.hashes = root, key, hashes
        self.folder = Path(root).expanduser() / key[:16]
        self.shards: list[Path] = []
        self.places = np.full((len(hashes), 2), -1, np.int32)  # shard and row of every image, -1 = not there
        self._find()

    def missing(self) -> list[int]:
        """Numbers of the images whose features are not there."""
        return np.flatnonzero(self.places[:, 0] < 0).tolist()

    def __getitem__(self, number: int) -> torch.Tensor:
        """(N, C) features of an image, as they were computed.

        Raises:
            ValueError: the shard has been damaged since it was written.
        """
        shard, row = self.places[number].tolist()
        tensors = _open_shard(self.shards[shard])
        features = tensors["features"][row].clone()
        if _checksum(features) != tensors["checksums"][row].item():
            raise ValueError(
                f"cache_features={self.root!r}: {self.shards[shard]} is damaged: delete this file and go on with "
                "--resume_from_checkpoint true; only its images are computed again."
            )
        return features

    def write(self, numbers: list[int], features: torch.Tensor) -> None:
        """Add a shard, which appears whole or not at all.

        Args:
            numbers: of its images.
            features: (images, N, C) on the CPU.

        Raises:
            ValueError: it cannot be written, for lack of space or of rights.
        """
        hashes = np.frombuffer(b"".join(self.hashes[number] for number in numbers), np.uint8).reshape(-1, 32)
        name = hashlib.sha256(hashes.tobytes()).hexdigest()[:16]
        partial = self.folder / f"{name}.{os.uname().nodename}-{os.getpid()}.partial"
        tensors = {
            "features": features,
            "hashes": torch.from_numpy(hashes.copy()),
            "checksums": torch.tensor([_checksum(one) for one in features]),
        }
        try:
            save_file(tensors, partial, metadata={"key": self.key})
            os.replace(partial, self.folder / f"{name}.safetensors")
        except (OSError, SafetensorError) as error:
            partial.unlink(missing_ok=True)
            raise ValueError(
                f"cache_features={self.root!r}: a shard cannot be written there ({error}): make space, or name "
                "another folder."
            ) from error

    def reserve(self, num_bytes: int) -> None:
        """Make the folder.

        Raises:
            ValueError: its disk has not as much space, or it cannot be made.
        """
        existing = next(path for path in (self.folder, *self.folder.absolute().parents) if path.exists())
        free = shutil.disk_usage(existing).free
        if free < num_bytes:
            raise ValueError(
                f"cache_features={self.root!r}: the features take {num_bytes / 1e9:.3g} GB and {free / 1e9:.3g} GB "
                "are free there: make space, name another folder, or leave the argument out."
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"cache_features={self.root!r} cannot be a folder ({error}): name another one."
            ) from error

    def _find(self) -> None:
        for path in self.folder.glob("*.partial"):
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink(missing_ok=True)
        numbers = {digest: number for number, digest in enumerate(self.hashes)}
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                with safe_open(path, "pt") as shard:  # which compares the file's size with its header
                    if (shard.metadata() or {}).get("key") != self.key:
                        raise ValueError("made by another encoder or other preprocessing")
                    digests = shard.get_tensor("hashes").numpy()
            except (SafetensorError, ValueError) as error:
                logger.warning(f"{path} is removed, and its images are computed again ({error})")
                path.unlink(missing_ok=True)
                continue
            for row, digest in enumerate(digests):
                if (number := numbers.get(digest.tobytes())) is not None:
                    self.places[number] = len(self.shards), row
            self.shards.append(path)


@cache
def _open_shard(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)  # memory-mapped: nothing is read before it is used


def _checksum(features: torch.Tensor) -> int:
    return zlib.crc32(features.contiguous().view(torch.uint8).numpy())
