"""CV-Bench (nyu-visionx/CV-Bench): counting and relations in ADE20K and COCO, depth and distance in Omni3D."""

from typing import Any

from datasets import Image

from evaluators.language.questions import Question, Questions
from evaluators.language.rows import content_digest, decode, read_rows

SOURCES = ("ADE20K", "COCO", "Omni3D")
TASKS = ("Count", "Relation", "Depth", "Distance")
CATEGORIES = tuple(f"{source} {task}" for source in SOURCES for task in TASKS)
COLUMNS = ("image", "choices", "answer", "prompt", "source", "task")
TERMS = "pass nyu-visionx/CV-Bench or a copy of that repository"


def load_cv_bench(data: str) -> Questions:
    """Load split test of the configuration `default`, 2D and 3D.

    Raises:
        ValueError: no such data, it has another layout, or a source or task that we do not know.
    """
    rows = read_rows(data, "default", "test", COLUMNS, TERMS).cast_column("image", Image(decode=False))
    questions, dropped = [], 0
    for index, row in enumerate(rows):
        category, digest = f"{row['source']} {row['task']}", content_digest([row["image"]])
        if category not in CATEGORIES:
            raise ValueError(f"data {data!r} has questions of {category!r}, not only of {', '.join(SOURCES)}: {TERMS}")
        if digest is None:
            dropped += 1
            continue
        questions.append(
            Question(
                thing=digest,
                category=category,
                text=f"{row['prompt']}\nAnswer with the letter of the right option.",
                answer=row["answer"].strip("()"),
                choices=tuple(row["choices"]),
                images=_image_of(rows, index),
                num_images=1,
                digest=digest,
            )
        )
    return Questions(data, "test", tuple(questions), {"unreadable_file": dropped} if dropped else {})


def _image_of(rows: Any, index: int) -> Any:
    return lambda: [decode(rows[index]["image"])]
