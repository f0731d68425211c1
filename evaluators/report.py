"""Base beside boosted: results.json for programs, report.md and report.html for readers, entries for the card."""

import json
import math
import platform
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from evaluators.card_results import write_card_results
from evaluators.catalogue import TASKS, title_of
from evaluators.metrics import Metric
from evaluators.paper import Published, published

PACKAGES = (
    "torch", "transformers", "datasets", "torchmetrics", "numpy", "pillow", "scikit-learn", "timm", "mujoco",
    "metaworld", "dm_control", "gymnasium-robotics",
)  # fmt: skip
FEW_ITEMS = 10  # a bootstrap over fewer is no interval
SIDES = ("base", "boosted")
HOW_TO_READ = (
    "Of a score with ↑ more is better, with ↓ less. Differences are boosted - base, paired by seed and by item: both "
    "sides see the same data in the same order. Scores are means ± standard deviations over the seeds. The interval "
    "is a paired bootstrap over the test items (95 %, 1,000 resamples, mean over seeds): where it holds zero, the "
    "difference may be chance, and fewer than ten items tell nothing. Controls frame the scores: what sees no image "
    "(`constant`, `position only`), too little or too much of it. Input is the encoder's, in pixels. The paper's "
    "numbers, base → boosted, appear only for the same task, data set and backbone."
)


class Row(NamedTuple):
    """A line of the table, as text."""

    task: str
    data: str
    metric: str
    resolution: str
    parameters: str
    base: str
    boosted: str
    difference: str
    interval: str
    verdict: str
    controls: str
    paper: str


TITLES = Row(
    "task", "data", "metric", "input", "parameters", "base", "boosted", "difference", "95 % interval", "verdict",
    "controls", "paper",
)  # fmt: skip


def environment(device: str) -> dict[str, str]:
    """Return the versions and the hardware that the numbers came from."""
    hardware = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor() or "cpu"
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # of an extra
            continue
    return {"python": platform.python_version(), **versions, "system": platform.platform(), "device": hardware}


def write_report(results: dict[str, Any], output: Path) -> None:
    """Write results.json, report.md, report.html and the card's entries into the folder `output`."""
    from evaluators.report_page import render_page

    (output / "results.json").write_text(json.dumps(strict(results), indent=2, allow_nan=False) + "\n")
    (output / "report.md").write_text(render_markdown(results))
    (output / "report.html").write_text(render_page(results, output))
    write_card_results(results, output)


def strict(value: Any) -> Any:
    """The same with None where a number is not finite, for which JSON has no word."""
    if isinstance(value, dict):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table_rows(results: dict[str, Any]) -> list[Row]:
    """One row per task, data set and metric."""
    notes = footnotes(results)
    return [
        _row(name, entry, metric, values, notes)
        for name, entry in results["tasks"].items()
        for metric, values in entry["metrics"].items()
    ]


def _row(name: str, entry: dict[str, Any], metric_name: str, values: dict[str, Any], notes: list[str]) -> Row:
    task, data_set = name.split("/")
    metric = Metric(metric_name, values["label"], values["higher_is_better"])
    paper = published(name, metric_name, entry["base"])
    resolutions = dict.fromkeys("x".join(map(str, entry[side]["resolution_px"])) for side in SIDES)
    parameters = dict.fromkeys(_count(entry[side]["parameters"]) for side in SIDES)
    return Row(
        task=TASKS[task].title,
        data=data_set,
        metric=f"{metric.label} {metric.arrow}",
        resolution=" / ".join(resolutions),
        parameters=" / ".join(parameters),
        base=number(values["base"]),
        boosted=number(values["boosted"]),
        difference=number(values["difference"], signed=True),
        interval=" to ".join("0" if end == 0 else figure(end, "+.3g") for end in values["difference"]["interval"]),
        verdict=verdict(metric, values["difference"], entry["num_items"]),
        controls=", ".join(
            f"{key.replace('_', ' ')} {figure(value, '.4g')}" for key, value in values["controls"].items()
        ),
        paper=f"{paper.base:g} → {paper.boosted:g} [{notes.index(_footnote(paper, entry)) + 1}]" if paper else "",
    )


def render_table(results: dict[str, Any]) -> str:
    """Return the one table as Markdown; columns without content are left out."""
    rows = table_rows(results)
    shown = columns_with_content(rows)
    lines = ["| " + " | ".join(getattr(TITLES, name) for name in shown) + " |", "|---" * len(shown) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(getattr(row, name) for name in shown) + " |" for row in rows)])


def columns_with_content(rows: list[Row]) -> list[str]:
    """Names of the columns that say something in one row at least."""
    return [name for name in Row._fields if any(getattr(row, name) for row in rows)]


def summary_line(results: dict[str, Any]) -> str:
    """How many tasks went which way, by the metric that decides."""
    verdicts: Counter[str] = Counter()
    for entry in results["tasks"].values():
        metric, values = next(iter(entry["metrics"].items()))
        found = verdict(
            Metric(metric, values["label"], values["higher_is_better"]), values["difference"], entry["num_items"]
        )
        verdicts[found if found in ("better", "worse", "equal") else "undecided"] += 1
    told = ", ".join(f"{count} {name}" for name, count in verdicts.most_common())
    return f"Boosted against base by the first score of each task and data set: {told}."


def footnotes(results: dict[str, Any]) -> list[str]:
    """What stands behind the paper's numbers that the table shows, in the order of their marks."""
    found: dict[str, None] = {}
    for name, entry in results["tasks"].items():
        for metric in entry["metrics"]:
            if paper := published(name, metric, entry["base"]):
                found[_footnote(paper, entry)] = None
    return list(found)


