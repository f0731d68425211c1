"""A table as Markdown and as a picture, from its JSON alone."""

import math
from pathlib import Path
from typing import Any

from experiments.arms import CONTROLS

HOW_TO_READ = (
    "Values are means ± standard deviations over the seeds; a seed is one training of everything but the world. "
    "Differences are paired, arm - reference; in brackets a bootstrap interval (95 %) over the test items and, where "
    "there are several, the seeds. Bold: the interval does not hold zero, for better or for worse. With one seed it "
    "says nothing of another training."
)
PANELS_IN_A_ROW = 4
FAR_OFF = "random_encoder"  # a row of the tables; in a picture it would leave the others no room
LOOKS = 0.02
COLOURS = {"better": "#1a7f37", "worse": "#c62828", "chance": "#6b7280"}


def render_markdown(found: dict[str, Any]) -> str:
    """The Markdown of a table."""
    parts = [f"# {found['title']}", "", *_facts(found), ""]
    if found["gate"]["admitted"] is False:
        parts += ["**BASE TOO WEAK: the admission gate failed, so nothing here is evidence.**", ""]
    parts += [score_table(found), ""]
    parts += [f"Differences from {found['arms'][found['reference']]['label']}:", "", difference_table(found), ""]
    if over := difference_table(found, "over_shuffled"):
        parts += ["Differences from the same with shuffled answers, which is what the true ones teach:", "", over, ""]
    if paper := paper_table(found):
        parts += ["The paper, in this place:", "", paper, ""]
    if found["aims"]:
        parts += ["| claim | found | met |", "|---|---|---|"]
        words = {True: "yes", False: "**no**", None: "not measured"}
        parts += [f"| {aim['claim']} | {aim['found']} | {words[aim['met']]} |" for aim in found["aims"]]
        parts += [""]
    parts += ["Controls that frame the scores:", "", controls_table(found), ""]
    parts += [f"Admission of the base: {'; '.join(found['gate']['reasons'])}.", ""]
    parts += [reading_lines(found["reading"]), ""]
    parts += [found["note"], ""] if found["note"] else []
    return "\n".join([*parts, HOW_TO_READ, ""])


def score_table(found: dict[str, Any]) -> str:
    """Arms by measures, values."""
    rows = []
    for name, arm in found["arms"].items():
        cells = [_value(arm["measures"].get(measure)) for measure in found["measures"]]
        rows.append([_arm_label(name, arm), *cells])
    return _table(["arm", *_heads(found)], rows)


def difference_table(found: dict[str, Any], over: str = "") -> str:
    """Arms by measures, paired differences with their intervals.

    Args:
        found: what a table's JSON holds.
        over: "" = from the reference; "over_shuffled" = from the own control, "" where no arm has one.
    """
    rows = []
    for name, arm in found["arms"].items():
        cells = [arm["measures"].get(measure, {}) for measure in found["measures"]]
        cells = [cell.get(over, {}) if over else cell for cell in cells]
        if name != found["reference"] and (any(cells) or not over):
            rows.append([_arm_label(name, arm), *map(_difference, cells)])
    return _table(["arm", *_heads(found)], rows) if rows else ""


def paper_table(found: dict[str, Any]) -> str:
    """The paper's numbers of the same arms; "" where it has none."""
    rows = [[arm["label"], *arm["paper"]] for arm in found["arms"].values() if arm["paper"]]
    return _table(["arm", *found["paper_columns"]], rows) if rows else ""


def controls_table(found: dict[str, Any]) -> str:
    """Scores of what sees no image, too little or the wrong one, by measure."""
    rows = []
    for measure, controls in found["controls"].items():
        told = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in controls.items())
        rows.append([found["measures"][measure]["label"], told or "-"])
    return _table(["measure", "controls"], rows)


def reading_lines(reading: dict[str, dict[str, float]]) -> str:
    """What the model that stage 3 starts from takes from the image, by kind of conversation."""
    told = []
    for config, loss in reading.items():
        gain = min(loss["other"], loss["none"]) - loss["own"]
        verdict = "looks" if gain > LOOKS * loss["own"] else "**does not look**"
        told.append(f"`{config}` {loss['own']:.3f} / {loss['other']:.3f} / {loss['none']:.3f}: {verdict}")
    if not told:
        return "What stage 2's model takes from the image was not measured."
    return (
        "What stage 3 starts from, loss per token of held-out answers with the own image / another one / none "
        f"(it looks where the own image saves {LOOKS:.0%} or more): {'; '.join(told)}."
    )


