"""Origins: where a token may go, and the SPN that belongs there. Source: RFC 6454 4."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

from purekrb.errors import DecodeError

__all__ = ["Origin", "leads_elsewhere", "origin_of", "service_of"]

_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class Origin(NamedTuple):
    """A scheme, a host in small letters and a port."""

    scheme: str
    host: str
    port: int

    @property
    def secure(self) -> bool:
        """Whether TLS protects the connection."""
        return self.scheme in ("https", "wss")


def origin_of(url: str) -> Origin:
    """Return the origin of an absolute URL. Raises DecodeError if it has none."""
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme.lower(), parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or (port is None and scheme not in _PORTS):
        raise DecodeError("the URL has no host, or no scheme of HTTP")
    return Origin(scheme, host.lower().rstrip("."), _PORTS[scheme] if port is None else port)


def leads_elsewhere(url: str, location: str) -> bool:
    """Return whether `location`, the target of a redirect of `url`, has another origin."""
    try:
        return origin_of(urljoin(url, location)) != origin_of(url)
    except ValueError:
        return True


def service_of(origin: Origin) -> str:
    """Return the SPN of the service at an origin. Source: RFC 4559 4.1."""
    return f"HTTP/{origin.host}"
