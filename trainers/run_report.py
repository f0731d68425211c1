"""The last page of a run: what was trained, its curves and figures, in one file that needs no network.

Written at the end of `spatialboost train`; for a run that is still going or was stopped, from its last checkpoint:

    python -m trainers.run_report outputs/stage3
"""

import argparse
import json
import math
import statistics
import sys
from datetime import timedelta
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from trainers.checkpoints import STATE_FILE, last_checkpoint
from trainers.curves import Curve, layer_chart, line_chart, small_chart, value_range
from trainers.run_record import FILE_NAME as RECORD_NAME
from trainers.run_record import read_record

FILE_NAME = "report.html"
TEMPLATE = Path(__file__).with_suffix(".html")
Log = dict[str, Any]

# Key of a log line, name, unit of its axis, whether it is a share, whether its axis starts at zero.
FIGURES = (
    ("loss", "Training loss", "mean of the batches", False, False),
    ("mean_token_accuracy", "Answer tokens predicted right", "share", True, False),
    ("grad_norm", "Gradient norm before clipping", "L2 norm", False, False),
    ("speed/tokens_per_second", "Tokens per second", "tokens/s, no padding", False, True),
    ("speed/answer_tokens_per_second", "Answer tokens per second", "tokens/s", False, True),
    ("speed/images_per_second", "Images per second", "images/s", False, True),
    ("speed/samples_per_second", "Conversations per second", "conversations/s", False, True),
    ("memory/peak_gb", "Peak memory", "GB of one process", False, True),
    ("data/waiting_share", "Time spent waiting for data", "share of the step", True, True),
    ("data/padding_share", "Padding", "share of the positions", True, True),
)
NOT_DRAWN = {"speed/answer_tokens_per_second", "speed/samples_per_second", "data/padding_share"}


