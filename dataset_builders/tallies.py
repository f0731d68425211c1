"""What the card and the report count besides rows and drops: answers that should be balanced, captions, models."""

from collections import Counter
from pathlib import Path
from typing import Any

from dataset_builders.perception import MODELS, split_revision
from dataset_builders.plans import BuildPlan

ANSWER_GROUPS = (("yes", "no"), ("left", "right"), ("A", "B", "C", "D"))  # should be equally frequent
ENOUGH_ANSWERS = 200  # fewer say nothing about the balance
ALL_KINDS = "all kinds"
TOLERANCE = 0.05  # of a share: 45-55 % for two answers
ROUNDING = 1e-9


def should_be_balanced(answer: str) -> bool:
    """Whether an answer is one of a group that should be equally frequent."""
    return any(answer in group for group in ANSWER_GROUPS)


def balance(answers: dict[str, int]) -> list[dict[str, Any]]:
    """Counts per configuration, kind and group of answers, and whether they are balanced.

    Args:
        answers: counts by "configuration | kind | answer".

    Returns:
        One entry per configuration, kind (and all kinds together) and group; "balanced" is None where there are fewer
        than `ENOUGH_ANSWERS`.
    """
    counted: Counter[tuple[str, str, str]] = Counter()
    for key, count in answers.items():
        config, kind, answer = key.split(" | ")
        counted[config, kind, answer] += count
        counted[config, ALL_KINDS, answer] += count
    entries = []
    for config, kind in sorted({key[:2] for key in counted}):
        for group in ANSWER_GROUPS:
            counts = {answer: counted[config, kind, answer] for answer in group}
            total = sum(counts.values())
            if total:
                off = max(abs(count / total - 1 / len(group)) for count in counts.values())
                balanced = off <= TOLERANCE + ROUNDING if total >= ENOUGH_ANSWERS else None
                entries.append({"config": config, "kind": kind, "answers": counts, "n": total, "balanced": balanced})
    return entries


def balance_table(answers: dict[str, int]) -> str:
    """`balance` as a Markdown table."""
    entries = balance(answers)
    if not entries:
        return "No question of this data set has answers that should be equally frequent."
    lines = ["| configuration | kind | n | shares | |", "|---|---|---|---|---|"]
    for one in entries:
        shares = ", ".join(f"{answer} {count / one['n']:.1%}" for answer, count in one["answers"].items())
        verdict = {None: "few", True: "balanced", False: "**unbalanced**"}[one["balanced"]]
        lines.append(f"| `{one['config']}` | {one['kind']} | {one['n']} | {shares} | {verdict} |")
    return "\n".join(lines)


def captions_sentence(captions: dict[str, int]) -> str:
    """Who wrote the captions; empty where there are none."""
    total = sum(captions.values())
    shares = ", ".join(f"{count / total:.1%} {writer}" for writer, count in sorted(captions.items()))
    return f"Of {total} captions, {shares}." if total else ""


def models_table(plan: BuildPlan) -> str:
    """Every outside model with its revision, as a Markdown table."""
    names = {kind: name for kind in MODELS if (name := getattr(plan.perception, kind)) is not None}
    lines = ["| for | model | revision |", "|---|---|---|"]
    lines += [f"| {kind} | {split_revision(name)[0]} | {_revision(name)} |" for kind, name in names.items()]
    if plan.chat is not None:
        lines.append(f"| questions and captions | {plan.chat.model} | as the server has it, seed {plan.chat.seed} |")
    return "\n".join(lines) if len(lines) > 2 else "No outside model was used."


def _revision(name: str) -> str:
    """The commit that was used, where the Hub's cache on this machine tells it."""
    from huggingface_hub import try_to_load_from_cache

    identifier, revision = split_revision(name)
    if identifier.count("/") != 1 or Path(identifier).exists():
        return "a folder" if Path(identifier).exists() else ""
    cached = try_to_load_from_cache(identifier, "config.json", revision=revision)
    return Path(cached).parent.name if isinstance(cached, str) else revision or "main"
