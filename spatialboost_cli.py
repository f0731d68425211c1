"""The command `spatialboost`: picks a module by its verb and calls that module's `main(argv)`.

    spatialboost quickstart
    spatialboost build --help
"""

import importlib
import sys
import traceback
from pathlib import Path

VERBS = {
    "quickstart": ("experiments.quickstart", "the main job, small, on an embedded default, offline"),
    "boost": ("trainers.boost", "give an encoder its second attention channel"),
    "build": ("dataset_builders.build", "make a data set from images with depth, or from synthetic rooms"),
    "train": ("trainers.sft", "run one of the three training stages"),
    "evaluate": ("evaluators.run", "compare a base and a boosted encoder"),
}
ROOT = Path(__file__).resolve().parent
PACKAGES = {ROOT / target.split(".")[0] for target, _ in VERBS.values()} | {ROOT / "modeling_spatialboost"}


def usage() -> str:
    """What `spatialboost --help` prints."""
    verbs = "\n".join(f"  {verb:<12}{description}" for verb, (_, description) in VERBS.items())
    return f"usage: spatialboost VERB [arguments]\n\n{verbs}\n\nspatialboost VERB --help tells the arguments of each."


def is_users_mistake(error: Exception) -> bool:
    """Whether our own code raised it over the input, rather than a library over our code."""
    if not isinstance(error, ValueError | FileNotFoundError):
        return False
    raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename).resolve()
    return any(package in raised_in.parents for package in PACKAGES)


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
    try:
        return importlib.import_module(VERBS[verb][0]).main(rest) or 0
    except Exception as error:
        if not is_users_mistake(error):
            raise
        print(f"spatialboost {verb}: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
