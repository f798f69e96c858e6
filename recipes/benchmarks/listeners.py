"""Who listens at an address of this machine: the process behind a URL that was given.

It reads /proc and asks nobody. It knows nothing of HTTP.

The invariant: a process that is named holds the socket. Where that cannot be known (another machine, another user's
process, no /proc) nobody is named.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["listener_of"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
PROC = Path("/proc")
LISTENING = "0A"
"""As /proc/net/tcp writes the state."""


def listener_of(url: str) -> int | None:
    """The process that serves a URL on this machine's loopback: of several that hold the socket the one that started
    the others. `None` where there is none to be found, and for this process: its time is known already."""
    there = urlsplit(url)
    if there.hostname is None:
        return None
    port = there.port or {"http": 80, "https": 443}.get(there.scheme, 0)
    hosts = _addresses(there.hostname)
    if not hosts or not all(host.is_loopback for host in hosts):
        return None
    sockets = {f"socket:[{inode}]" for address, inode in _listening(port) if address.is_unspecified or address in hosts}
    holders = {pid: parent for pid, parent in _processes() if not sockets.isdisjoint(_open_files(pid))}
    first = min((pid for pid, parent in holders.items() if parent not in holders), default=None)
    return None if first == os.getpid() else first


def _addresses(host: str) -> set[Address]:
    with suppress(OSError):
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return {ipaddress.ip_address(str(where[0])) for *_, where in found}
    return set()


def _listening(port: int) -> Iterator[tuple[Address, str]]:
    """Addresses and inodes of the sockets that listen on a port."""
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (PROC / "net" / table).read_text().splitlines()[1:]:
                _, local, _, state, *_, inode = line.split()[:10]
                address, _, at = local.partition(":")
                if state == LISTENING and int(at, 16) == port:
                    yield _address(address), inode


def _address(text: str) -> Address:
    """Written as words of this machine: 127.0.0.1 is 0100007F where the least byte is first."""
    words = (int(text[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(text), 8))
    address = ipaddress.ip_address(b"".join(words))
    return getattr(address, "ipv4_mapped", None) or address


def _processes() -> Iterator[tuple[int, int]]:
    """Every process and who started it."""
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            with suppress(OSError):  # it has just ended
                # the name, in parentheses, may hold anything
                yield int(folder.name), int((folder / "stat").read_text().rpartition(")")[2].split()[1])


def _open_files(pid: int) -> Iterator[str]:
    with suppress(OSError):  # another user's, or it has just ended
        for file in (PROC / str(pid) / "fd").iterdir():
            with suppress(OSError):
                yield str(file.readlink())
