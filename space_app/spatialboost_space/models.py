"""The models of the Space, loaded when they are first needed, through transformers alone."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from spatialboost_space.settings import PARTS, limits, part

if TYPE_CHECKING:
    import torch

try:  # ZeroGPU lends a GPU to the functions that ask for one
    import spaces

    on_gpu: Callable[..., Any] = spaces.GPU
except ImportError:

    def on_gpu(function: Callable[..., Any]) -> Callable[..., Any]:
        """The function itself: this machine keeps its devices."""
        return function


WHAT = {
    "vlm": "vision-language model",
    "depth_base": "depth model of the base encoder",
    "depth_boosted": "depth model of the boosted encoder",
    "data": "data set of its own",
}
SECONDS_FOR_A_TOKEN = 60.0


class Unavailable(RuntimeError):
    """A part that the operator has not set, or that cannot be loaded; the message is for visitors."""


@dataclass(frozen=True)
class Loaded:
    """A model in eval mode and its processor."""

    model: Any
    processor: Any


_LOADED: dict[str, Loaded] = {}
_LOCK = threading.Lock()


def is_set(name: str) -> bool:
    """Whether the operator has set this part."""
    return part(name) is not None


def absence(*names: str) -> str:
    """A sentence for each of the parts that the operator has not set; empty where all are there."""
    sentences = [
        f"This Space has no {WHAT[name]}: its operator sets {PARTS[name]} or SPATIALBOOST_BUNDLE."
        for name in names
        if not is_set(name)
    ]
    return " ".join(sentences)


def load(name: str) -> Loaded:
    """The model of a part, from the folder or Hub id that the settings name.

    Raises:
        Unavailable: none is set, or it does not load; the reason is in the server's log.
    """
    with _LOCK:
        if name not in _LOADED:
            source = part(name)
            if source is None:
                raise Unavailable(absence(name))
            try:
                _LOADED[name] = _load(name, source)
            except Unavailable:
                raise
            except Exception as error:
                print(f"{PARTS[name]}={source!r}: {error}", flush=True)
                raise Unavailable(f"The {WHAT[name]} could not be loaded; the server's log says why.") from error
        return _LOADED[name]


def _load(name: str, source: str) -> Loaded:
    import torch
    from transformers import (
        AutoImageProcessor,
        AutoModelForDepthEstimation,
        AutoModelForImageTextToText,
        AutoProcessor,
    )

    identifier, _, revision = source.partition("@")
    common = {"revision": revision or "main", "trust_remote_code": True}
    kind, processor_kind = (
        (AutoModelForImageTextToText, AutoProcessor)
        if name == "vlm"
        else (AutoModelForDepthEstimation, AutoImageProcessor)
    )
    model, loading = kind.from_pretrained(identifier, use_safetensors=True, output_loading_info=True, **common)
    if loading["missing_keys"]:
        raise Unavailable(
            f"The {WHAT[name]} lacks weights ({min(loading['missing_keys'])}, ...): it was not trained for this."
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        model = model.float()  # half precision is slow where it is emulated
    model = model.requires_grad_(False).eval().to(device)
    return Loaded(model, processor_kind.from_pretrained(identifier, **common))


def warm_up() -> None:
    """Load every part that is set and use each once, so that the first visitor does not wait."""
    blank = Image.new("RGB", (64, 64), (127, 127, 127))
    uses: dict[str, Callable[[], Any]] = {
        "depth_base": lambda: depth_m("depth_base", blank),
        "depth_boosted": lambda: depth_m("depth_boosted", blank),
        "vlm": lambda: list(stream_answer([blank], [{"role": "user", "content": [{"type": "image"}]}], 1)),
    }
    for name, use in uses.items():
        if is_set(name):
            try:
                use()
            except Unavailable as error:
                print(error, flush=True)


def _pixels(loaded: Loaded, image: Image.Image) -> "torch.Tensor":
    inputs = loaded.processor(image, return_tensors="pt")
    return inputs["pixel_values"].to(loaded.model.device, loaded.model.dtype)


@on_gpu
def depth_m(name: str, image: Image.Image) -> np.ndarray:
    """(H, W) metres of an image, float32, by "depth_base" or "depth_boosted"."""
    import torch

    loaded = load(name)
    with torch.inference_mode():
        outputs = loaded.model(pixel_values=_pixels(loaded, image))
        sized = loaded.processor.post_process_depth_estimation(outputs, [(image.height, image.width)])
    return sized[0]["predicted_depth"].float().cpu().numpy()


@on_gpu
def patch_features(name: str, image: Image.Image) -> np.ndarray:
    """(h, w, C) patch features of an image, float32, by the encoder inside "depth_base" or "depth_boosted"."""
    import torch

    loaded = load(name)
    with torch.inference_mode():
        features, _ = loaded.model.patch_features(_pixels(loaded, image))
    return features[0].permute(1, 2, 0).float().cpu().numpy()


def alpha_table() -> list[dict[str, float]]:
    """Per boosted layer `layer`, `mean`, `min`, `max` of alpha, of the first boosted encoder that is set."""
    if is_set("depth_boosted") or not is_set("vlm"):
        return load("depth_boosted").model.alpha_table()
    return load("vlm").model.vision_tower.alpha_table()


def image_grid() -> tuple[int, int] | None:
    """Columns and rows of pixels that the vision-language model sees; None where it is absent or has no one size."""
    source = part("vlm")
    try:
        return _grid(source) if source else None
    except Exception as error:  # a visitor is told when the model is needed
        print(f"{PARTS['vlm']}={source!r}: {error}", flush=True)
        return None


@lru_cache(maxsize=2)
def _grid(source: str) -> tuple[int, int] | None:
    """From the processor alone: the first visitor need not wait for the model."""
    from transformers import AutoProcessor

    identifier, _, revision = source.partition("@")
    processor = AutoProcessor.from_pretrained(identifier, revision=revision or "main", trust_remote_code=True)
    size = getattr(getattr(processor, "image_processor", None), "size", None) or {}
    return (size["width"], size["height"]) if size.get("width") and size.get("height") else None


def _check_texts(messages: list[dict[str, Any]], processor: Any) -> None:
    """No text may pose as an image or as the end of a turn."""
    control_words = {*processor.tokenizer.all_special_tokens, *processor.tokenizer.get_added_vocab(), "<image>"}
    texts = [part["text"] for message in messages for part in message["content"] if part["type"] == "text"]
    if any(word in text for word in control_words for text in texts):
        raise Unavailable("The text holds one of the model's control words, such as <image>: write it without.")


@on_gpu
def stream_answer(
    images: list[Image.Image], messages: list[dict[str, Any]], max_new_tokens: int | None = None
) -> Iterator[str]:
    """The answer to a conversation, growing; closing the iterator stops the model.

    Args:
        images: in the order of the image parts of `messages`.
        messages: TRL's vision format, ending with the user's.
        max_new_tokens: of the answer; never more than the limit.

    Raises:
        Unavailable: there is no model, the conversation is too long, or it holds the model's control words.
    """
    from transformers import StoppingCriteriaList, TextIteratorStreamer

    loaded, bounds = load("vlm"), limits()
    _check_texts(messages, loaded.processor)
    chat = loaded.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    inputs = loaded.processor(text=[chat], images=[images], return_tensors="pt")
    length = inputs["input_ids"].shape[1]
    longest = min(bounds.prompt_tokens, loaded.model.config.text_config.max_position_embeddings - bounds.answer_tokens)
    if length > longest:
        raise Unavailable(f"The conversation has {length} tokens; {longest} are the limit. Clear it or undo a turn.")
    stop = threading.Event()
    streamer = TextIteratorStreamer(
        loaded.processor.tokenizer, skip_prompt=True, skip_special_tokens=True, timeout=SECONDS_FOR_A_TOKEN
    )
    failure: list[Exception] = []

    def generate() -> None:
        try:
            loaded.model.generate(
                **inputs.to(loaded.model.device, loaded.model.dtype),
                max_new_tokens=min(max_new_tokens or bounds.answer_tokens, bounds.answer_tokens),
                do_sample=False,
                streamer=streamer,
                stopping_criteria=StoppingCriteriaList([lambda *_, **__: stop.is_set()]),
            )
        except Exception as error:  # told by the thread that reads
            failure.append(error)
            streamer.end()

    thread = threading.Thread(target=generate, daemon=True)
    thread.start()
    answer = ""
    try:
        for piece in streamer:
            answer += piece
            yield answer
    finally:
        stop.set()
        thread.join()
    if failure:
        raise failure[0]
