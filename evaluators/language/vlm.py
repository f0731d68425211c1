"""A vision-language model that answers: ours, or any that transformers knows."""

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from PIL import Image
from tqdm import tqdm
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel

import modeling_spatialboost  # noqa: F401  (ours are known to the Auto classes from here on)
from evaluators.encoders import hash_model, read_processor
from modeling_spatialboost.encoder_loading import first_line


class Prompt(NamedTuple):
    """What is asked: images, and messages that end with the user's, their image parts in the order of the images."""

    images: list[Image.Image]
    messages: list[dict[str, Any]]


@dataclass(frozen=True)
class VisionLanguageModel:
    """A frozen vision-language model with its processor.

    Attributes:
        name: the folder or id it was loaded from.
        model: in eval mode.
        processor: images and chats to model inputs.
        weights_hash: of configuration, code and weights.
    """

    name: str
    model: PreTrainedModel
    processor: Any
    weights_hash: str

    def describe(self) -> dict[str, Any]:
        """Return what a report prints about the model, under the names of `Encoder.describe`."""
        config = self.model.config
        vision, text = getattr(config, "vision_config", config), getattr(config, "text_config", config)
        preprocessing, size_px = read_processor(self.processor.image_processor)
        return {
            "name": self.name,
            "revision": None,
            "class": f"{type(self.model).__module__}.{type(self.model).__name__}",
            "model_type": config.model_type,
            "num_hidden_layers": getattr(text, "num_hidden_layers", None),
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "patch_size_px": getattr(vision, "patch_size", None),
            "hidden_size": getattr(text, "hidden_size", None),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "preprocessing": asdict(preprocessing),
            "weights_hash": self.weights_hash,
            "resolution_px": list(size_px),
        }

    def answer(
        self, prompt_of: Callable[[int], Prompt], count: int, max_new_tokens: int, batch_size: int, about: str = ""
    ) -> list[str]:
        """Answer greedily, in batches; under `accelerate launch` each process answers its share.

        Args:
            prompt_of: the prompt of a place, whose images are decoded batch by batch.
            count: how many prompts there are.
            max_new_tokens: an answer that has not ended by then is cut.
            batch_size: prompts per batch, padded on the left.
            about: for the progress bar.

        Returns:
            The texts without special tokens, in the order of the prompts.
        """
        state = PartialState()
        with state.split_between_processes(list(range(count))) as mine:
            batches = [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]
            shown = tqdm(batches, desc=f"answers {about}", unit="batch", disable=not state.is_main_process)
            texts = [
                text for batch in shown for text in self.answer_batch([prompt_of(i) for i in batch], max_new_tokens)
            ]
        return gather_object(texts) if state.num_processes > 1 else texts

    @torch.inference_mode()
    def answer_batch(self, prompts: list[Prompt], max_new_tokens: int) -> list[str]:
        """Answer greedily, all prompts at once, in this process."""
        chats = [
            self.processor.apply_chat_template(prompt.messages, tokenize=False, add_generation_prompt=True)
            for prompt in prompts
        ]
        images = [prompt.images for prompt in prompts]
        inputs = self.processor(
            text=chats,
            images=images if any(images) else None,
            padding=True,
            padding_side="left",
            return_tensors="pt",
        ).to(self.model.device, self.model.dtype)
        generated = self.model.generate(**inputs, max_new_tokens=max_new_tokens)  # (B, prompt + answer)
        answers = generated[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in self.processor.tokenizer.batch_decode(answers, skip_special_tokens=True)]


# the last one, for the next task asks the same
LOADED: dict[tuple[Any, ...], VisionLanguageModel] = {}


def load_vlm(name: str, state: str, device: torch.device, dtype: torch.dtype) -> VisionLanguageModel:
    """Load a model and its processor, or take the last one again; two large ones need not fit at once.

    Args:
        name: folder or Hub id.
        state: of its files, so that changed ones are loaded again.
        device: where it answers.
        dtype: what it computes in.

    Raises:
        ValueError: it cannot be loaded, has no chat template, or lacks weights.
    """
    key = (name, state, device, dtype)
    if key not in LOADED:
        LOADED.clear()
        LOADED[key] = _load(name, device, dtype)
    return LOADED[key]


def _load(name: str, device: torch.device, dtype: torch.dtype) -> VisionLanguageModel:
    try:
        model, loading = AutoModelForImageTextToText.from_pretrained(
            name, dtype=dtype, trust_remote_code=True, output_loading_info=True
        )
        processor = AutoProcessor.from_pretrained(name, trust_remote_code=True)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{name!r} is no vision-language model with a processor: pass a folder that a stage of `spatialboost "
            f"train` wrote, or a Hub id ({first_line(error)})"
        ) from error
    if loading["missing_keys"]:
        missing = sorted(loading["missing_keys"])
        raise ValueError(f"{name!r} lacks {len(missing)} weights ({missing[0]}, ...): pass a complete checkpoint")
    if not getattr(processor, "chat_template", None):
        raise ValueError(f"{name!r} has no chat template: pass a model that was tuned on conversations")
    model = model.requires_grad_(False).eval().to(device)
    model.generation_config = _greedy(model, processor.tokenizer)
    return VisionLanguageModel(name, model, processor, hash_model(model))


def _greedy(model: PreTrainedModel, tokenizer: Any) -> Any:
    """The model's own generation settings without any chance in them; the end of a turn ends an answer."""
    settings = copy.deepcopy(model.generation_config)
    settings.update(do_sample=False, num_beams=1, temperature=None, top_p=None, top_k=None, max_length=None)
    ends = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
    settings.eos_token_id = sorted({end for end in (*ends, tokenizer.eos_token_id) if end is not None})
    settings.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return settings
