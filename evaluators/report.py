"""Base beside boosted: results.json for programs, report.md for readers."""

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from evaluators.catalogue import DATA_SETS, TASKS
from evaluators.metrics import Metric

PACKAGES = ("torch", "transformers", "datasets", "torchmetrics", "numpy", "pillow")


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
    titles = ["task", "data", "metric", "input", *sides, "difference", "95 % interval", "controls"]
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for entry_name, entry in results["tasks"].items():
        task, data_set = entry_name.split("/")
        resolutions = dict.fromkeys("x".join(map(str, entry[side]["resolution_px"])) for side in ("base", "boosted"))
        for name, row in entry["metrics"].items():
            metric = Metric(name, row["label"], row["higher_is_better"])
            cells = [TASKS[task].title, data_set, f"{metric.label} {metric.arrow}", " / ".join(resolutions)]
            cells += [_number(row["base"]), _number(row["boosted"])]
            cells += [f"{_number(row['difference'], signed=True)} {_verdict(metric, row['difference']['mean'])}"]
            cells += [" to ".join(f"{end:+.3g}" for end in row["difference"]["interval"])]
            cells += [", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in row["controls"].items())]
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
        "With several seeds: mean ± standard deviation over the seeds. The interval is a paired bootstrap over the "
        "test items (1,000 resamples, the mean over seeds). Of the controls, `constant` and `position only` see no "
        "image: the mean depth or the most frequent class of the train split, over everything or per pixel position.",
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
    name, data_set = task.split("/")
    lines = [f"## {TASKS[name].title}, {DATA_SETS[data_set].title}: {entry['protocol']['id']}", ""]
    lines += [f"![{task}: image, truth, base, boosted]({entry['picture']})", ""] if "picture" in entry else []
    protocol = entry["protocol"]
    lines += [f"* {note}" for note in protocol["notes"]]
    lines += [f"* Not to be put beside the paper's numbers: {protocol['differs']}."] if protocol["differs"] else []
    settings = ", ".join(f"{key} {value}" for key, value in protocol["settings"].items())
    lines += [f"* Settings: {settings}; seeds {', '.join(map(str, entry['seeds']))}."]
    for split, row in data["splits"].items():
        dropped = ", ".join(f"{count} {reason}" for reason, count in row["dropped"].items()) or "none"
        lines += [
            f"* Data `{data['source']}`, split {split}: {row['items']} items, dropped: {dropped}, "
            f"content {row['fingerprint']}."
        ]
    for side in ("base", "boosted"):
        encoder = entry[side]
        lines += [
            f"* {side}: `{encoder['name']}`, revision {encoder['revision']}, {encoder['class'].split('.')[-1]}, "
            f"{encoder['parameters']:,} parameters, patch {encoder['patch_size_px']} px, width "
            f"{encoder['hidden_size']}, {encoder['dtype']}, weights {encoder['weights_hash']}."
        ]
    return [*lines, ""]


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
