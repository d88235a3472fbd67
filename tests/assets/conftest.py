import json
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest

from pewb.assets import hub_api


@dataclass
class Reports:
    notices: list[str] = field(default_factory=list)
    stages: list[tuple] = field(default_factory=list)
    standings: list[list] = field(default_factory=list)

    def notice(self, text):
        self.notices.append(text)

    def progress(self, stage, done, total, detail=""):
        self.stages.append((stage, done, total, detail))

    def standing(self, steps, seconds_left):
        self.standings.append(list(steps))


@dataclass
class Server:
    """Serves `files` with Range, cuts connections where told to, and plays a hub over `repositories`."""

    files: dict[str, bytes] = field(default_factory=dict)
    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    """From "models/org/name" to commits, oldest first, each with its files."""
    announced: dict[str, dict] = field(default_factory=dict)
    """From a path to what the hub says of that file."""
    statuses: dict[str, int] = field(default_factory=dict)
    """From a path to the status that it is answered with."""
    cuts: dict[str, list[int]] = field(default_factory=dict)
    """From a path to how many bytes are sent before the connection is cut, attempt by attempt."""
    behaviour: str = "up"
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)
    address: str = ""

    def ranges(self, name):
        return [asked for path, asked in self.requests if path.endswith(name)]

    def content(self, path):
        if path in self.files:
            return self.files[path]
        place, _, rest = path.lstrip("/").partition("/resolve/")
        place = place if place.startswith("datasets/") else f"models/{place}"
        commit, _, name = rest.partition("/")
        return self.repositories.get(place, {}).get(commit, {}).get(name)

    def about(self, path):
        place, _, revision = path.removeprefix("/api/").partition("/revision/")
        commits = self.repositories.get(place, {})
        commit = revision if revision in commits else next(reversed(commits), None) if revision == "main" else None
        if commit is None:
            return None
        files = [
            {"rfilename": name, "size": len(body)} | self.announced.get(name, {})
            for name, body in commits[commit].items()
        ]
        return json.dumps({"sha": commit, "siblings": files}).encode()


def _handler(server: Server):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self):
            if server.behaviour == "silent files":
                server.closing.wait(30)
            self.answer(200, b"", "application/octet-stream")

        def do_GET(self):
            path = unquote(urlsplit(self.path).path)
            server.requests.append((path, self.headers.get("Range")))
            server.tokens.append(self.headers.get("Authorization"))
            if server.behaviour == "silent":
                server.closing.wait(30)
            elif server.behaviour == "trickle":
                self.trickle()
            elif server.behaviour == "html":
                self.answer(200, b"<html>log in to the hotel network</html>", "text/html")
            elif server.behaviour == "no sha":
                self.answer(200, b'{"ok": true}', "application/json")
            elif server.behaviour == "error":
                self.answer(503, b"later", "text/plain")
            elif path in server.statuses:
                self.answer(server.statuses[path], b"no", "text/plain")
            elif path.startswith("/api/"):
                body = server.about(path)
                self.answer(200 if body else 404, body or b"{}", "application/json")
            else:
                self.file(path, server.content(path))

        def trickle(self):
            self.send_response(200)
            self.end_headers()
            while not server.closing.wait(0.02):
                try:
                    self.wfile.write(b" ")
                except OSError:
                    return

        def answer(self, status, body, kind, headers=()):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            return self.wfile.write(body)

        def file(self, path, body):
            if body is None:
                return self.answer(404, b"no", "text/plain")
            kind = "text/html" if path.endswith("/") else "application/octet-stream"
            asked = self.headers.get("Range")
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            if start >= len(body) and asked:
                return self.answer(416, b"", "text/plain")
            self.send_response(206 if asked else 200)
            self.send_header("Content-Type", kind)
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            cuts = server.cuts.get(path)
            if cuts:
                self.wfile.write(body[start : start + cuts.pop(0)])
                self.wfile.flush()
                self.close_connection = True
                return self.connection.shutdown(socket.SHUT_RDWR)
            return self.wfile.write(body[start:])

        def log_message(self, *arguments):
            pass

    return Handler


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request, client_address):
        pass


@pytest.fixture
def server():
    state = Server()
    http = _Quiet(("127.0.0.1", 0), _handler(state))
    state.address = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield state
    state.closing.set()
    http.shutdown()
    http.server_close()


@pytest.fixture
def a_hub(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    return server


@pytest.fixture
def closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, no hub in reach unless a test brings one, nothing remembered."""
    monkeypatch.setenv("PEWB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    hub_api.forget_unreachable()
    yield tmp_path / "cache"
    hub_api.forget_unreachable()


@pytest.fixture
def reports():
    return Reports()
