"""The command `spatialboost`: picks a module by its verb and calls that module's `main(argv)`."""

import atexit
import importlib
import logging
import os
import sys
import time
import traceback
from pathlib import Path
from typing import NoReturn

VERBS = {
    "quickstart": ("experiments.quickstart", "the main job, small, on an embedded default, offline"),
    "boost": ("trainers.boost", "give an encoder its second attention channel"),
    "build": ("dataset_builders.build", "make a data set from images with depth, or from synthetic rooms"),
    "inspect": ("dataset_builders.inspection", "see a built data set on one page, and check it again"),
    "train": ("trainers.sft", "run one of the three training stages"),
    "evaluate": ("evaluators.run", "compare a base and a boosted encoder"),
    "experiment": ("experiments.run", "a table of the paper, in miniature"),
    "demo": ("experiments.demo", "the Space on this machine, in a browser"),
    "publish": ("publishing.publish", "push a model, adapter, data set or Space to the Hub"),
}
EXTRAS = {
    "scipy": "data",
    "pycocotools": "data",
    "imagehash": "data",
    "pycolmap": "data",
    "av": "data",
    "lpips": "data",
    "ray": "ray",
    "torchmetrics": "eval",
    "matplotlib": "eval",
    "metaworld": "robot",
    "gymnasium": "robot",
    "gymnasium_robotics": "robot",
    "dm_control": "robot",
    "mujoco": "robot",
    "h5py": "robot",
    "bitsandbytes": "quantization",
    "timm": "timm",
    "gradio": "space",
}
SECONDS_BEHIND_THE_FIRST = 30
ROOT = Path(__file__).resolve().parent
PACKAGES = {ROOT / target.split(".")[0] for target, _ in VERBS.values()}
PACKAGES |= {ROOT / "modeling_spatialboost", ROOT / "space_app"}


def usage() -> str:
    """What `spatialboost --help` prints."""
    verbs = "\n".join(f"  {verb:<12}{description}" for verb, (_, description) in VERBS.items())
    return f"usage: spatialboost VERB [arguments]\n\n{verbs}\n\nspatialboost VERB --help tells the arguments of each."


def users_mistake(error: Exception) -> str | None:
    """The sentence to print if the user can mend what happened; None if it is ours to mend, and the traceback counts.

    A user's mistakes are the ValueErrors that our own code raises over its input, files that cannot be read or
    written, and packages of an extra that is not installed.
    """
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        return f"the package {error.name!r} is missing: pip install 'spatialboost[{EXTRAS[error.name]}]'"
    raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename).resolve()
    ours = any(package in raised_in.parents for package in PACKAGES)
    if (isinstance(error, ValueError) and ours) or (isinstance(error, OSError) and error.filename):
        return str(error)
    return None


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad arguments or input (told in one sentence), 1 anything else."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0 if arguments else 2
    verb, *rest = arguments
    if verb not in VERBS:
        print(f"spatialboost: error: unknown verb {verb!r}, choose one of {', '.join(VERBS)}", file=sys.stderr)
        return 2
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # on a CPU it warns of a kernel that nothing here uses
    try:
        return importlib.import_module(VERBS[verb][0]).main(rest) or 0
    except Exception as error:
        sentence = users_mistake(error)
        if sentence is None:
            raise
        if int(os.environ.get("RANK", "0")) > 0:  # one of many processes: the launcher ends it once the first has told
            time.sleep(SECONDS_BEHIND_THE_FIRST)
        print(f"spatialboost {verb}: error: {sentence}", file=sys.stderr)
        return 2


def leave(code: int) -> NoReturn:
    """Exit; one of many processes goes at once, since gloo's threads may abort Python while it takes itself apart."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    leave(main())
