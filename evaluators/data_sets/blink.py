"""BLINK (BLINK-Benchmark/BLINK): the three subtasks that are about space; answers of split test are not public."""

from collections.abc import Mapping
from typing import Any

from datasets import Image

from evaluators.language.questions import Question, Questions
from evaluators.language.rows import content_digest, decode, read_rows

SUBTASKS = ("Relative_Depth", "Spatial_Relation", "Multi-view_Reasoning")
IMAGES = ("image_1", "image_2", "image_3", "image_4")
COLUMNS = (*IMAGES, "choices", "answer", "prompt")
TERMS = "pass BLINK-Benchmark/BLINK or a copy of that repository"


def load_blink(data: str) -> Questions:
    """Load split val of the three subtasks.

    Raises:
        ValueError: no such data, or it has another layout.
    """
    questions, dropped = [], 0
    for subtask in SUBTASKS:
        rows = read_rows(data, subtask, "val", COLUMNS, TERMS)
        for name in IMAGES:
            rows = rows.cast_column(name, Image(decode=False))
        for index, row in enumerate(rows):
            question = _question(rows, index, row, subtask)
            questions += [question] if question else []
            dropped += question is None
    return Questions(data, "val", tuple(questions), {"unreadable_file": dropped} if dropped else {})


def _question(rows: Any, index: int, row: Mapping[str, Any], subtask: str) -> Question | None:
    present = [name for name in IMAGES if row[name] is not None]
    digest = content_digest([row[name] for name in present])
    if digest is None:
        return None
    return Question(
        thing=digest,
        category=subtask,
        text=f"{row['prompt']}\nAnswer with the letter of the right option.",
        answer=row["answer"].strip("()"),
        choices=tuple(row["choices"]),
        images=lambda: [decode(rows[index][name]) for name in present],
        num_images=len(present),
        digest=digest,
    )
