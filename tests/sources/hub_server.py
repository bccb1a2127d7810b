"""A server on loopback that answers as TF Hub does, and misbehaves on demand."""

from __future__ import annotations

import contextlib
import http.server
import io
import pathlib
import tarfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator

# What a test makes of a request: it gets the handler, and answers or not.
Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


class HubServer:
    """Serves `answers[path]` on loopback, and counts what is asked for."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.requests: list[str] = []
        self.released = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parsed = urllib.parse.urlparse(self.path)
                outer.requests.append(parsed.path)
                compressed = "tf-hub-format=compressed" in parsed.query
                compressed |= parsed.path.endswith((".tar", ".tar.gz"))
                if compressed and parsed.path in outer.answers:
                    outer.answers[parsed.path](self)
                else:
                    send(self, b"no such model", status=404)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextlib.contextmanager
def running() -> Iterator[HubServer]:
    server = HubServer()
    try:
        yield server
    finally:
        server.stop()


def send(
    handler: http.server.BaseHTTPRequestHandler,
    body: bytes,
    *,
    status: int = 200,
    length: int | None = None,
    headers: dict[str, str] | None = None,
) -> None:
    """Answers with a body, and with another length than it has if so told."""
    handler.send_response(status)
    handler.send_header("Content-Type", "application/octet-stream")
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)
    handler.close_connection = True


def archive(folder: pathlib.Path, names: list[str], *, mode: str = "w:gz") -> bytes:
    """Packs files of a folder into a tar archive, in the order given."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name in names:
            tar.add(folder / name, arcname=f"./{name}", recursive=False)
    return buffer.getvalue()


def slowly(body: bytes, *, seconds: float) -> Answer:
    """Returns an answer that comes in two halves with a pause between them."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2])
        handler.wfile.flush()
        time.sleep(seconds)
        handler.wfile.write(body[len(body) // 2 :])

    return answer
