"""What is said to a chat model and how its answers are read: prompts, messages, images, JSON that fits a schema."""

import base64
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from PIL import Image

from dataset_builders.budget import Usage, image_tokens, text_tokens

MAX_SIDE_PX = 1024  # of an image that is sent
MAX_PROBLEMS = 5  # told to a model that is asked again
PROMPTS = Path(__file__).parent / "prompts"
Check = Callable[[Any], list[str]]  # problems of a parsed answer, none if it may be used
Schema = dict[str, Any]


@dataclass(frozen=True)
class Message:
    """One message; images come before the text, each introduced by its number when there are several."""

    role: str
    text: str
    images: tuple[bytes, ...] = ()

    def content(self, show: Callable[[bytes], dict[str, Any]]) -> dict[str, Any]:
        """In OpenAI's form, with images as `show` writes them."""
        if not self.images:
            return {"role": self.role, "content": self.text}
        parts: list[dict[str, Any]] = []
        for number, image in enumerate(self.images, start=1):
            if len(self.images) > 1:
                parts.append({"type": "text", "text": f"Image {number}:"})
            parts.append(show(image))
        return {"role": self.role, "content": [*parts, {"type": "text", "text": self.text}]}


def as_data_url(image: bytes) -> dict[str, Any]:
    """A JPEG as part of a message."""
    encoded = base64.b64encode(image).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{encoded}"}}


def photograph(image: np.ndarray) -> bytes:
    """An image, (H, W, 3), uint8, as it is shown to a chat model: JPEG, at most 1024 pixels a side."""
    picture = Image.fromarray(image)
    picture.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()


def read_prompt(prompt: str, /, **slots: object) -> str:
    """A prompt from `prompts/` with its slots filled."""
    return Template(_prompt_file(prompt)).substitute({name: str(value) for name, value in slots.items()})


@cache
def _prompt_file(name: str) -> str:
    return (PROMPTS / f"{name}.txt").read_text(encoding="utf-8").strip()


def with_schema(prompt: str, schema: Schema | None) -> str:
    """A prompt that states the schema of its answer: not every server enforces one."""
    return prompt if schema is None else f"{prompt}\n\n{read_prompt('schema', schema=json.dumps(schema))}"


def expected_usage(messages: Sequence[Message], answer_tokens: int) -> Usage:
    """What a request is expected to use before it is sent."""
    tokens = 0
    for one in messages:
        sizes = [Image.open(io.BytesIO(image)).size for image in one.images]
        tokens += text_tokens(one.text) + sum(image_tokens(*size) for size in sizes)
    return Usage(1, tokens, answer_tokens)


def parsed(text: str, schema: Schema | None, check: Check | None) -> tuple[Any, str]:
    """The answer that a text holds, and what is wrong with it ("" if nothing)."""
    if schema is None:
        answer: Any = text.strip()
        problems = [] if answer else ["it is empty"]
    else:
        answer, problems = _parsed_object(text, schema)
    if not problems and check is not None:
        problems = check(answer)
    return answer, "; ".join(problems[:MAX_PROBLEMS])


def _parsed_object(text: str, schema: Schema) -> tuple[Any, list[str]]:
    """The JSON object in a text, which may have words or a Markdown fence around it."""
    import jsonschema

    found = re.search(r"\{.*\}", text, re.DOTALL)
    if found is None:
        return None, ["it holds no JSON object"]
    try:
        answer = json.loads(found[0])
    except ValueError as error:
        return None, [f"it is no valid JSON ({error})"]
    validator = jsonschema.Draft202012Validator(schema)
    return answer, [f"{one.json_path}: {one.message}" for one in validator.iter_errors(answer)]
