"""The requests that the local Hub knows: (status, body, headers) for each, as huggingface.co answers them."""

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, quote

import yaml

from tests.hub.cards import problems
from tests.hub.store import Refusal, git_oid, is_large, sha256

KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}


@dataclass
class Request:
    hub: Any
    method: str
    parts: list[str]
    query: dict[str, str]
    headers: Any
    body: bytes
    token: str | None

    @property
    def store(self):
        return self.hub.store

    @property
    def json(self):
        return json.loads(self.body)


def answer(content, status=200, **headers):
    return status, json.dumps(content).encode(), {"Content-Type": "application/json", **headers}


def respond(request):
    parts = request.parts
    if parts[0] == "api":
        if parts[1] in KINDS and len(parts) >= 4:
            return repository_api(request, KINDS[parts[1]], "/".join(parts[2:4]), parts[4:])
        return account_api(request, parts[1:])
    if parts[0] == "_objects":
        return objects(request, *parts[1:])
    if parts[-3:] == ["lfs", "objects", "batch"]:
        kind = KINDS.get(parts[0], "model")
        path = parts[1:3] if parts[0] in KINDS else parts[:2]
        return large_objects(request, kind, "/".join(path).removesuffix(".git"))
    kind = KINDS.get(parts[0], "model")
    path = parts[1:] if parts[0] in KINDS else parts
    if len(path) > 3 and path[2] == "resolve":
        repository = request.store.find(kind, "/".join(path[:2]), request.token)
        revision, rest = split_revision(path[3:])
        return file(request, repository, revision, "/".join(rest))
    raise Refusal(404, "No such page")


def split_revision(parts):
    """Revision and rest of a path; refs/pr/N comes with its slashes quoted, but also plain."""
    if parts[0] == "refs" and len(parts) > 2:
        return "/".join(parts[:3]), parts[3:]
    return parts[0], parts[1:]


def account_api(request, parts):
    store = request.store
    match request.method, parts:
        case "GET", ["whoami-v2"]:
            role = store.role(request.token)
            if role is None:
                raise Refusal(401, "Invalid username or password.")
            organisations = [{"name": name, "type": "org"} for name in store.organisations]
            access = {"type": "access_token", "accessToken": {"role": role, "displayName": "test"}}
            return answer({"type": "user", "id": "1", "name": "me", "orgs": organisations, "auth": access})
        case "POST", ["repos", "create"]:
            asked = request.json
            private = asked.get("visibility") == "private" or bool(asked.get("private"))
            kind = asked.get("type") or "model"
            made, is_new = store.create(
                kind, asked.get("organization"), asked["name"], private, asked.get("sdk"), request.token
            )
            told = {"url": f"{request.hub.url}/{made.path}", "name": made.name, "id": made.name}
            return answer(
                told if is_new else told | {"error": f"You already created this {kind} repo"}, 200 if is_new else 409
            )
        case "DELETE", ["repos", "delete"]:
            store.writer(request.token)
            asked = request.json
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            store.repositories.pop((asked.get("type") or "model", name), None)
            return answer({})
        case "POST", ["validate-yaml"]:
            found = problems(request.json["content"], request.json.get("repoType"))
            return answer({"errors": [{"message": one} for one in found], "warnings": []}, 400 if found else 200)
        case _, ["collections", *rest]:
            return collections(request, rest)
    raise Refusal(404, "No such page")


def collections(request, rest):
    store = request.store
    if not rest:
        store.writer(request.token)
        asked = request.json
        slug = f"{asked['namespace']}/{asked['title'].lower().replace(' ', '-')}-{'0' * 23}{len(store.collections)}"
        mine = [
            c for c in store.collections.values() if (c["owner"], c["title"]) == (asked["namespace"], asked["title"])
        ]
        if mine:
            return answer({"error": "exists", "slug": mine[0]["slug"]}, 409)
        store.collections[slug] = {
            "slug": slug, "title": asked["title"], "owner": asked["namespace"], "items": [], "position": 0,
            "lastUpdated": "2026-01-01T00:00:00.000Z", "private": False, "theme": "green", "upvotes": 0,
        }  # fmt: skip
        return answer(store.collections[slug])
    collection = store.collections.get("/".join(rest[:2]))
    if collection is None:
        raise Refusal(404, "Collection not found")
    if request.method == "POST":
        store.writer(request.token)
        item = request.json["item"]
        if any((one["id"], one["type"]) == (item["id"], item["type"]) for one in collection["items"]):
            raise Refusal(409, "Item already in collection")
        number = len(collection["items"])
        collection["items"].append({"_id": str(number), "position": number, **item})
    return answer(collection)


