"""From the folder to exactly what is sent: leftovers stay at home, local paths become names, the card learns its id.

The staged folder holds links to the files that travel as they are, and rewritten copies of the few that do not.
"""

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from model_cards import CITATION, NOT_MEASURED, licence_chain, licence_data, render
from model_cards.sections import alpha_section, method_section, training_section
from publishing.kinds import RECORD, Kind, is_left_at_home

# Records of ours in which a folder of this machine becomes its last name
RUN = "run.json"
REWRITTEN = ("README.md", RUN, "results.json", "build_report.json")
MAX_REWRITTEN_BYTES = 50_000_000
COMMON_ROOTS = ("home", "root", "Users", "tmp", "mnt", "media", "scratch", "Volumes", "private")
CARD_VARIABLES = re.compile(r'^(\w+), revision = "\.", None\b.*$', re.MULTILINE)


def local_path_pattern(folder: Path) -> re.Pattern[str]:
    """Matches paths of this machine, or of machines like it: below a home, temporary or mounted folder.

    Windows' have a drive letter. URLs and paths of a web server do not match.
    """
    own = {path.resolve().parts[1] for path in (folder, Path.cwd(), Path.home(), Path(tempfile.gettempdir()))
           if len(path.resolve().parts) > 1}  # fmt: skip
    roots = "|".join(sorted(map(re.escape, own.union(COMMON_ROOTS))))
    return re.compile(rf"(?<![\w:/.<~-])/(?:{roots})(?:/[\w.+@~-]+)+|\b[A-Za-z]:\\[\\\w.+@~ -]+")


def stage(folder: Path, kind: Kind, staged: Path, repo_id: str, revision: str) -> list[str]:
    """Fill `staged` with what is sent of `folder`.

    Args:
        folder: what is published.
        kind: of it.
        staged: an empty folder.
        repo_id: what the card's code is to load.
        revision: the tag that it is to be pinned to.

    Returns:
        Files of `folder` that stay at home.

    Raises:
        ValueError: a link leads out of the folder.
    """
    pattern, left = local_path_pattern(folder), []
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            continue
        name = path.relative_to(folder).as_posix()
        if is_left_at_home(kind, name):
            left.append(name)
            continue
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{name!r} is a link that leads out of {str(folder)!r}: put the file itself there.")
        target = staged / name
        target.parent.mkdir(parents=True, exist_ok=True)
        text = _rewritten(path, name, pattern)
        if text is None:
            os.symlink(path.resolve(), target)
        else:
            target.write_text(text, encoding="utf-8")
    if (staged / RECORD).is_file() and not (staged / "README.md").exists():
        write_adapter_card(staged)
    pin_card(staged / "README.md", repo_id, revision)
    return left


def _rewritten(path: Path, name: str, pattern: re.Pattern[str]) -> str | None:
    """The text to send instead of a file's own; None = send it as it is."""
    if name == "config.json":
        return _without_origins(path, pattern)
    if name in REWRITTEN and path.stat().st_size < MAX_REWRITTEN_BYTES:
        text = path.read_text(encoding="utf-8")
        changed = pattern.sub(lambda found: re.split(r"[/\\]", found[0].rstrip("/\\"))[-1], text)
        return changed if changed != text else None
    return None


def _without_origins(path: Path, pattern: re.Pattern[str]) -> str | None:
    """config.json without the folders that its parts were loaded from; ids of the Hub stay."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None  # loading it will tell
    origins = [(part, key) for part in _mappings(config) for key in ("base_encoder", "_name_or_path") if part.get(key)]
    local = [(part, key) for part, key in origins if pattern.search(str(part[key])) or Path(str(part[key])).exists()]
    for part, key in local:
        part[key] = None if key == "base_encoder" else ""
    return json.dumps(config, indent=2, sort_keys=True) + "\n" if local else None


def _mappings(value: Any) -> list[dict[str, Any]]:
    """A JSON value's dictionaries, at any depth."""
    if isinstance(value, dict):
        return [value, *(one for inner in value.values() for one in _mappings(inner))]
    return [one for inner in value for one in _mappings(inner)] if isinstance(value, list) else []


def pin_card(card: Path, repo_id: str, revision: str) -> None:
    """Let the card's code load `repo_id` at `revision`: its line `NAME, revision = ".", None` gets both."""
    if not card.is_file():
        return
    text = card.read_text(encoding="utf-8")
    pinned = CARD_VARIABLES.sub(rf'\1, revision = "{repo_id}", "{revision}"', text)
    if pinned != text:
        card.unlink()  # it may be a link to the folder's own
        card.write_text(pinned, encoding="utf-8")


def write_adapter_card(folder: Path) -> None:
    """README.md of an adapter, with its pictures, from its record and from that of the run, if it is there."""
    from huggingface_hub import ModelCardData

    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    run = json.loads((folder / RUN).read_text(encoding="utf-8")) if (folder / RUN).is_file() else None
    base, model_type = record.get("base_encoder"), str(record.get("model_type"))
    data = ModelCardData(
        library_name="spatialboost",
        **licence_data(base),
        pipeline_tag="image-feature-extraction",
        base_model=base,
        base_model_relation="adapter" if base else None,
        tags=["spatialboost", "dual-channel-attention"],
    )
    card = render(
        "adapter_card",
        metadata=data.to_yaml().strip(),
        base=f"[{base}](https://huggingface.co/{base})" if base else f"a {model_type} encoder",
        num_parameters=f"{record.get('num_parameters', 0):,}",
        built_with=" Built with DINOv3." if model_type.startswith("dinov3") else "",
        base_argument="" if base else ", base=BASE",
        method=method_section(folder),
        training=training_section(run) if run else f"Not known: no {RUN} of the run lay beside it.",
        alpha=alpha_section(folder, run["alpha"]) if run else "",
        results=NOT_MEASURED,
        licences=licence_chain(base, model_type, "Attn_plus began as a copy of the base's attention. It and alpha"),
        citation=CITATION,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
