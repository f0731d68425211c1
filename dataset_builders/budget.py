"""What chat models may cost: a budget that several processes share, and how a request is measured before it is sent.

Tokens of a request are estimated as its text's length over four, plus the tokens of its images by the rule of GPT-4o
at high detail: at most 2048 pixels a side, then at most 768 on the short side, 170 tokens for each tile of 512 x 512
that it takes to cover them, and 85 per image. Other models differ by a factor of about two either way.
"""

import json
import math
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from dataset_builders.scene import DropItem

CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class Usage:
    """Requests and tokens, spent or expected."""

    requests: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Tokens of prompts and answers together."""
        return self.prompt_tokens + self.answer_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.answer_tokens + other.answer_tokens,
        )


def text_tokens(text: str) -> int:
    """Estimated tokens of a text."""
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def image_tokens(width: int, height: int) -> int:
    """Estimated tokens of an image of that many pixels (see the head of this file)."""
    scale = min(1.0, 2048 / max(width, height), 768 / min(width, height))
    tiles = math.ceil(width * scale / 512) * math.ceil(height * scale / 512)
    return 85 + 170 * tiles


class Budget:
    """Counts what is spent under one account, in a file that all processes of a build share.

    A request reserves its expected tokens before it is sent, so that requests in flight cannot overspend together.
    """

    def __init__(self, folder: Path, account: str, max_requests: int | None, max_tokens: int | None) -> None:
        """Keep the count in `folder`; None means no limit."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"spent-{account}.json"
        self._max_requests = max_requests
        self._max_tokens = max_tokens

    def spent(self) -> Usage:
        """What was spent so far, by all processes and by earlier runs."""
        return Usage(**json.loads(self._path.read_text())) if self._path.is_file() else Usage()

    def reserve(self, expected: Usage) -> None:
        """Count a request before it is sent.

        Raises:
            DropItem: "chat_budget", where it does not fit any more.
        """
        with self._locked():
            after = self.spent() + expected
            for name, value, limit in (
                ("requests", after.requests, self._max_requests),
                ("tokens", after.tokens, self._max_tokens),
            ):
                if limit is not None and value > limit:
                    raise DropItem("chat_budget", f"the budget of {limit} {name} does not cover another request")
            self._write(after)

    def settle(self, expected: Usage, actual: Usage) -> None:
        """Replace what was reserved by what was used."""
        with self._locked():
            self._write(self.spent() + actual + Usage(*(-value for value in asdict(expected).values())))

    def _locked(self) -> FileLock:
        return FileLock(self._path.with_suffix(".lock"))

    def _write(self, usage: Usage) -> None:
        partial = self._path.with_suffix(f".{os.getpid()}.{threading.get_ident()}.partial")
        partial.write_text(json.dumps(asdict(usage)))
        os.replace(partial, self._path)