def repository_api(request, kind, name, rest):
    store = request.store
    repository = store.find(kind, name, request.token)
    if request.method != "GET" and rest[0] != "paths-info":
        store.writer(request.token)
    match request.method, rest:
        case "GET", [] | ["revision", _]:
            return answer(describe(repository, rest[1] if rest else "main"))
        case "GET", ["refs"]:
            return answer(references(repository, "include_prs" in request.query))
        case "GET", ["commits", revision]:
            return answer([{"id": one.oid, "title": one.title, "message": "", "date": one.date, "authors": []}
                           for one in repository.history(revision)])  # fmt: skip
        case "GET", ["tree", revision, *path]:
            return tree(request, repository, revision, "/".join(path))
        case "POST", ["paths-info", revision]:
            asked = request.json["paths"] if request.body[:1] == b"{" else parse_qs(request.body.decode())["paths"]
            files = repository.files(revision)
            folders = [path for path in asked if any(one.startswith(path.rstrip("/") + "/") for one in files)]
            found = [entry(path, files[path]) for path in asked if path in files]
            return answer(found + [folder(path) for path in folders])
        case "POST", ["preupload", revision]:
            return answer({"files": [upload_mode(repository.files(revision), one) for one in request.json["files"]]})
        case "POST", ["commit", revision]:
            return commit(request, repository, revision)
        case "POST", ["tag", revision]:
            return name_it(repository.tags, request.json["tag"], repository.at(revision))
        case "POST", ["branch", branch]:
            asked = json.loads(request.body or b"{}")
            return name_it(repository.branches, branch, repository.at(asked.get("startingPoint") or "main"))
        case "POST", ["discussions", number, "merge"]:
            repository.merge(int(number))
            return answer({})
    raise Refusal(404, "No such page")


def name_it(names, name, commit):
    if name in names:
        raise Refusal(409, f"Reference {name} already exists")
    names[name] = commit
    return answer({})


def describe(repository, revision):
    commit = repository.at(revision)
    text = commit.files.get("README.md", b"").decode()
    card = yaml.safe_load(text.split("---")[1]) or {} if text.startswith("---") else {}
    siblings = [{"rfilename": path, "size": len(data), "blobId": git_oid(data)} for path, data in commit.files.items()]
    return {
        "_id": "1", "id": repository.name, "modelId": repository.name, "author": repository.name.split("/")[0],
        "sha": commit.oid, "private": repository.private, "gated": repository.gated, "disabled": False,
        "downloads": 0, "likes": 0,
        "tags": card.get("tags", []), "cardData": card, "lastModified": commit.date, "createdAt": commit.date,
        "siblings": siblings, **({"sdk": repository.sdk} if repository.kind == "space" else {}),
    }  # fmt: skip


def references(repository, with_pull_requests):
    def told(prefix, names):
        return [{"name": name, "ref": prefix + name, "targetCommit": one.oid} for name, one in names.items()]

    named = {"branches": told("refs/heads/", repository.branches), "tags": told("refs/tags/", repository.tags)}
    pull_requests = {"pullRequests": told("", repository.pull_requests)} if with_pull_requests else {}
    return {**named, "converts": [], **pull_requests}


def entry(path, content):
    found = {"type": "file", "path": path, "size": len(content), "oid": git_oid(content)}
    if is_large(path, len(content), content[:512]):
        found["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 130}
    return found


def folder(path):
    return {"type": "directory", "path": path.rstrip("/"), "oid": "0" * 40, "size": 0}


def tree(request, repository, revision, path):
    """One page of a listing, and where the next one is."""
    files, start = repository.files(revision), f"{path.rstrip('/')}/" if path else ""
    recursive = request.query.get("recursive", "").lower() in ("1", "true")
    below = {name: content for name, content in files.items() if name.startswith(start)}
    if path and not below:
        raise Refusal(404, f"{path} does not exist on {revision!r}", "EntryNotFound")
    folders = set()
    for name in below:
        inner = name[len(start) :].split("/")[:-1]
        folders |= {
            start + "/".join(inner[:depth]) for depth in range(1, (len(inner) if recursive else 1) + 1) if inner
        }
    shown = [folder(name) for name in sorted(folders)]
    shown += [entry(n, content) for n, content in sorted(below.items()) if recursive or "/" not in n[len(start) :]]
    first = int(request.query.get("cursor", 0))
    page, headers = shown[first : first + request.hub.page_size], {}
    if first + len(page) < len(shown):
        following = "/".join(quote(part, safe="") for part in request.parts)
        query = f"recursive={str(recursive).lower()}&cursor={first + len(page)}"
        headers["Link"] = f'<{request.hub.url}/{following}?{query}>; rel="next"'
    return answer(page, **headers)


def upload_mode(files, asked):
    path, sample = asked["path"], base64.b64decode(asked["sample"])
    large = is_large(path, asked["size"], sample)
    oid = None if path not in files else sha256(files[path]) if large else git_oid(files[path])
    return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}


