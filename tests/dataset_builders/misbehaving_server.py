"""A chat-completions server that behaves as badly as a test asks it to, and remembers all that it saw."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GONE = "gone"  # cut the connection in the middle of the answer


def completion(text, finish_reason="stop", refusal=None, usage=(11, 7)):
    """The body of a good answer."""
    message = {"role": "assistant", "content": text} | ({"refusal": refusal} if refusal else {})
    counted = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)} if usage else None
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "test",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": counted,
    }


class ChatServer:
    """Answers a request by `script(number, body)`: a text, a whole body (dict), GONE, or (status, headers, body)."""

    def __init__(self, script):
        self.script = script
        self.requests, self.headers = [], []
        self.in_flight = self.most_in_flight = 0
        self.lock = threading.Lock()
        self.url = None

    def respond(self, body, headers):
        with self.lock:
            number = len(self.requests)
            self.requests.append(body)
            self.headers.append(headers)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return self.script(number, body)
        finally:
            with self.lock:
                self.in_flight -= 1

    @contextmanager
    def running(self):
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        server.daemon_threads = True
        server.handle_error = lambda *args: None  # clients that hang up are the point
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}/v1"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def _handler(owner):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self._send(404, {}, b"{}")

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = owner.respond(body, {name.lower(): value for name, value in self.headers.items()})
            if answer == GONE:
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b'{"choices": [')
                self.close_connection = True
                return
            if isinstance(answer, tuple):
                status, headers, payload = answer
            else:
                status, headers, payload = 200, {}, completion(answer) if isinstance(answer, str) else answer
            self._send(status, headers, payload if isinstance(payload, bytes) else json.dumps(payload).encode())

        def _send(self, status, headers, payload):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *args):
            pass

    return Handler


def in_turn(*answers):
    """A script that gives one answer after the other, the last one for ever."""
    return lambda number, body: answers[min(number, len(answers) - 1)]


def slow(seconds, answer):
    """A script that takes its time."""

    def script(number, body):
        time.sleep(seconds)
        return answer

    return script
