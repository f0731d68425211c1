"""The cards of the small models that come with the code, written from their records."""

from typing import Any

from huggingface_hub import ModelCardData

from experiments.image_reading import table as reading_table
from model_cards import render

TITLES = {
    "base": "A small base encoder",
    "language_model": "A small language model",
    "stage2": "A small vision-language model, after stage 2",
    "vlm": "A small vision-language model, after stage 3",
    "boosted": "A second attention channel for the small base encoder",
    "depth_reader": "A small vision-language model that reads depth",
}
SUMMARIES = {
    "base": """A DINOv3 ViT{shape}, trained from nothing on pictures of made-up rooms by
`{objective}`, without any 3D signal.""",
    "language_model": """A Qwen3{shape}, trained from nothing on conversations about made-up rooms, without
their images.""",
    "stage2": """`base`, still frozen, and `language_model`, which has learnt to name what it sees and to look
at points (stages 1 and 2 of SpatialBoost). The tables of the miniature start stage 3 from here.""",
    "vlm": """`stage2` after stage 3: its encoder is the boosted one. It answers questions about depth and space in
made-up rooms.""",
    "boosted": """An adapter: Attn_plus and alpha of every layer, trained by the stages of SpatialBoost on `base` and
`language_model`.""",
    "depth_reader": """`base`, still frozen, and `language_model`, which has learnt to read depth under grey pictures
of it; then the projector alone met rooms. `spatialboost experiment teaching` starts stage 3 from here.""",
}
USE_VLM = """from modeling_spatialboost import SpatialBoostForConditionalGeneration, SpatialBoostProcessor

folder = "experiments/assets/{name}"
model = SpatialBoostForConditionalGeneration.from_pretrained(folder)
processor = SpatialBoostProcessor.from_pretrained(folder)"""
USAGES = {
    "base": """from transformers import AutoImageProcessor, AutoModel

folder = "experiments/assets/base"
model, processor = AutoModel.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)
tokens = model(**processor(image, return_tensors="pt")).last_hidden_state""",
    "language_model": """from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "experiments/assets/language_model"
model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)""",
    "stage2": USE_VLM.format(name="stage2"),
    "vlm": USE_VLM.format(name="vlm"),
    "depth_reader": USE_VLM.format(name="depth_reader"),
    "boosted": """from modeling_spatialboost import SpatialBoostModel

model = SpatialBoostModel.from_adapter("experiments/assets/boosted", "experiments/assets/base")""",
}
TAGS = {name: "image-feature-extraction" for name in ("base", "boosted")}
TAGS |= {name: "image-text-to-text" for name in ("stage2", "vlm", "depth_reader")} | {
    "language_model": "text-generation"
}
READING = (
    """Held-out questions, with the own image, another one, and none. Where the three are alike, it does not look."""
)
FLUENCIES = ("perplexity", "perplexity_told")
LOWER_IS_BETTER = {"depth_rmse_m": True, "miou": False, "attribute_map": False}
PROBE_HEAD = (
    "| encoder | depth RMSE, m | mIoU, % | attribute mAP, % |\n|---|---|---|---|",
    "Ridge probes on held-out rooms (`python -m experiments.ridge_probe`), one seed:",
)


def card(name: str, record: dict[str, Any]) -> str:
    """The text of an asset's README.md, from its record."""
    recipe = record["recipe"]
    shape = recipe["language"] if name == "language_model" else recipe["encoder"]
    size = f" of {shape['num_layers']} layers, {shape['width']} wide"
    data = ModelCardData(
        library_name="transformers", license="apache-2.0", pipeline_tag=TAGS[name], tags=["spatialboost"]
    )
    return render(
        "asset_card",
        metadata=data.to_yaml().strip(),
        title=TITLES[name],
        summary=SUMMARIES[name].format(shape=size, objective=recipe["objective"]),
        usage=USAGES[name],
        making=making(record),
        worth=worth(name, record),
        image_size_px=recipe["encoder"]["image_size_px"],
    )


def making(record: dict[str, Any]) -> str:
    """Command, seed, commit, hardware and the runs."""
    recipe, versions = record["recipe"], ", ".join(f"{name} {one}" for name, one in record["versions"].items())
    world = recipe["world"]
    lines = [
        f"* `{record['command']}`, seed {recipe['seed']}, commit {record['git_commit'] or 'unknown'}.",
        f"* {record['hardware']}; {versions}.",
        f"* Rooms: {world['num_scenes']:,} of {world['views']} views, {world['image_size_px']} px.",
    ]
    for run in record["trained"]:
        seconds = f"{run['seconds_since_last_start']:.0f} s since it was last started"
        lines.append(f"* {run['run']}: {run['steps']:,} steps, {seconds}, final loss {run['final_loss']:.3f}.")
    return "\n".join([*lines, "* All numbers: `run.json`."])


def worth(name: str, record: dict[str, Any]) -> str:
    """What was measured."""
    if name == "language_model":
        found = ["; ".join(f"{value:.2f} ({kind})" for kind, value in record[key].items()) for key in FLUENCIES]
        return f"Perplexity per token of held-out answers: {found[0]}. With a list of the things in words: {found[1]}."
    if "reading" in record:
        return "\n".join([READING, "", reading_table(record["reading"])])
    table, caption = PROBE_HEAD
    rows = [
        f"| {encoder} | {one['depth_rmse_m']:.3f} | {100 * one['miou']:.1f} | {100 * one['attribute_map']:.1f} |"
        for encoder, one in record["probes"].items()
    ]
    text = "\n".join([caption, "", table, *rows])
    if name == "base":
        verdict = "It passes" if record["admitted"] else "Too weak: it does not pass"
        return f"{text}\n\n{verdict} the gate: better than `position` on depth, twice its precision on attributes."
    lost = [key for key, lower in LOWER_IS_BETTER.items() if _worse(record["probes"], key, lower)]
    if lost:
        text += f"\n\n**Worse than its base** on {', '.join(lost)}: it shows the format, not the method's worth."
    return text


def _worse(probes: dict[str, dict[str, float]], key: str, lower_is_better: bool) -> bool:
    base, boosted = probes["base"][key], probes["boosted"][key]
    return boosted > base if lower_is_better else boosted < base
