"""What the operator of the Space sets by environment variables, and the limits that protect its machine."""

import os
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

BUNDLE = "SPATIALBOOST_BUNDLE"
NOTE = "SPATIALBOOST_NOTE"  # a sentence of the operator for the top of the page
# part of a bundle (a folder of that name in it) -> the variable that names the part by itself
PARTS = {
    "vlm": "SPATIALBOOST_MODEL",
    "depth_base": "SPATIALBOOST_DEPTH_BASE",
    "depth_boosted": "SPATIALBOOST_DEPTH_BOOSTED",
    "data": "SPATIALBOOST_DATA",
}


@dataclass(frozen=True)
class Limits:
    """What a visitor may ask for; each is set by SPATIALBOOST_MAX_ and its name in capitals.

    Attributes:
        upload_bytes: of one file.
        image_pixels: of one image, before it is decoded.
        working_side_px: longer sides are reduced to this.
        images: of one question.
        turns: of one conversation.
        question_characters: of one question.
        prompt_tokens: of a conversation with its images.
        answer_tokens: of one answer.
        queued: calls that wait; the next is told that the queue is full.
        request_bytes: of anything that is not an upload.
        concurrent: calls that compute at the same time, over all tabs.
        cache_seconds: after which an upload is deleted.
    """

    upload_bytes: int = 8 * 2**20
    image_pixels: int = 24_000_000
    working_side_px: int = 1024
    images: int = 8
    turns: int = 24
    question_characters: int = 2000
    prompt_tokens: int = 4096
    answer_tokens: int = 256
    queued: int = 64
    request_bytes: int = 2**20
    concurrent: int = 2
    cache_seconds: int = 900


@lru_cache(maxsize=1)
def limits() -> Limits:
    """The limits, as the environment sets them when they are first needed.

    Raises:
        ValueError: a variable is not a positive whole number.
    """
    values = {}
    for field in fields(Limits):
        name = f"SPATIALBOOST_MAX_{field.name.upper()}"
        text = os.environ.get(name)
        if text is not None:
            if not text.isdecimal() or int(text) < 1:
                raise ValueError(f"{name}={text!r}: set a whole number of 1 or more.")
            values[field.name] = int(text)
    return Limits(**values)


@lru_cache(maxsize=1)
def _bundle_folder(name: str) -> Path:
    """The bundle's folder; that of a Hub id is downloaded."""
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    return Path(snapshot_download(repository, revision=revision or None))


def part(name: str) -> str | None:
    """The folder or Hub id of a part (a key of `PARTS`); None where the operator has set none."""
    own = os.environ.get(PARTS[name])
    if own:
        return own
    bundle = os.environ.get(BUNDLE)
    if not bundle:
        return None
    folder = _bundle_folder(bundle) / name
    return str(folder) if folder.is_dir() else None
