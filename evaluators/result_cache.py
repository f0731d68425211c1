"""Results that survive the end of the process: what one encoder scored in one entry, kept on disk until it is stale.

A result is found again only where all that made it is the same: the entry and its whole configuration, the encoder's
weights, code, precision and preprocessing, the files of the data (by size, both times and inode, so that no copy and
no restored time goes unnoticed) or the commit on the Hub, the files of the models that answer, the evaluators' own
code, and versions, seeds and hardware. What cannot be told is measured again.
"""

import dataclasses
import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from httpx import HTTPError
from huggingface_hub import HfApi
from huggingface_hub.constants import HF_HUB_CACHE

from evaluators.contract import Result, TaskConfig
from evaluators.encoders import Encoder
from evaluators.report import environment

NOT_PLACES = ("data_set", "preset", "side")  # names of settings whose value may happen to be that of a folder, too
ARRAY_KEY = "__array__"


def measured_once(
    encoder: Encoder, entry: str, config: TaskConfig, evaluate: Callable[[Encoder, Any], Result]
) -> Result | None:
    """Return what `evaluate(encoder, config)` gives, or gave in an earlier run, and say which; see `result_file`.

    Under `accelerate launch` all processes measure together, and only the main one has what an earlier run gave.
    """
    state = PartialState()
    file = result_file(encoder, entry, config) if state.is_main_process else None
    found = load_result(file) if file else None
    if broadcast_object_list([found is not None])[0]:
        state.print(f"{entry}: {encoder.name}, as measured before (remove {file} to measure it again)")
        return found
    state.print(f"{entry}: {encoder.name}")
    result = evaluate(encoder, config)
    return save_result(result, file) if file else result


def result_file(encoder: Encoder, entry: str, config: TaskConfig) -> Path | None:
    """Where the result of an entry is kept, None where it cannot be told whether the data is the same as before.

    Args:
        encoder: that is measured, on the device where it is.
        entry: "TASK/DATA_SET".
        config: of the entry, `for_side` where a vision-language model is asked.
    """
    settings = dataclasses.asdict(config)
    settings.pop("cache_dir")
    places = {
        name: place_state(value, "model" if "model" in name else "dataset")
        for name, value in settings.items()
        if isinstance(value, str) and _names_a_place(name, value)
    }
    if None in places.values():
        return None
    told = [encoder.describe(), encoder.input_size_px, environment(str(encoder.device))]
    parts = [entry, settings, places, *told, _code_digest()]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
    return config.cache_dir / "results" / f"{entry.split('/')[0]}-{key[:32]}.npz"


def load_result(file: Path) -> Result | None:
    """Return what `save_result` wrote, None where there is none or where it is damaged."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return cast(Result, _unpacked(json.loads(str(arrays["result"])), arrays))
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error):
        return None


def save_result(result: Result, file: Path) -> Result:
    """Keep a result: arrays and JSON in one .npz that appears by rename; return it as it will be read."""
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(_packed(result, arrays))
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}.partial")
    try:
        with partial.open("wb") as handle:
            np.savez_compressed(handle, result=np.array(text), **cast(Any, arrays))
            handle.flush()
            os.fsync(handle.fileno())  # a file that has its name has its content, after a loss of power, too
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return cast(Result, _unpacked(json.loads(text), arrays))


def place_state(place: str, kind: str = "dataset") -> str | None:
    """Digest of all files of a folder by path, size, times and inode; of a Hub id the commit; None if unknown.

    Args:
        place: folder, file or Hub id.
        kind: "dataset" or "model", of a Hub id.
    """
    if not os.path.exists(place):
        return _hub_commit(place, kind)
    digest, seen = hashlib.sha256(), set()
    for folder, folders, files in os.walk(place, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        for name in sorted(files):
            digest.update(f"{_file_state(os.path.join(folder, name))}\n".encode())
    if os.path.isfile(place):
        digest.update(_file_state(place).encode())
    return digest.hexdigest()


def _file_state(file: str) -> str:
    """Change time and inode tell what a copy with an old modification time would hide."""
    try:
        status = os.stat(file)
    except FileNotFoundError:  # a link to nothing
        return f"{file} absent"
    return f"{file} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_dev} {status.st_ino}"


@cache
def _hub_commit(name: str, kind: str) -> str | None:
    """Return the newest commit, without a network the one that the local copy follows."""
    try:
        return HfApi().repo_info(name, repo_type=kind).sha
    except (OSError, ValueError, HTTPError):  # no network, no such name, no access
        reference = Path(HF_HUB_CACHE) / f"{kind}s--{name.replace('/', '--')}" / "refs" / "main"
        return reference.read_text() if reference.is_file() else None


@cache
def _code_digest() -> str:
    """Digest of the evaluators' own sources."""
    root, digest = Path(__file__).parent, hashlib.sha256()
    for file in sorted((*root.rglob("*.py"), *root.rglob("*.yaml"))):
        digest.update(str(file.relative_to(root)).encode() + file.read_bytes())
    return digest.hexdigest()


def _names_a_place(name: str, value: str) -> bool:
    """Whether a setting tells where data or a model is; a Hub id only where such a name is expected."""
    if name in ("data", "language_model"):
        return True
    return name not in NOT_PLACES and bool(value) and os.path.exists(value)


def _packed(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Return JSON in the place of a nested value; its arrays go to `arrays`."""
    if isinstance(value, np.ndarray):
        assert not value.dtype.hasobject, "an array of Python objects cannot be kept"
        name = f"array_{len(arrays)}"
        arrays[name] = value
        return {ARRAY_KEY: name}
    if isinstance(value, dict):
        assert all(isinstance(key, str) for key in value), f"keys must be text: {list(value)}"
        return {key: _packed(item, arrays) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_packed(item, arrays) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _unpacked(value: Any, arrays: Any) -> Any:
    """Undo `_packed`; tuples have become lists."""
    if isinstance(value, dict):
        if ARRAY_KEY in value:
            return arrays[value[ARRAY_KEY]]
        return {key: _unpacked(item, arrays) for key, item in value.items()}
    return [_unpacked(item, arrays) for item in value] if isinstance(value, list) else value
