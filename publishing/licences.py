"""What licences forbid: weights behind a gate, and samples that may not be handed on."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from publishing.kinds import RECORD, card_data


class GatedWeights(NamedTuple):
    """Weights that are handed out only to who accepts their licence.

    Attributes:
        prefix: of their ids on the Hub.
        licence: its name.
        url: its text.
        notice: what must be written where they, or what derives from them, are offered; "" = nothing.
    """

    prefix: str
    licence: str
    url: str
    notice: str = ""


GATED = (
    GatedWeights(
        "facebook/dinov3-",
        "DINOv3 License",
        "https://ai.meta.com/resources/models-and-libraries/dinov3-license/",
        "Built with DINOv3",
    ),
    GatedWeights("meta-llama/", "Llama Community License", "https://www.llama.com/license/", "Built with Llama"),
    GatedWeights("google/gemma", "Gemma Terms of Use", "https://ai.google.dev/gemma/terms"),
)
DINOV3 = GATED[0]
# (width, layers) of the DINOv3 ViTs that Meta released: an encoder of that shape from a folder may be one of them
RELEASED_DINOV3 = {(384, 12), (768, 12), (1024, 24), (1280, 32), (4096, 40)}

REDISTRIBUTABLE = {
    "cc0-1.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0",
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "odc-by", "pddl",
}  # fmt: skip
# Terms that say: do not hand the samples on. No --cleared opens these.
FORBIDDEN = ("scannet", "ego4d", "sa-1b", "mvimgnet")


def origins(config: dict[str, Any], card: dict[str, Any]) -> set[str]:
    """Ids of the Hub that a model's config.json and card name as the source of its weights."""
    found = set(_values(config, ("base_encoder", "_name_or_path")))
    bases = card.get("base_model") or []
    return found | set(bases if isinstance(bases, list) else [bases])


def _values(value: Any, keys: tuple[str, ...]) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (str(value[key]) for key in keys if value.get(key))
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _values(inner, keys)


def model_problems(staged: Path, own_weights: bool) -> Iterator[str]:
    """Why a model's weights may not be published whole.

    Args:
        staged: what would be sent, with a config.json.
        own_weights: the publisher trained the base encoder, so that its shape means nothing.
    """
    config = json.loads((staged / "config.json").read_text(encoding="utf-8"))
    advice = "Publish only the second channel: `spatialboost publish adapter DIR --repo-id ORG/NAME`"
    named = sorted(origins(config, card_data(staged)))
    for name in named:
        for gated in (one for one in GATED if name.startswith(one.prefix)):
            yield (
                f"config.json or README.md names {name} as a source of these weights: they are behind a gate, and a "
                f"copy would hand them to people who have not accepted the {gated.licence} ({gated.url}). {advice}."
            )
    vision = config.get("vision_config", config)
    encoder = vision.get("backbone_config") or {}
    shape = encoder.get("hidden_size"), encoder.get("num_hidden_layers")
    known = vision.get("base_encoder")
    if encoder.get("model_type") == "dinov3_vit" and shape in RELEASED_DINOV3 and not known and not own_weights:
        yield (
            f"config.json does not say where this DINOv3 of width {shape[0]} and {shape[1]} layers comes from, "
            f"and Meta's released one, behind the gate of the {DINOV3.licence}, has this shape. {advice}, or pass "
            "--own-weights if you trained the base yourself."
        )


def adapter_problems(staged: Path) -> Iterator[str]:
    """What an adapter of gated weights lacks: Attn_plus began as a copy of them, so their licence goes with it."""
    record = json.loads((staged / RECORD).read_text(encoding="utf-8"))
    base, is_dinov3 = record.get("base_encoder") or "", str(record.get("model_type")).startswith("dinov3")
    gated = next((one for one in GATED if base.startswith(one.prefix)), None)
    gated = gated or (DINOV3 if is_dinov3 and (record.get("hidden_size") or 0) >= 384 and not base else None)
    if gated is None:
        return
    if not any((staged / name).is_file() for name in ("LICENSE", "LICENSE.md", "LICENSE.txt")):
        yield (
            f"LICENSE.md is missing: Attn_plus derives from weights under the {gated.licence}, which asks for a copy "
            f"of itself beside them; put the text of {gated.url} there."
        )
    card = staged / "README.md"
    if gated.notice and card.is_file() and gated.notice not in card.read_text(encoding="utf-8"):
        yield f"README.md does not say {gated.notice!r}, as the {gated.licence} asks: add it."


def sample_licences(staged: Path) -> Counter[str | None]:
    """Rows per value of the column `licence`, over all Parquet files that have it."""
    from pyarrow import compute, parquet

    counted: Counter[str | None] = Counter()
    for path in sorted(staged.rglob("*.parquet")):
        with parquet.ParquetFile(path) as file:
            if "licence" not in file.schema_arrow.names:
                continue
            for batch in file.iter_batches(columns=["licence"], batch_size=65_536):
                for one in compute.value_counts(batch["licence"]).to_pylist():
                    counted[one["values"]] += one["counts"]
    return counted


def dataset_problems(staged: Path, cleared: tuple[str, ...]) -> Iterator[str]:
    """Why samples may not be handed on.

    Args:
        staged: what would be sent.
        cleared: licences, as the rows spell them, that the publisher has made sure allow it.
    """
    counted = sample_licences(staged)
    if not counted:
        yield "No Parquet file has the column `licence`, so nobody can know what may be handed on: add it to the rows."
    for licence, count in sorted(counted.items(), key=str):
        told = str(licence or "").strip()
        if any(name in told.lower() for name in FORBIDDEN):
            yield (
                f"{count} rows are under {told!r}, which forbids handing the samples on: build without that source, "
                "and publish the command instead, so that others build it from their own copy."
            )
        elif told.lower().replace(" ", "-") not in REDISTRIBUTABLE and told not in cleared:
            yield (
                f"{count} rows are under {told or 'no licence'!r}, and it is not known whether they may be handed on: "
                f"pass --cleared {told!r} once you have made sure, or build without that source."
            )
