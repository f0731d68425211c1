"""ScanRefer: descriptions of objects in ScanNet's scans; validation is what is reported.

ROOT/ScanRefer_filtered_train.json, ScanRefer_filtered_val.json    lists of scene_id, object_id, description
ROOT/scans/                                                        ScanNet with its objects, see `scannet`
"""

from pathlib import Path

from evaluators.data_sets.scannet import load_questions, read_json
from evaluators.scenes.language_config import Question, QuestionData

HOW_TO_GET = "fill in the form of github.com/daveredrum/ScanRefer"


def load(data: str, scannet: str | None, limit: int | None = None, frame_step: int = 20) -> QuestionData:
    """Load train and val.

    Raises:
        ValueError: files are missing or in another layout.
    """
    descriptions = {split: _read(Path(data), f"ScanRefer_filtered_{split}.json") for split in ("train", "val")}
    return load_questions(data, scannet, frame_step, descriptions, limit, with_objects=True)


def _read(root: Path, name: str) -> list[Question]:
    try:
        return [
            Question(row["scene_id"], row["description"], object_id=int(row["object_id"]))
            for row in read_json(root, name, ("",), HOW_TO_GET)
        ]
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ValueError):
            raise
        raise ValueError(f"{name} in {str(root)!r} lacks {error}: {HOW_TO_GET}") from error
