"""A small Hub on 127.0.0.1 that speaks the protocol of huggingface_hub, for `HF_ENDPOINT`.

`with LocalHub() as hub: subprocess.run(..., env=hub.environment(home))`. What it holds is in `hub.store`, what it was
asked in `hub.requests`, and `hub.faults` makes it misbehave. Xet is not spoken: HF_HUB_DISABLE_XET=1.
"""

import json
import os
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub import routes
from tests.hub.faults import CUT, DROP
from tests.hub.store import Refusal, Store


class LocalHub:
    """The server; use as a context."""

    def __init__(self):
        self.store, self.faults, self.requests = Store(), [], []
        self.part_bytes = 5 * 1024**3  # larger objects are sent in parts
        self.page_size = 1000  # entries of a tree that one answer holds
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.cdn_url = f"http://localhost:{self.port}"  # another host, as large files lie elsewhere than the Hub

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()

    def environment(self, home, token="hf_writer"):
        """Variables of a process whose Hub is this one."""
        own = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HOME": str(home), "PATH": os.environ["PATH"]}
        own |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
        return own | ({"HF_TOKEN": token} if token else {})

    def repository(self, kind, name):
        return self.store.repositories[kind, name]

    def asked(self, method, pattern):
        """How many requests so far match."""
        return sum(one[0] == method and re.search(pattern, one[1]) is not None for one in self.requests)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: LocalHub

    def log_message(self, *arguments):
        pass

    def answer(self):
        url = urlsplit(self.path)
        fault = next((one for one in self.hub.faults if one.hits(self.command, url.path)), None)
        if fault is not None and fault.action == DROP:
            self.rfile.read1(1024)  # in the middle of what is being sent
            self.hub.requests.append((self.command, url.path, DROP))
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) if not self._chunked else self._chunks()
        try:
            if fault is not None and isinstance(fault.action, int):
                raise Refusal(fault.action, fault.message, **fault.headers)
            body = fault.action(body) if fault is not None and callable(fault.action) else body
            status, content, headers = self._routed(url, body)
        except Refusal as refusal:
            status, content = refusal.status, json.dumps({"error": refusal.message}).encode()
            headers = {"X-Error-Message": refusal.message, "Content-Type": "application/json", **refusal.headers}
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
        self.hub.requests.append((self.command, url.path, status))
        self._send(status, content, headers, cut=fault is not None and fault.action == CUT)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    @property
    def _chunked(self):
        return self.headers.get("Transfer-Encoding", "").lower() == "chunked"

    def _chunks(self):
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _routed(self, url, body):
        authorization = self.headers.get("Authorization", "")
        request = routes.Request(
            hub=self.hub,
            method="GET" if self.command == "HEAD" else self.command,
            parts=[unquote(part) for part in url.path.strip("/").split("/")],
            query={key: values[-1] for key, values in parse_qs(url.query).items()},
            headers=self.headers,
            body=body,
            token=authorization.removeprefix("Bearer ") or None,
        )
        with self.hub.store.lock:
            return routes.respond(request)

    def _send(self, status, content, headers, cut):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", headers.get("Content-Length", str(len(content))))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self.close_connection = True
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
