"""The link between two hosts of scripts/two_hosts.py, and what is told where there can be none."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path

import pytest

from scripts import two_hosts


def test_the_relay_delays_packets_and_loses_its_share() -> None:
    ends = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    (near, device), (far, other) = ends
    relay = two_hosts.Relay([device.fileno(), other.fileno()], 0.05, 0.25)
    relay.start()
    began = time.monotonic()
    for number in range(200):
        near.send(bytes([number]))
    far.settimeout(0.5)
    arrived = [far.recv(10)[0]]
    assert time.monotonic() - began >= 0.05
    with contextlib.suppress(TimeoutError):
        while len(arrived) < 200:
            arrived.append(far.recv(10)[0])
    relay.ended = True
    relay.join()
    assert (relay.passed, relay.passed + relay.lost) == (len(arrived), 200)
    assert 25 < relay.lost < 80
    assert arrived == sorted(arrived)
    for end in (*ends[0], *ends[1]):
        end.close()


def test_a_machine_that_cannot_have_two_hosts_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_hosts, "TUN", Path("/dev/null"))
    monkeypatch.setattr(two_hosts.os, "geteuid", lambda: 0)
    monkeypatch.setattr(two_hosts.shutil, "which", lambda _: None)
    assert two_hosts.obstacle() == "there is no command ip: install iproute2"
    monkeypatch.setattr(two_hosts.os, "geteuid", lambda: 1000)
    assert two_hosts.obstacle() == "only root may make network namespaces"
    monkeypatch.setattr(two_hosts, "TUN", Path("/dev/net/missing"))
    assert two_hosts.obstacle() == "/dev/net/missing is not there"
