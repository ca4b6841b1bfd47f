"""Where peers reach this machine: from the settings, or from where it listens."""

from __future__ import annotations

import socket
from ipaddress import ip_address

DEFAULT_LISTEN = "127.0.0.1:7707"


class OwnUrls:
    """This machine's addresses as it knows them now. Call it for the list."""

    def __init__(self, configured: tuple[str, ...], listen: str) -> None:
        self._configured = configured
        self.host, self.port = split_address(listen)

    def __call__(self) -> tuple[str, ...]:
        """``node.urls`` if set; else the listening address, or one for each network when that is "any"."""
        if self._configured:
            return self._configured
        hosts = own_addresses() if _is_any(self.host) else (self.host,)
        return tuple(f"http://{_bracketed(host)}:{self.port}" for host in hosts)


def split_address(listen: str) -> tuple[str, int]:
    """``HOST:PORT`` in two; the brackets of an IPv6 host are taken off."""
    host, _, port = listen.rpartition(":")
    return host.strip("[]"), int(port)


def own_addresses() -> tuple[str, ...]:
    """Addresses of this machine that other hosts may reach, the one towards the default route first; the
    loopback address when there is no other."""
    found = [*_towards_the_network(), *_by_host_name()]
    usable = [address for address in dict.fromkeys(found) if not ip_address(address).is_loopback]
    return tuple(usable) or ("127.0.0.1",)


def _towards_the_network() -> list[str]:
    """The source address of the default route. Connecting a datagram socket sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # RFC 5737: an address nobody has
        except OSError:  # no route: no network
            return []
        return [str(probe.getsockname()[0])]


def _by_host_name() -> list[str]:
    try:
        found = socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:  # the host's own name is not known
        return []
    return [str(entry[4][0]) for entry in found]


def _is_any(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
