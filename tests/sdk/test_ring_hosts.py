"""Two ranks in network namespaces of their own, joined by a cable alone, as on two hosts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("ring_host_worker.py")
PORT = 29_617
ADDRESSES = ("10.213.77.1", "10.213.77.2")  # in namespaces without any other network


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Two network namespaces with an end each of a virtual cable; removed afterwards."""
    if sys.platform != "linux" or shutil.which("ip") is None:
        pytest.skip("needs Linux and `ip` (iproute2)")
    if os.geteuid() != 0:
        pytest.skip("only root may make network namespaces")
    names = [f"sensorium-{os.getpid()}-{number}" for number in range(2)]
    ends = [f"sns{os.getpid() % 100_000}-{number}" for number in range(2)]
    with ExitStack() as made:
        try:
            for name in names:
                run("ip", "netns", "add", name)
                made.callback(run, "ip", "netns", "del", name)  # with it goes its end, and with that the cable
            run("ip", "link", "add", ends[0], "netns", names[0], "type", "veth", "peer", ends[1], "netns", names[1])
            for name, end, address in zip(names, ends, ADDRESSES, strict=True):
                run("ip", "-n", name, "address", "add", f"{address}/24", "dev", end)
                run("ip", "-n", name, "link", "set", end, "up")
                run("ip", "-n", name, "link", "set", "lo", "up")
        except OSError as error:
            pytest.skip(f"this machine allows no network namespaces: {error}")
        yield names


def started(host: str, rank: int, text: Path) -> subprocess.Popen[str]:
    command = [
        "ip",
        "netns",
        "exec",
        host,
        sys.executable,
        str(WORKER),
        f"{ADDRESSES[0]}:{PORT}",
        str(rank),
        "2",
        str(text),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": _end_of(host)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def _end_of(host: str) -> str:
    """The name of a host's only network interface besides its loopback."""
    listed = subprocess.run(
        ["ip", "-n", host, "-json", "link"], capture_output=True, text=True, timeout=20, check=True
    ).stdout
    (name,) = (link["ifname"] for link in json.loads(listed) if link["ifname"] != "lo")
    return name


@pytest.mark.slow
@pytest.mark.timeout(900)  # a busy machine
def test_ranks_on_separate_hosts_give_the_same_tokens(hosts: list[str], root: Path) -> None:
    """They reach each other over the cable only: neither sees the other's loopback, nor the machine's network."""
    with ExitStack() as ends:
        ranks = []
        for rank, host in enumerate(hosts):
            ranks.append(started(host, rank, root / "LICENSE"))
            ends.callback(_end, ranks[-1])
        said = [process.communicate(timeout=800) for process in ranks]
    for process, (_, error) in zip(ranks, said, strict=True):
        assert process.returncode == 0, error[-2000:]
    found = [json.loads(out.splitlines()[-1]) for out, _ in said]
    assert found[0]["interfaces"] != found[1]["interfaces"]
    assert all(len(each["interfaces"]) == 2 for each in found)
    assert len(found[0]["alone"]) == 12
    assert found[0]["together"] == found[1]["together"] == found[0]["alone"] == found[1]["alone"]


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait(10)


def test_a_cable_is_needed(hosts: list[str], probe: Callable[[str, str], bool]) -> None:
    """The test above would mean nothing if the hosts reached each other in another way."""
    assert probe(hosts[1], ADDRESSES[0])
    run("ip", "-n", hosts[0], "link", "set", _end_of(hosts[0]), "down")
    assert not probe(hosts[1], ADDRESSES[0])


@pytest.fixture
def probe() -> Callable[[str, str], bool]:
    """Whether an address answers a host: refuses a connection, rather than to be out of reach."""

    def answers(host: str, address: str) -> bool:
        script = (
            "import socket, sys\n"
            "s = socket.socket(); s.settimeout(2)\n"
            "try: s.connect((sys.argv[1], 9))\n"
            "except ConnectionRefusedError: sys.exit(0)\n"
            "except OSError: sys.exit(3)\n"
        )
        command = ["ip", "netns", "exec", host, sys.executable, "-c", script, address]
        return subprocess.run(command, timeout=30, check=False).returncode == 0

    return answers
