"""A Hub on this machine: the few endpoints that huggingface_hub needs to push and to load weights.

Repositories live in memory. Files are spoiled on their way to the client on demand.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

TOKEN = "hf_may_write"


@dataclass
class Repository:
    """Commits by their hash, each all files by path; branches and tags name a commit."""

    commits: dict[str, dict[str, bytes]]
    main: str
    tags: dict[str, str] = field(default_factory=dict)

    @classmethod
    def empty(cls) -> "Repository":
        return cls({"0" * 40: {}}, "0" * 40)

    def commit_of(self, revision: str) -> str | None:
        known = {"main": self.main, **self.tags, **{name: name for name in self.commits}}
        return known.get(revision)

    def commit(self, files: dict[str, bytes]) -> str:
        content = self.commits[self.main] | files
        digest = hashlib.sha1(repr(sorted(content.items())).encode() + self.main.encode())
        self.main = digest.hexdigest()
        self.commits[self.main] = content
        return self.main


@dataclass
class Hub:
    """What the server holds, and what it was asked for.

    Attributes:
        url: for HF_ENDPOINT.
        repositories: by `org/name`.
        objects: large files by their sha256, before a commit names them.
        broken: "cut", "scrambled" or, as only the first time, "once" by the repository whose
            weights are sent so.
        requests: the method and the path of every one.
    """

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    """One request; `hub` is set by `serve`."""

    hub: Hub
    protocol_version = "HTTP/1.1"
    routes = (
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/validate-yaml", "validate"),
        ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/preupload/main", "preupload"),
        ("POST", r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", "batch"),
        ("PUT", r"/objects/(?P<name>\w+)", "store"),
        ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/commit/main", "commit"),
        ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/tag/(?P<name>[^/]+)", "tag"),
        ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+)/refs", "refs"),
        ("HEAD|GET", r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)", "resolve"),
    )

    def answer(self) -> None:
        path = unquote(self.path.partition("?")[0])
        self.hub.requests.append((self.command, path))
        length = int(self.headers.get("Content-Length", 0))
        self.body = self.rfile.read(length)
        writes = self.command in ("POST", "PUT") and not path.startswith("/objects/")
        if writes and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.say(401, {"error": "Invalid username or password."})
        for methods, pattern, action in self.routes:
            found = re.fullmatch(pattern, path)
            if found and self.command in methods.split("|"):
                return getattr(self, action)(**found.groupdict())
        return self.say(404, {"error": f"this server has no {self.command} {path}"})

    do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815  # names of http.server

    def create(self) -> None:
        given = json.loads(self.body)
        name = f"{given['organization']}/{given['name']}"
        exists = name in self.hub.repositories
        self.hub.repositories.setdefault(name, Repository.empty())
        self.say(409 if exists else 200, {"url": f"{self.hub.url}/{name}"})

    def validate(self) -> None:
        self.say(200, {"errors": [], "warnings": []})

    def preupload(self, repo: str) -> None:
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(self.body)["files"]
        ]
        self.say(200, {"files": files})

    def batch(self, repo: str) -> None:
        objects = [
            {
                **wanted,
                "actions": {"upload": {"href": f"{self.hub.url}/objects/{wanted['oid']}"}},
            }
            for wanted in json.loads(self.body)["objects"]
        ]
        self.say(200, {"transfer": "basic", "objects": objects})

    def store(self, name: str) -> None:
        self.hub.objects[name] = self.body
        self.say(200, {})

    def commit(self, repo: str) -> None:
        files = {}
        for line in map(json.loads, self.body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        name = self.hub.repositories[repo].commit(files)
        self.say(200, {"commitUrl": f"{self.hub.url}/{repo}/commit/{name}", "commitOid": name})

    def tag(self, repo: str, name: str) -> None:
        repository = self.hub.repositories[repo]
        wanted = json.loads(self.body)["tag"]
        if wanted in repository.tags:
            return self.say(409, {"error": "Reference already exists"})
        repository.tags[wanted] = str(repository.commit_of(name))
        return self.say(200, {})

    def refs(self, repo: str) -> None:
        repository = self.hub.repositories[repo]
        tags = [
            {"name": name, "ref": f"refs/tags/{name}", "targetCommit": commit}
            for name, commit in repository.tags.items()
        ]
        main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repository.main}
        self.say(200, {"branches": [main], "tags": tags, "converts": []})

    def resolve(self, repo: str, revision: str, name: str) -> None:
        repository = self.hub.repositories.get(repo)
        if repository is None:
            return self.say(404, {}, {"X-Error-Code": "RepoNotFound"})
        commit = repository.commit_of(revision)
        if commit is None:
            return self.say(404, {}, {"X-Error-Code": "RevisionNotFound"})
        if name not in repository.commits[commit]:
            return self.say(404, {}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        content = repository.commits[commit][name]
        headers = {
            "X-Repo-Commit": commit,
            "X-Linked-Size": str(len(content)),
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
        }
        how = self.hub.broken.get(repo) if name.endswith(".safetensors") else None
        if how == "once" and self.command == "GET":
            del self.hub.broken[repo]
        return self.say(200, spoiled(content, how), headers)

    def say(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        sent = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(sent)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(sent)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Not on the terminal of the tests."""


def spoiled(content: bytes, how: str | None) -> bytes:
    """The first half of a file, or as many bytes of something else."""
    if how == "cut":
        return content[: len(content) // 2]
    if how in ("scrambled", "once"):
        return bytes(byte ^ 255 for byte in content)
    return content


@contextmanager
def serve() -> Iterator[Hub]:
    """A running server; it is gone when the block ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HubHandler", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
