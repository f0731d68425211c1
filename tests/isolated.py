"""Run a script in a fresh process that cannot see the clone: no environment, own HF_HOME, other folder, offline."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path


def run_isolated(script: str, home: Path, *arguments: str) -> str:
    """The script's standard output; its errors become an AssertionError."""
    home.mkdir(parents=True, exist_ok=True)
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "HF_HOME": str(home / "hf"), "HF_HUB_OFFLINE": "1"}
    blocker = "import sys; sys.modules['modeling_spatialboost'] = None\n"  # an editable install must not help either
    result = subprocess.run(
        [sys.executable, "-I", "-c", blocker + textwrap.dedent(script), *arguments],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return result.stdout
