"""Answers of chat models on disk, by content: whoever asks the same again pays nothing.

One small JSON file per answer, named by the hash of all that decides it (model, texts, image bytes, schema, sampling),
written by rename. What a server was asked is not stored, nor is any key.
"""

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any


def content_key(question: dict[str, Any]) -> str:
    """The name of a question: a hash of its canonical JSON form."""
    return hashlib.sha256(json.dumps(question, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class AnswerCache:
    """A folder of answers; any number of threads and processes may read and write it at once."""

    def __init__(self, folder: Path) -> None:
        """Make the folder where it is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def get(self, key: str) -> dict[str, Any] | None:
        """The stored answer, None where there is none or a crash of the machine has spoilt it."""
        try:
            return json.loads(self._path(key).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None

    def put(self, key: str, answer: dict[str, Any]) -> None:
        """Store an answer; the file appears whole or not at all."""
        path = self._path(key)
        path.parent.mkdir(exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}.partial")
        partial.write_text(json.dumps(answer, ensure_ascii=False), encoding="utf-8")
        os.replace(partial, path)

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"
