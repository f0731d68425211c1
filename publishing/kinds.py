"""What each kind of repository may hold, must hold and leaves at home."""

from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

OURS = "spatialboost"  # the tag in the metadata of every card of ours
RECORD = "spatialboost_adapter.json"  # what `save_adapter` writes beside the weights
TEXT_SUFFIXES = (".json", ".md", ".txt", ".yaml", ".yml", ".py", ".jinja", ".toml", ".css", ".html", ".js", ".cfg")
NAMES_WITHOUT_SUFFIX = ("LICENSE", "LICENCE", "NOTICE", ".gitattributes")


@dataclass(frozen=True)
class Kind:
    """One row per thing that can be pushed.

    Attributes:
        repo_type: of the Hub.
        suffixes: of the files that may travel; anything else is refused, since nothing of ours needs it.
        required: patterns that each must match a file.
        left_at_home: patterns of files that the commands write beside the artefact and that are no part of it.
    """

    repo_type: str
    suffixes: tuple[str, ...]
    required: tuple[str, ...]
    left_at_home: tuple[str, ...]


PICTURES = (".png", ".jpg", ".jpeg", ".webp")
ALWAYS_LEFT = ("__pycache__/*", "*/__pycache__/*", "*.log")
KINDS = {
    "model": Kind(
        "model",
        (".safetensors", ".json", ".py", ".md", ".txt", ".yaml", ".jinja", *PICTURES),
        ("README.md", "config.json", "*.safetensors"),
        ("checkpoint-*/*", "encoder/*", "decoder.safetensors", "runs/*", "trackio/*", "report.html",
         "trainer_state.json"),
    ),
    "adapter": Kind(
        "model",
        (".safetensors", ".json", ".md", ".txt", ".yaml", *PICTURES),
        ("README.md", RECORD, "spatialboost_adapter.safetensors"),
        (),
    ),
    "dataset": Kind(
        "dataset",
        (".parquet", ".json", ".md", ".txt", ".yaml", *PICTURES),
        ("README.md", "*.parquet"),
        ("*.html", "*.partial"),
    ),
    "space": Kind(
        "space",
        (".py", ".md", ".txt", ".toml", ".yaml", ".json", ".css", ".html", ".js", ".jinja", ".safetensors", ".parquet",
         *PICTURES),
        ("README.md", "app.py"),
        ("tests/*",),
    ),
}  # fmt: skip


def is_left_at_home(kind: Kind, path: str) -> bool:
    """Whether a file of the folder is no part of what is pushed: leftovers of training, hidden files, caches."""
    hidden = any(part.startswith(".") for part in path.split("/") if part not in (".eval_results", ".gitattributes"))
    return hidden or any(fnmatch(path, pattern) for pattern in (*kind.left_at_home, *ALWAYS_LEFT))


def may_travel(kind: Kind, path: str) -> bool:
    """Whether such a file belongs to this kind of repository, by its name."""
    name = path.rsplit("/", 1)[-1]
    return name in NAMES_WITHOUT_SUFFIX or name.lower().endswith(kind.suffixes)


def card_data(staged: Path) -> dict[str, Any]:
    """The metadata of README.md; empty where there is none."""
    from huggingface_hub import RepoCard

    card = staged / "README.md"
    if not card.is_file():
        return {}
    return RepoCard(card.read_text(encoding="utf-8"), ignore_metadata_errors=True).data.to_dict()
