"""Push a model, an adapter, a data set or the Space to the Hub: checked, in one commit, loaded back, tagged.

spatialboost publish model outputs/stage3/encoder --repo-id ORG/NAME --dry-run      # CPU, seconds: checks only
spatialboost publish model outputs/stage3/encoder --repo-id ORG/NAME --results outputs/report
spatialboost publish adapter outputs/stage3/encoder --repo-id ORG/NAME-adapter      # only the second channel
spatialboost publish dataset outputs/data --repo-id ORG/DATA --collection "SpatialBoost"
spatialboost publish space space_app --repo-id ORG/DEMO --private
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from publishing.checks import problems
from publishing.hub import HubError, Published, Repository
from publishing.kinds import KINDS, card_data
from publishing.licences import adapter_problems, dataset_problems, model_problems, origins
from publishing.loading import LoadingError, is_adapter, is_vlm, load_in_isolation, make_adapter, script_for
from publishing.results import add_results
from publishing.staging import RUN, stage

MAX_LISTED, MAX_LEFT_LISTED = 40, 6
REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
SNIPPETS = {
    "model": """from transformers import AutoModel

model = AutoModel.from_pretrained("{repo_id}", revision="{commit}", trust_remote_code=True)""",
    "adapter": """from modeling_spatialboost import SpatialBoostModel

model = SpatialBoostModel.from_adapter("{repo_id}", revision="{commit}")""",
    "dataset": """from datasets import get_dataset_config_names, load_dataset

print(get_dataset_config_names("{repo_id}", revision="{commit}"))
rows = load_dataset("{repo_id}", revision="{commit}")  # its first configuration""",
    "space": """from gradio_client import Client

Client("{repo_id}").view_api()""",
}
VLM_SNIPPET = """from transformers import pipeline

ask = pipeline("image-text-to-text", model="{repo_id}", revision="{commit}", trust_remote_code=True)"""


