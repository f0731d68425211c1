"""`run.json`: what a run was made of and how it ended, written beside the weights."""

import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

FILE_NAME = "run.json"
PACKAGES = ("torch", "transformers", "trl", "datasets", "accelerate", "safetensors", "spatialboost")
# Settings that do not change the weights, and names whose content `data` and `started_from` pin.
INCIDENTAL = {
    "output_dir", "resume_from_checkpoint", "force", "disable_tqdm", "report_to", "run_name", "project",
    "cache_features", "logging_dir", "dataset_num_proc", "dataloader_num_workers", "hub_token", "datasets", "encoder",
    "language_model", "model",
}  # fmt: skip


def read_record(output_dir: str | Path) -> dict[str, Any] | None:
    """The record in a folder, None if there is none."""
    path = Path(output_dir) / FILE_NAME
    return json.loads(path.read_text()) if path.is_file() else None


def write_record(output_dir: str | Path, record: dict[str, Any]) -> None:
    """Write a record; the file appears whole or not at all."""
    path = Path(output_dir) / FILE_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=2, default=str) + "\n")
    os.replace(partial, path)


def is_finished(output_dir: str | Path) -> bool:
    """Whether the folder holds a run that came to its end."""
    record = read_record(output_dir)
    return record is not None and record.get("status") == "finished"


def differences(record: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of the settings, data and starting weights by which two runs would end with different weights."""
    ours, theirs = _identity(record), _identity(other)
    return sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that a run's result depends on."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # our own, run from a clone
            continue
    return versions


def git_commit() -> str | None:
    """Commit of the clone that the code runs from, "-dirty" appended if it has been changed; None outside a clone."""
    folder = Path(__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _identity(record: dict[str, Any]) -> dict[str, Any]:
    settings = {key: value for key, value in record["config"].items() if key not in INCIDENTAL}
    data = [source["fingerprint"] for source in record["data"]]
    weights = {name: part["weights"] for name, part in record["started_from"].items()}
    # through JSON, so that a record read from a file equals the one that was written
    return json.loads(json.dumps(settings | {"data": data, "started_from": weights}, default=str))
