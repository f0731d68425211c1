"""3DSRBench (oscarqjh/3DSRBench_lmmseval): height, location, orientation and several objects in COCO photographs."""

import re
from typing import Any

from datasets import Image

from evaluators.language.questions import Question, Questions, with_options
from evaluators.language.rows import content_digest, decode, read_rows

CATEGORIES = ("height", "location", "orientation", "multi_object")
LETTERS = ("A", "B", "C", "D")
COLUMNS = ("image", "question", *LETTERS, "answer", "category")
TERMS = "pass oscarqjh/3DSRBench_lmmseval or a copy of that repository"
# of the configuration 3dsr_circular: VIN6MS3J, VIN6MS3J-1, VIN6MS3J-flip, VIN6MS3J-flip-1
_VARIANT = re.compile(r"^(?P<thing>[^-]+)(?P<flip>-flip)?(?:-(?P<turn>\d+))?$")


def load_threedsrbench(data: str, circular: bool) -> Questions:
    """Load split test, every question once or, `circular`, with all orders of its options and mirrored.

    Raises:
        ValueError: no such data, or it has another layout.
    """
    configuration, name = ("3dsr_circular", "qid") if circular else ("3dsr", "index")
    rows = read_rows(data, configuration, "test", (*COLUMNS, name), TERMS).cast_column("image", Image(decode=False))
    questions, dropped = [], 0
    for index, row in enumerate(rows):
        category = next((one for one in CATEGORIES if row["category"].startswith(one)), None)
        if category is None:
            raise ValueError(f"data {data!r} has the category {row['category']!r}: {TERMS}")
        digest = content_digest([row["image"]])
        if digest is None:
            dropped += 1
            continue
        thing, variant = variant_of(str(row[name])) if circular else (digest, 0)
        choices = tuple(row[letter] for letter in LETTERS if row[letter] and row[letter].lower() != "nan")
        questions.append(
            Question(
                thing=thing,
                category=category,
                text=with_options(row["question"], choices),
                answer=row["answer"],
                choices=choices,
                images=_image_of(rows, index),
                num_images=1,
                digest=digest,
                variant=variant,
            )
        )
    return Questions(data, "test", tuple(questions), {"unreadable_file": dropped} if dropped else {})


def variant_of(qid: str) -> tuple[str, int]:
    """The question that a variant is of, and the variant's code: twice the turn of the options, plus 1 if mirrored.

    Raises:
        ValueError: for an id of another form.
    """
    found = _VARIANT.match(qid)
    if found is None:
        raise ValueError(f"qid {qid!r} is none of the forms ID, ID-1, ID-flip, ID-flip-1: {TERMS}")
    return found["thing"], 2 * int(found["turn"] or 0) + (found["flip"] is not None)


def _image_of(rows: Any, index: int) -> Any:
    return lambda: [decode(rows[index]["image"])]
