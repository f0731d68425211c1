"""What a task is told whose answers come from a vision-language model instead of a probe."""

import argparse
import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from evaluators.contract import TaskConfig
from modeling_spatialboost.encoder_loading import first_line

QUICK_LOOK = 32  # conversations or groups of questions in the preset "cpu"


@dataclass(frozen=True, kw_only=True)
class LanguageConfig(TaskConfig):
    """Questions to a vision-language model; `--base-vlm` and `--boosted-vlm` fill the first three.

    Attributes:
        side: "base" or "boosted"; names the controls that are the model's own.
        vlm: folder or Hub id.
        vlm_state: of the files behind `vlm`, so that nothing kept on disk outlives them.
        batch_size: conversations that are answered together.
        max_new_tokens: of an answer; what is longer is cut.
        num_items: ask about so many conversations (or groups of questions about one thing) spread evenly over the
            data; None = all, and 32 in the preset "cpu".
        image_controls: ask again with grey images and with the images of others, at three times the price.
    """

    side: str = ""
    vlm: str | None = None
    vlm_state: str = ""
    batch_size: int = 8
    max_new_tokens: int = 64
    num_items: int | None = None
    image_controls: bool = True

    def for_side(self, side: str, vlm: str | None) -> Self:
        """The configuration of one side of the comparison."""
        return dataclasses.replace(self, side=side, vlm=vlm, vlm_state=state_of(vlm) if vlm else "")

    @property
    def wanted_items(self) -> int | None:
        """How many items to ask about, None for all of them."""
        asked = self.num_items or (QUICK_LOOK if self.preset == "cpu" else None)
        return min(filter(None, (asked, self.limit)), default=None)


def check_vlms(arguments: argparse.Namespace, asking: list[str]) -> str | None:
    """Say why nothing can be asked, None if both sides have a vision-language model.

    Args:
        arguments: of `spatialboost evaluate`.
        asking: the wanted tasks that ask one.

    Raises:
        ValueError: a task that is named has none, only one side has one, one cannot be loaded, or none is asked.
    """
    names = {side: getattr(arguments, f"{side}_vlm") for side in ("base", "boosted")}
    if not any(names.values()):
        why = "no vision-language models: pass --base-vlm outputs/stage2 --boosted-vlm outputs/stage3"
        if asking and arguments.tasks != "all":
            raise ValueError(f"--tasks {arguments.tasks}: {asking[0]} has {why}")
        return why
    if not asking:
        raise ValueError(f"--base-vlm and --boosted-vlm are asked nothing by --tasks {arguments.tasks}: remove them")
    for side, name in names.items():
        if name is None:
            raise ValueError(f"--{side}-vlm is missing: questions are asked of both sides, pass both or none")
        try:
            read_config(name)
        except ValueError as error:
            raise ValueError(f"--{side}-vlm: {error}") from error
    return None


def read_config(name: str) -> Any:
    """The configuration of the model in a folder or of a Hub id.

    Raises:
        ValueError: there is none.
    """
    from transformers import AutoConfig

    import modeling_spatialboost  # noqa: F401  (ours are known to the Auto classes from here on)

    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=True)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{name!r} is no vision-language model: pass a folder that a stage of `spatialboost train` wrote, or a "
            f"Hub id ({first_line(error)})"
        ) from error


def state_of(name: str) -> str:
    """Digest of the files of a folder by size and time, or the commit of a Hub id."""
    folder = Path(name)
    if not folder.is_dir():
        return str(getattr(read_config(name), "_commit_hash", ""))
    files = sorted(file for file in folder.iterdir() if file.is_file())
    state = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(state).encode()).hexdigest()[:16]
