"""Small plans and builds that the tests of shards, engines and publishing share."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from dataset_builders.configs import DialogueOptions
from dataset_builders.executors import run_shards
from dataset_builders.plans import BuildPlan
from dataset_builders.publishing import publish
from dataset_builders.sources import SourceOptions, open_source

ROOT = Path(__file__).parents[2]


def rooms_plan(output_dir: Path, num_scenes: int = 6, shard_size: int = 2, **changes) -> BuildPlan:
    """A plan of small synthetic rooms."""
    options = SourceOptions(num_scenes=num_scenes, seed=4, image_size=(64, 64))
    return BuildPlan(
        source="synthetic",
        source_options=options,
        items=tuple(open_source("synthetic", options).list_items()),
        **{
            "dialogue": DialogueOptions(seed=4, allow_partial=True),
            "configs": ("single_view", "dense"),
            "shard_size": shard_size,
            "input_fingerprint": "",
            "output_dir": output_dir,
        }
        | changes,
    )


def build(plan: BuildPlan, workers: int = 1, engine: str = "local") -> dict:
    """Build and publish; returns the report."""
    return publish(plan, run_shards(plan, workers, engine), "spatialboost build", ())


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file by its relative name."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def command(output_dir: Path, *arguments: str, scenes: int = 12) -> list[str]:
    """The command line of a small build, for a process of its own."""
    code = "import sys, spatialboost_cli; sys.exit(spatialboost_cli.main(sys.argv[1:]))"
    words = ["build", "--source", "synthetic", "--num-scenes", str(scenes), "--resolution", "64", "--seed", "4"]
    words += ["--shard-size", "3", "--configs", "single_view,dense", "--output", str(output_dir), *arguments]
    return [sys.executable, "-c", code, *words]


def run_command(output_dir: Path, *arguments: str, **options) -> subprocess.CompletedProcess:
    """Run it to its end."""
    return subprocess.run(command(output_dir, *arguments), cwd=ROOT, capture_output=True, text=True, **options)


def write_rgbd_samples(folder: Path, images: dict[str, Image.Image]) -> None:
    """A folder for the source `rgbd`: the images, one metre in front of the camera."""
    for name, image in images.items():
        sample = folder / name
        sample.mkdir(parents=True)
        image.save(sample / "rgb.png")
        Image.fromarray(np.full((image.height, image.width), 1000, dtype=np.uint16)).save(sample / "depth.png")
        intrinsics = {"fx": 100.0, "fy": 100.0, "cx": image.width / 2, "cy": image.height / 2}
        manifest = {"rgb": "rgb.png", "depth": "depth.png", "depth_scale": 1000, "intrinsics": intrinsics}
        (sample / "manifest.json").write_text(json.dumps(manifest))


def rgbd_plan(input_dir: Path, output_dir: Path, **changes) -> BuildPlan:
    """A plan of what `write_rgbd_samples` wrote."""
    options = SourceOptions(input_dir=input_dir)
    items = tuple(open_source("rgbd", options).list_items())
    defaults = {"configs": ("dense",), "shard_size": 2, "input_fingerprint": "", "dialogue": DialogueOptions()}
    return BuildPlan(source="rgbd", source_options=options, items=items, output_dir=output_dir, **(defaults | changes))
