"""The README.md of what a stage saves, written from the run's own record."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from transformers import PreTrainedConfig

from model_cards import CITATION, NOT_MEASURED, licence_chain, licence_data, render
from model_cards.figures import ALPHA_NAME, METHOD_NAME, draw_alpha, draw_method

BOOSTED_TITLE, PLAIN_TITLE = "with a second attention channel", "after stage 3 without a second channel"
BOOSTED = (
    "A vision encoder with dual-channel attention, `alpha * Attn(x) + (1 - alpha) * Attn_plus(x)`: the frozen "
    "attention of\n{base} and a trained copy of it beside each layer, after [SpatialBoost](https://arxiv.org/abs/2603.22057)."
)
PLAIN = (
    "A vision encoder of the architecture of {base}, tuned as a baseline beside\nthe second channel of "
    "[SpatialBoost](https://arxiv.org/abs/2603.22057): {description}."
)
CHECKS = (
    " `model.verify_base_channel(BASE)` compares the frozen weights with the\noriginal's, `model.alpha_table()` tells "
    "the mix."
)
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
VLM_LICENCES = """* The code is Apache-2.0. The weights are not covered by that.
* The encoder's weights and their second channel stay under the encoder's licence, the language model's under its
  own: here both apply. DINOv3's is not Apache, and a copy may not carry weights past their gate:
  `spatialboost publish adapter` sends the second channel alone.
* The data keep the licences of their sources: see their own card."""
RECIPE = {
    "learning_rate": "learning rate", "lr_scheduler_type": "schedule", "warmup_steps": "warm-up", "optim": "optimizer",
    "weight_decay": "weight decay", "per_device_train_batch_size": "batch per device",
    "gradient_accumulation_steps": "batches per step", "total_batch_size": "batch of all devices",
    "max_steps": "steps at most", "num_train_epochs": "epochs at most", "bf16": "bf16", "seed": "seed",
}  # fmt: skip


def write_vlm_card(folder: Path, record: dict[str, Any]) -> None:
    """Card of the vision-language model that a stage saved in `folder`, with the picture of the method."""
    draw_method(folder / METHOD_NAME)
    card = render(
        "vlm_card",
        metadata=_metadata("image-text-to-text", None),
        title=f"SpatialBoost vision-language model, stage {record['stage']}",
        stage=record["stage"],
        description=record["description"],
        method=METHOD,
        training=_training(record),
        licences=VLM_LICENCES,
        citation=CITATION,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def write_encoder_card(folder: Path, record: dict[str, Any], config: PreTrainedConfig) -> None:
    """Card of the boosted encoder that stage 3 cut out into `folder`, with pictures of the method and of alpha."""
    base = config.base_encoder if _is_hub_id(config.base_encoder) else None
    link = f"[{base}](https://huggingface.co/{base})" if base else f"a {config.backbone_config.model_type} encoder"
    boosted = bool(record["alpha"])
    by_language = boosted and record["config"].get("objective", "language") == "language"
    if by_language:
        draw_method(folder / METHOD_NAME)
    if boosted:
        draw_alpha(folder / ALPHA_NAME, record["alpha"])
    card = render(
        "encoder_card",
        metadata=_metadata("image-feature-extraction", base),
        title=f"{Path(base).name if base else 'An encoder'} {BOOSTED_TITLE if boosted else PLAIN_TITLE}",
        architecture=(BOOSTED if boosted else PLAIN).format(base=link, description=record["description"]),
        checks=CHECKS if boosted else "",
        method=METHOD if by_language else "",
        training=_training(record),
        alpha=ALPHA.format(table=_alpha_table(record["alpha"])) if boosted else "",
        results=NOT_MEASURED,
        licences=licence_chain(base, config.backbone_config.model_type, "All weights here"),
        citation=CITATION,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def _metadata(pipeline_tag: str, base_model: str | None) -> str:
    data = ModelCardData(
        library_name="transformers",
        **licence_data(base_model),
        pipeline_tag=pipeline_tag,
        base_model=base_model,
        base_model_relation="finetune" if base_model else None,
        tags=["spatialboost", "dual-channel-attention", "custom_code"],
    )
    return data.to_yaml().strip()


def _alpha_table(alpha: list[dict[str, Any]]) -> str:
    rows = (f"| {row['layer']} | {row['mean']:.3f} | {row['min']:.3f} | {row['max']:.3f} |" for row in alpha)
    return "\n".join(["| layer | alpha, mean | min | max |", "|---|---|---|---|", *rows])


def _training(record: dict[str, Any]) -> str:
    """What was trained on what and how, from the run's own record."""
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
            f"* Recipe: {', '.join(settings)}. All settings: `run.json` of the run.",
            f"* Code: commit {record['git_commit'] or 'unknown'}; {versions}.",
        )
    )


def _is_hub_id(name: str | None) -> bool:
    return name is not None and name.count("/") == 1 and not Path(name).exists()
