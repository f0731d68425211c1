"""What a Hub keeps: repositories with commits, branches, tags and pull requests; large objects; collections."""

import fnmatch
import hashlib
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime

LFS_BYTES = 10 * 1024 * 1024
LFS_PATTERNS = ("*.safetensors", "*.parquet", "*.bin", "*.pt", "*.png", "*.jpg", "*.zip", "*.npy", "*.arrow")
INITIAL = {".gitattributes": "".join(f"{pattern} filter=lfs\n" for pattern in LFS_PATTERNS).encode()}


class Refusal(Exception):
    """What the Hub answers to a request that it does not carry out."""

    def __init__(self, status, message, code=None, **headers):
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, headers


def git_oid(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def is_large(path, size, sample=b""):
    """Whether the Hub wants a file as a large object: by its name, by its size, or because it is no text."""
    if size > LFS_BYTES or any(fnmatch.fnmatch(path, pattern) for pattern in LFS_PATTERNS):
        return True
    try:
        sample.decode()
    except UnicodeDecodeError as error:
        return error.end < len(sample) - 3  # else a character that the sample's end cut
    return b"\0" in sample


@dataclass
class Commit:
    oid: str
    title: str
    files: dict[str, bytes]
    parent: "Commit | None"
    date: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"))


class Repository:
    """One repository; a revision is a branch, a tag, refs/pr/N or a commit."""

    def __init__(self, kind, name, private=False, sdk=None):
        self.kind, self.name, self.private, self.sdk, self.gated = kind, name, private, sdk, False
        self.commits, self.branches, self.tags, self.pull_requests = {}, {}, {}, {}
        self.branches["main"] = self._add("initial commit", dict(INITIAL), None)

    @property
    def path(self):
        return self.name if self.kind == "model" else f"{self.kind}s/{self.name}"

    def _add(self, title, files, parent):
        content = [title, parent.oid if parent else "", str(len(self.commits))]
        content += [f"{path} {git_oid(data)}" for path, data in sorted(files.items())]
        commit = Commit(hashlib.sha1("\n".join(content).encode()).hexdigest(), title, files, parent)
        self.commits[commit.oid] = commit
        return commit

    def at(self, revision):
        known = self.branches | self.tags | self.pull_requests | self.commits
        if revision not in known:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return known[revision]

    def files(self, revision="main"):
        return self.at(revision).files

    def commit(self, revision, title, change, parent=None, create_pr=False):
        """Apply `change` to a copy of the files; returns the commit, and the pull request's number if one is asked."""
        head = self.at(revision)
        if parent is not None and parent != head.oid:
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        files = change(dict(head.files))
        if not create_pr and revision not in self.branches and revision not in self.pull_requests:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        commit = self._add(title, files, head)
        if create_pr:
            number = len(self.pull_requests) + 1
            self.pull_requests[f"refs/pr/{number}"] = commit
            return commit, number
        (self.branches if revision in self.branches else self.pull_requests)[revision] = commit
        return commit, None

    def merge(self, number):
        commit = self.at(f"refs/pr/{number}")
        self.branches["main"] = self._add(f"Merge #{number}", commit.files, self.branches["main"])

    def history(self, revision):
        commit = self.at(revision)
        while commit is not None:
            yield commit
            commit = commit.parent


class Store:
    """All repositories, and who may write to them."""

    def __init__(self):
        self.lock = threading.RLock()
        self.repositories, self.objects, self.parts, self.collections = {}, {}, {}, {}
        self.organisations = ("org",)
        self.tokens = {"hf_writer": "write", "hf_reader": "read"}

    def role(self, token):
        """ "write", "read", or None without a token."""
        if token is None:
            return None
        if token not in self.tokens:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return self.tokens[token]

    def writer(self, token):
        if self.role(token) is None:
            raise Refusal(401, "Invalid username or password.")
        if self.role(token) != "write":
            raise Refusal(403, "This token has no write access.")

    def create(self, kind, namespace, name, private, sdk, token):
        self.writer(token)
        if (namespace or "me") not in ("me", *self.organisations):
            raise Refusal(403, f"You don't have the rights to create a {kind} under the namespace {namespace!r}")
        key = kind, f"{namespace or 'me'}/{name}"
        is_new = key not in self.repositories
        if is_new:
            self.repositories[key] = Repository(*key, private, sdk)
        return self.repositories[key], is_new

    def find(self, kind, name, token):
        repository = self.repositories.get((kind, name))
        role = self.role(token)
        if repository is None or (repository.private and role is None):
            status = 401 if role is None else 404  # the Hub tells a stranger nothing of what exists
            raise Refusal(status, "Repository not found", "RepoNotFound")
        return repository

    def put_object(self, oid, content):
        """Keep a large object; one whose bytes are not what its name says is refused and nothing is kept."""
        if sha256(content) != oid:
            raise Refusal(400, f"The content's SHA-256 is {sha256(content)}, not {oid}")
        self.objects[oid] = content
