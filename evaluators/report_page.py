"""report.html: one page that needs nothing beside it."""

import base64
import re
from html import escape
from itertools import groupby
from pathlib import Path
from string import Template
from typing import Any

from evaluators.catalogue import TASKS
from evaluators.report import (
    HOW_TO_READ,
    TITLES,
    Row,
    columns_with_content,
    footnotes,
    heading,
    not_measured_lines,
    partial_lines,
    protocol_lines,
    side_lines,
    summary_line,
    table_rows,
    warning_lines,
)

TEMPLATE = Path(__file__).with_name("report.html")
WIDTH, HEIGHT = 120, 18  # of an interval's drawing, pixels
IN_DIFFERENCE = ("interval", "verdict")  # columns that share a cell with the difference
BEHIND = ("resolution", "parameters", "controls", "paper")  # what a narrow screen shows only when it is scrolled
OF_ENTRY = ("task", "data", "resolution", "parameters")  # the same for all scores of an entry


def render_page(results: dict[str, Any], folder: Path) -> str:
    """Return the page; pictures are read from `folder`."""
    tasks = results["tasks"]
    shown = [name for name in columns_with_content(table_rows(results)) if name not in IN_DIFFERENCE]
    shown.sort(key=BEHIND.__contains__)
    return Template(TEMPLATE.read_text()).substitute(
        sides="".join(f"<li>{_text(line.removeprefix('* '))}</li>" for line in side_lines(results)),
        summary=_text(summary_line(results)),
        partial="".join(f'<p class="partial">Partial: {_text(line)}</p>' for line in partial_lines(results)),
        head="".join(f'<th scope="col">{escape(getattr(TITLES, name))}</th>' for name in shown),
        rows="\n".join(_table(results, shown)),
        footnotes="".join(f"<li>{_text(line)}</li>" for line in footnotes(results)),
        how=_text(HOW_TO_READ),
        warnings="\n".join(
            f'<p class="warning"><b>{escape(", ".join(names))}</b>: {_text(line)}</p>'
            for line, names in warning_lines(results).items()
        ),
        sections="\n".join(_section(name, entry, folder) for name, entry in tasks.items()),
        not_measured="".join(f"<li>{_text(line)}</li>" for line in not_measured_lines(results)) or "<li>nothing</li>",
        environment="".join(
            f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in results["environment"].items()
        ),
    )


def _table(results: dict[str, Any], shown: list[str]) -> list[str]:
    """One row per score; what the scores of an entry have in common stands beside them once."""
    rows = iter(table_rows(results))
    lines = []
    for family, entries in groupby(results["tasks"].items(), key=lambda item: TASKS[item[0].split("/")[0]].family):
        lines.append(f'<tr class="family"><th colspan="{len(shown)}" scope="colgroup">{escape(family)}</th></tr>')
        for name, entry in entries:
            for place, values in enumerate(entry["metrics"].values()):
                row, cells = next(rows), []
                for column in shown:
                    text = re.sub(r" (?=[KMB]\b)", "&nbsp;", escape(getattr(row, column)))  # 21 M parameters
                    if column == "task":
                        text = f'<a href="#{name}">{text}</a>'
                    if column == "difference":
                        cells.append(f'<td class="difference">{_difference(values, row)}</td>')
                    elif column not in OF_ENTRY:
                        cells.append(f'<td class="{column}">{text}</td>')
                    elif place == 0:
                        cells.append(f'<td class="{column}" rowspan="{len(entry["metrics"])}">{text}</td>')
                lines.append(f"<tr>{''.join(cells)}</tr>")
    return lines


def _difference(values: dict[str, Any], row: Row) -> str:
    """The difference with its interval, drawn and in numbers, and what it says."""
    return (
        f'<b>{escape(row.difference)}</b> <span class="{_style(row.verdict)}">{escape(row.verdict)}</span>'
        f'{interval_svg(values, row.verdict)}<span class="interval">{escape(row.interval)}</span>'
    )


def interval_svg(values: dict[str, Any], verdict: str) -> str:
    """A difference and its interval, drawn so that better is to the right of the dashed zero."""
    if verdict == "undefined":
        return ""
    sign = 1 if values["higher_is_better"] else -1
    ends = sorted(sign * end for end in values["difference"]["interval"])
    mean = sign * values["difference"]["mean"]
    reach = max(*map(abs, ends), abs(mean)) or 1.0

    def x(value: float) -> float:
        return WIDTH / 2 + value / reach * (WIDTH / 2 - 5)

    middle = HEIGHT / 2
    return (
        f'<svg class="interval {_style(verdict)}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{verdict}">'
        f'<line class="zero" x1="{WIDTH / 2}" x2="{WIDTH / 2}" y1="1" y2="{HEIGHT - 1}"/>'
        f'<line class="range" x1="{x(ends[0]):.1f}" x2="{x(ends[1]):.1f}" y1="{middle}" y2="{middle}"/>'
        f'<circle cx="{x(mean):.1f}" cy="{middle}" r="3.5"/></svg>'
    )


def _style(verdict: str) -> str:
    return verdict if verdict in ("better", "worse") else "chance"


def _section(name: str, entry: dict[str, Any], folder: Path) -> str:
    picture = ""
    if "picture" in entry:
        data = base64.b64encode((folder / entry["picture"]).read_bytes()).decode()
        picture = f'<img src="data:image/png;base64,{data}" alt="{escape(name)}: examples, base beside boosted">'
    lines = "".join(f"<li>{_text(line)}</li>" for line in protocol_lines(entry))
    return f'<article id="{name}"><h2>{_text(heading(name, entry))}</h2>{picture}<ul>{lines}</ul></article>'


def _text(markdown: str) -> str:
    """A line of the Markdown report as HTML: what stands between backticks is code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(markdown))
