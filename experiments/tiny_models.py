"""Tiny models of the real classes with random weights, saved to disk: what quickstart and the tests train on."""

from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import DINOv3ViTConfig, DINOv3ViTImageProcessor, DINOv3ViTModel, PreTrainedTokenizerFast, Qwen3Config
from transformers import Qwen3ForCausalLM as LanguageModel

# A coordinate is two pieces, its tenth with the bracket or comma before it (so that the tenths of x and y differ) and
# the rest: "(0.398, 0.695)" is read as "(0.3", "98", ", 0.6", "95", ")", and a small model learns places from the few
# tenths. Elsewhere a digit before a decimal point is one piece with the point, any other digit stands alone.
# Qwen3, not Qwen2: transformers would load a Qwen2 with Qwen's own pieces, whatever the tokenizer's file says.
PIECES = (
    r" ?\(0\.\d(?=\d\d,)|, 0\.\d(?=\d\d\))|(?<=0\.\d)\d\d(?=[,)])|[ ,(]*\d\.(?=\d)|\d| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+"
)


def save_tiny_encoder(
    folder: str | Path,
    image_size: int = 64,
    patch_size: int = 8,
    hidden_size: int = 64,
    num_layers: int = 4,
    seed: int = 0,
) -> Path:
    """A DINOv3 ViT with random weights and its image processor.

    Args:
        folder: where it is saved.
        image_size, patch_size: pixels.
        hidden_size, num_layers: width and depth; heads are 16 wide.
        seed: of the weights.
    """
    config = DINOv3ViTConfig(
        image_size=image_size,
        patch_size=patch_size,
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=hidden_size // 16,
        num_register_tokens=4,
        layerscale_value=1.0,
    )
    torch.manual_seed(seed)
    DINOv3ViTModel(config).save_pretrained(folder)
    DINOv3ViTImageProcessor(size={"height": image_size, "width": image_size}).save_pretrained(folder)
    return Path(folder)


def save_tiny_language_model(
    folder: str | Path,
    texts: Iterable[str],
    vocabulary_size: int = 1024,
    hidden_size: int = 64,
    num_layers: int = 2,
    seed: int = 0,
) -> Path:
    """A Qwen3 with random weights, and a byte-level BPE tokenizer trained on `texts` with Qwen's special tokens."""
    fast = train_tokenizer(texts, vocabulary_size)
    config = Qwen3Config(
        vocab_size=len(fast),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=hidden_size // 16,
        num_key_value_heads=max(1, hidden_size // 32),
        head_dim=16,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
    )
    torch.manual_seed(seed)
    LanguageModel(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return Path(folder)


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with Qwen's special tokens, which reads coordinates in two pieces (`PIECES`)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
