"""Who may import whom (docs/design in one test), and how large a file may grow."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {
    "modeling_spatialboost",
    "model_cards",
    "dataset_builders",
    "trainers",
    "evaluators",
    "experiments",
    "space_app",
    "benchmarks",
    "publishing",
    "spatialboost_cli",
}
BASE = {"modeling_spatialboost", "model_cards"}
MAY_IMPORT = {
    "modeling_spatialboost": set(),
    "model_cards": set(),
    "space_app": set(),
    "dataset_builders": BASE,
    "trainers": BASE,
    "evaluators": BASE,
    "publishing": BASE,
    "experiments": OURS - {"experiments", "benchmarks", "spatialboost_cli"},
    "benchmarks": OURS - {"benchmarks", "spatialboost_cli"},
    "spatialboost_cli": OURS,
}
FILES = sorted(
    path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0].removesuffix(".py") in MAY_IMPORT
)


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_what_its_folder_may_and_stays_readable(path):
    text = path.read_text()
    folder = path.relative_to(ROOT).parts[0].removesuffix(".py")
    forbidden = {name for name in imported(ast.parse(text)) if name in OURS - {folder} - MAY_IMPORT[folder]}
    assert not forbidden, f"{folder} may not import {forbidden}"
    assert text.count("\n") <= 400, "files of 100-300 lines, 400 the ceiling: split it"


def test_the_test_looks_at_every_folder():
    assert {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in FILES} >= {
        "modeling_spatialboost",
        "trainers",
    }