def make_parser() -> argparse.ArgumentParser:
    """The parser of `python -m trainers.run_report`."""
    parser = argparse.ArgumentParser(prog="python -m trainers.run_report", description=__doc__.split("\n")[0])
    parser.add_argument("output_dir", type=Path, help="folder of a run, finished or not")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Write the page; return 0.

    Raises:
        ValueError: the folder holds no run that has logged anything.
    """
    print(write_report(make_parser().parse_args(argv).output_dir))
    return 0


def write_report(output_dir: str | Path) -> Path:
    """Write `report.html` into the folder of a run, from `run.json` and the trainer's own history.

    Raises:
        ValueError: the folder holds no run that has logged anything.
    """
    folder = Path(output_dir)
    record, state = read_run(folder)
    page = folder / FILE_NAME
    page.write_text(render(record, state), encoding="utf-8")
    return page


def read_run(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """`run.json` and the trainer's state: that of the end if the run is finished, else of the last checkpoint.

    Raises:
        ValueError: one of them is missing.
    """
    record = read_record(folder)
    if record is None:
        raise ValueError(f"output_dir={str(folder)!r} holds no {RECORD_NAME}: pass the output_dir of a run.")
    place = str(folder) if record["status"] == "finished" else last_checkpoint(folder)
    if place is None:
        raise ValueError(f"output_dir={str(folder)!r} holds no checkpoint yet: wait for one, or save more often.")
    return record, json.loads((Path(place) / STATE_FILE).read_text())


def render(record: dict[str, Any], state: dict[str, Any]) -> str:
    """The page."""
    history: list[Log] = state["log_history"]
    logs = [log for log in history if "loss" in log]
    resumed = [log["resumed_at"] for log in history if "resumed_at" in log]
    last_step = state["global_step"]
    finished = record["status"] == "finished"
    where = f"{'Finished:' if finished else 'Not finished, at the checkpoint of'} step {last_step:,}"
    where += f" of {state['max_steps']:,}"
    where += f", resumed at {', '.join(f'{step:,}' for step in resumed)}" if resumed else ""
    notes = "Loss, speed and shares are means since the log before, all else is the state at the log."
    notes = notes if logs else "The run was shorter than logging_steps: nothing was logged."
    notes += " Dashed verticals: the run was resumed there." if resumed else ""
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(f"Stage {record['stage']}: {record['description']}"),
        state=escape(where),
        facts="".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts(record).items()),
        figures=figures_table(logs),
        notes=notes,
        curves="".join(run_charts(logs, last_step, resumed)),
        **channel_section(logs, last_step, resumed),
    )


def facts(record: dict[str, Any]) -> dict[str, str]:
    """What was trained, from what, on what and by which code."""
    config, counts = record["config"], record.get("trainable_parameters", {})
    precision = next((name for name in ("bf16", "fp16") if config.get(name)), "float32")
    batch, accumulated = config["per_device_train_batch_size"], config["gradient_accumulation_steps"]
    data = [f"{part['name']}, {part['rows']:,} rows, {part['fingerprint'][:12]}" for part in record["data"]]
    starts = record["started_from"].items()
    weights = [f"{name} {part['name']}, {(part['weights'] or 'unknown')[:12]}" for name, part in starts]
    rows = {
        "Data": "; ".join(data),
        "Starting weights": "; ".join(weights),
        "Trained parameters": ", ".join(f"{name} {count:,}" for name, count in counts.items()),
        "Frozen parameters": f"{record['frozen_parameters']:,}" if "frozen_parameters" in record else "",
        "Peak learning rates": ", ".join(f"{k} {rate:g}" for k, rate in record.get("learning_rates", {}).items()),
        "Batch of a process": f"{batch} conversations, {accumulated} such batches in a step, {precision}",
        "Optimizer": f"{config['optim']}, {config['lr_scheduler_type']} schedule, seed {config['seed']}",
        "Time since the last start": str(timedelta(seconds=round(record["seconds"]))) if "seconds" in record else "",
        "Code": f"commit {record['git_commit'] or 'unknown'}",
        "Versions": ", ".join(f"{name} {version}" for name, version in record["versions"].items()),
    }
    return {name: text for name, text in rows.items() if text}


def figures_table(logs: list[Log]) -> str:
    """First, last and median of every figure that was logged."""
    lines = []
    for key, name, unit, is_share, _ in FIGURES:
        if values := [value for _, value in points(logs, key)]:
            chosen = (values[0], values[-1], statistics.median(values))
            cells = "".join(f"<td>{_figure_text(value, is_share)}</td>" for value in chosen)
            shown = f" <span class='quiet'>({escape(unit)})</span>" if unit and not is_share else ""
            lines.append(f"<tr><th scope='row'>{escape(name)}{shown}</th>{cells}</tr>")
    head = "".join(f"<th scope='col'>{name}</th>" for name in ("Figure", "First log", "Last log", "Median"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def points(logs: list[Log], key: str) -> list[tuple[float, float]]:
    """(step, value) of the logs that hold the key; NaN and infinity cannot be drawn and are left out."""
    return [(log["step"], log[key]) for log in logs if key in log and math.isfinite(log[key])]


def run_charts(logs: list[Log], last_step: int, resumed: list[float]) -> list[str]:
    """Loss, gradient norm, learning rates, speed, memory, waiting and padding over the steps."""
    charts = []
    for key, title, unit, is_share, from_zero in FIGURES:
        found = points(logs, key)
        if not found or key in NOT_DRAWN:
            continue
        curves = [Curve(found)]
        reach = len(found) // 20
        if key == "loss" and reach:
            mean = Curve(running_mean(found, reach), f"mean of {2 * reach + 1} logs")
            curves = [Curve(found, "each log", "faint"), mean]
        if key == "data/waiting_share" and (padding := points(logs, "data/padding_share")):
            title, unit = "Waiting for data, and padding", "share of the time, share of the positions"
            curves = [Curve(found, "waiting"), Curve(padding, "padding", "two")]
        charts.append(line_chart(title, unit, curves, last_step, resumed, from_zero, is_share))
        if key == "grad_norm":
            charts += rate_charts(logs, last_step, resumed)
    return charts


def rate_charts(logs: list[Log], last_step: int, resumed: list[float]) -> list[str]:
    """The learning rates; groups of the same rate share a chart, others would be flat beside the largest."""
    groups: dict[tuple, list[str]] = {}
    for key in sorted({key for log in logs for key in log if key.startswith("learning_rate/")}):
        groups.setdefault(tuple(points(logs, key)), []).append(key.removeprefix("learning_rate/"))
    charts = []
    for line, names in groups.items():
        title = f"Learning rate: {', '.join(names)}"
        charts.append(line_chart(title, "rate", [Curve(list(line))], last_step, resumed, from_zero=True))
    return charts


def channel_section(logs: list[Log], last_step: int, resumed: list[float]) -> dict[str, str]:
    """What the template wants on alpha and distance of every layer; hidden where no second channel trained."""
    layers = sorted({key.split("/")[1] for log in logs for key in log if key.startswith("alpha/")})
    if not layers:
        names = ("layer_key", "channel_charts", "layer_charts", "layer_rows")
        return dict.fromkeys(names, "") | {"channel_hidden": "hidden"}
    alphas, distances, rows = [], [], []
    for place, layer in enumerate(layers):
        mean, low, high = (points(logs, f"alpha/{layer}/{figure}") for figure in ("mean", "min", "max"))
        distance = points(logs, f"distance/{layer}")
        alphas.append(Curve(mean, band=[(a, b) for (_, a), (_, b) in zip(low, high)]))
        distances.append(Curve(distance, layer.replace("_", " "), depth=place / max(1, len(layers) - 1)))
        rows.append((int(layer.removeprefix("layer_")), mean[-1][1], low[-1][1], high[-1][1], distance[-1][1]))
    span, unit = value_range(alphas), "relative Frobenius norm"
    ends = [(row[0], row[4], row[4], row[4]) for row in rows]
    charts = [
        layer_chart("Alpha of each layer at the end", "mean, and range over the channels", [r[:4] for r in rows]),
        layer_chart("Distance of each layer at the end", unit, ends, from_zero=True),
        line_chart("Distance over the steps", unit, distances, last_step, resumed, from_zero=True),
    ]
    small = [small_chart(f"Layer {row[0]}", curve, last_step, span) for row, curve in zip(rows, alphas)]
    cells = [(row[0], "".join(f"<td>{value:.4f}</td>" for value in row[1:])) for row in rows]
    return {
        "channel_hidden": "",
        "layer_key": f'layer {rows[0][0]} <i class="depth"></i> layer {rows[-1][0]}',
        "channel_charts": "".join(charts),
        "layer_charts": "".join(small),
        "layer_rows": "".join(f"<tr><th scope='row'>{layer}</th>{values}</tr>" for layer, values in cells),
    }


def running_mean(values: list[tuple[float, float]], reach: int) -> list[tuple[float, float]]:
    """Mean of each value and of up to `reach` on either side."""
    windows = (values[max(0, i - reach) : i + reach + 1] for i in range(len(values)))
    return [(step, sum(v for _, v in window) / len(window)) for (step, _), window in zip(values, windows)]


def _figure_text(value: float, is_share: bool) -> str:
    if is_share:
        return f"{value:.1%}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.4g}"


if __name__ == "__main__":
    sys.exit(main())
