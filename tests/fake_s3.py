"""An object store that speaks enough S3 for a reader (HEAD, GET with ranges, ListObjectsV2), with faults on demand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

BUCKET = "corpora"
Fault = Callable[[str, str], str | None]  # (method, key) -> what goes wrong


@dataclass
class FakeS3:
    """`objects` by key; `fault` names what goes wrong with a request: "500", "403", "torn", "flipped"."""

    objects: dict[str, bytes] = field(default_factory=dict)
    fault: Fault = lambda method, key: None
    requests: list[tuple[str, str]] = field(default_factory=list)
    port: int = 0

    def url(self, prefix: str, userinfo: str = "") -> str:
        return f"s3://{userinfo}{BUCKET}/{prefix}?endpoint_override=127.0.0.1:{self.port}&scheme=http&region=us-east-1"

    def upload(self, directory: Path, prefix: str) -> None:
        for path in directory.rglob("*"):
            if path.is_file():
                self.objects[f"{prefix}/{path.relative_to(directory).as_posix()}"] = path.read_bytes()

    def n_fetches(self, key: str) -> int:
        """How many times the object was read from its start."""
        return self.requests.count(("GET", key))


@contextmanager
def serving(store: FakeS3) -> Iterator[FakeS3]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"store": store}))
    server.daemon_threads = True
    store.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    store: FakeS3
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer("HEAD")

    def do_GET(self) -> None:
        self.answer("GET")

    def answer(self, method: str) -> None:
        split = urlsplit(self.path)
        bucket, _, key = unquote(split.path).lstrip("/").partition("/")
        query = parse_qs(split.query)
        if bucket != BUCKET:
            self.reply(404, b"")
        elif "list-type" in query:
            self.reply(200, self.listing(query))
        else:
            self.answer_object(method, key)

    def answer_object(self, method: str, key: str) -> None:
        data = self.store.objects.get(key)
        start, end = self.range(len(data or b""))
        if start == 0:
            self.store.requests.append((method, key))
        fault = self.store.fault(method, key)
        if fault in {"500", "403"}:
            self.reply(int(fault), b"")
        elif data is None:
            self.reply(404, b"")
        else:
            self.send(method, data, start, end, fault)

    def send(self, method: str, data: bytes, start: int, end: int, fault: str | None) -> None:
        body = data[start:end]
        if fault == "flipped" and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.send_header("ETag", '"0"')
        self.send_header("Last-Modified", "Sat, 21 Nov 2026 10:00:00 GMT")
        self.end_headers()
        if method == "GET":
            self.wfile.write(body[: len(body) // 2] if fault == "torn" else body)
        if fault == "torn":
            self.close_connection = True

    def range(self, size: int) -> tuple[int, int]:
        if "Range" not in self.headers:
            return 0, size
        start, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
        return int(start), min(size, int(last) + 1 if last else size)

    def listing(self, query: dict[str, list[str]]) -> bytes:
        prefix = query.get("prefix", [""])[0]
        below = {key[len(prefix) :]: data for key, data in sorted(self.store.objects.items()) if key.startswith(prefix)}
        found = [
            f"<Contents><Key>{prefix}{name}</Key><Size>{len(data)}</Size></Contents>"
            for name, data in below.items()
            if "/" not in name
        ]
        deeper = dict.fromkeys(name.partition("/")[0] for name in below if "/" in name)
        found += [f"<CommonPrefixes><Prefix>{prefix}{name}/</Prefix></CommonPrefixes>" for name in deeper]
        text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{''.join(found)}</ListBucketResult>"
        return b'<?xml version="1.0" encoding="UTF-8"?>' + text.encode()

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