def make_parser() -> argparse.ArgumentParser:
    """Arguments of `spatialboost publish`."""
    parser = argparse.ArgumentParser(prog="spatialboost publish", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("kind", choices=KINDS, help="what the folder holds")
    parser.add_argument("folder", metavar="DIR", type=Path, help="the folder; `adapter` also takes a boosted model's")
    parser.add_argument("--repo-id", required=True, metavar="ORG/NAME", help="where on the Hub")
    parser.add_argument("--private", action="store_true", help="a new repository is seen by its owner only")
    parser.add_argument(
        "--revision", help="branch to push to, or refs/pr/N to go on with a pull request (default: main)"
    )
    parser.add_argument("--create-pr", action="store_true", help="open a pull request instead of changing main")
    parser.add_argument(
        "--tag", default="v1", help="name of what is pushed; other content needs another (default: v1)"
    )
    parser.add_argument("--collection", metavar="SLUG", help="put it into this collection; a title makes a new one")
    parser.add_argument(
        "--cleared",
        action="append",
        default=[],
        metavar="LICENCE",
        help="a licence of rows that you know to allow handing on; may be repeated",
    )
    parser.add_argument(
        "--results", metavar="REPORT", type=Path, help="folder of `spatialboost evaluate`; its figures go on the card"
    )
    parser.add_argument("--own-weights", action="store_true", help="the base encoder was trained by you, from scratch")
    parser.add_argument("--dry-run", action="store_true", help="check everything, send nothing")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; return 0.

    Raises:
        ValueError: arguments or a folder that may not be published, with all reasons; or the Hub refused.
    """
    arguments = make_parser().parse_args(argv)
    check_arguments(arguments)
    with prepared(arguments) as staged:
        repository = None if arguments.dry_run else repository_of(arguments, staged)
        print("Loading it in a process that cannot see the clone", flush=True)
        script = script_for(arguments.kind, staged)
        try:
            print(f"  {load_in_isolation(script, str(staged))}", flush=True)
        except LoadingError as error:
            raise ValueError(
                f"DIR={str(arguments.folder)!r} cannot be loaded, so nothing was sent: {error}"
            ) from error
        if repository is None:
            print(f"Nothing was sent (--dry-run). It would go to {arguments.repo_id}, tag {arguments.tag}.")
            return 0
        published = push(repository, arguments, staged)
        load_back(repository, script, published)
        finish(repository, arguments, staged, published)
    return 0


def check_arguments(arguments: argparse.Namespace) -> None:
    """Raise ValueError for what can be known to be wrong without reading a file."""
    if not REPO_ID.fullmatch(arguments.repo_id):
        raise ValueError(f"--repo-id {arguments.repo_id}: give ORG/NAME, of letters, digits, '-', '_' and '.'.")
    if not arguments.folder.is_dir():
        raise ValueError(f"DIR={str(arguments.folder)!r} is no folder: pass the one that holds the {arguments.kind}.")
    if arguments.results and arguments.kind not in ("model", "adapter"):
        raise ValueError(f"--results {arguments.results} is for a model or an adapter, not for a {arguments.kind}.")
    if arguments.create_pr and arguments.revision:
        raise ValueError(
            f"--create-pr and --revision {arguments.revision} exclude each other: it is made against main."
        )


@contextmanager
def prepared(arguments: argparse.Namespace) -> Iterator[Path]:
    """A folder with exactly the files to send; all that speaks against sending them is raised at once."""
    with tempfile.TemporaryDirectory(prefix="spatialboost-") as temporary:
        source, staged = arguments.folder, Path(temporary) / "staged"
        staged.mkdir()
        if arguments.kind == "adapter" and not is_adapter(source) and (source / "config.json").is_file():
            source = Path(temporary) / "adapter"
            make_adapter(arguments.folder, source)
            for name in ("LICENSE", "LICENSE.md", "LICENSE.txt", RUN):
                if (arguments.folder / name).is_file():
                    (source / name).write_bytes((arguments.folder / name).read_bytes())
        pinned = "main" if is_pull_request(arguments) else arguments.tag
        left = stage(source, KINDS[arguments.kind], staged, arguments.repo_id, pinned)
        if arguments.results:
            add_results(staged, arguments.results, arguments.folder, arguments.repo_id.split("/")[1])
        found = problems(arguments.kind, staged, arguments.folder)
        found += [] if found else licence_problems(arguments, staged)
        if found:
            listed = "".join(f"\n  {one}" for one in found)
            raise ValueError(f"DIR={str(arguments.folder)!r} may not be published, nothing was sent:{listed}")
        print(listing(arguments.folder, staged, left), flush=True)
        yield staged


def listing(folder: Path, staged: Path, left: list[str]) -> str:
    """What is sent, with sizes, and what is not."""
    sizes = {path.relative_to(staged).as_posix(): path.stat().st_size for path in staged.rglob("*") if path.is_file()}
    lines = [f"{folder}: {len(sizes)} files, {sum(sizes.values()) / 1e6:,.1f} MB"]
    lines += [f"  {name:<44}{sizes[name]:>15,} bytes" for name in sorted(sizes)[:MAX_LISTED]]
    lines += [f"  and {len(sizes) - MAX_LISTED} more"] if len(sizes) > MAX_LISTED else []
    more = f" and {len(left) - MAX_LEFT_LISTED} more" if len(left) > MAX_LEFT_LISTED else ""
    lines += [f"  left at home: {', '.join(left[:MAX_LEFT_LISTED])}{more}"] if left else []
    return "\n".join(lines)


def licence_problems(arguments: argparse.Namespace, staged: Path) -> list[str]:
    """What licences forbid; see publishing.licences."""
    if arguments.kind == "model":
        return list(model_problems(staged, arguments.own_weights))
    if arguments.kind == "adapter":
        return list(adapter_problems(staged))
    return list(dataset_problems(staged, tuple(arguments.cleared))) if arguments.kind == "dataset" else []


def repository_of(arguments: argparse.Namespace, staged: Path) -> Repository:
    """The repository, once it is known that we may write to it and that the weights' sources have no gate."""
    import json

    from huggingface_hub import HfApi

    repository = Repository(HfApi(), arguments.repo_id, KINDS[arguments.kind].repo_type)
    repository.check_account()
    if arguments.kind == "model":
        config = json.loads((staged / "config.json").read_text(encoding="utf-8"))
        repository.check_gate(origins(config, card_data(staged)))
    return repository


def push(repository: Repository, arguments: argparse.Namespace, staged: Path) -> Published:
    """Create, look whether the tag is free, commit, compare.

    Raises:
        HubError: any of it failed, or the tag names other content.
    """
    sdk = card_data(staged).get("sdk") if arguments.kind == "space" else None
    repository.create(arguments.private, sdk, arguments.revision)
    commit = None if is_pull_request(arguments) else repository.tagged(arguments.tag)
    branch = arguments.revision or "main"
    if commit and not all(repository.same_as(staged, revision) for revision in (commit, branch)):
        raise HubError(
            f"--tag {arguments.tag}: {arguments.repo_id} has it on commit {commit}, and {branch} or that commit holds "
            "other content than the folder. People rely on a tag to stay: pass a new one."
        )
    print(f"Sending to {arguments.repo_id}", flush=True)
    message = f"Publish {arguments.tag} with spatialboost"
    return repository.push(staged, arguments.revision, arguments.create_pr, message)


def is_pull_request(arguments: argparse.Namespace) -> bool:
    """Whether what is pushed waits to be merged; it gets no tag before that."""
    return arguments.create_pr or str(arguments.revision).startswith("refs/pr/")


def load_back(repository: Repository, script: str, published: Published) -> None:
    """Load from the Hub, in a process that has nothing but the id.

    Raises:
        HubError: it is there, but cannot be loaded.
    """
    from huggingface_hub import get_token

    print(f"Loading it back from {repository.repo_id} at {published.commit}", flush=True)
    try:
        said = load_in_isolation(script, repository.repo_id, published.commit, get_token())
    except LoadingError as error:
        raise HubError(
            f"Loading back: {repository.repo_id} holds what was sent, at commit {published.commit}, but a fresh "
            f"process cannot load it ({error}). It was not tagged; run the same command again."
        ) from error
    print(f"  {said}", flush=True)


def finish(repository: Repository, arguments: argparse.Namespace, staged: Path, published: Published) -> None:
    """Tag, collect, and say where it is and how to load it."""
    if not published.revision.startswith("refs/pr/") and repository.tagged(arguments.tag) is None:
        repository.tag(arguments.tag, published.commit)
    if arguments.collection:
        print(f"In the collection {repository.collect(arguments.collection)}")
    snippet = VLM_SNIPPET if arguments.kind == "model" and is_vlm(staged) else SNIPPETS[arguments.kind]
    print(f"\n{published.url}{'' if published.changed else '  (was there already)'}\n")
    print(snippet.format(repo_id=arguments.repo_id, commit=published.commit))


if __name__ == "__main__":
    sys.exit(main())
