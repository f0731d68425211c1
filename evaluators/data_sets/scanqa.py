"""ScanQA: questions about ScanNet's scans with free-form answers; validation is what is reported.

ROOT/ScanQA_v1.0_train.json, ScanQA_v1.0_val.json    lists of scene_id, question, answers (also in ROOT/qa)
ROOT/scans/                                          ScanNet, see `scannet`, or elsewhere
"""

from pathlib import Path

from evaluators.data_sets.scannet import load_questions, read_json
from evaluators.scenes.language_config import Question, QuestionData

HOW_TO_GET = "download it from github.com/ATR-DBI/ScanQA"


def load(data: str, scannet: str | None, limit: int | None = None, frame_step: int = 20) -> QuestionData:
    """Load train and val.

    Raises:
        ValueError: files are missing or in another layout.
    """
    questions = {split: _read(Path(data), f"ScanQA_v1.0_{split}.json") for split in ("train", "val")}
    return load_questions(data, scannet, frame_step, questions, limit)


def _read(root: Path, name: str) -> list[Question]:
    try:
        return [
            Question(row["scene_id"], row["question"], tuple(map(str, row["answers"])))
            for row in read_json(root, name, ("", "qa"), HOW_TO_GET)
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{name} in {str(root)!r} lacks {error} (test splits have no answers): {HOW_TO_GET}"
        ) from error
