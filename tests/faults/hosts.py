"""One training on two hosts: two network namespaces, which see each other by a cable only."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.faults.scene import apart, place, result, train, whole

ROOT = Path(__file__).parents[2]
FIRST, SECOND = "10.77.0.1", "10.77.0.2"
EPOCHS, EARLY = 40, 5
# Nothing that would differ with the number of processes for another reason; 17 images cannot be halved.
FLAGS = (
    "--precision",
    "32",
    "--device",
    "cpu",
    "--batch-size",
    "17",
    "--learning-rate",
    "3e-3",
    "--dropout",
    "0.3",
)


@dataclass
class Host:
    """A network namespace and a folder of its own."""

    namespace: str
    interface: str
    address: str
    folder: Path
    number: int

    def start(self, name: str, *flags: str) -> subprocess.Popen[bytes]:
        """torchrun, on this host, with one process of the training `name`; what it says goes to a file."""
        self.folder.mkdir(exist_ok=True)
        rendezvous = ["--rdzv-id", name, "--rdzv-backend", "c10d", "--rdzv-endpoint", f"{FIRST}:29400"]
        rendezvous += ["--rdzv-conf", f"is_host={int(self.number == 0)}", "--local-addr", self.address]
        environment = os.environ | {
            "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "GLOO_SOCKET_IFNAME": self.interface,
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "MOODIFY_CACHE": str(self.folder / "cache"),
        }  # fmt: skip
        with self.log.open("ab") as log:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, sys.executable, "-m", "torch.distributed.run",
                 "--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "3", *rendezvous,
                 "-m", "trainer", "train", "--data-dir", str(self.folder.parent / "faces"), *flags],
                cwd=self.folder, env=environment, stdout=log, stderr=log,
            )  # fmt: skip

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    def said(self) -> str:
        return self.log.read_text(errors="replace")


@contextmanager
def two_hosts(folder: Path) -> Iterator[tuple[Host, Host]]:
    """Raises PermissionError for anybody but root."""
    if os.geteuid() != 0:
        raise PermissionError("network namespaces need root")
    number = os.getpid()
    hosts = (
        Host(f"moodify-a{number}", f"va{number}", FIRST, folder / "first", 0),
        Host(f"moodify-b{number}", f"vb{number}", SECOND, folder / "second", 1),
    )
    made = []
    try:
        for host in hosts:
            _ip("netns", "add", host.namespace)
            made.append(host)
        ends = [["netns", host.namespace] for host in hosts]
        _ip(
            "link",
            "add",
            hosts[0].interface,
            *ends[0],
            "type",
            "veth",
            "peer",
            "name",
            hosts[1].interface,
            *ends[1],
        )
        for host in hosts:
            _ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", host.interface)
            for interface in ("lo", host.interface):
                _ip("-n", host.namespace, "link", "set", interface, "up")
        yield hosts
    finally:
        for host in made:
            _ip("netns", "del", host.namespace)


def across_hosts() -> list[str]:
    """The curve of one process; then the same without a fault, and with the second host's process killed."""
    with place() as folder, two_hosts(folder) as (first, second):
        alone = train("--epochs", str(EPOCHS), *FLAGS)
        assert alone.finish() == 0, alone.said()
        expected = apart(result, alone.run_id)["curves"]
        lines = []
        for name in ("undisturbed", "killed"):
            started = time.monotonic()
            agents = [
                host.start(name, *_small(), "--epochs", str(EPOCHS), *FLAGS) for host in (first, second)
            ]
            if name == "killed":
                lines.append(_kill_worker(first, agents[1]))
            for agent, host in zip(agents, (first, second), strict=True):
                assert agent.wait(400) == 0, host.said()
            found = _last_run(first, name)
            early, late = (_difference(expected, found["curves"], epochs) for epochs in (EARLY, EPOCHS))
            assert early < 2e-3, (name, early)
            assert late < 0.05, (name, late)  # rounding grows
            lines.append(
                f"{name}: one run, one version, {EPOCHS} epochs; its curves within {early:.1e} of those of one process "
                f"for {EARLY} epochs, {late:.1e} for all ({time.monotonic() - started:.0f} s)"
            )
        assert not (second.folder / "mlruns").exists()
        return [*lines, "the second host wrote no store"]


def _small() -> tuple[str, ...]:
    return ("--blocks", "8 16", "--hidden", "16", "--augmentation", "0.5")


def _kill_worker(first: Host, agent: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + 200
    before = first.said().count("epoch  12/")
    while first.said().count("epoch  12/") == before:
        assert time.monotonic() < deadline, first.said()
        time.sleep(0.02)
    workers = [process for process in psutil.Process(agent.pid).children(recursive=True) if _trains(process)]
    assert len(workers) == 1, workers
    workers[0].send_signal(signal.SIGKILL)
    while not (resumed := re.findall(r"Resuming after epoch \d+ of \d+", first.said())):
        assert time.monotonic() < deadline, first.said()
        time.sleep(0.1)
    return f"the second host's process killed in epoch 13 or later: {resumed[-1]}"


def _trains(process: psutil.Process) -> bool:
    return "RANK" in process.environ() and "trainer" in process.cmdline()


def _difference(expected: dict, found: dict, epochs: int) -> float:
    """The largest of the first epochs' curves."""
    assert {key: len(curve) for key, curve in found.items()} == dict.fromkeys(expected, EPOCHS)
    return max(
        abs(mine - other)
        for key, curve in expected.items()
        for (_, mine), (_, other) in list(zip(curve, found[key], strict=True))[:epochs]
    )


def _last_run(first: Host, name: str) -> dict:
    """What the run that was trained last came to, in the first host's store."""
    before = Path.cwd()
    os.chdir(first.folder)
    try:
        seen = apart(whole)
        assert len(seen["runs"]) == len(seen["versions"]) == {"undisturbed": 1, "killed": 2}[name], seen
        assert {row["status"] for row in seen["runs"].values()} == {"finished"}
        return apart(result, next(iter(seen["runs"])))  # newest first
    finally:
        os.chdir(before)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PermissionError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
