"""Fetches media from the web, and only from there: never from this machine or the network around it.

Each host's addresses are looked up once and checked; the connection is made to the address that was checked, so that
a name that resolves to something else a moment later gains nothing. A redirect is a new request, checked again.
Proxies of the environment are not used.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from ...encoders.errors import DownloadError, InvalidInputError

__all__ = ["check_url", "fetch", "is_public"]

_REDIRECTS = 5
_STALL = 15.0  # seconds without a single byte
_LONGEST_URL = 8192
_CHUNK = 1 << 16
# Ranges whose last 32 bits are an IPv4 address that a gateway may connect to.
_NAT64 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def check_url(url: str, *, allowed: bool) -> None:
    """Refuses URLs that are never fetched, without looking anything up.

    Raises:
        InvalidInputError: URLs are not allowed here; another scheme than http and https; no host; a user's name or
            password in it; a URL too long or with control characters.
    """
    if not allowed:
        hint = "fetch it yourself and give the bytes, or allow it: Image(url, allow_urls=True)"
        raise InvalidInputError("URLs are not fetched unless allowed.", given=url[:200], hint=hint)
    _split(url)


def fetch(url: str, *, most: int, seconds: float) -> bytes:
    """What lies at a URL of the public internet.

    Args:
        url: http or https.
        most: bytes.
        seconds: for all of it, redirects included.

    Raises:
        InvalidInputError: a URL that is refused (see `check_url`), a host with an address that is not public, or more
            than `most` bytes.
        DownloadError: nothing there, no answer in time, or an answer that is none.
    """
    deadline = time.monotonic() + seconds
    for _ in range(_REDIRECTS + 1):
        found = _one(url, most, deadline)
        if isinstance(found, bytes):
            return found
        target = urljoin(url, found)
        if url.lower().startswith("https:") and not target.lower().startswith("https:"):
            raise InvalidInputError("A redirect leads from https to another scheme.", given=target[:200])
        url = target
    raise DownloadError("There are too many redirects.", given=url[:200], expected=f"at most {_REDIRECTS}")


def _split(url: str) -> SplitResult:
    def refuse(why: str) -> InvalidInputError:
        return InvalidInputError(f"This URL is not fetched: {why}.", given=ascii(url[:200]))

    if len(url) > _LONGEST_URL or any(character <= " " or character == "\x7f" for character in url):
        raise refuse("it is too long or holds spaces or control characters")
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for a port that is none
        host = (parts.hostname or "").encode("idna").decode("ascii")
    except (ValueError, UnicodeError) as error:
        raise refuse(str(error)) from error
    if parts.scheme.lower() not in ("http", "https"):
        raise refuse("its scheme is neither http nor https")
    if not host:
        raise refuse("it names no host")
    if "@" in parts.netloc or "\\" in parts.netloc:
        raise refuse("it holds a user's name")
    return parts


def _one(url: str, most: int, deadline: float) -> bytes | str:
    """The content, or where a redirect leads."""
    parts = _split(url)
    host = (parts.hostname or "").encode("idna").decode("ascii")
    port = parts.port or (443 if parts.scheme.lower() == "https" else 80)
    address = _public_address(host, port, deadline)
    connection = _Connection(host, port, address, secure=parts.scheme.lower() == "https", deadline=deadline)
    target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe="%/:=&?~+!$,;'@()*[]")
    try:
        with _cut_off(connection, deadline):
            headers = {"Accept": "image/*, audio/*, video/*", "Accept-Encoding": "identity", "User-Agent": "sensorium"}
            connection.request("GET", target, headers=headers)
            with connection.getresponse() as response:
                return _answer(response, url, most, deadline)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, InvalidInputError):
            raise
        late = time.monotonic() >= deadline
        given = "it took too long" if late else f"{type(error).__name__}: {error}"[:200]
        raise DownloadError("The URL could not be fetched.", given=f"{url[:200]}: {given}") from error
    finally:
        connection.close()


def _answer(response: http.client.HTTPResponse, url: str, most: int, deadline: float) -> bytes | str:
    location = response.headers.get("Location")
    if response.status in (301, 302, 303, 307, 308) and location:
        return location
    if response.status != 200:
        raise DownloadError("The URL gives no content.", given=f"{url[:200]}: status {response.status}")
    if response.headers.get("Content-Encoding", "identity").lower() not in ("identity", ""):
        raise DownloadError("The URL's content is compressed, which was not asked for.", given=url[:200])
    large = InvalidInputError("What the URL gives is too large.", given=url[:200], expected=f"at most {most} bytes")
    if (response.length or 0) > most:
        raise large
    parts, size = [], 0
    while chunk := response.read1(_CHUNK):
        parts.append(chunk)
        size += len(chunk)
        if size > most:
            raise large
        if time.monotonic() >= deadline:
            raise TimeoutError
    if time.monotonic() >= deadline:  # the connection was cut, which may look like an end
        raise TimeoutError
    if response.length:
        raise DownloadError("The URL's content ended early.", given=f"{url[:200]}: {response.length} bytes missing")
    return b"".join(parts)


def _public_address(host: str, port: int, deadline: float) -> str:
    """One address of a host, if all of them are public."""
    addresses = _looked_up(host, port, deadline)
    for text in addresses:
        if not is_public(text):
            raise InvalidInputError(
                "This URL leads to an address that is not public.", given=f"{host} is {text}", expected="the internet"
            )
    return addresses[0]


def _looked_up(host: str, port: int, deadline: float) -> list[str]:
    """The host's addresses. In a thread, as a look-up knows no time limit."""
    found: list[Any] = []

    def look_up() -> None:
        try:
            found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.append(error)

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(max(0.0, min(_STALL, deadline - time.monotonic())))
    if not found or not isinstance(found[0], list) or not found[0]:
        raise DownloadError("The URL's host is not known.", given=f"{host}: {found[0] if found else 'no answer'}")
    return [str(entry[4][0]) for entry in found[0]]


