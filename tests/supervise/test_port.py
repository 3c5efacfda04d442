"""Ports for servers that are started again and again."""

from __future__ import annotations

from pathlib import Path

from gateway.supervise import free_port


def test_ports_lie_outside_the_range_of_outgoing_connections() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(free_port() < first for _ in range(20))
