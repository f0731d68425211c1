"""What fits on which GPU, and how far the formula behind it is from steps whose bytes are counted.

python -m benchmarks.memory --check small      # seconds: real tensors on the CPU beside the formula
python -m benchmarks.memory --check full       # minutes: the same operations at full size, on tensors without memory
python -m benchmarks.memory                    # the table; on a GPU what fits it is measured, but for 4 bits, FSDP
python -m benchmarks.memory --views 1 --tokens 1200
python -m benchmarks.memory --heads            # stage 3 beside the same with full logits, counted like --check full

A conversation at a time, random weights. "computed" is trainers/memory.py; "measured" is torch's peak on the GPU.
"""

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import DINOv3ViTConfig, Qwen2Config

from benchmarks.memory_trace import AnswerHead, FullLogits, count_step, measure_on_gpu
from benchmarks.record import begin, save
from modeling_spatialboost import SpatialBoostConfig, SpatialBoostVLMConfig
from trainers.memory import Plan, Sample, compute_memory
from trainers.stages import STAGE_2_LORA, STAGES, Stage

GIGABYTE = 1e9
CAPACITIES_GB = (24, 40, 80, 141)
USABLE = 0.92  # the rest is for the CUDA context, communication and what the allocator cannot use
# dimensions of the released models: width, MLP, layers, heads
ENCODERS: dict[str, dict[str, Any]] = {
    "ViT-L": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
    "ViT-7B": {
        "hidden_size": 4096, "intermediate_size": 8192, "num_hidden_layers": 40, "num_attention_heads": 32,
        "use_gated_mlp": True, "query_bias": False, "value_bias": False,
    },
    "ViT-S": {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 12, "num_attention_heads": 6},
    "ViT-tiny": {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 2},
}  # fmt: skip
LANGUAGE_MODELS: dict[str, dict[str, Any]] = {
    "Qwen2-7B": {
        "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "vocab_size": 152064,
    },
    "Qwen2-1.5B": {
        "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
        "num_key_value_heads": 2, "vocab_size": 151936,
    },
    "small": {
        "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8,
        "num_key_value_heads": 2, "vocab_size": 16384,
    },
    "tiny": {
        "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 8192,
    },
}  # fmt: skip
PAIRS = (("ViT-L", "Qwen2-7B"), ("ViT-7B", "Qwen2-7B"))
CHECKS = {"small": (("ViT-tiny", "tiny"), ("ViT-S", "small")), "full": PAIRS}
BATCHES = {  # those of benchmarks.training on a GPU: conversations of 12 turns, whole or in micro-batches, as one row
    ("Qwen2-1.5B", 1): (16, 4),
    ("Qwen2-1.5B", 4): (8, 2),
    ("Qwen2-7B", 1): (16, 2),
    ("Qwen2-7B", 4): (8, 1),
}
WORDS, ANSWERS, TOKENS_PER_IMAGE = 1320, 820, 196  # of a conversation, and of a view
SMALL_SAMPLE = Sample(num_images=2, num_tokens=600, num_answer_tokens=120)


class Row(NamedTuple):
    """A plan with a name."""

    name: str
    plan: Plan


def plans(shards: int = 8) -> list[Row]:
    """The rows of the table."""
    one, two, three = (STAGES[number] for number in (1, 2, 3))
    sharded = f"{shards} GPUs, FSDP"

    def row(name: str, stage: Stage, **settings: Any) -> Row:
        return Row(f"{stage.number}: {name}", Plan(stage, **settings))

    return [
        row("AdamW", one),
        row("AdamW", two),
        row("AdamW in 8 bits", two, eight_bit_optimizer=True),
        row("LoRA, rank 64", STAGE_2_LORA, lora_rank=64),
        row("QLoRA, rank 64", STAGE_2_LORA, lora_rank=64, quantize="4bit"),
        row(f"AdamW, {sharded}", two, num_shards=shards),
        row("AdamW", three),
        row("AdamW, no checkpointing", three, activation_checkpointing=False),
        row("AdamW in 8 bits", three, eight_bit_optimizer=True),
        row("language model in 8 bits", three, quantize="8bit"),
        row("language model in 4 bits", three, quantize="4bit"),
        row("both, 8-bit AdamW and 4 bits", three, quantize="4bit", eight_bit_optimizer=True),
        row(f"AdamW, {sharded}", three, num_shards=shards),
    ]


def model_config(encoder: str, language_model: str, plan: Plan) -> SpatialBoostVLMConfig:
    """The real configuration of a pair; stage 3 has a second channel in every layer."""
    vision = DINOv3ViTConfig(
        image_size=224, patch_size=16, num_register_tokens=4, pos_embed_rescale=None, **ENCODERS[encoder]
    )
    layers: list[int] | None = None if plan.stage.trains("attn_plus") else []
    return SpatialBoostVLMConfig(
        vision_config=SpatialBoostConfig(backbone_config=vision, boosted_layers=layers),
        text_config=Qwen2Config(tie_word_embeddings=False, **LANGUAGE_MODELS[language_model]),
        image_token_index=5,
    )


