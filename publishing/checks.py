"""What may not be published, found before anything is sent: one sentence each, with file and remedy."""

import json
import re
import struct
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path

from publishing.kinds import KINDS, OURS, RECORD, TEXT_SUFFIXES, Kind, card_data, may_travel
from publishing.parquet_texts import text_findings
from publishing.staging import local_path_pattern

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".dill", ".h5", ".pb")
SECRETS = {
    "a token of the Hub": re.compile(r"\bhf_[A-Za-z0-9]{30,}"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY"),
    "an API key": re.compile(
        r"\b(?:sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|AKIA[A-Z0-9]{16}|AIza[\w-]{35}"
        r"|xox[abprs]-[\w-]{10,}|glpat-[\w-]{20,}|wandb_v1_\w{20,})"
    ),
}
LOCAL_PATH = "a path of this machine"
MAX_TEXT_BYTES = 50_000_000
MAX_HEADER_BYTES = 25_000_000  # huggingface_hub's own limit for the head of a safetensors file


def problems(kind_name: str, staged: Path, folder: Path) -> list[str]:
    """All reasons not to publish the files of `staged`, which came from `folder`; empty if there is none."""
    kind, found = KINDS[kind_name], []
    names = sorted(path.relative_to(staged).as_posix() for path in staged.rglob("*") if not path.is_dir())
    for pattern in kind.required:
        if not any(fnmatch(name, pattern) for name in names):
            found.append(f"{pattern} is missing: a {kind_name} needs it.")
    paths = local_path_pattern(folder)
    for name in names:
        found += _file_problems(kind, staged / name, name, paths)
    if kind_name == "model":
        found += _code_problems(staged)
    if kind_name == "space":
        found += _space_problems(staged, names)
    return found


def _file_problems(kind: Kind, path: Path, name: str, paths: re.Pattern[str]) -> Iterator[str]:
    if looks_pickled(path):
        yield f"{name} is a pickle, which runs code in whoever loads it: save it as safetensors, or remove it."
    elif not may_travel(kind, name):
        yield f"{name} is no file that such a repository of ours holds: remove it from the folder."
    elif path.suffix == ".safetensors":
        yield from _safetensors_problems(path, name)
    elif path.suffix == ".parquet":
        yield from _parquet_problems(path, name, paths)
    elif path.suffix in TEXT_SUFFIXES or not path.suffix:
        yield from _text_problems(path, name, None if path.suffix == ".py" and kind is KINDS["model"] else paths)


def looks_pickled(path: Path) -> bool:
    """Whether a file is a pickle, or a zip that holds one, whatever it is called."""
    if path.suffix.lower() in PICKLE_SUFFIXES:
        return True
    with path.open("rb") as file:
        head = file.read(4)
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return path.suffix != ".safetensors" or not _has_safetensors_head(path)
    if head == b"PK\x03\x04":
        try:
            with zipfile.ZipFile(path) as archive:
                return any(name.endswith(".pkl") for name in archive.namelist())
        except zipfile.BadZipFile:
            return False
    return False


def _has_safetensors_head(path: Path) -> bool:
    try:
        return bool(safetensors_head(path))
    except ValueError:
        return False


def safetensors_head(path: Path) -> dict:
    """The JSON in front of the tensors.

    Raises:
        ValueError: the file does not begin as safetensors do.
    """
    with path.open("rb") as file:
        first = file.read(8)
        length = struct.unpack("<Q", first)[0] if len(first) == 8 else 0
        if not 0 < length <= MAX_HEADER_BYTES:
            raise ValueError(f"{path.name}: no head of safetensors")
        head = json.loads(file.read(length))  # UnicodeDecodeError and JSONDecodeError are ValueErrors
    if not isinstance(head, dict):
        raise ValueError(f"{path.name}: no head of safetensors")
    return head


def _safetensors_problems(path: Path, name: str) -> Iterator[str]:
    try:
        head = safetensors_head(path)
    except ValueError:
        yield f"{name} is damaged, it does not begin as safetensors do: save the model again."
        return
    told = json.dumps(head.get("__metadata__", {}))
    for what, pattern in SECRETS.items():
        if pattern.search(told):
            yield f"{name} holds {what} in its metadata: remove it there, and revoke it."


def _parquet_problems(path: Path, name: str, paths: re.Pattern[str]) -> Iterator[str]:
    from pyarrow.lib import ArrowException

    try:
        for column, what, found in text_findings(path, SECRETS | {LOCAL_PATH: paths}):
            yield f"{name}, column {column}, holds {what}{_remedy(what, found)}"
    except (ArrowException, OSError) as error:
        yield f"{name} cannot be read ({error}): build the data set again."


def _remedy(what: str, found: str) -> str:
    """A path is shown; a secret is not repeated on the screen, where it would end in a log."""
    return f", {found!r}: write a relative one." if what == LOCAL_PATH else ": remove it, and revoke it."


def _text_problems(path: Path, name: str, paths: re.Pattern[str] | None) -> Iterator[str]:
    if path.stat().st_size > MAX_TEXT_BYTES:
        yield f"{name} is a text of more than {MAX_TEXT_BYTES // 10**6} MB: publish it as Parquet, or remove it."
        return
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        yield f"{name} is no UTF-8 text, so it cannot be looked through for tokens and paths: save it as UTF-8."
        return
    for what, pattern in (SECRETS | ({LOCAL_PATH: paths} if paths else {})).items():
        for number, line in enumerate(lines, start=1):
            if found := pattern.search(line):
                yield f"{name}, line {number}, holds {what}{_remedy(what, found[0])}"
                break
    if path.suffix == ".json":
        try:
            content = json.loads("\n".join(lines))
        except ValueError as error:
            yield f"{name} is no JSON ({error}): write it again."
        else:
            if name in ("config.json", RECORD) and not isinstance(content, dict):
                yield f"{name} holds no settings: write it again."
    if name == "README.md" and (reason := unreadable_metadata("\n".join(lines))):
        yield f"README.md: its metadata cannot be read ({reason}): mend the block between the two lines of ---."
    elif name == "README.md" and OURS not in (card_data(path.parent).get("tags") or []):
        yield f"README.md: its metadata has no tag {OURS!r}, by which the next push knows its own: add it to `tags`."


def unreadable_metadata(card: str) -> str | None:
    """What is wrong with the YAML on top of a card; None for a good one, and for a card without."""
    import yaml
    from huggingface_hub import RepoCard

    try:
        RepoCard(card)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
        return " ".join(str(error).split())[:200]
    return None


def _code_problems(staged: Path) -> Iterator[str]:
    """Remote code must be this project's, byte for byte: people run it on trust."""
    spec = find_spec("modeling_spatialboost")
    assert spec is not None and spec.origin is not None  # a part of this project
    own = Path(spec.origin).parent
    for path in sorted(staged.rglob("*.py")):
        name = path.relative_to(staged).as_posix()
        original = own / name
        if name == "__init__.py" or "/" in name or not original.is_file():
            yield f"{name} is no file of modeling_spatialboost, and other code does not travel: remove it."
        elif original.read_bytes() != path.read_bytes():
            yield (
                f"{name} differs from modeling_spatialboost/{name}: load the model with this version of the project "
                "and save it again."
            )


def _space_problems(staged: Path, names: list[str]) -> Iterator[str]:
    if "README.md" not in names or unreadable_metadata((staged / "README.md").read_text(encoding="utf-8")):
        return
    data = card_data(staged)
    if data.get("sdk") not in ("gradio", "static", "docker"):
        yield f"README.md: sdk={data.get('sdk')!r} in its metadata; write sdk: gradio."
    if (main := data.get("app_file", "app.py")) not in names:
        yield f"README.md: app_file={main!r} is not in the folder."
    for name in (name for name in names if name.endswith(".py")):
        try:
            compile((staged / name).read_bytes(), name, "exec", dont_inherit=True)
        except (SyntaxError, ValueError) as error:
            yield f"{name} is no Python that runs: {error}."
