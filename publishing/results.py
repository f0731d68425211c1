"""A report of `spatialboost evaluate` on the card: its table, the model-index of the metadata, `.eval_results`."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from model_cards import weights_digest

INDEX, HUB_FOLDER = "model-index.yaml", ".eval_results"
SECTION = re.compile(r"(?<=\n## Results\n).*?(?=\n## )", re.DOTALL)
HEAD = "| task | data | metric | base | boosted | difference | 95 % interval |\n|---|---|---|---|---|---|---|"


def add_results(staged: Path, report: Path, model_folder: Path, name: str) -> None:
    """Put a report's results on the card of what is published, and its files for the Hub beside it.

    Args:
        staged: what is sent; its README.md has a section "## Results".
        report: folder that `spatialboost evaluate --output` wrote.
        model_folder: the boosted encoder that the report must be about.
        name: of the model, in the model-index.

    Raises:
        ValueError: there is no such report, it is not of the whole protocol, or it is about other weights.
    """
    from huggingface_hub.repocard import metadata_load, metadata_save
    from yaml import safe_load

    results = read_report(report, model_folder)
    card, index = staged / "README.md", report / INDEX
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    if not SECTION.search(text) or not index.is_file():
        what = "README.md has no section 'Results'" if index.is_file() else f"it has no {INDEX}"
        raise ValueError(f"--results {report}: {what}: publish the `encoder` folder of stage 3, with its own card.")
    card.unlink()  # it may be a link to the folder's own
    card.write_text(SECTION.sub(lambda _: f"\n{section(results)}\n", text), encoding="utf-8")
    (model,) = safe_load(index.read_text(encoding="utf-8"))["model-index"]
    metadata_save(card, (metadata_load(card) or {}) | {"model-index": [model | {"name": name}]})
    if (report / HUB_FOLDER).is_dir():
        shutil.copytree(report / HUB_FOLDER, staged / HUB_FOLDER, dirs_exist_ok=True)


def read_report(report: Path, model_folder: Path) -> dict[str, Any]:
    """The content of a report's results.json.

    Raises:
        ValueError: see `add_results`.
    """
    try:
        results = json.loads((report / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"--results {report}: no report of `spatialboost evaluate` ({error}).") from error
    small = [f"--limit {results['limit']}"] if results["partial"] else []
    small += [f"--preset {results['preset']}"] if results["preset"] != "full" else []
    small += results.get("changed", [])
    if small:
        raise ValueError(
            f"--results {report}: it was made with {' and '.join(small)}, and such figures are not the protocol's: "
            "run `spatialboost evaluate` without, or publish without --results."
        )
    ours = weights_digest(model_folder)
    others = [name for name, entry in results["tasks"].items() if entry["boosted"].get("weights_files") != ours]
    if not results["tasks"]:
        raise ValueError(f"--results {report}: it holds no scores; nothing was measured.")
    if others or not ours:
        raise ValueError(
            f"--results {report}: {', '.join(others[:3])} was not measured with the weights in "
            f"{model_folder}: run `spatialboost evaluate --boosted {model_folder}`."
        )
    return results


def section(results: dict[str, Any]) -> str:
    """The table of scores with how to read it, as Markdown."""
    rows = [
        _row(name, values)
        for name, entry in results["tasks"].items()
        for values in _measured(entry["metrics"]).values()
    ]
    seeds = {len(entry["seeds"]) for entry in results["tasks"].values()}
    protocols = sorted({entry["protocol"]["id"] for entry in results["tasks"].values()})
    return "\n".join(
        (
            "Base beside boosted, frozen, by `spatialboost evaluate`; ↑ more is better, ↓ less.",
            "",
            HEAD,
            *rows,
            "",
            *dict.fromkeys(f"* Warning: {one}" for entry in results["tasks"].values() for one in entry["warnings"]),
            "",
            f"Seeds per task: {', '.join(map(str, sorted(seeds)))}. The interval is a paired bootstrap over the test "
            "items: where it holds zero,",
            f"the difference may be chance. Protocols: {', '.join(f'`{one}`' for one in protocols)}.",
        )
    )


def _measured(metrics: dict[str, Any]) -> dict[str, Any]:
    """Those with a number on both sides; results.json has null where there is none."""
    return {name: values for name, values in metrics.items()
            if None not in (values["base"]["mean"], values["boosted"]["mean"])}  # fmt: skip


def _row(name: str, values: dict[str, Any]) -> str:
    task, data_set = name.split("/")
    arrow = "↑" if values["higher_is_better"] else "↓"
    low, high = values["difference"]["interval"]
    interval = "-" if None in (low, high) else f"{low:.3g} to {high:.3g}"
    base, boosted = (f"{values[side]['mean']:.4g}" for side in ("base", "boosted"))
    told = f"{values['label']} {arrow} | {base} | {boosted} | {values['difference']['mean']:+.4g}"
    return f"| {task} | {data_set} | {told} | {interval} |"