def _footnote(paper: Published, entry: dict[str, Any]) -> str:
    differs = "; ".join(filter(None, (paper.differs, entry["protocol"]["differs"])))
    return f"{paper.backbone}, arXiv 2603.22057" + (f"; what differs here: {differs}." if differs else ".")


def render_markdown(results: dict[str, Any]) -> str:
    """Return report.md."""
    parts = ["# Base against boosted", "", *side_lines(results), summary_line(results), ""]
    parts += [f"**PARTIAL: {line}**\n" for line in partial_lines(results)]
    parts += [render_table(results), "", *(f"[{n}] {line}\n" for n, line in enumerate(footnotes(results), 1))]
    parts += [HOW_TO_READ, ""]
    parts += [f"**Warning, {', '.join(names)}:** {line}\n" for line, names in warning_lines(results).items()]
    for name, entry in results["tasks"].items():
        parts += [f"## {heading(name, entry)}", ""]
        parts += [f"![{name}]({entry['picture']})", ""] if "picture" in entry else []
        parts += [*(f"* {line}" for line in protocol_lines(entry)), ""]
    if results["not_measured"]:
        parts += ["## Not measured", "", *(f"* {line}" for line in not_measured_lines(results)), ""]
    parts += ["## Environment", "", *(f"* {key}: {value}" for key, value in results["environment"].items()), ""]
    return "\n".join(parts)


def side_lines(results: dict[str, Any]) -> list[str]:
    """Which models are compared."""
    names = {side: dict.fromkeys(entry[side]["name"] for entry in results["tasks"].values()) for side in SIDES}
    return [f"* {side}: {', '.join(f'`{name}`' for name in names[side])}" for side in SIDES]


def partial_lines(results: dict[str, Any]) -> list[str]:
    """Why the numbers are a quick look only; empty for the full protocol."""
    lines = []
    if results["limit"] is not None:
        lines += [f"at most {results['limit']} items of each split (`--limit`); a quick look only."]
    if results["preset"] != "full":
        lines += [f"preset {results['preset']!r}, a small protocol; the real one is `--preset full`."]
    return lines


def warning_lines(results: dict[str, Any]) -> dict[str, list[str]]:
    """Each warning once, with the entries that it is about."""
    return _by_text((line, name) for name, entry in results["tasks"].items() for line in entry["warnings"])


def not_measured_lines(results: dict[str, Any]) -> list[str]:
    """Each reason once, behind the entries that were not measured for it."""
    reasons = _by_text((why, name) for name, why in results["not_measured"].items())
    return [f"{', '.join(names)}: {why}" for why, names in reasons.items()]


def _by_text(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text, name in pairs:
        found.setdefault(text, []).append(name)
    return found


def heading(name: str, entry: dict[str, Any]) -> str:
    """Title of an entry's section."""
    task, data_set = name.split("/")
    return f"{TASKS[task].title}, {title_of(data_set)}: {entry['protocol']['id']}"


def protocol_lines(entry: dict[str, Any]) -> list[str]:
    """How an entry was measured, on what, of which encoders."""
    protocol, data = entry["protocol"], entry["data"]
    lines = list(protocol["notes"])
    if protocol["differs"]:
        lines += [f"Not to be put beside the paper's numbers: {protocol['differs']}."]
    settings = ", ".join(f"{key} {value}" for key, value in protocol["settings"].items())
    lines += [f"Settings: {settings}; seeds {', '.join(map(str, entry['seeds']))}; {entry['num_items']} test items."]
    for split, row in data["splits"].items():
        dropped = ", ".join(f"{count} {reason}" for reason, count in row["dropped"].items()) or "none"
        lines += [
            f"Data `{data['source']}`, split {split}: {row['items']} items, dropped: {dropped}, content "
            f"{row['fingerprint']}."
        ]
    for side in SIDES:
        encoder = entry[side]
        lines += [
            f"{side}: `{encoder['name']}`, revision {encoder['revision']}, {encoder['class'].split('.')[-1]}, "
            f"{encoder['parameters']:,} parameters, patch {encoder['patch_size_px']} px, width "
            f"{encoder['hidden_size']}, {encoder['dtype']}, weights {encoder['weights_hash']}."
        ]
        lines += [f"{side}: {note}." for note in encoder.get("notes", [])]
    return lines


def number(summary: dict[str, Any], signed: bool = False) -> str:
    """Mean and deviation over the seeds as text."""
    text = figure(summary["mean"], "+.4g" if signed and summary["mean"] else ".4g")
    return text if summary["deviation"] is None else f"{text} ± {summary['deviation']:.2g}"


def figure(value: float | None, form: str) -> str:
    """A number as text; None is what results.json has for one that is not finite."""
    return format(math.nan if value is None else value, form)


def verdict(metric: Metric, difference: dict[str, Any], num_items: int) -> str:
    """Equal, better or worse; "may be chance" where the interval holds zero, "too few items" for one to be believed.

    Or "undefined" for what is not finite.
    """
    low, high = difference["interval"]
    if strict([difference["mean"], low, high]).count(None):
        return "undefined"
    if difference["mean"] == 0:
        return "equal"
    word = "better" if metric.is_better(difference["mean"]) else "worse"
    if num_items < FEW_ITEMS:
        return f"{word}, too few items"
    return f"{word}, may be chance" if low <= 0 <= high else word


def _count(parameters: int) -> str:
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if parameters >= size:
            return f"{parameters / size:.3g} {unit}"
    return str(parameters)
