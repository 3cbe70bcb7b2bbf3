"""URLs: what is refused with no connection made, and what is fetched within bounds."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from sensorium.sdk import DownloadError, InvalidInputError, SensoriumError
from sensorium.sdk.media import Image, Limits
from sensorium.sdk.media import fetch as fetch_module
from sensorium.sdk.media.fetch import fetch, is_public


class Server:
    """A server on a loopback address that counts who comes."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.seen: list[str] = []
        self.answers: dict[str, Any] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.seen.append(self.path)
                self.close_connection = True
                outer.answers[self.path](self)

            def log_message(self, *arguments: object) -> None:
                pass

        self.http = ThreadingHTTPServer((address, 0), Handler)
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        self.connections = 0
        accept = self.http.get_request

        def counted() -> Any:
            self.connections += 1
            return accept()

        self.http.get_request = counted  # type: ignore[method-assign]

    @property
    def port(self) -> int:
        return self.http.server_address[1]

    def gives(self, path: str, body: bytes = b"", *, status: int = 200, **headers: str) -> None:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            for name, value in {"Content_Length": str(len(body)), **headers}.items():
                if value:
                    handler.send_header(name.replace("_", "-"), value)
            handler.end_headers()
            handler.wfile.write(body)

        self.answers[path] = answer

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets 127.0.0.1, and nothing else of this machine, pass for an address of the internet."""
    monkeypatch.setattr(fetch_module, "is_public", lambda text: text == "127.0.0.1" or is_public(text))


def test_urls_are_off_by_default(server: Server) -> None:
    with pytest.raises(InvalidInputError, match="not fetched unless allowed"):
        Image(f"http://127.0.0.1:{server.port}/a.png")
    assert server.connections == 0


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "LOCALHOST.",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "0.0.0.0",
        "127.255.255.254",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
    ],
)
def test_this_machine_is_never_reached(host: str, server: Server) -> None:
    image = Image(f"http://{host}:{server.port}/a.png", allow_urls=True)
    with pytest.raises(SensoriumError, match=r"not public|not known"):
        _ = image.data
    assert server.connections == 0


@pytest.mark.parametrize(
    "address",
    [
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.1.2.3",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "198.18.0.1",
        "192.0.2.1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd12:3456::1",
        "ff02::1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::10.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "2002:a00:1::1",
        "2001:0:4136:e378:8000:63bf:f5ff:fffe",  # Teredo, of 10.0.0.1
        "2001:db8::1",
        "no address",
        "",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "64:ff9b::101:101"])
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://user@example.org/a.png",
        "http://user:word@example.org/a.png",
        "http://example.org\\@127.0.0.1/",
        "http:///a.png",
        "http://",
        "http://exa mple.org/",
        "http://example.org/\r\nHost: x",
        "http://example.org:99999/",
        "http://[::1/",
        "http://" + "a" * 70 + ".org/",
        "http://example.org/" + "a" * 9000,
    ],
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(InvalidInputError, match="URL is not fetched"):
        Image(url, allow_urls=True)


def test_the_name_is_looked_up_once_and_the_checked_address_is_used(
    server: Server, public: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def look_up(host: str, port: int, **options: Any) -> list[Any]:
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "127.0.0.2"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    server.gives("/a", b"content")
    # create_connection looks its host up as well: of an address, that gives nothing but the address.
    monkeypatch.setattr(socket, "create_connection", _connect_without_look_up)
    assert fetch(f"http://rebinding.example:{server.port}/a", most=100, seconds=5) == b"content"
    assert asked == ["rebinding.example"]


def _connect_without_look_up(address: tuple[str, int], timeout: float) -> socket.socket:
    connection = socket.socket()
    connection.settimeout(timeout)
    connection.connect(address)
    return connection


def test_one_address_that_is_not_public_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, 1, 6, "", (address, 80)) for address in ("93.184.216.34", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(InvalidInputError, match=r"not public[\s\S]*10\.0\.0\.1"):
        fetch("http://two.example/", most=100, seconds=5)


def test_a_redirect_is_checked_again(server: Server, public: None) -> None:
    inside = Server("127.0.0.2")
    try:
        inside.gives("/secret", b"secret")
        for target in (f"http://127.0.0.2:{inside.port}/secret", "http://10.0.0.1/", "http://[::1]/"):
            server.gives("/a", status=302, Location=target)
            with pytest.raises(InvalidInputError, match="not public"):
                fetch(f"http://127.0.0.1:{server.port}/a", most=100, seconds=5)
        for target in ("file:///etc/hostname", "ftp://127.0.0.1/", "http://me@127.0.0.1/", "data:,x"):
            server.gives("/a", status=302, Location=target)
            with pytest.raises(InvalidInputError, match="URL is not fetched"):
                fetch(f"http://127.0.0.1:{server.port}/a", most=100, seconds=5)
        assert inside.connections == 0
    finally:
        inside.close()


def test_redirects_are_followed_but_not_for_ever(server: Server, public: None) -> None:
    server.gives("/a", status=301, Location="/b?x=1")
    server.gives("/b?x=1", b"there")
    server.gives("/loop", status=307, Location="/loop")
    base = f"http://127.0.0.1:{server.port}"
    assert fetch(base + "/a", most=100, seconds=5) == b"there"
    with pytest.raises(DownloadError, match="too many redirects"):
        fetch(base + "/loop", most=100, seconds=5)
    assert server.seen.count("/loop") == 6


def test_an_image_from_a_url(server: Server, public: None, image_bytes: Any, pixels: Any) -> None:
    server.gives("/a%20b.jpg?q=%C3%A9", image_bytes(pixels, "PNG"))
    image = Image(f"http://127.0.0.1:{server.port}/a%20b.jpg?q=é#part", allow_urls=True)
    assert server.connections == 0  # not before it is needed
    assert np.array_equal(image.data.pixels, pixels)


def test_too_much_is_cut_off(server: Server, public: None) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"x" * 65536)
        except OSError:
            pass

    server.answers["/endless"] = endless
    server.gives("/long", b"x" * 5000)
    for path in ("/endless", "/long"):
        with pytest.raises(InvalidInputError, match="too large"):
            fetch(f"http://127.0.0.1:{server.port}{path}", most=4999, seconds=5)


@pytest.mark.parametrize("part", ["headers", "body", "sized body", "nothing"])
def test_a_slow_server_is_cut_off(part: str, server: Server, public: None) -> None:
    def slow(handler: BaseHTTPRequestHandler) -> None:
        head = {"headers": b"HTTP/1.1 200 OK\r\nX: ", "body": b"HTTP/1.1 200 OK\r\n\r\n"}
        head["sized body"] = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"
        try:
            handler.wfile.write(head.get(part, b""))
            for _ in range(100):
                handler.wfile.write(b"x" if part != "nothing" else b"")
                time.sleep(0.05)
        except OSError:
            pass

    server.answers["/slow"] = slow
    begun = time.monotonic()
    with pytest.raises(DownloadError, match="too long"):
        fetch(f"http://127.0.0.1:{server.port}/slow", most=10_000, seconds=0.4)
    assert time.monotonic() - begun < 4


def test_answers_that_are_none(server: Server, public: None) -> None:
    server.gives("/missing", b"sorry", status=404)
    server.gives("/zipped", b"x", Content_Encoding="gzip")
    server.gives("/short", b"x", Content_Length="50")
    server.gives("/odd", b"x", Transfer_Encoding="chunked", Content_Length="")
    for path in ("/missing", "/zipped", "/short", "/odd"):
        with pytest.raises(DownloadError):
            fetch(f"http://127.0.0.1:{server.port}{path}", most=100, seconds=5)
    port = server.port
    server.close()
    with pytest.raises(DownloadError):
        fetch(f"http://127.0.0.1:{port}/", most=100, seconds=5)


def test_an_empty_answer_is_no_image(server: Server, public: None) -> None:
    server.gives("/empty", b"")
    with pytest.raises(InvalidInputError):
        _ = Image(f"http://127.0.0.1:{server.port}/empty", allow_urls=True, limits=Limits(decode_seconds=5)).data
