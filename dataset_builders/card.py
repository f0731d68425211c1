"""What a finished build says about itself: the report, the table of kept and dropped, and the dataset card."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dataset_builders.configs import CONFIGS
from dataset_builders.duplicates import find_duplicates
from dataset_builders.plans import SPLITS, BuildPlan, ShardReport
from dataset_builders.schema import GENERATOR_VERSION
from dataset_builders.tallies import balance, balance_table, captions_sentence, models_table
from model_cards import CITATION, render

HUB_LICENCES = ("cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "apache-2.0", "mit", "bsd-3-clause")
SIZES = ((1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
EXAMPLE_TURNS = 12


@dataclass(frozen=True)
class BuildSummary:
    """All shard reports of a build, added up.

    Attributes:
        rows: number of records per configuration and split, those with any.
        kept_items: items that gave at least one record.
        num_items: all items.
        drops: how many records (of config "*": whole items) were left out, per configuration and reason.
        duplicates: items left out because they look like an earlier one -> that one.
        sources: rows per "source | licence | scale source".
        answers: how often each answer that should be balanced was given, per "configuration | kind | answer".
        captions: captions by who wrote them.
        examples: texts of the first dialogue of each dialogue configuration.
        fingerprint: hash of the contents of all files.
    """

    rows: dict[tuple[str, str], int]
    kept_items: int
    num_items: int
    drops: dict[tuple[str, str], int]
    duplicates: dict[str, str]
    sources: dict[str, int]
    answers: dict[str, int]
    captions: dict[str, int]
    examples: dict[str, list[str]]
    fingerprint: str

    @property
    def example_config(self) -> str | None:
        """The configuration whose example the card shows, the first that has one."""
        return next((name for name in CONFIGS if name in self.examples), None)

    @property
    def configs(self) -> dict[str, dict[str, int]]:
        """Rows per split of each configuration that has any, in the order of `CONFIGS`."""
        return {
            config: {split: self.rows[config, split] for split in SPLITS if (config, split) in self.rows}
            for config in CONFIGS
            if any((config, split) in self.rows for split in SPLITS)
        }


def summarise(plan: BuildPlan, reports: Iterable[ShardReport]) -> BuildSummary:
    """Find the duplicates and add up the reports of all shards without them.

    Args:
        plan: of the build.
        reports: of all its shards, in order; gone through twice.
    """
    duplicates = find_duplicates((one["item"], one["hashes"]) for report in reports for one in report.items)
    rows: Counter[tuple[str, str]] = Counter()
    sources, answers, captions = Counter[str](), Counter[str](), Counter[str]()
    drops: Counter[tuple[str, str]] = Counter()
    examples: dict[str, list[str]] = {}
    content = hashlib.sha256(plan.key.encode())
    kept_items = 0
    for report in reports:
        for one in (one for one in report.items if one["item"] not in duplicates):
            rows.update({(config, one["split"]): count for config, count in one["rows"].items()})
            sources[one["source"]] += sum(one["rows"].values())
            answers.update(one["answers"])
            captions.update(one["captions"])
            kept_items += 1
        content.update("".join(file["digest"] for file in report.files).encode())
        drops.update((drop["config"], drop["reason"]) for drop in report.drops)
        examples = report.example | examples
    if duplicates:
        drops["*", "duplicate_image"] += len(duplicates)
        content.update(repr(sorted(duplicates)).encode())
    return BuildSummary(
        rows={key: rows[key] for config in CONFIGS for split in SPLITS if (key := (config, split)) in rows},
        kept_items=kept_items,
        num_items=len(plan.items),
        drops=dict(drops),
        duplicates=duplicates,
        sources=dict(sources),
        answers=dict(answers),
        captions=dict(captions),
        examples={config: text for config, text in examples.items() if any(config == key[0] for key in rows)},
        fingerprint=content.hexdigest()[:16],
    )


def report_json(plan: BuildPlan, summary: BuildSummary, reports: Iterable[ShardReport]) -> dict[str, Any]:
    """The content of `build_report.json`: counts, and every drop with its item."""
    return {
        "key": plan.key,
        "generator_version": GENERATOR_VERSION,
        "fingerprint": summary.fingerprint,
        "source": plan.source,
        "seed": plan.dialogue.seed,
        "items": summary.num_items,
        "kept_items": summary.kept_items,
        "rows": summary.configs,
        "drops_by_reason": [
            {"config": config, "reason": reason, "count": count} for (config, reason), count in _ordered(summary)
        ],
        "balance": balance(summary.answers),
        "captions": summary.captions,
        "notices": list(plan.notices),
        "drops": [drop for report in reports for drop in report.drops] + _duplicate_drops(summary),
    }


def _duplicate_drops(summary: BuildSummary) -> list[dict[str, str]]:
    return [
        {"config": "*", "item": item, "reason": "duplicate_image", "detail": f"{item} looks like {first}"}
        for item, first in summary.duplicates.items()
    ]


def table(report: dict[str, Any]) -> str:
    """Kept and dropped per configuration of a `report_json`, as text columns; this ends a build on the screen."""
    lines = [f"{'configuration':<16}{'kept':>8}{'dropped':>9}  reasons"]
    for config in ["*", *CONFIGS]:
        reasons = {one["reason"]: one["count"] for one in report["drops_by_reason"] if one["config"] == config}
        told = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
        if config == "*":
            name, kept, dropped = "(scenes)", report["kept_items"], report["items"] - report["kept_items"]
        else:
            name, kept, dropped = config, sum(report["rows"].get(config, {}).values()), sum(reasons.values())
        if config == "*" or kept or dropped:
            lines.append(f"{name:<16}{kept:>8}{dropped:>9}  {told}".rstrip())
    examples = {drop["reason"]: drop["detail"] for drop in reversed(report["drops"])}
    lines += [f"{reason}, for instance {detail}" for reason, detail in examples.items()]
    return "\n".join(lines)


def dataset_card(
    plan: BuildPlan, summary: BuildSummary, command: str, class_names: tuple[str, ...], picture: str | None = None
) -> str:
    """The README.md of the data set, with the YAML block that `load_dataset` reads.

    Args:
        plan: of the build.
        summary: of all its shards.
        command: that makes this data again.
        class_names: of the ids in class maps.
        picture: name of the example's picture beside the card.
    """
    first_config, first_splits = next(iter(summary.configs.items()))
    total = sum(summary.rows.values())
    classes = f"Classes, by id: {', '.join(class_names)}." if class_names else "Class ids are not known here."
    return render(
        "dataset_card",
        metadata=_metadata(summary),
        title=f"Spatial reasoning dialogues from {plan.source} scenes",
        summary=f"{total} records from {summary.kept_items} scenes, for teaching 3D space to a vision encoder.",
        generator_version=GENERATOR_VERSION,
        citation=CITATION,
        seed=plan.dialogue.seed,
        configurations=_configurations(summary),
        first_config=first_config,
        first_split=next(iter(first_splits)),
        classes=classes if "dense" in summary.configs else "",
        example=_example(summary, picture),
        sources=_sources(summary),
        models=models_table(plan),
        balance="\n\n".join([balance_table(summary.answers), captions_sentence(summary.captions)]).strip(),
        kept_items=summary.kept_items,
        num_items=summary.num_items,
        drops="\n\n".join([*plan.notices, _drops(summary)]),
        command=command,
        fingerprint=summary.fingerprint,
    )


def file_name(config: str, split: str, part: int, num_parts: int) -> str:
    """Place of a Parquet file in the data set."""
    return f"{config}/{split}-{part:05d}-of-{num_parts:05d}.parquet"


def _ordered(summary: BuildSummary) -> list[tuple[tuple[str, str], int]]:
    """Drops, those of whole items first, then by configuration, the most frequent reason first."""
    places = {"*": -1} | {config: place for place, config in enumerate(CONFIGS)}
    return sorted(summary.drops.items(), key=lambda one: (places[one[0][0]], -one[1], one[0][1]))


def _metadata(summary: BuildSummary) -> str:
    from huggingface_hub import DatasetCardData

    licences = {key.split(" | ")[1].lower() for key in summary.sources}
    known = licences.pop() if len(licences) == 1 else "other"
    total = sum(summary.rows.values())
    tasks = ["visual-question-answering"] if any(CONFIGS[name].is_dialogue for name in summary.configs) else []
    configs = [
        {
            "config_name": config,
            # load_dataset caches a folder by this block alone: other content must give another block
            "description": f"content {summary.fingerprint}",
            "data_files": [{"split": split, "path": f"{config}/{split}-*.parquet"} for split in splits],
            **({"default": True} if place == 0 else {}),
        }
        for place, (config, splits) in enumerate(summary.configs.items())
    ]
    data = DatasetCardData(
        language="en",
        license=known if known in HUB_LICENCES else "other",
        task_categories=[*tasks, *(["depth-estimation"] if "dense" in summary.configs else [])],
        size_categories=[next((name for limit, name in SIZES if total < limit), "1M<n<10M")],
        tags=["spatialboost", "spatial-reasoning", "3d"],
        configs=configs,
    )
    return data.to_yaml().strip()


def _configurations(summary: BuildSummary) -> str:
    lines = ["| configuration | train | test | what it is |", "|---|---|---|---|"]
    for config, splits in summary.configs.items():
        counts = " | ".join(str(splits.get(split, 0)) for split in SPLITS)
        lines.append(f"| `{config}` | {counts} | {CONFIGS[config].description} |")
    return "\n".join(lines)


def _sources(summary: BuildSummary) -> str:
    lines = ["| source | licence | scale from | records |", "|---|---|---|---|"]
    return "\n".join(lines + [f"| {key} | {count} |" for key, count in sorted(summary.sources.items())])


def _drops(summary: BuildSummary) -> str:
    if not summary.drops:
        return "Nothing was left out."
    lines = ["| configuration | reason | count |", "|---|---|---|"]
    for (config, reason), count in _ordered(summary):
        lines.append(f"| {'whole item' if config == '*' else f'`{config}`'} | {reason} | {count} |")
    return "\n".join(lines)


def _example(summary: BuildSummary, picture: str | None) -> str:
    """The first dialogue of the first dialogue configuration, as quoted lines below its picture."""
    config = summary.example_config
    if config is None:
        return "This data set has no dialogues."
    texts = summary.examples[config][: 2 * EXAMPLE_TURNS]
    lines = [f"The first of `{config}`:", ""]
    if picture:
        shown = "rings hold the numbers of the turns that ask about a point, boxes are the things that turns speak of"
        lines += [
            f"![The views of the example, with points and boxes drawn]({picture})",
            "",
            f"In the picture {shown}.",
            "",
        ]
    for place, text in enumerate(texts):
        speaker = "assistant" if place % 2 else f"user, turn {place // 2 + 1}"
        first, *rest = [line for line in text.split("\n") if line.strip()]
        lines += [f"> **{speaker}**: {first}  ", *(f"> {line}  " for line in rest)]
    return "\n".join(lines)
