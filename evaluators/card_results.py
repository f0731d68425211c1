"""The boosted encoder's results in the Hub's two formats: `.eval_results/*.yaml` and the card's model-index."""

import math
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml
from huggingface_hub.repocard_data import eval_results_to_model_index

from evaluators.catalogue import DATA_SETS, TASKS, kind_of, title_of

# The Hub's names of tasks, by our families.
HUB_TASKS = {
    "depth": "depth-estimation",
    "segmentation": "image-segmentation",
    "scenes": "image-segmentation",
    "robots": "robotics",
    "classification": "image-classification",
    "retrieval": "image-feature-extraction",
    "language": "visual-question-answering",
}


def write_card_results(results: dict[str, Any], output: Path) -> None:
    """Write `model-index.yaml` and, for data sets that are on the Hub, `.eval_results/NAME.yaml` into `output`.

    A partial run (`--limit`, a preset for CPUs) and one with settings of its own (`--set`, `--upstream-compat`) write
    none: such numbers do not belong on a card.
    """
    if results["partial"] or results["preset"] != "full" or results["changed"]:
        return
    name = next(iter(results["tasks"].values()))["boosted"]["name"]
    index = eval_results_to_model_index(Path(name).name, _index_entries(results))
    (output / "model-index.yaml").write_text(yaml.safe_dump({"model-index": index}, sort_keys=False))
    for data_set, entries in _hub_entries(results).items():
        folder = output / ".eval_results"
        folder.mkdir(exist_ok=True)
        (folder / f"{data_set}.yaml").write_text(yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False))


def _index_entries(results: dict[str, Any]) -> list[EvalResult]:
    entries = []
    for name, entry in results["tasks"].items():
        task, data_set = name.split("/")
        for metric, values in _finite(entry).items():
            entries.append(
                EvalResult(
                    task_type=HUB_TASKS[TASKS[task].family],
                    task_name=TASKS[task].title,
                    dataset_type=DATA_SETS[kind_of(data_set)].hub_id or data_set,
                    dataset_name=title_of(data_set),
                    metric_type=metric,
                    metric_name=f"{values['label']}, base {values['base']['mean']:.4g}",
                    metric_value=round(values["boosted"]["mean"], 6),
                )
            )
    return entries


def _hub_entries(results: dict[str, Any]) -> dict[str, list[EvalResultEntry]]:
    entries: dict[str, list[EvalResultEntry]] = {}
    for name, entry in results["tasks"].items():
        task, data_set = name.split("/")
        hub_id = DATA_SETS[kind_of(data_set)].hub_id
        if hub_id is None:
            continue
        for metric, values in _finite(entry).items():
            notes = (
                f"{TASKS[task].title}, {values['label']}, {entry['protocol']['id']}; base {values['base']['mean']:.4g}"
            )
            value = round(values["boosted"]["mean"], 6)
            entries.setdefault(data_set, []).append(EvalResultEntry(hub_id, f"{task}_{metric}", value, notes=notes))
    return entries


def _finite(entry: dict[str, Any]) -> dict[str, Any]:
    """The metrics that the boosted encoder has a number of."""
    return {name: values for name, values in entry["metrics"].items() if math.isfinite(values["boosted"]["mean"])}
