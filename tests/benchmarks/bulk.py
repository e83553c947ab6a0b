"""`predict` into a folder: photos a second with one and more processes, and memory at several sizes.

Crops of FER-2013 (of sketch where that is not at hand) under many names, with `--whole`; the report's CNN with fresh
weights.
"""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.alone import run_alone
from tests.benchmarks.images import find_source, write_jpegs
from tests.benchmarks.photos import write_models
from trainer.commands.bulk import MANY

PHOTOS = 50_000
SMALL = 1000
MOST_PROCESSES = 8
LINKS = 20_000
"""Names of one file; ext4 takes at most 65,000."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Way:
    """processes: started by torchrun where there are several. cores: that they share."""

    processes: int
    cores: int

    def __str__(self) -> str:
        return f"{self.processes} process{'es' * (self.processes > 1)}, {self.cores} core{'s' * (self.cores > 1)}"


@dataclass(frozen=True, kw_only=True)
class Command:
    """One run of the command.

    seconds: without imports and the loading of the model, which `all_seconds` holds, too. cpu_seconds: of all
    processes, everything included. peak_mib: of the largest of its processes.
    """

    photos: int
    seconds: float
    all_seconds: float
    cpu_seconds: float
    peak_mib: float

    @property
    def rate(self) -> float:
        return self.photos / self.seconds


@dataclass(frozen=True, kw_only=True)
class Bulk:
    """ways: what was measured in each round. sizes: photos → one process, for its memory."""

    dataset: str
    photos: int
    ways: dict[str, list[Command]]
    sizes: dict[int, Command]


def measure_bulk(scratch: Path, rounds: int, photos: int, say: Say) -> Bulk:
    """Ways in turn, so that a disturbance of the machine falls on all."""
    scratch.mkdir()
    source = find_source(scratch)
    if source.dataset == "sketch":
        say("drawing sketch")
        write_jpegs(source)
    say(f"giving the training images of {source.dataset} {photos:,} names")
    write_names(source.folder / "train", scratch / "crops", photos)
    model = write_models(scratch)["report's CNN"]
    found: dict[str, list[Command]] = {}
    for number in range(1, rounds + 1):
        for way in ways():
            say(f"{photos:,} photos, {way}, round {number} of {rounds}")
            answers = scratch / "answers"
            found.setdefault(str(way), []).append(run_command(way, model, [scratch / "crops"], answers))
            shutil.rmtree(answers)
    sizes = {}
    for size in sorted({SMALL, min(MANY, photos), photos}):
        say(f"memory of one process at {size:,} photos")
        listed = scratch / "list"
        with listed.open("w") as file:
            file.writelines(
                f"{path}\n" for path, _ in zip(names(scratch / "crops"), range(size), strict=False)
            )
        sizes[size] = run_command(ways()[0], model, ["--from", listed], scratch / "answers")
        shutil.rmtree(scratch / "answers")
    return Bulk(dataset=source.dataset, photos=photos, ways=found, sizes=sizes)


def ways() -> list[Way]:
    """One process on one core and on all, then as many processes as cores, twice as many each time."""
    cores = len(allowed())
    more = [1 << power for power in range(1, MOST_PROCESSES.bit_length()) if 1 << power <= cores]
    return [Way(1, 1), *([Way(1, cores)] if cores > 1 else []), *(Way(count, count) for count in more)]


def allowed() -> list[int]:
    """Cores that this process may use; on macOS, where none can be chosen, all."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def write_names(folder: Path, target: Path, photos: int) -> None:
    """`photos` files in `target`: copies of the JPEG files of `folder` and, beyond them, further names of these."""
    (target / "00000").mkdir(parents=True)
    first = []
    for number, path in zip(range(photos), sorted(folder.rglob("*.jpg")), strict=False):
        first.append(target / "00000" / f"{number:06}.jpg")
        shutil.copyfile(path, first[-1])
    assert photos <= LINKS * len(first)
    for number in range(len(first), photos):
        turn, index = divmod(number, len(first))
        if index == 0:
            (target / f"{turn:05}").mkdir()
        (target / f"{turn:05}" / first[index].name).hardlink_to(first[index])


def names(folder: Path) -> Sequence[Path]:
    return sorted(folder.glob("*/*.jpg"))


def run_command(way: Way, model: Path, photos: Sequence[str | Path], answers: Path) -> Command:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(way.processes)]
    command = [*(launcher if way.processes > 1 else []), "-m", "trainer", "predict", str(model)]
    command += [*map(str, photos), "--whole", "--json", "--output", f"{answers}/"]
    cost = run_alone(command, cores=allowed()[-way.cores :])
    facts = json.loads(cost.output)
    assert facts["failed"] == 0
    assert facts["photos_this_time"] == facts["photos"] == facts["answers"]
    return Command(
        photos=facts["photos"], seconds=facts["seconds"], all_seconds=cost.seconds,
        cpu_seconds=cost.cpu_seconds, peak_mib=cost.peak_mib,
    )  # fmt: skip
