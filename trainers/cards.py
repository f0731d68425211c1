"""The README.md of what a stage saves, written from the run's own record."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from transformers import PreTrainedConfig

from model_cards import CITATION, render

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


def write_vlm_card(folder: Path, record: dict[str, Any]) -> None:
    """Card of the vision-language model that a stage saved in `folder`."""
    card = render(
        "vlm_card",
        metadata=_metadata("image-text-to-text", None),
        title=f"SpatialBoost vision-language model, stage {record['stage']}",
        stage=record["stage"],
        description=record["description"],
        training=_training(record),
        citation=CITATION,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def write_encoder_card(folder: Path, record: dict[str, Any], config: PreTrainedConfig) -> None:
    """Card of the boosted encoder that stage 3 cut out into `folder`."""
    base = config.base_encoder if _is_hub_id(config.base_encoder) else None
    link = f"[{base}](https://huggingface.co/{base})" if base else f"a {config.backbone_config.model_type} encoder"
    boosted = bool(record["alpha"])
    card = render(
        "encoder_card",
        metadata=_metadata("image-feature-extraction", base),
        title=f"{Path(base).name if base else 'An encoder'} {BOOSTED_TITLE if boosted else PLAIN_TITLE}",
        architecture=(BOOSTED if boosted else PLAIN).format(base=link, description=record["description"]),
        checks=CHECKS if boosted else "",
        training=_training(record),
        alpha=_alpha_table(record["alpha"]) if boosted else "",
        citation=CITATION,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def _metadata(pipeline_tag: str, base_model: str | None) -> str:
    data = ModelCardData(
        library_name="transformers",
        license="other",
        pipeline_tag=pipeline_tag,
        base_model=base_model,
        base_model_relation="finetune" if base_model else None,
        tags=["spatialboost", "dual-channel-attention", "custom_code"],
    )
    return data.to_yaml().strip()


def _alpha_table(alpha: list[dict[str, Any]]) -> str:
    rows = (f"| {row['layer']} | {row['mean']:.3f} | {row['min']:.3f} | {row['max']:.3f} |" for row in alpha)
    return "\n".join(["", "| layer | alpha, mean | min | max |", "|---|---|---|---|", *rows, ""])


def _training(record: dict[str, Any]) -> str:
    data = ", ".join(f"`{source['name']}` ({source['rows']:,} rows)" for source in record["data"])
    trained = ", ".join(f"{group} {count:,}" for group, count in record["trainable_parameters"].items())
    rates = ", ".join(f"{group} {rate:g}" for group, rate in record["learning_rates"].items())
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return "\n".join(
        (
            f"* Stage {record['stage']}, {record['description']}.",
            f"* {record['steps']:,} steps in {record['seconds']:.0f} s.",
            f"* Data: {data}.",
            f"* Trained parameters: {trained}; frozen: {record['frozen_parameters']:,}.",
            f"* Peak learning rates: {rates}. Final training loss: {record['final_loss']:.3f}.",
            f"* Code: commit {record['git_commit'] or 'unknown'}; {versions}. All settings: `run.json` of the run.",
        )
    )


def _is_hub_id(name: str | None) -> bool:
    return name is not None and name.count("/") == 1 and not Path(name).exists()
