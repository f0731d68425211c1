"""The folder as it is uploaded: a process that has nothing else of ours builds the page and uses the models."""

import shutil

from tests.isolated import run_isolated
from tests.space_app.conftest import EXAMPLE, SPACE

SCRIPT = """
import os, sys
folder, bundle, picture = sys.argv[1:]
os.environ["SPATIALBOOST_BUNDLE"] = bundle
sys.path.insert(0, folder)
import app
from spatialboost_space import ask_tab, depth_tab

page = app.build()
numbers, files = depth_tab.depth(picture)
answer = list(ask_tab.ask([picture], "How deep is the point (0.500, 0.500)?"))[-1]
ours = {"modeling_spatialboost", "dataset_builders", "evaluators", "trainers", "experiments", "model_cards"}
print(sorted(numbers), len(files), isinstance(answer, str), [n for n in ours & set(sys.modules) if sys.modules[n]])
"""


def test_the_uploaded_folder_needs_nothing_else_of_ours(bundle, settings, tmp_path):
    folder = shutil.copytree(SPACE, tmp_path / "space", ignore=shutil.ignore_patterns("__pycache__"))
    printed = run_isolated(SCRIPT, tmp_path / "home", str(folder), str(bundle), str(EXAMPLE))
    assert printed.strip().splitlines()[-1] == "['base', 'boosted'] 2 True []"


def test_the_readme_is_what_the_hub_expects():
    import gradio
    import yaml

    header = yaml.safe_load((SPACE / "README.md").read_text().split("---")[1])
    assert header["sdk"] == "gradio" and (SPACE / header["app_file"]).is_file()
    assert len(header["short_description"]) <= 60
    pinned = f"gradio[mcp]=={header['sdk_version']}"
    assert pinned in (SPACE / "requirements.txt").read_text() and gradio.__version__.split(".")[0] == "6"
