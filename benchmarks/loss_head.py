"""The language head and its loss: full logits, TRL's fused head, and the fused head over the answers only.

python -m benchmarks.loss_head --smallest             # seconds
python -m benchmarks.loss_head --threads 1            # CPU: a narrow model; GPU: as wide as a 7B one, and Liger too
python -m benchmarks.loss_head --output head.json     # the rows, hardware and versions too

On a CPU each form runs in a process of its own: forward and backward of a `SpatialBoostForConditionalGeneration` whose
language model has one layer, so that nearly all time and memory is the head's. Memory is what a step adds to it:
peak resident memory and CPU time on a CPU, peak allocated memory and wall time on a GPU. The vocabulary is Qwen2's;
"answers" is the share of the positions that carry loss. The head trains in stage 2 and is frozen in stages 1 and 3.
"""

import argparse
import gc
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from tqdm import tqdm
from transformers import DINOv3ViTConfig, Qwen2Config
from trl.trainer import add_fused_lm_head

from benchmarks.record import add_arguments, begin, save
from modeling_spatialboost import SpatialBoostConfig, SpatialBoostForConditionalGeneration, SpatialBoostVLMConfig
from trainers.trainer import scored_positions

FULL, FUSED, ANSWERS, LIGER = "full logits", "TRL's fused head", "fused, answers only", "Liger"
Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Case = tuple[int, int, int, int, float]  # vocabulary, width, conversations, tokens of each, share of answers
SMALLEST: list[Case] = [(2000, 32, 1, 128, 0.2)]
ON_CPU: list[Case] = [(151_936, 128, 1, 1024, 0.25), (151_936, 128, 1, 2048, 0.1)]
ON_GPU: list[Case] = [(151_936, 3584, 8, 1024, 0.25), (151_936, 3584, 8, 2048, 0.1)]


def make_parser() -> argparse.ArgumentParser:
    """Arguments of the benchmark."""
    parser = argparse.ArgumentParser(prog="benchmarks.loss_head", description=__doc__.split("\n")[0])
    parser.add_argument("--smallest", action="store_true", help="a small vocabulary, 1 turn")
    parser.add_argument("--turns", type=int, default=3, help="steps that are measured, after one that is not")
    add_arguments(parser)
    parser.add_argument("--only", default=None, help=argparse.SUPPRESS)  # one form of one case, as JSON
    return parser


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    arguments = make_parser().parse_args(argv)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    if arguments.only is not None:
        print(json.dumps(measure(**json.loads(arguments.only))))
        return 0
    on_gpu = torch.cuda.is_available() and not arguments.smallest
    about = begin(arguments.threads, on_gpu)
    forms = [FULL, FUSED, ANSWERS] + ([LIGER] if on_gpu else [])
    cases = SMALLEST if arguments.smallest else ON_GPU if on_gpu else ON_CPU
    turns = 1 if arguments.smallest else arguments.turns
    todo = [(case, trains, form) for case in cases for trains in (False, True) for form in forms]
    rows = []
    for case, trains, form in tqdm(todo, desc="forms", disable=None):
        settings = {"case": case, "trains": trains, "form": form, "turns": turns, "on_gpu": on_gpu}
        rows.append(settings | (measure(**settings) if on_gpu else in_a_process(settings, arguments.threads)))
    print(table(rows))
    save(arguments.output, "loss_head", argv, {**about, "rows": rows})
    return 0


def in_a_process(settings: dict[str, Any], threads: int | None) -> dict[str, Any]:
    """`measure` in a fresh process, whose peak of memory is its own."""
    command = [sys.executable, "-m", "benchmarks.loss_head", "--only", json.dumps(settings)]
    command += [] if threads is None else ["--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{settings}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(case: Case, trains: bool, form: str, turns: int, on_gpu: bool) -> dict[str, Any]:
    """Median seconds of a step, megabytes that it adds to the model, and its loss."""
    vocabulary, width, num_rows, length, share = case
    device, dtype = ("cuda", torch.bfloat16) if on_gpu else ("cpu", torch.float32)
    torch.manual_seed(0)
    with torch.device(device):
        model = make_model(vocabulary, width, length).to(dtype).train()
    model.lm_head.requires_grad_(trains)
    ids = torch.randint(vocabulary, (num_rows, length), device=device)
    step_length = 16  # answers come in runs
    answers = (torch.arange(length, device=device) // step_length) % round(1 / share) == 1
    labels = torch.where(answers, ids, -100)  # (B, L)
    step = make_step(model, form)
    if on_gpu:
        gc.collect()  # what the form before has left
        torch.cuda.reset_peak_memory_stats()
    before = memory(on_gpu)
    clock = time.perf_counter if on_gpu else time.process_time
    seconds = []
    for _ in range(turns + 1):
        start = clock()
        loss = step(ids, labels)
        loss.backward()
        value = loss.item()  # waits for a GPU
        seconds.append(clock() - start)
        model.zero_grad()
    added = memory(on_gpu) - before
    return {"seconds": statistics.median(seconds[1:]), "megabytes": added / 1e6, "loss": value}


def make_model(vocabulary: int, width: int, length: int) -> SpatialBoostForConditionalGeneration:
    """A tiny encoder, which is not asked, and one layer of a language model with an untied head."""
    vision = DINOv3ViTConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16
    )
    text = Qwen2Config(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=1,
        num_attention_heads=width // 16, num_key_value_heads=2, max_position_embeddings=length,
        tie_word_embeddings=False,
    )  # fmt: skip
    config = SpatialBoostVLMConfig(
        vision_config=SpatialBoostConfig(backbone_config=vision, boosted_layers=[]),
        text_config=text,
        image_token_index=vocabulary - 1,
    )
    model = SpatialBoostForConditionalGeneration(config).requires_grad_(False)
    model.model.language_model.layers.requires_grad_(True)  # so that the head's input has a gradient
    return model


def make_step(model: SpatialBoostForConditionalGeneration, form: str) -> Step:
    """What gives the loss of (B, L) token ids and labels."""
    if form == FULL:
        return lambda ids, labels: model(input_ids=ids, labels=labels, use_cache=False).loss
    if form == LIGER:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

        head = LigerFusedLinearCrossEntropyLoss()

        def liger(ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)
            return head(model.lm_head.weight, hidden, labels[:, 1:].flatten())

        return liger
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))  # as `SFTTrainer` does
    if form == FUSED:
        return lambda ids, labels: model(input_ids=ids, labels=labels, fused_lm_head=True).loss
    return lambda ids, labels: model(input_ids=ids, **scored_positions(labels), fused_lm_head=True).loss


def memory(on_gpu: bool) -> int:
    """Peak bytes until now."""
    if on_gpu:
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown; speed and memory beside full logits."""
    lines = [
        "| vocabulary, width | positions, answers | head | form | ms | times as fast | MB added | share of that | "
        "loss differs by |",
        "|---" * 9 + "|",
    ]
    for row in rows:
        full = next(r for r in rows if (r["case"], r["trains"], r["form"]) == (row["case"], row["trains"], FULL))
        vocabulary, width, num_rows, length, share = row["case"]
        lines.append(
            f"| {vocabulary:,}, {width} | {num_rows} x {length}, {share:.0%} | "
            f"{'trains' if row['trains'] else 'frozen'} | {row['form']} | {1e3 * row['seconds']:.0f} | "
            f"{full['seconds'] / row['seconds']:.2f} | {row['megabytes']:.0f} | "
            f"{row['megabytes'] / max(full['megabytes'], 1e-9):.2f} | {abs(row['loss'] - full['loss']):.1g} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
