"""The Hub's side of publishing: one commit that holds all or nothing, compared, tagged, collected."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from publishing.kinds import OURS

SLUG = re.compile(r"[\w.-]+/[\w.-]+-[0-9a-f]{24}")
AGAIN = "Nothing half-finished is visible there; run the same command again, what has arrived is not sent twice."
ADVICE = {
    400: "The Hub refused what was sent. " + AGAIN,
    401: "The token is missing or not valid: run `hf auth login`, or set HF_TOKEN to one with write access.",
    402: "The account's plan does not allow this: see https://huggingface.co/pricing.",
    403: "This token may not do that: it needs write access to {namespace}.",
    404: "No such repository or revision, or the token may not see it: check --repo-id and --revision.",
    409: "Somebody else is changing {repo_id} right now. " + AGAIN,
    412: "Somebody else has changed {repo_id} meanwhile. " + AGAIN,
    429: "Too many requests for now: wait some minutes. " + AGAIN,
}
MAX_QUOTED = 200  # characters of what the Hub says
TROUBLE = "The Hub has trouble of its own. " + AGAIN


class HubError(ValueError):
    """The Hub did not do what was asked; one sentence with status and remedy."""


@dataclass(frozen=True)
class Published:
    """Where it is now.

    Attributes:
        commit: 40 hexadecimal digits.
        url: of its page; of the pull request, where one was asked for.
        revision: branch, or refs/pr/N.
        changed: whether this run made the commit, or found everything there.
    """

    commit: str
    url: str
    revision: str
    changed: bool


@contextmanager
def told(step: str, repo_id: str) -> Iterator[None]:
    """Turn what can go wrong on the way to the Hub into one sentence."""
    try:
        yield
    except Exception as error:
        # huggingface_hub wraps what went wrong with one of many files
        reason = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ is not None else error
        sentence = explanation(reason, repo_id)
        if sentence is None:
            raise
        raise HubError(f"{step}: {sentence}") from reason


def explanation(error: BaseException, repo_id: str) -> str | None:
    """What happened, and what to do; None for an error that is neither the Hub's nor the connection's."""
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    # of the HTTP library, which is httpx or httpx2, as huggingface_hub has it
    http_error: type[Exception] = next(base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError")
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set; unset it to publish."
    if isinstance(error, LocalTokenNotFoundError):
        return ADVICE[401]
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        advice = ADVICE.get(status, TROUBLE if status >= 500 else AGAIN)
        advice = advice.format(repo_id=repo_id, namespace=repo_id.split("/")[0])
        said = " ".join((error.server_message or "").split())[:MAX_QUOTED]
        return f"the Hub answered {status}{f' ({said})' if said else ''}. {advice}"
    if isinstance(error, (http_error, ConnectionError, TimeoutError)) or type(error).__module__.startswith("hf_xet"):
        return f"the connection broke ({said[:MAX_QUOTED]}). {AGAIN}"
    return said if isinstance(error, ValueError) else None  # huggingface_hub's own checks, such as a card's metadata


def file_names(info: Any) -> set[str]:
    """The files of a repository's revision, but for the one that the Hub writes itself."""
    return {one.rfilename for one in info.siblings or []} - {".gitattributes"}


