"""Processor of the vision-language model: image processor + tokenizer + chat template."""

from typing import Any, Self

from transformers import ProcessorMixin

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
    (H / patch height) * (W / patch width), plus one if the model feeds the [CLS] token.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        patch_size: int | list[int] = 16,
        num_prefix_tokens: int = 0,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        """`num_prefix_tokens` is 1 for a model with `use_cls_token`, else 0."""
        self.patch_size = [patch_size, patch_size] if isinstance(patch_size, int) else list(patch_size)
        self.num_prefix_tokens = num_prefix_tokens
        self.image_token = IMAGE_TOKEN
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        super().__init__(image_processor, tokenizer, chat_template=chat_template or CHAT_TEMPLATE)

    @classmethod
    def from_components(
        cls, image_processor: Any, tokenizer: Any, patch_size: int | list[int], num_prefix_tokens: int = 0
    ) -> Self:
        """Join the parts; the tokenizer gets the image, turn (ChatML) and padding tokens that it lacks.

        The end of a turn, `<|im_end|>`, becomes the end of generation.
        """
        tokenizer.add_tokens([IMAGE_TOKEN, "<|im_start|>", "<|im_end|>"], special_tokens=True)
        tokenizer.eos_token = "<|im_end|>"
        if tokenizer.pad_token is None or tokenizer.pad_token == tokenizer.eos_token:
            tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
        return cls(image_processor, tokenizer, patch_size=patch_size, num_prefix_tokens=num_prefix_tokens)

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: Any) -> str:
        """The image tokens that stand for image number `image_idx`."""
        height, width = image_inputs["pixel_values"][image_idx].shape[-2:]
        patches = (height // self.patch_size[0]) * (width // self.patch_size[1])
        return self.image_token * (patches + self.num_prefix_tokens)

    def _adjust_assistant_masks_indices(self, processed_dict: dict[str, Any], generation_indices: Any) -> Any:
        """As the base class does it, over lists: it walks every token, which is slow over tensors."""
        offsets = processed_dict["offset_mapping"]
        processed_dict["offset_mapping"] = offsets.tolist() if hasattr(offsets, "tolist") else offsets
        return super()._adjust_assistant_masks_indices(processed_dict, generation_indices)


__all__ = ["SpatialBoostProcessor"]
