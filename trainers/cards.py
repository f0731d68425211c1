"""The README.md of what a stage saves, written from the run's own record."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from transformers import PreTrainedConfig

from model_cards import CITATION, render


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
    rows = (f"| {row['layer']} | {row['mean']:.3f} | {row['min']:.3f} | {row['max']:.3f} |" for row in record["alpha"])
    card = render(
        "encoder_card",
        metadata=_metadata("image-feature-extraction", base),
        title=f"{Path(base).name if base else 'An encoder'} with a second attention channel",
        base=f"[{base}](https://huggingface.co/{base})" if base else f"a {config.backbone_config.model_type} encoder",
        training=_training(record),
        alpha="\n".join(rows),
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
