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
    columns_with_content,
    heading,
    partial_lines,
    protocol_lines,
    table_rows,
    title,
)

TEMPLATE = Path(__file__).with_name("report.html")
WIDTH, HEIGHT = 120, 18  # of an interval's drawing, pixels


def render_page(results: dict[str, Any], folder: Path) -> str:
    """Return the page; pictures are read from `folder`."""
    tasks = results["tasks"]
    first = next(iter(tasks.values()))
    titles = TITLES._replace(**{side: title(results, side) for side in ("base", "boosted")})
    shown = columns_with_content(table_rows(results))
    heads = [
        head for name in shown for head in (["", titles.interval] if name == "interval" else [getattr(titles, name)])
    ]
    return Template(TEMPLATE.read_text()).substitute(
        base=escape(first["base"]["name"]),
        boosted=escape(first["boosted"]["name"]),
        partial="".join(f'<p class="partial">Partial: {_text(line)}</p>' for line in partial_lines(results)),
        head="".join(f'<th scope="col">{escape(name)}</th>' for name in heads),
        rows="\n".join(_table(results, shown)),
        how=_text(HOW_TO_READ),
        warnings="\n".join(
            f'<p class="warning"><b>{escape(name)}</b>: {_text(line)}</p>'
            for name, entry in tasks.items()
            for line in entry["warnings"]
        ),
        sections="\n".join(_section(name, entry, folder) for name, entry in tasks.items()),
        not_measured="".join(
            f"<dt>{escape(name)}</dt><dd>{_text(why)}</dd>" for name, why in results["not_measured"].items()
        ),
        environment="".join(
            f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in results["environment"].items()
        ),
    )


def _table(results: dict[str, Any], shown: list[str]) -> list[str]:
    values = [row for entry in results["tasks"].values() for row in entry["metrics"].values()]
    names = [name for name, entry in results["tasks"].items() for _ in entry["metrics"]]
    lines = []
    rows = zip(names, values, table_rows(results))
    for family, members in groupby(rows, key=lambda item: TASKS[item[0].split("/")[0]].family):
        lines.append(f'<tr class="family"><th colspan="{len(shown) + 1}" scope="colgroup">{escape(family)}</th></tr>')
        for _, value, row in members:
            cells = []
            for column in shown:
                if column == "interval":
                    cells.append(f"<td>{interval_svg(value, row.verdict)}</td>")
                style = f"verdict {_style(row.verdict)}" if column == "verdict" else column
                cells.append(f'<td class="{style}">{escape(getattr(row, column))}</td>')
            lines.append(f"<tr>{''.join(cells)}</tr>")
    return lines


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
    return f"<article><h2>{_text(heading(name, entry))}</h2>{picture}<ul>{lines}</ul></article>"


def _text(markdown: str) -> str:
    """A line of the Markdown report as HTML: what stands between backticks is code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(markdown))