class Repository:
    """One repository of the Hub, as publishing needs it."""

    def __init__(self, api: Any, repo_id: str, repo_type: str) -> None:
        """`api` is huggingface_hub's HfApi."""
        self.api, self.repo_id, self.repo_type = api, repo_id, repo_type
        self.place = {"repo_id": repo_id, "repo_type": repo_type}

    def check_account(self) -> None:
        """Raise HubError unless there is a token that may write."""
        with told("Signing in", self.repo_id):
            account = self.api.whoami()
        role = account.get("auth", {}).get("accessToken", {}).get("role")
        if role == "read":
            raise HubError("Signing in: this token may only read; run `hf auth login` with one that has write access.")

    def check_gate(self, origins: set[str]) -> None:
        """Raise HubError if a source of the weights is behind a gate on the Hub; ids that it does not know pass."""
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

        for name in sorted(name for name in origins if re.fullmatch(r"[\w.-]+/[\w.-]+", name)):
            try:
                with told(f"Looking up {name}", self.repo_id):
                    gated = self.api.model_info(name).gated
            except HubError as error:
                if not isinstance(error.__cause__, HfHubHTTPError):
                    raise
                gated = isinstance(error.__cause__, GatedRepoError)
            if gated:
                raise HubError(
                    f"The weights come from {name}, which is behind a gate on the Hub; a copy would hand them to "
                    "people who have not accepted its licence. Publish only the second channel: `spatialboost publish "
                    "adapter DIR --repo-id ORG/NAME`."
                )

    def create(self, private: bool, space_sdk: str | None, revision: str | None) -> None:
        """Make repository and branch where they are not there yet.

        Raises:
            HubError: it cannot be made, or holds something that is not ours.
        """
        with told(f"Creating {self.repo_id}", self.repo_id):
            sdk = {"space_sdk": space_sdk} if space_sdk else {}
            self.api.create_repo(**self.place, private=private or None, exist_ok=True, **sdk)
            if revision and not revision.startswith("refs/pr/"):
                self.api.create_branch(**self.place, branch=revision, exist_ok=True)
        with told(f"Looking into {self.repo_id}", self.repo_id):
            info = self.api.repo_info(**self.place)
        files = file_names(info)
        tags = (info.card_data or {}).get("tags") or []
        if files - {"README.md"} and OURS not in tags:
            raise HubError(
                f"--repo-id {self.repo_id} holds {len(files)} files of something else (its card has no tag {OURS!r}): "
                "choose another name."
            )

    def same_as(self, staged: Path, revision: str) -> bool:
        """Whether `revision` holds exactly the files of `staged`, by their hashes."""
        with told(f"Comparing {self.repo_id} with the folder", self.repo_id):
            found = self.api.verify_repo_checksums(**self.place, revision=revision, local_dir=staged)
        return not found.mismatches and not found.extra_paths and set(found.missing_paths) <= {".gitattributes"}

    def tagged(self, tag: str) -> str | None:
        """The commit of a tag; None if there is no such tag."""
        with told(f"Reading the tags of {self.repo_id}", self.repo_id):
            references = self.api.list_repo_refs(**self.place)
        return next((one.target_commit for one in references.tags if one.name == tag), None)

    def push(self, staged: Path, revision: str | None, create_pr: bool, message: str) -> Published:
        """Send the files of `staged` in one commit, after which the revision holds these and no others.

        Large files go first and are kept by their hash, so that a second run sends only what is missing; until the
        commit itself none of it is visible.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        branch = revision or "main"
        with told(f"Sending to {self.repo_id}", self.repo_id):
            head = self.api.repo_info(**self.place, revision=branch)
            there = file_names(head)
            paths = {path.relative_to(staged).as_posix(): path for path in sorted(staged.rglob("*")) if path.is_file()}
            additions = [CommitOperationAdd(name, str(path)) for name, path in paths.items()]
            deletions = [CommitOperationDelete(name) for name in sorted(there - paths.keys())]
            made = self.api.create_commit(
                **self.place,
                operations=[*deletions, *additions],
                commit_message=message,
                revision=revision,
                parent_commit=head.sha,
                create_pr=create_pr,
            )
        prefix = "" if self.repo_type == "model" else f"{self.repo_type}s/"
        url = made.pr_url or f"{self.api.endpoint}/{prefix}{self.repo_id}"
        found = Published(made.oid, url, made.pr_revision or branch, made.oid != head.sha)
        if not self.same_as(staged, found.commit):
            raise HubError(
                f"Comparing {self.repo_id} with the folder: commit {found.commit} does not hold what was sent. It was "
                "not tagged; run the same command again."
            )
        return found

    def tag(self, name: str, commit: str) -> None:
        """Name a commit."""
        with told(f"Tagging {self.repo_id}", self.repo_id):
            self.api.create_tag(**self.place, tag=name, revision=commit)

    def collect(self, collection: str) -> str:
        """Put the repository into a collection, by its slug, or by a title under its owner; returns the URL."""
        with told(f"Adding to the collection {collection!r}", self.repo_id):
            slug = collection
            if not SLUG.fullmatch(collection):
                namespace = self.repo_id.split("/")[0]
                slug = self.api.create_collection(collection, namespace=namespace, exists_ok=True).slug
            found = self.api.add_collection_item(slug, self.repo_id, self.repo_type, exists_ok=True)
        return str(found.url)
