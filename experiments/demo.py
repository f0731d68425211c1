"""The Space on this machine: depth, questions, scenes, features and data in a browser.

Without arguments it shows the small assets that come with the code: their depth heads are trained on freshly drawn
rooms, once, in about half a minute. A part that is not there says so in its tab.

    spatialboost demo                                                  # the small assets
    spatialboost demo --model outputs/quickstart/stage3                # chat with a model that you trained
    spatialboost demo --bundle outputs/demo --port 7861                # python -m experiments.demo_bundle made it
"""

import argparse
import hashlib
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
NOTE = "The models shown are the small ones that come with the code: they know made-up rooms, like the examples, only."


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
        os.environ["SPATIALBOOST_NOTE"] = NOTE
    os.environ.update({PARTS[part]: place for part, place in given.items()})
    os.environ.update(GRADIO_SERVER_NAME=arguments.host, GRADIO_SERVER_PORT=str(arguments.port))
    importlib.import_module("space_app.app").main()
    return 0


def make_small_bundle(output: Path) -> Path:
    """The bundle of the small assets: a vision-language model where they have one, two depth models and a data set.

    Made once; other assets get another folder in `output`.

    Raises:
        ValueError: the assets are not in this installation.
    """
    from dataset_builders import build
    from experiments import demo_bundle
    from experiments.assets import asset
    from trainers import boost

    base, adapter, vlm = asset("base"), asset("boosted"), small_vlm()
    records = b"".join((one / "run.json").read_bytes() for one in (base, adapter, vlm) if one is not None)
    folder = output / hashlib.sha256(records).hexdigest()[:8]
    boosted, rooms = folder / "boosted", folder / "rooms"
    if not (folder / "depth_boosted").is_dir():
        print(f"The small assets' depth heads are trained in {folder}; this is done once.", flush=True)
        size = ["--num-scenes", str(NUM_SCENES), "--views", str(VIEWS), "--resolution", str(RESOLUTION_PX)]
        code = build.main(["--source", "synthetic", "--variety", "rich", *size, "--output", str(rooms)])
        code = code or boost.main([str(base), "--adapter", str(adapter), "--output", str(boosted)])
        parts = ["--base", str(base), "--boosted", str(boosted), "--data", str(rooms), "--output", str(folder)]
        if code or demo_bundle.main(parts):
            raise ValueError(f"The demo's parts could not be made, as told above: remove {folder} and run again.")
    if vlm is not None and not (folder / "vlm").is_dir():
        save_vlm(vlm, folder / "vlm")
    return folder


def small_vlm() -> Path | None:
    """The vision-language model of the small assets; None where this installation has none."""
    from experiments.assets import asset

    try:
        return asset("vlm")
    except ValueError:
        return None


def save_vlm(source: Path, folder: Path) -> None:
    """A vision-language model with its processor and the code that the Space, which has none of ours, loads it by."""
    from modeling_spatialboost import SpatialBoostForConditionalGeneration, SpatialBoostProcessor

    partial = folder.with_name(f"{folder.name}.partial")
    SpatialBoostForConditionalGeneration.from_pretrained(source, dtype="auto").save_pretrained(partial)
    SpatialBoostProcessor.from_pretrained(source).save_pretrained(partial)
    partial.rename(folder)


if __name__ == "__main__":
    raise SystemExit(main())
