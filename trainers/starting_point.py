"""Whether the model that a stage continues from is what the stage before it leaves."""

import json
from pathlib import Path
from typing import Any

from transformers.utils.hub import cached_file

from trainers.config import StageArguments
from trainers.run_record import FILE_NAME

BEFORE = {2: (1, 2), 3: (2, 3)}  # a stage, and those it continues from: the one before, or itself on other data


def check_starting_point(arguments: StageArguments) -> None:
    """Read the `run.json` beside the weights; a model without one, made by other means, is taken as it is.

    Raises:
        ValueError: it is the output of another stage (unless `force`), or of a run that has not come to its end.
    """
    record = _record_of(arguments.model, arguments.revision) if arguments.model else None
    if record is None or arguments.stage not in BEFORE:
        return
    if record.get("status") != "finished":
        raise ValueError(
            f"model={arguments.model!r} holds a run that is {record.get('status')!r} (see {FILE_NAME}): finish it "
            "with --resume_from_checkpoint true, or name the output_dir of a finished one."
        )
    if record.get("stage") not in BEFORE[arguments.stage] and not arguments.force:
        raise ValueError(
            f"model={arguments.model!r} was trained by stage {record.get('stage')}, and stage {arguments.stage} "
            f"continues from stage {arguments.stage - 1}: name the output_dir of that stage, or pass --force to start "
            "from this one all the same."
        )


def _record_of(name: str, revision: str | None) -> dict[str, Any] | None:
    try:
        path = cached_file(
            name,
            FILE_NAME,
            revision=revision,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        return None if path is None else json.loads(Path(path).read_text())
    except (OSError, ValueError):
        return None  # loading the model will tell what is wrong with it
