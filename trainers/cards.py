"""The README.md of what a stage saves, written from the run's own record."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from transformers import PreTrainedConfig

from model_cards import CITATION, NOT_MEASURED, is_dinov3, licence_chain, licence_data, render
from model_cards.sections import alpha_section, method_section, training_section

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
VLM_LICENCES = """* The code is Apache-2.0. The weights are not covered by that.
* The encoder's weights and their second channel stay under the encoder's licence, the language model's under its
  own: here both apply. DINOv3's is not Apache, and a copy may not carry weights past their gate:
  `spatialboost publish adapter` sends the second channel alone.
* The data keep the licences of their sources: see their own card."""


def write_vlm_card(folder: Path, record: dict[str, Any], config: PreTrainedConfig) -> None:
    """Card of the vision-language model that a stage saved in `folder`, with its pictures."""
    parts = [one for one in (config.vision_config.base_encoder, config.text_config.name_or_path) if _is_hub_id(one)]
    linked = " and ".join(f"[{one}](https://huggingface.co/{one})" for one in parts)
    card = render(
        "vlm_card",
        metadata=_metadata("image-text-to-text", parts, record),
        title=f"SpatialBoost vision-language model, stage {record['stage']}",
        stage=record["stage"],
        description=record["description"],
        parts=f" It began as {linked}." if parts else "",
        method=method_section(folder),
        training=training_section(record),
        alpha=alpha_section(folder, record.get("alpha", [])),
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
    card = render(
        "encoder_card",
        metadata=_metadata("image-feature-extraction", [base] if base else [], record),
        title=f"{Path(base).name if base else 'An encoder'} {BOOSTED_TITLE if boosted else PLAIN_TITLE}",
        architecture=(BOOSTED if boosted else PLAIN).format(base=link, description=record["description"]),
        checks=CHECKS if boosted else "",
        method=method_section(folder) if by_language else "",
        training=training_section(record),
        alpha=alpha_section(folder, record["alpha"]),
        results=NOT_MEASURED,
        licences=licence_chain(base, config.backbone_config.model_type, "All weights here"),
        citation=CITATION,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def _metadata(pipeline_tag: str, base_models: list[str], record: dict[str, Any]) -> str:
    """The YAML on top of a card; the Hub draws its links to the bases and the data from it."""
    sources = [one["name"].split(":")[0] for one in record["data"]]
    data = ModelCardData(
        library_name="transformers",
        **licence_data(next(filter(is_dinov3, base_models), None)),
        pipeline_tag=pipeline_tag,
        base_model=base_models or None,
        base_model_relation="finetune" if base_models else None,
        datasets=list(dict.fromkeys(filter(_is_hub_id, sources))) or None,
        tags=["spatialboost", "dual-channel-attention", "custom_code"],
    )
    return data.to_yaml().strip()


def _is_hub_id(name: str | None) -> bool:
    return name is not None and name.count("/") == 1 and not Path(name).exists()