def is_public(text: str) -> bool:
    """Whether an address belongs to the public internet, also where it carries an IPv4 address inside."""
    try:
        address = ipaddress.ip_address(text.split("%")[0])
    except ValueError:
        return False
    return all(one.is_global and not one.is_multicast and not one.is_reserved for one in _inside(address))


def _inside(address: _Address) -> Iterator[_Address]:
    """The address, and the IPv4 address that it stands for, if any."""
    if isinstance(address, ipaddress.IPv4Address):
        yield address
        return
    if any(address in network for network in _NAT64):
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    elif address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    elif int(address) >> 32 == 0:  # ::a.b.c.d, long out of use
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    else:
        yield address
        if address.sixtofour is not None:
            yield address.sixtofour
        if address.teredo is not None:
            yield from address.teredo


class _Connection(http.client.HTTPConnection):
    """A connection to an address that was checked, for a host of that name."""

    def __init__(self, host: str, port: int, address: str, *, secure: bool, deadline: float) -> None:
        super().__init__(host, port, timeout=max(0.001, min(_STALL, deadline - time.monotonic())))
        self._address = address
        self._secure = secure
        self.default_port = 443 if secure else 80

    def connect(self) -> None:
        """To the checked address; the host's name is for the certificate and the Host header alone."""
        self.sock = socket.create_connection((self._address, self.port), self.timeout)
        if self._secure:
            self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)


@contextmanager
def _cut_off(connection: http.client.HTTPConnection, deadline: float) -> Iterator[None]:
    """Shuts the connection at the deadline: a peer that sends a byte now and then never runs into a timeout."""

    def shut() -> None:
        with suppress(OSError, AttributeError):  # not open yet, or no longer
            connection.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(0.001, deadline - time.monotonic()), shut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
