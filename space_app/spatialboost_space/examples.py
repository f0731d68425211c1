"""The examples of the Space: pictures that our own renderer drew, with what is known about them."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "examples"


@lru_cache(maxsize=1)
def examples() -> list[dict[str, Any]]:
    """`name`, `file` (absolute), `alt`, `questions`, `field_of_view_degrees`, `objects` (name and region) of each."""
    rows = json.loads((FOLDER / "examples.json").read_text(encoding="utf-8"))
    return [{**row, "file": str(FOLDER / row["file"])} for row in rows]


def files() -> list[str]:
    """The pictures."""
    return [row["file"] for row in examples()]
