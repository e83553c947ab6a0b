"""What torchrun tells each process that it has started (its place among the others, and which attempt this is), what
they tell each other, and which run they had begun before torchrun started them anew."""

import contextlib
import functools
import hashlib
import os
import signal
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from trainer.drafts import write_text

if TYPE_CHECKING:
    from torch.distributed import Store


def launched() -> bool:
    """Whether torchrun (or another launcher of torch's elastic agent) has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def rank() -> int:
    """The number of this process among all on all machines; 0 where it is alone."""
    return int(os.environ["RANK"]) if launched() else 0


def world_size() -> int:
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def local_world_size() -> int:
    """Processes on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if launched() else 1


def restarts() -> int:
    """How often torchrun has started its processes anew."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) if launched() else 0


_stops: list[int] = []


def asked_to_stop() -> bool:
    """Whether Ctrl-C or SIGTERM has come since `listen`."""
    return bool(_stops)


def listen() -> None:
    """Let Ctrl-C and SIGTERM stop the first process, once; the others end when it lets go of them.

    torchrun sends either to all of its processes, at Ctrl-C as well as when it replaces them.
    """
    if rank() == 0:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _stop)
    else:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _stop(number: int, frame: FrameType | None) -> None:
    _stops.append(number)
    if sys.exc_info()[0] is None:  # else it is ending, and has a run to close
        raise KeyboardInterrupt


def told(text: str) -> str:
    """What the first process passes to this, on every process; it needs no device yet."""
    if world_size() == 1:
        return text
    if rank() == 0:
        meeting_place().set("moodify", text)
    return meeting_place().get("moodify").decode()


class Counts:
    """Numbers that all processes of this attempt add to, in torch's store. Alone, they are this object's own."""

    def __init__(self) -> None:
        from torch.distributed import HashStore

        self._store = meeting_place() if world_size() > 1 else HashStore()

    def add(self, name: str, amount: int) -> int:
        """The sum with it. Of several processes that add 1, each is told another."""
        return int(self._store.add(name, amount))

    def get(self, name: str) -> int:
        return self.add(name, 0)


@functools.cache
def meeting_place() -> "Store":
    """Where the processes of this attempt find each other.

    torchrun's store outlives those that it replaces, with the addresses that they left there: on one machine each
    attempt has a part of its own. On several, attempts are counted on each, and torchrun has to be told by
    `TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1` to open a new store for each.
    """
    from torch.distributed import PrefixStore, rendezvous

    store = next(rendezvous("env://"))[0]
    return PrefixStore(f"attempt {restarts()}", store) if local_world_size() == world_size() else store


class Launch:
    """Remembers which run the processes of one torchrun train, so that those it starts anew go on with it.

    A file in `checkpoints` for each torchrun, which stays the same process while it replaces those that train. Its
    count of new starts does not tell: of several machines, only the one counts whose process died. Rank 0 alone writes
    and reads the file, which stays after the run: a process that dies on its way out is not to begin another.
    """

    def __init__(self, checkpoints: Path):
        self._checkpoints = checkpoints
        self._folder = checkpoints / "launches"

    def remember(self, run_id: str) -> None:
        if launched():
            file = self._folder / f"{_agent()}.run"
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text(file, f"{run_id} {os.getpid()}")

    def recall(self) -> str | None:
        """The run that was begun before this process was started anew; None at a first start."""
        if not launched():
            return None
        self._clear()
        file = self._folder / f"{_agent()}.run"
        run_id, _, process = file.read_text().partition(" ") if file.is_file() else ("", "", "")
        if not process:  # a power cut may leave a file empty
            return None
        return run_id if int(process) != os.getpid() else None  # else it has trained another one before

    def _clear(self) -> None:
        """Forget the launches of others whose runs have finished, or cannot be gone on with."""
        for file in self._folder.glob("*.run"):
            with contextlib.suppress(FileNotFoundError):  # somebody else may clear at the same time
                run_id = file.read_text().partition(" ")[0]
                if file.stem != _agent() and not (run_id and (self._checkpoints / run_id).exists()):
                    file.unlink()


def _agent() -> str:
    """Names the process of torchrun that has started this one, on this machine and since it was switched on."""
    import psutil

    parent = psutil.Process(os.getppid())
    name = f"{socket.gethostname()} {parent.pid} {parent.create_time()}"
    return hashlib.sha256(name.encode()).hexdigest()[:16]
