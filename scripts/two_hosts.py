"""Trains on two "hosts" over a link that is slow and loses packets, and on one that breaks.

The hosts are two network namespaces of this machine.  Between them this script passes packets on, each
after a delay, and drops some: it reads them from TUN devices, so that the kernel needs no netem.  torchrun
starts a process on each host.  The run must end with the files of a single process, bit for bit.  In a
second run nothing passes any more after some steps; rank 0 must then end with one clear error.

    python scripts/two_hosts.py [--delay 0.01] [--loss 0.01] [--save]

It needs Linux, root and iproute2, and says so where one is missing.  --save writes
benchmarks/results/two_hosts.json.
"""

from __future__ import annotations

import argparse
import fcntl
import heapq
import os
import random
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # this checkout, installed or not

from scripts import kill_resume, kill_workers  # noqa: E402 - after the path is set

TUN = Path("/dev/net/tun")
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h
HOSTS = {"minicnn-a": "10.77.0.1", "minicnn-b": "10.77.0.2"}
"""Names of the namespaces, and of the device in each, with its address."""
MOST_BYTES = 65536
PORT = 29511
PEER_TIMEOUT = 10
SETTINGS = [
    "--model", "lenet5", "--limit-train", "256", "--limit-test", "64", "--batch-size", "16",
    "--epochs", "2", "--shards", "2", "--backend", "numpy", "--threads", "1", "--save-every", "0",
    "--peer-timeout", str(PEER_TIMEOUT), "--quiet",
]  # fmt: skip
PATIENCE = 300


class Relay(threading.Thread):
    """Passes packets between two devices, each after ``delay`` seconds; the share ``loss`` is lost."""

    def __init__(self, devices: list[int], delay: float, loss: float) -> None:
        super().__init__(daemon=True)
        self.devices, self.delay, self.loss = devices, delay, loss
        self.passed = self.lost = 0
        self.ended = False
        self._random = random.Random(0)

    def run(self) -> None:
        other = dict(zip(self.devices, reversed(self.devices), strict=True))
        waiting: list[tuple[float, int, int, bytes]] = []
        while not self.ended:
            wait = min(0.1, max(0.0, waiting[0][0] - time.monotonic())) if waiting else 0.1
            for device in select.select(self.devices, [], [], wait)[0]:
                packet = os.read(device, MOST_BYTES)
                if self._random.random() < self.loss:
                    self.lost += 1
                else:
                    self.passed += 1
                    due = time.monotonic() + self.delay
                    heapq.heappush(waiting, (due, self.passed, other[device], packet))
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, device, packet = heapq.heappop(waiting)
                os.write(device, packet)


def obstacle() -> str:
    """Why this machine cannot have two hosts; empty if it can."""
    if not TUN.exists():
        return f"{TUN} is not there"
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    if shutil.which("ip") is None:
        return "there is no command ip: install iproute2"
    return ""


def ip(*arguments: str) -> None:
    """Run iproute2's command.  Raises CalledProcessError."""
    subprocess.run(["ip", *arguments], check=True)


def device(name: str) -> int:
    """A new TUN device, as a file that gives and takes its packets."""
    file = os.open(TUN, os.O_RDWR)
    fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return file


@contextmanager
def linked(delay: float, loss: float) -> Iterator[Relay]:
    """Two hosts and the link between them."""
    with ExitStack() as stack:
        files = []
        for name in HOSTS:
            ip("netns", "add", name)
            stack.callback(ip, "netns", "delete", name)
            files.append(device(name))
            stack.callback(os.close, files[-1])
            ip("link", "set", name, "netns", name)
        for (name, own), peer in zip(HOSTS.items(), reversed(HOSTS.values()), strict=True):
            ip("-n", name, "address", "add", own, "peer", peer, "dev", name)
            for interface in ("lo", name):
                ip("-n", name, "link", "set", interface, "up")
        relay = Relay(files, delay, loss)
        relay.start()
        try:
            yield relay
        finally:
            relay.ended = True
            relay.join()


def train(folder: Path, *flags: str) -> list[subprocess.Popen[str]]:
    """Begin a run: a process on each host, which torchrun starts."""
    started = []
    for rank, name in enumerate(HOSTS):
        environment = os.environ | {
            "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": name,
        }  # fmt: skip
        command = [
            "ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run",
            "--nnodes", "2", "--node-rank", str(rank),
            "--master-addr", HOSTS["minicnn-a"], "--master-port", str(PORT),
            "-m", "minicnn.train", *SETTINGS, *flags, "--out", str(folder),
        ]  # fmt: skip
        started.append(subprocess.Popen(
            command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
            start_new_session=True,  # so that `kill` ends its worker too
        ))  # fmt: skip
    return started


def told(process: subprocess.Popen[str]) -> str:
    """What a process prints as errors until it ends, or is killed for its slowness."""
    try:
        return process.communicate(timeout=PATIENCE)[1]
    except subprocess.TimeoutExpired:
        kill(process)
        return process.communicate()[1]


def kill(process: subprocess.Popen[str]) -> None:
    """End torchrun and what it has started."""
    with suppress(ProcessLookupError):  # it may have ended by itself
        os.killpg(process.pid, signal.SIGKILL)


def lossy(folder: Path, delay: float, loss: float) -> dict[str, Any]:
    """Train over a lossy link, and compare with a single process."""
    with linked(delay, loss) as relay:
        began = time.monotonic()
        errors = [told(process) for process in train(folder / "two hosts")]
        seconds = time.monotonic() - began
    alone = [sys.executable, "-m", "minicnn.train", *SETTINGS, "--out", str(folder / "alone")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(alone, check=True, env=environment, stdout=subprocess.DEVNULL)
    wrong = kill_resume.differences(folder / "two hosts", folder / "alone")
    expected = kill_workers.EXPECTED
    return {
        "delay": delay, "loss": loss, "packets": relay.passed + relay.lost, "lost": relay.lost,
        "seconds": seconds, "differences": [name for name in wrong if name not in expected],
        "errors": [text for text in errors if "error:" in text],
    }  # fmt: skip


def broken(folder: Path, delay: float) -> dict[str, Any]:
    """Train until some steps are done, let nothing pass from then on, and see what rank 0 tells."""
    with linked(delay, 0.0) as relay:
        first, second = train(folder / "broken", "--epochs", "500", "--schedule", "constant")
        deadline = time.monotonic() + PATIENCE
        while kill_workers.steps(folder / "broken") < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        relay.loss, began = 1.0, time.monotonic()
        lines = [line for line in told(first).splitlines() if line.startswith("error:")]
        seconds = time.monotonic() - began
        kill(second)
        second.communicate()
    return {"steps": kill_workers.steps(folder / "broken"), "seconds": seconds, "errors": lines}


def main() -> None:
    """Make both runs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--delay", type=float, default=0.01, help="seconds that a packet takes")
    parser.add_argument("--loss", type=float, default=0.01, help="the share of packets that is lost")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/two_hosts.json")
    args = parser.parse_args()
    if why := obstacle():
        sys.exit(f"two hosts cannot be made on this machine: {why}")
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "lossy": lossy(Path(folder), args.delay, args.loss), "broken": broken(Path(folder), args.delay)
        }  # fmt: skip
    print(result, flush=True)
    if args.save:
        from paired import machine, save

        save("two_hosts", {"machine": machine(1), "peer_timeout": PEER_TIMEOUT, **result})
    clear = [line for line in result["broken"]["errors"] if "expected an answer of" in line]
    sys.exit(bool(result["lossy"]["differences"] or result["lossy"]["errors"] or len(clear) != 1))


if __name__ == "__main__":
    main()
