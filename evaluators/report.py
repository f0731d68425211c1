"""Base beside boosted: results.json for programs, report.md for readers."""

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evaluators.metrics import Metric

PACKAGES = ("torch", "transformers", "datasets", "torchmetrics", "numpy", "pillow")
CONTROLS = {"constant": "constant", "position_only": "position only"}


def compare(metrics: tuple[Metric, ...], base: dict[str, Any], boosted: dict[str, Any]) -> dict[str, Any]:
    """Put the results of one task for two encoders side by side.

    Args:
        metrics: of the task, the one that decides first.
        base: what the task's `evaluate` returned for the base encoder.
        boosted: the same for the boosted encoder, with the same configuration.

    Returns:
        The task's entry in results.json; differences are boosted - base, paired by seed.
    """
    rows = {}
    for metric in metrics:
        base_scores, boosted_scores = np.array(base["scores"][metric.name]), np.array(boosted["scores"][metric.name])
        rows[metric.name] = {
            "label": metric.label,
            "higher_is_better": metric.higher_is_better,
            "base": _summary(base_scores),
            "boosted": _summary(boosted_scores),
            "difference": _summary(boosted_scores - base_scores),
            "controls": {name: scores[metric.name] for name, scores in base["controls"].items()},
        }
    return {
        "protocol": base["protocol"],
        "data": base["data"],
        "seeds": base["seeds"],
        "base": base["encoder"],
        "boosted": boosted["encoder"],
        "metrics": rows,
        "warnings": _warnings(metrics[0], rows[metrics[0].name], base, boosted),
    }


def environment(device: str) -> dict[str, str]:
    """Return the versions and the hardware that the numbers came from."""
    hardware = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor() or "cpu"
    versions = {package: version(package) for package in PACKAGES}
    return {"python": platform.python_version(), **versions, "system": platform.platform(), "device": hardware}


def write_report(results: dict[str, Any], output: Path) -> None:
    """Write results.json and report.md into the folder `output`."""
    (output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    (output / "report.md").write_text(render_markdown(results))


def render_table(results: dict[str, Any]) -> str:
    """Return the one table as Markdown: a row per task and metric."""
    entries = list(results["tasks"].values())
    sides = [f"{side} ({_count(entries[0][side]['parameters'])} parameters)" for side in ("base", "boosted")]
    titles = ["task", "metric", "input", *sides, "difference", *CONTROLS.values()]
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for task, entry in results["tasks"].items():
        resolutions = dict.fromkeys("x".join(map(str, entry[side]["resolution_px"])) for side in ("base", "boosted"))
        for name, row in entry["metrics"].items():
            metric = Metric(name, row["label"], row["higher_is_better"])
            cells = [task, f"{metric.label} {metric.arrow}", " / ".join(resolutions)]
            cells += [_number(row["base"]), _number(row["boosted"])]
            cells += [f"{_number(row['difference'], signed=True)} {_verdict(metric, row['difference']['mean'])}"]
            cells += [f"{row['controls'][control]:.4g}" for control in CONTROLS]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def render_markdown(results: dict[str, Any]) -> str:
    """Return report.md."""
    parts = ["# Base against boosted", ""]
    if results["limit"] is not None:
        parts += [f"**PARTIAL: at most {results['limit']} images of each split (`--limit`); a quick look only.**", ""]
    parts += [render_table(results), ""]
    parts += [
        "Differences are boosted - base, paired: both heads start from the same weights and see the same batches. "
        "With several seeds: mean ± standard deviation over the seeds. The controls see no image: `constant` is the "
        "mean depth or the most frequent class of the train split, `position only` the same per pixel position.",
        "",
        *(f"**Warning, {task}:** {line}\n" for task, entry in results["tasks"].items() for line in entry["warnings"]),
    ]
    for task, entry in results["tasks"].items():
        parts += _task_section(task, entry)
    parts += ["## Environment", "", *(f"* {key}: {value}" for key, value in results["environment"].items()), ""]
    return "\n".join(parts)


def _task_section(task: str, entry: dict[str, Any]) -> list[str]:
    """Return the lines on how one task was measured."""
    data = entry["data"]
    lines = [f"## {task}: {entry['protocol']['id']}", "", f"![{task}: image, truth, base, boosted]({task}.png)", ""]
    lines += [f"* {note}" for note in entry["protocol"]["notes"]]
    fit = ", ".join(f"{key} {value}" for key, value in entry["protocol"]["fit"].items())
    lines += [f"* Head: {fit}; seeds {', '.join(map(str, entry['seeds']))}."]
    lines += ["* Trained on split train, the last step reported on split test; nothing is selected on either."]
    lines += ["* Images are resized to the input resolution without keeping their aspect ratio."]
    for split in ("train", "test"):
        dropped = ", ".join(f"{count} {reason}" for reason, count in data[split]["dropped"].items()) or "none"
        lines += [
            f"* Data `{data['source']}`, configuration {data['configuration']}, split {split}: "
            f"{data[split]['images']} images, dropped: {dropped}, content {data[split]['fingerprint']}."
        ]
    for side in ("base", "boosted"):
        encoder = entry[side]
        lines += [
            f"* {side}: `{encoder['name']}`, revision {encoder['revision']}, {encoder['class'].split('.')[-1]}, "
            f"{encoder['parameters']:,} parameters, patch {encoder['patch_size_px']} px, width "
            f"{encoder['hidden_size']}, {encoder['dtype']}, weights {encoder['weights_hash']}."
        ]
    return [*lines, ""]


def _warnings(metric: Metric, row: dict[str, Any], base: dict[str, Any], boosted: dict[str, Any]) -> list[str]:
    """Return what a reader must know before believing the difference."""
    lines = []
    gain = row["base"]["mean"] - row["controls"]["position_only"]
    if not metric.is_better(gain):
        lines.append(
            f"the base encoder does not beat the position-only control in {metric.label}: it is too weak for its "
            "difference to mean anything."
        )
    if base["data"]["images_in_both_splits"]:
        lines.append(f"{base['data']['images_in_both_splits']} images are in both splits.")
    for key in ("patch_size_px", "hidden_size", "resolution_px", "preprocessing"):
        ours, theirs = base["encoder"][key], boosted["encoder"][key]
        if ours != theirs:
            lines.append(f"the encoders differ in {key}: {ours} (base), {theirs} (boosted).")
    return lines


def _summary(values: np.ndarray) -> dict[str, Any]:
    """Return the values over seeds, their mean and sample standard deviation (None for one seed)."""
    deviation = float(values.std(ddof=1)) if len(values) > 1 else None
    return {"per_seed": values.tolist(), "mean": float(values.mean()), "deviation": deviation}


def _number(summary: dict[str, Any], signed: bool = False) -> str:
    text = f"{summary['mean']:+.4g}" if signed and summary["mean"] else f"{summary['mean']:.4g}"
    return text if summary["deviation"] is None else f"{text} ± {summary['deviation']:.2g}"


def _count(parameters: int) -> str:
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if parameters >= size:
            return f"{parameters / size:.3g} {unit}"
    return str(parameters)


def _verdict(metric: Metric, difference: float) -> str:
    if difference == 0:
        return "(equal)"
    return "(better)" if metric.is_better(difference) else "(worse)"
