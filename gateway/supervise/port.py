"""Ports for servers that are started again and again at one place."""

from __future__ import annotations

import random
import socket
from pathlib import Path

TRIES = 200


class NoPort(OSError):
    """No free port was found."""


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on, below the range that outgoing connections take theirs from.

    In that range a client that keeps reconnecting to a stopped server can be given the server's port as its
    own, connect to itself, and keep the server from ever coming back. Raises `NoPort`.
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.sample(range(max(1024, first - 10000), first), k=min(TRIES, first - 1024)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise NoPort(f"no free port on 127.0.0.1 below {first} was found in {TRIES} tries")