def large_objects(request, kind, name):
    """git-lfs's batch: where to send each object that is not here yet."""
    hub = request.hub
    hub.store.find(kind, name, request.token)
    hub.store.writer(request.token)
    objects = []
    for asked in request.json["objects"]:
        oid, size = asked["oid"], asked["size"]
        told = {"oid": oid, "size": size}
        if oid not in hub.store.objects:
            upload = {"href": f"{hub.cdn_url}/_objects/{oid}"}
            if size > hub.part_bytes:
                count = -(-size // hub.part_bytes)
                parts = {f"{n:05d}": f"{hub.cdn_url}/_objects/{oid}/{n}" for n in range(1, count + 1)}
                upload["header"] = {"chunk_size": str(hub.part_bytes), **parts}
            told["actions"] = {"upload": upload, "verify": {"href": f"{hub.url}/_objects/{oid}/verify"}}
        objects.append(told)
    return answer({"transfer": "basic", "objects": objects})


def objects(request, oid, step=None):
    """The storage behind the Hub: objects are put whole or in parts, verified, and read with ranges."""
    store = request.store
    match request.method, step:
        case "PUT", None:
            store.put_object(oid, request.body)
        case "PUT", _:
            store.parts.setdefault(oid, {})[int(step)] = request.body
            return answer({}, ETag=f'"{hashlib.md5(request.body).hexdigest()}"')
        case "POST", None:
            parts = store.parts.pop(oid, {})
            store.put_object(oid, b"".join(parts[one["partNumber"]] for one in request.json["parts"]))
        case "POST", "verify":
            if len(store.objects.get(oid, b"")) != request.json["size"]:
                raise Refusal(404, "The object is not here")
        case "GET", None:
            return ranged(request, store.objects[oid], {"ETag": f'"{oid}"'})
    return answer({})


def commit(request, repository, revision):
    """All operations of one commit, or none."""
    header, *operations = [json.loads(line) for line in request.body.splitlines()]

    def change(files):
        for operation in operations:
            value = operation["value"]
            path = value["path"]
            match operation["key"]:
                case "file":
                    files[path] = base64.b64decode(value["content"])
                case "lfsFile":
                    if value["oid"] not in request.store.objects:
                        raise Refusal(400, f"{path}: its object {value['oid']} was never uploaded")
                    files[path] = request.store.objects[value["oid"]]
                case "deletedFile":
                    if files.pop(path, None) is None:
                        raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
                case "deletedFolder":
                    files = {name: data for name, data in files.items() if not name.startswith(path.rstrip("/") + "/")}
        return files

    asked = header["value"]
    made, number = repository.commit(
        revision, asked["summary"], change, asked.get("parentCommit"), "create_pr" in request.query
    )
    url = f"{request.hub.url}/{repository.path}"
    told = {"success": True, "commitOid": made.oid, "commitUrl": f"{url}/commit/{made.oid}", "hookOutput": ""}
    return answer(told | ({"pullRequestUrl": f"{url}/discussions/{number}"} if number else {}))


def file(request, repository, revision, path):
    """A file's bytes; a large one lies elsewhere, and the Hub says where."""
    made = repository.at(revision)
    headers = {"X-Repo-Commit": made.oid}
    if path not in made.files:
        raise Refusal(404, "Entry not found", "EntryNotFound", **headers)
    content = made.files[path]
    if not is_large(path, len(content), content[:512]):
        return ranged(request, content, {**headers, "ETag": f'"{git_oid(content)}"'})
    oid = sha256(content)
    headers |= {"X-Linked-ETag": f'"{oid}"', "X-Linked-Size": str(len(content))}
    return 302, b"", {**headers, "Location": f"{request.hub.cdn_url}/_objects/{oid}"}


def ranged(request, content, headers):
    asked = request.headers.get("Range")
    headers = {**headers, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    if not asked:
        return 200, content, headers
    first, last = asked.removeprefix("bytes=").split("-")
    start, end = int(first or 0), min(int(last or len(content)), len(content) - 1)
    if not first:  # the last bytes
        start, end = max(0, len(content) - int(last)), len(content) - 1
    if start >= len(content):
        raise Refusal(416, "Range not satisfiable", **{"Content-Range": f"bytes */{len(content)}"})
    return 206, content[start : end + 1], {**headers, "Content-Range": f"bytes {start}-{end}/{len(content)}"}
