"""Processor of the vision-language model: image processor + tokenizer + chat template."""

from bisect import bisect_right
from typing import Any, Self

import torch
from transformers import ProcessorMixin

from .patch_tokens import as_pair, shuffled_grid

IMAGE_TOKEN = "<image>"

# ChatML. Only what stands between the generation tags carries loss: the answers and their end-of-turn token.
CHAT_TEMPLATE = """\
{%- macro render(content) -%}
{%- if content is string -%}{{ content }}{%- else -%}
{%- for part in content -%}
{%- if part['type'] == 'image' -%}{{ '<image>' }}{%- else -%}{{ part['text'] }}{%- endif -%}
{%- endfor -%}{%- endif -%}
{%- endmacro -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\n' -}}
{%- if message['role'] == 'assistant' -%}
{%- generation -%}{{- render(message['content']) + '<|im_end|>' -}}{%- endgeneration -%}
{{- '\n' -}}
{%- else -%}
{{- render(message['content']) + '<|im_end|>\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"""


class SpatialBoostProcessor(ProcessorMixin):
    """Turns conversations about one or several images into model inputs.

    Each image's `<image>` becomes as many image tokens as the encoder gives for its size:
    (H / patch height) * (W / patch width), plus one if the model feeds the [CLS] token; with a pixel shuffle of f in
    the projector, 1 / f^2 of them.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        patch_size: int | list[int] = 16,
        num_prefix_tokens: int = 0,
        chat_template: str | None = None,
        projector_shuffle: int = 1,
        **kwargs: Any,
    ) -> None:
        """`num_prefix_tokens` is 1 for a model with `use_cls_token`, else 0; `projector_shuffle` is the model's."""
        self.patch_size = list(as_pair(patch_size))
        self.num_prefix_tokens = num_prefix_tokens
        self.projector_shuffle = projector_shuffle
        self.image_token = IMAGE_TOKEN
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        super().__init__(image_processor, tokenizer, chat_template=chat_template or CHAT_TEMPLATE)

    @classmethod
    def from_components(
        cls,
        image_processor: Any,
        tokenizer: Any,
        patch_size: int | list[int],
        num_prefix_tokens: int = 0,
        projector_shuffle: int = 1,
    ) -> Self:
        """Join the parts; the tokenizer gets the image, turn (ChatML) and padding tokens that it lacks.

        The end of a turn, `<|im_end|>`, becomes the end of generation.

        Raises:
            ValueError: blocks of `projector_shuffle` patches do not fill the grid of the image processor's size.
        """
        tokenizer.add_tokens([IMAGE_TOKEN, "<|im_start|>", "<|im_end|>"], special_tokens=True)
        tokenizer.eos_token = "<|im_end|>"
        if tokenizer.pad_token is None or tokenizer.pad_token == tokenizer.eos_token:
            tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
        processor = cls(image_processor, tokenizer, patch_size, num_prefix_tokens, projector_shuffle=projector_shuffle)
        size = image_processor.size
        processor.num_image_tokens(size["height"], size["width"])
        return processor

    def num_image_tokens(self, height: int, width: int) -> int:
        """How many image tokens stand for an image of that size in pixels, as the encoder reads it.

        Raises:
            ValueError: blocks of `projector_shuffle` patches do not fill its grid.
        """
        patch_height, patch_width = self.patch_size
        rows, columns = shuffled_grid((height, width), (patch_height, patch_width), self.projector_shuffle)
        return rows * columns + self.num_prefix_tokens

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: Any) -> str:
        """The image tokens that stand for image number `image_idx`."""
        return self.image_token * self.num_image_tokens(*image_inputs["pixel_values"][image_idx].shape[-2:])

    def _adjust_assistant_masks_indices(self, processed_dict: dict[str, Any], generation_indices: Any) -> Any:
        """As the base class does it, all tokens at once: it walks every token for every answer, which is slow."""
        offsets = processed_dict.pop("offset_mapping")
        replaced = processed_dict.pop("text_replacement_offsets", None)
        masks = []
        for row, spans in enumerate(generation_indices):
            starts, ends = torch.as_tensor(offsets[row]).unbind(-1)  # (L,) characters each
            replacements = replaced[row] if replaced is not None and len(replaced) else []
            # a span moves by what the placeholders before it have grown to
            placeholder_ends = [replacement["span"][1] for replacement in replacements]
            grown = [0, *(r["new_span"][1] - r["span"][1] for r in replacements)]
            moved = [[char + grown[bisect_right(placeholder_ends, char)] for char in span] for span in spans]
            first, last = torch.tensor(moved, dtype=torch.long).reshape(-1, 2, 1).unbind(1)  # (answers, 1)
            masks.append(((starts < last) & (ends > first)).any(0).long().tolist())
        processed_dict["assistant_masks"] = masks
        return processed_dict


__all__ = ["SpatialBoostProcessor"]
