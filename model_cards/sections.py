"""Sections that several model cards share: the method, how it was trained, alpha per layer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model_cards.figures import ALPHA_NAME, METHOD_NAME, draw_alpha, draw_method

METHOD = f"""## The method

![Beside the frozen attention of each layer stands a trained copy; their outputs are mixed by alpha. A frozen
language model answers questions about space from the encoder's tokens, and the loss of its answers trains the
copy.]({METHOD_NAME})

Stage 1 trains the projector, stage 2 the projector and the language model, stage 3 the second channel and the
projector. Copy and original begin equal, so that stage 3 starts with the very outputs of the base.
"""
ALPHA = f"""
![alpha of each layer: mean of the channels, and their range]({ALPHA_NAME})

<details><summary>alpha in numbers</summary>

{{table}}

</details>
"""
RECIPE = {
    "learning_rate": "learning rate", "lr_scheduler_type": "schedule", "warmup_steps": "warm-up", "optim": "optimizer",
    "weight_decay": "weight decay", "per_device_train_batch_size": "batch per device",
    "gradient_accumulation_steps": "batches per step", "total_batch_size": "batch of all devices",
    "max_steps": "steps at most", "num_train_epochs": "epochs at most", "bf16": "bf16", "seed": "seed",
}  # fmt: skip


def method_section(folder: Path) -> str:
    """What the method is; its picture is drawn into `folder`."""
    draw_method(folder / METHOD_NAME)
    return METHOD


def alpha_section(folder: Path, table: Sequence[dict[str, Any]]) -> str:
    """Alpha per layer as a plot, drawn into `folder`, and in numbers.

    Args:
        folder: of the card.
        table: rows with `layer`, `mean`, `min` and `max`, what `alpha_table()` returns; "" is returned for none.
    """
    if not table:
        return ""
    draw_alpha(folder / ALPHA_NAME, table)
    rows = (f"| {row['layer']} | {row['mean']:.3f} | {row['min']:.3f} | {row['max']:.3f} |" for row in table)
    return ALPHA.format(table="\n".join(["| layer | alpha, mean | min | max |", "|---|---|---|---|", *rows]))


def training_section(record: dict[str, Any]) -> str:
    """What was trained on what and how, from the run's own record (`run.json`, which lies beside the card)."""
    trained = ", ".join(f"{group} {count:,}" for group, count in record["trainable_parameters"].items())
    rates = ", ".join(f"{group} {rate:g}" for group, rate in record["learning_rates"].items())
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    settings = [
        f"{title} {record['config'][name]}"
        for name, title in RECIPE.items()
        if record["config"].get(name) not in (None, -1)  # -1: max_steps that are not set
    ]
    return "\n".join(
        (
            f"Stage {record['stage']}, {record['description']}: {record['steps']:,} steps in {record['seconds']:.0f} "
            f"s, final training loss {record['final_loss']:.3f}.",
            "",
            "| data | rows | fingerprint |",
            "|---|---|---|",
            *(f"| `{one['name']}` | {one['rows']:,} | `{one['fingerprint'][:16]}` |" for one in record["data"]),
            "",
            f"* Trained parameters: {trained}; frozen: {record['frozen_parameters']:,}.",
            f"* Peak learning rates: {rates}.",
            f"* Recipe: {', '.join(settings)}. All settings: `run.json`, beside this card.",
            f"* Code: commit {record['git_commit'] or 'unknown'}; {versions}.",
        )
    )