def draw(found: dict[str, Any], file: Path) -> None:
    """Write the differences from the reference with their intervals, one panel for each measure, as a PNG."""
    from matplotlib.figure import Figure

    measures = list(found["measures"])
    arms = [name for name in found["arms"] if name not in (found["reference"], FAR_OFF)]
    rows = -(-len(measures) // PANELS_IN_A_ROW)
    columns = -(-len(measures) // rows)
    figure = Figure(figsize=(2.6 + 2.5 * columns, 0.7 + rows * (1.0 + 0.27 * len(arms))), layout="constrained")
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axis in axes.flat[len(measures) :]:
        axis.set_axis_off()
    for axis, measure in zip(axes.flat, measures):
        for place, name in enumerate(arms):
            _draw_arm(axis, place, found["arms"][name]["measures"].get(measure))
        described = found["measures"][measure]
        axis.axvline(0, color="#444444", linewidth=0.8)
        axis.set_title(described["label"], fontsize=9)
        axis.set_xlabel(f"{'right' if described['higher_is_better'] else 'left'} is better", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes[0, 0].set_yticks(range(len(arms)), [_arm_label(name, found["arms"][name], plain=True) for name in arms])
    axes[0, 0].set_ylim(len(arms) - 0.5, -0.5)
    weak = ", BASE TOO WEAK" if found["gate"]["admitted"] is False else ""
    reference = found["arms"][found["reference"]]["label"]
    seeds = f"{len(found['seeds'])} seed{'s' if len(found['seeds']) > 1 else ''}"
    figure.suptitle(f"{found['title']}\ndifference from {reference}, {found['preset']}, {seeds}{weak}", fontsize=10)
    figure.savefig(file, dpi=120)


def _draw_arm(axis: Any, place: int, cell: dict[str, Any] | None) -> None:
    """The mean difference with its interval, and a dot for each seed; a cross where nothing was measured."""
    if cell is None or "difference" not in cell or not math.isfinite(cell["difference"]["mean"]):
        axis.plot(0, place, marker="x", color="#bbbbbb", markersize=5)
        return
    difference = cell["difference"]
    colour = COLOURS.get(cell["verdict"], COLOURS["chance"])
    axis.plot(difference["interval"], [place, place], color=colour, linewidth=1.8, solid_capstyle="butt")
    axis.plot(difference["mean"], place, marker="o", color=colour, markersize=5)
    if len(difference["per_seed"]) > 1:
        axis.plot(
            difference["per_seed"], [place + 0.22] * len(difference["per_seed"]), ".", color=colour, markersize=3
        )


def _facts(found: dict[str, Any]) -> list[str]:
    """How the table was made."""
    lines = [f"`{found['command']}`, preset {found['preset']}, seeds {', '.join(map(str, found['seeds']))},"]
    commits = found["commits"]
    told = commits[0] if len(commits) == 1 else f"{len(commits)} commits from {commits[0]} to {commits[-1]}"
    lines += [f"{found['hardware']}, {told}, {found['minutes']:.1f} minutes of work in all pieces."]
    return lines


def _arm_label(name: str, arm: dict[str, Any], plain: bool = False) -> str:
    mark = "control: " if name in CONTROLS else ""
    return f"{mark}{arm['label']}" if plain or not mark else f"*{mark}{arm['label']}*"


def _heads(found: dict[str, Any]) -> list[str]:
    return [f"{row['label']} {'↑' if row['higher_is_better'] else '↓'}" for row in found["measures"].values()]


def _value(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "-"
    if cell["deviation"] is None:
        return f"{cell['mean']:.4g}"
    rounding = cell["deviation"] < 1e-6 * abs(cell["mean"])  # of sums over the same items
    return f"{cell['mean']:.4g} ± {0 if rounding else cell['deviation']:.2g}"


def _difference(cell: dict[str, Any] | None) -> str:
    if cell is None or "difference" not in cell:
        return "-"
    low, high = cell["difference"]["interval"]
    mean = cell["difference"]["mean"]
    mean, low, high = (0.0 if abs(one) < 1e-9 else one for one in (mean, low, high))  # rounding of sums
    text = f"{mean:+.3g} [{low:+.3g}, {high:+.3g}]" if mean or low or high else "0"
    return f"**{text}**" if cell["verdict"] in ("better", "worse") else text


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
