"""The Space on this machine: depth, questions, scenes, features and data in a browser.

Without arguments it shows the small assets that come with the code: their depth heads are trained on freshly drawn
rooms, once, in about half a minute. They have no vision-language model: `--model` brings one. A part that is not there
says so in its tab.

    spatialboost demo                                                  # the small assets
    spatialboost demo --model outputs/quickstart/stage3                # chat with a model that you trained
    spatialboost demo --bundle outputs/demo --port 7861                # python -m experiments.demo_bundle made it
"""

import argparse
import importlib
import importlib.util
import os
from pathlib import Path

PARTS = {
    "bundle": "SPATIALBOOST_BUNDLE",
    "model": "SPATIALBOOST_MODEL",
    "depth_base": "SPATIALBOOST_DEPTH_BASE",
    "depth_boosted": "SPATIALBOOST_DEPTH_BOOSTED",
    "data": "SPATIALBOOST_DATA",
}
NUM_SCENES = 60  # that the depth heads of the small assets are trained on
VIEWS = 4
RESOLUTION_PX = 64  # of the small assets


def make_parser() -> argparse.ArgumentParser:
    """Arguments of `spatialboost demo`."""
    parser = argparse.ArgumentParser(prog="spatialboost demo", description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", help="folder or Hub id with vlm/, depth_base/, depth_boosted/ and data/")
    parser.add_argument("--model", help="folder or Hub id of a vision-language model")
    parser.add_argument("--depth-base", help="folder or Hub id of the base encoder's depth model")
    parser.add_argument("--depth-boosted", help="folder or Hub id of the boosted encoder's depth model")
    parser.add_argument("--data", help="folder or Hub id of a reasoning data set")
    parser.add_argument("--output", type=Path, default=Path("outputs/demo"), help="where the small assets' parts go")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on; 0.0.0.0 shows it to the network")
    parser.add_argument("--port", type=int, default=7860, help="port to serve on")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Serve the Space until stopped.

    Raises:
        ValueError: a folder that was named is not there.
        ModuleNotFoundError: gradio is not installed.
    """
    arguments = make_parser().parse_args(argv)
    if importlib.util.find_spec("gradio") is None:
        raise ModuleNotFoundError("No module named 'gradio'", name="gradio")
    given = {part: getattr(arguments, part) for part in PARTS if getattr(arguments, part)}
    for part, place in given.items():
        if place.startswith((".", "/", "~", "outputs/")) and not Path(place).is_dir():
            raise ValueError(
                f"--{part.replace('_', '-')} {place}: there is no such folder; pass a folder or a Hub id."
            )
    if not any(os.environ.get(variable) for variable in PARTS.values()) and not given.keys() & {"bundle", "model"}:
        given["bundle"] = str(make_small_bundle(arguments.output))
    os.environ.update({PARTS[part]: place for part, place in given.items()})
    os.environ.update(GRADIO_SERVER_NAME=arguments.host, GRADIO_SERVER_PORT=str(arguments.port))
    importlib.import_module("space_app.app").main()
    return 0


def make_small_bundle(folder: Path) -> Path:
    """The bundle of the small assets: two depth models and a data set, made once.

    Raises:
        ValueError: the assets are not in this installation.
    """
    from dataset_builders import build
    from experiments import demo_bundle
    from experiments.assets import asset
    from trainers import boost

    base, adapter, boosted, rooms = asset("base"), asset("boosted"), folder / "boosted", folder / "rooms"
    if not (folder / "depth_boosted").is_dir():
        print(f"The small assets' depth heads are trained in {folder}; this is done once.", flush=True)
        size = ["--num-scenes", str(NUM_SCENES), "--views", str(VIEWS), "--resolution", str(RESOLUTION_PX)]
        code = build.main(["--source", "synthetic", *size, "--output", str(rooms)])
        code = code or boost.main([str(base), "--adapter", str(adapter), "--output", str(boosted)])
        parts = ["--base", str(base), "--boosted", str(boosted), "--data", str(rooms), "--output", str(folder)]
        if code or demo_bundle.main(parts):
            raise ValueError(f"The demo's parts could not be made, as told above: remove {folder} and run again.")
    return folder


if __name__ == "__main__":
    raise SystemExit(main())