def make_parser() -> argparse.ArgumentParser:
    """Arguments of the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks.memory", description=__doc__.split("\n")[0])
    parser.add_argument("--smallest", action="store_true", help="the table of small pairs")
    parser.add_argument("--check", choices=[*CHECKS], help="compare the formula with counted bytes instead")
    parser.add_argument("--heads", action="store_true", help="full logits beside answers only, in whole batches")
    parser.add_argument("--views", type=int, default=4, help="images of a conversation, 224 px")
    parser.add_argument("--tokens", type=int, default=2000, help="tokens of a conversation, with its images")
    parser.add_argument("--output", type=Path, help="JSON file with rows, hardware and versions")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Print the table, or the comparison."""
    arguments = make_parser().parse_args(argv)
    sample = Sample(num_images=arguments.views, num_tokens=arguments.tokens)
    about = begin(None, torch.cuda.is_available())
    pairs = CHECKS["small"] if arguments.smallest else PAIRS
    rows = heads() if arguments.heads else compare(arguments.check) if arguments.check else fits(sample, pairs)
    save(arguments.output, "memory", argv, {"about": about, "rows": rows})
    return 0


def compare(size: str) -> list[dict[str, Any]]:
    """Computed against counted bytes, for every plan whose operations a CPU can count."""
    full = size == "full"
    sample = Sample() if full else SMALL_SAMPLE
    print("| pair | stage: plan | counted GB | computed GB | error | of it in the step | error |")
    print("|---" * 7 + "|")
    rows = []
    for encoder, language_model in CHECKS[size]:
        for name, plan in plans():
            if plan.quantize or plan.num_shards > 1 or plan.eight_bit_optimizer:
                continue
            config = model_config(encoder, language_model, plan)
            counted, computed = count_step(config, plan, sample, fake=full), compute_memory(config, plan, sample)
            beyond = counted.peak - counted.lasting
            row = {
                "pair": f"{encoder} + {language_model}",
                "plan": name,
                "counted": counted.peak,
                "computed": computed.total,
                "error": computed.total / counted.peak - 1,
                "beyond": beyond,
                "error_beyond": (computed.activations + computed.passing) / beyond - 1,
            }
            rows.append(row)
            print(
                f"| {row['pair']} | {name} | {counted.peak / GIGABYTE:.3f} | {computed.total / GIGABYTE:.3f} | "
                f"{row['error']:+.1%} | {beyond / GIGABYTE:.3f} | {row['error_beyond']:+.1%} |",
                flush=True,
            )
    return rows


def heads() -> list[dict[str, Any]]:
    """Counted bytes of stage 3 with a plain model's head beside those with ours, at full size."""
    print("| ViT-L and | views | in memory | full logits, GB | activations | answers only, GB | of full, recomputed |")
    print("|---" * 7 + "|")
    rows = []
    for (language_model, views), (batch, micro_batch) in BATCHES.items():
        whole = 0
        for recomputes, number in ((True, batch), (False, micro_batch)):
            plan = Plan(STAGES[3], activation_checkpointing=recomputes)
            config = model_config("ViT-L", language_model, plan)
            sample = Sample(views * number, 224, (WORDS + TOKENS_PER_IMAGE * views) * number, ANSWERS * number)
            full, ours = (count_step(config, plan, sample, True, head).peak for head in (FullLogits, AnswerHead))
            whole = whole or full
            row = {"pair": f"ViT-L + {language_model}", "views": views, "in memory": f"{number} of {batch}"}
            rows.append(row | {"recomputed": recomputes, "full": full, "ours": ours, "memory": ours / whole})
            print(
                f"| {language_model} | {views} | {number} of {batch} | {full / GIGABYTE:.1f} "
                f"| {'recomputed' if recomputes else 'kept'} | {ours / GIGABYTE:.1f} | {ours / whole:.2f} |",
                flush=True,
            )
    return rows


def fits(sample: Sample, pairs: tuple[tuple[str, str], ...] = PAIRS) -> list[dict[str, Any]]:
    """Bytes of every plan, measured where there is a GPU that they fit, and the GPUs that they fit."""
    heads = " | ".join(f"{capacity} GB" for capacity in CAPACITIES_GB)
    print(f"| pair | stage: plan | weights | gradients | AdamW | step | sum, GB | how | {heads} |")
    print("|---" * (8 + len(CAPACITIES_GB)) + "|")
    available = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 0
    rows = []
    for encoder, language_model in pairs:
        for name, plan in plans():
            config = model_config(encoder, language_model, plan)
            memory = compute_memory(config, plan, sample)
            total, how = memory.total, "computed"
            runs = not plan.quantize and plan.num_shards == 1
            if plan.eight_bit_optimizer and importlib.util.find_spec("bitsandbytes") is None:
                runs = False
            if runs and memory.total < USABLE * available:
                total, how = measure_on_gpu(config, plan, sample), "measured"
            parts = (memory.weights, memory.gradients, memory.optimizer, memory.activations + memory.passing)
            cells = [f"{part / GIGABYTE:.1f}" for part in (*parts, total)]
            fitting = ["yes" if total <= USABLE * capacity * GIGABYTE else "no" for capacity in CAPACITIES_GB]
            print(f"| {encoder} + {language_model} | {name} | {' | '.join([*cells, how, *fitting])} |", flush=True)
            rows.append({"pair": f"{encoder} + {language_model}", "plan": name, "bytes": total, "how": how})
    return rows


if __name__ == "__main__":
    sys.exit(main())
