"""Puts the page together: what was kept, what was dropped, how answers are spread, samples, and what fails."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from dataset_builders.inspection import MAX_FAILURES
from dataset_builders.inspection.drawing import bars, colour_of, histogram, shares, views_svg
from dataset_builders.inspection.reading import InspectedConfig, Record
from dataset_builders.schema import message_text

TEMPLATE = Path(__file__).parent / "page.html"


def page(name: str, report: dict[str, Any], configs: Sequence[InspectedConfig]) -> str:
    """The whole page.

    Args:
        name: of the data set.
        report: the content of its build_report.json.
        configs: what was read of each configuration.
    """
    failing = sum(len(config.failures) for config in configs)
    checked = sum(config.checked for config in configs)
    verdict = "all pass" if not failing else f"{failing} fail"
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(name),
        summary=escape(
            f"{sum(sum(config.rows.values()) for config in configs):,} records from {report['kept_items']:,} of "
            f"{report['items']:,} {report['source']} scenes, seed {report['seed']}, generator version "
            f"{report['generator_version']}, fingerprint {report['fingerprint']}."
        ),
        verdict_class="good" if not failing else "bad",
        verdict=f"{checked:,} records checked again: {verdict}",
        failures=_failures(configs),
        links="".join(f'<a href="#{config.name}">{config.name}</a>' for config in configs),
        drops=_drops(report),
        configs="".join(_config(config) for config in configs),
    )


def _failures(configs: Sequence[InspectedConfig]) -> str:
    lines = [
        f"<li><code>{escape(config.name)}</code> {escape(record_id)}: {escape(problem)}</li>"
        for config in configs
        for record_id, problem in config.failures[:MAX_FAILURES]
    ]
    return f'<ul class="failures">{"".join(lines)}</ul>' if lines else ""


def _drops(report: dict[str, Any]) -> str:
    if not report["drops_by_reason"]:
        return "<p>Nothing was left out.</p>"
    counts = {
        f"{'whole scene' if one['config'] == '*' else one['config']}: {one['reason']}": one["count"]
        for one in report["drops_by_reason"]
    }
    examples = {drop["reason"]: drop["detail"] for drop in reversed(report["drops"])}
    told = "".join(f"<li><code>{escape(reason)}</code> {escape(text)}</li>" for reason, text in examples.items())
    return f"{bars(counts)}<details><summary>One example of each reason</summary><ul>{told}</ul></details>"


def _config(config: InspectedConfig) -> str:
    rows = ", ".join(f"{count:,} {split}" for split, count in config.rows.items())
    parts = [f'<section id="{config.name}"><h2>{escape(config.name)}</h2><p>{rows} records.</p>']
    if config.kinds:
        charts = [f"<figure><h3>Turns by kind</h3>{bars(_readable(config.kinds.most_common()))}</figure>"]
        if config.answers:
            balance = "".join(
                f"<h4>{escape(kind.replace('_', ' '))}</h4>{bars(shares(one))}" for kind, one in config.answers.items()
            )
            charts.append(f"<figure><h3>Answers</h3>{balance}</figure>")
        charts.append(
            f"<figure><h3>Lengths</h3>{histogram(config.depths_m, 'depths')}"
            f"{histogram(config.distances_m, 'distances')}</figure>"
        )
        if set(config.views) != {1}:
            views = {f"{count} images": config.views[count] for count in sorted(config.views)}
            charts.append(f"<figure><h3>Images per record</h3>{bars(views)}</figure>")
        parts.append(f'<div class="charts">{"".join(charts)}</div>')
    parts += [_sample(record) for record in config.samples]
    return "".join(parts) + "</section>"


def _readable(counts: list[tuple[str, int]]) -> dict[str, int]:
    return {name.replace("_", " "): count for name, count in counts}


def _sample(record: Record) -> str:
    """A record: its images with what is drawn on them beside all of its turns."""
    pictures = "".join(
        f"<figure>{svg}<figcaption>image {place}</figcaption></figure>" if len(record["images"]) > 1 else svg
        for place, svg in enumerate(views_svg(record), start=1)
    )
    texts = [message_text(one).strip() for one in record["messages"]]
    levels = [f"{turn['index']} · {turn['level']} · {turn['kind'].replace('_', ' ')}" for turn in record["turns"]]
    levels = levels or [""] * (len(texts) // 2)
    turns = "".join(
        f'<li><span class="level">{escape(level)}</span><p class="question">{_lines(question)}</p>'
        f'<p class="answer">{_lines(answer)}</p></li>'
        for level, question, answer in zip(levels, texts[::2], texts[1::2])
    )
    objects = "".join(
        f'<li><i style="background:{colour_of(row["id"])}"></i>{escape(row["mention"])}{_flags(row)}</li>'
        for row in record["objects"]
    )
    facts = f"{record['source']} · {record['licence']} · {record['split']} · scale from {record['scale_source']}"
    count = len(record["images"])
    return (
        f'<article class="{"many" if count > 1 else "one"}"><header><h3>{escape(record["id"])}</h3>'
        f'<p class="quiet">{escape(facts)}</p></header><div><div class="pictures">{pictures}'
        f'</div><ul class="objects">{objects}</ul></div><ol class="turns">{turns}</ol></article>'
    )


def _lines(text: str) -> str:
    return "<br>".join(escape(line) for line in text.split("\n") if line.strip())


def _flags(row: Record) -> str:
    """Why an object is not asked about, or not for its size."""
    names = [name for name in ("truncated", "occluded") if row[name]]
    names = ["support"] if row["is_support"] else names if row["usable"] else [*names, "not asked about"]
    return f' <span class="quiet">({", ".join(names)})</span>' if names else ""
