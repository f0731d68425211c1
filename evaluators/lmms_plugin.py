"""The model `spatialboost_vlm` for lmms-eval, where both are installed (`pip install spatialboost lmms_eval`):

    lmms-eval --model spatialboost_vlm --model_args pretrained=outputs/stage3 --tasks cv_bench,blink --batch_size 8 \
        --output_path outputs/lmms

It is found by the entry point `lmms_eval.models`. Written against lmms_eval 0.7.3, which this package never needs.
"""

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest
from lmms_eval.protocol import ChatMessages
from PIL import Image
from tqdm import tqdm

from evaluators.data_sets.vsi_bench import read_frames
from evaluators.language.config import state_of
from evaluators.language.vlm import Prompt, load_vlm

MAX_NEW_TOKENS = 256  # where a task does not say


def manifests() -> list[ModelManifest]:
    """What lmms-eval is told."""
    return [ModelManifest("spatialboost_vlm", chat_class_path=f"{__name__}.SpatialBoostVLM")]


class SpatialBoostVLM(lmms):
    """A folder or Hub id that `spatialboost evaluate --base-vlm` takes, too; answers are greedy."""

    is_simple = False  # lmms-eval hands over messages, not strings

    def __init__(
        self,
        pretrained: str,
        device: str | None = None,
        dtype: str = "bfloat16",
        batch_size: int | str = 1,
        max_frames: int | str = 32,
        max_batch_size: int | str | None = None,
    ) -> None:
        """Load the model.

        Args:
            pretrained: folder or Hub id.
            device: None = that of the process.
            dtype: what it computes in.
            batch_size: prompts that are answered together.
            max_frames: evenly spread frames that stand for a video.
            max_batch_size: lmms-eval passes it on; batches do not grow.

        Raises:
            ValueError: no such model.
        """
        super().__init__()
        self.accelerator = Accelerator()
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        self.device = torch.device(device) if device and self._world_size == 1 else self.accelerator.device
        self.vlm = load_vlm(pretrained, state_of(pretrained), self.device, getattr(torch, dtype))
        self.batch_size, self.max_frames = int(batch_size), int(max_frames)

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Answer every request; an answer is cut where a string of its task's `until` begins."""
        answers: dict[int, str] = {}
        by_length: dict[int, list[int]] = {}
        for index, request in enumerate(requests):
            by_length.setdefault(int(request.args[2].get("max_new_tokens", MAX_NEW_TOKENS)), []).append(index)
        with tqdm(total=len(requests), desc="answers", disable=self.rank != 0) as progress:
            for max_new_tokens, indices in by_length.items():
                for start in range(0, len(indices), self.batch_size):
                    batch = indices[start : start + self.batch_size]
                    texts = self.vlm.answer_batch([self._prompt(requests[i]) for i in batch], max_new_tokens)
                    answers |= {i: _cut(text, requests[i].args[2].get("until")) for i, text in zip(batch, texts)}
                    progress.update(len(batch))
        return [answers[index] for index in range(len(requests))]

    def loglikelihood(self, requests: list[Any]) -> Any:
        """Not offered: tasks that compare likelihoods of answers are none of ours.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("spatialboost_vlm answers questions; choose tasks of output_type generate_until")

    def generate_until_multi_round(self, requests: list[Any]) -> Any:
        """Not offered.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("spatialboost_vlm answers in one round; choose tasks of output_type generate_until")

    def _prompt(self, request: Any) -> Prompt:
        """The images and messages of a request; a video becomes its frames."""
        _, doc_to_messages, _, doc_id, task, split = request.args
        chat = ChatMessages(messages=doc_to_messages(self.task_dict[task][split][doc_id]))
        images: list[Image.Image] = []
        messages = []
        for message in chat.messages:
            content = []
            for part in message.content:
                if part.type == "text":
                    content.append({"type": "text", "text": part.text})
                    continue
                shown = read_frames(Path(part.url), self.max_frames) if part.type == "video" else [_image(part.url)]
                images += shown
                content += [{"type": "image"}] * len(shown)
            messages.append({"role": message.role, "content": content})
        return Prompt(images, messages)


def _image(image: Any) -> Image.Image:
    return (image if isinstance(image, Image.Image) else Image.open(image)).convert("RGB")


def _cut(text: str, until: str | list[str] | None) -> str:
    """The text up to the first of the strings; blank lines, lmms-eval's default, end no answer of a chat model."""
    for end in [until] if isinstance(until, str) else until or []:
        text = text.split(end)[0] if end.strip() else text
    return text.strip()
