"""SQA3D: questions from a situation in one of ScanNet's scans; the test split is what is reported.

ROOT/v1_balanced_questions_{train,test}_scannetv2.json          scene_id, situation, question, question_id
ROOT/v1_balanced_sqa_annotations_{train,test}_scannetv2.json    question_id, answers (both also in ROOT/balanced)
ROOT/scans/                                                     ScanNet, see `scannet`, or elsewhere
"""

from pathlib import Path
from typing import Any

from evaluators.data_sets.scannet import load_questions, read_json
from evaluators.scenes.language_config import Question, QuestionData

HOW_TO_GET = "download sqa_task.zip as github.com/SilongYong/SQA3D says"
PLACES = ("", "balanced", "sqa_task/balanced")


def load(data: str, scannet: str | None, limit: int | None = None, frame_step: int = 20) -> QuestionData:
    """Load train and test.

    Raises:
        ValueError: files are missing or in another layout.
    """
    questions = {split: _read(Path(data), split) for split in ("train", "test")}
    return load_questions(data, scannet, frame_step, questions, limit)


def _read(root: Path, split: str) -> list[Question]:
    def rows(kind: str, key: str) -> list[dict[str, Any]]:
        return read_json(root, f"v1_balanced_{kind}_{split}_scannetv2.json", PLACES, HOW_TO_GET)[key]

    try:
        answers = {
            row["question_id"]: tuple(one["answer"] for one in row["answers"])
            for row in rows("sqa_annotations", "annotations")
        }
        return [
            Question(row["scene_id"], f"{row['situation']} {row['question']}", answers[row["question_id"]])
            for row in rows("questions", "questions")
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(f"split {split} of SQA3D in {str(root)!r} lacks {error}: {HOW_TO_GET}") from error
