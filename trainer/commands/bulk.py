"""`predict` into a folder: any number of photos, by any number of processes, however often interrupted."""

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from trainer import torchrun
from trainer.commands.progress import Lines, stoppable
from trainer.inference.listing import find
from trainer.inference.parts import About, Chunk, Found, Parts, Tally, check_same, shape
from trainer.torchrun import Counts
from trainer.wording import duration, several

if TYPE_CHECKING:
    from trainer.inference.model import Model

log = logging.getLogger(__name__)
STOPPED = "Stopped. The same command goes on with what is not answered yet."
ABSENT = "passed over: of %s from %s on none is there"
AWAY = "passed over: %s from %s on, since the disk of %s is away: %s"
MANY = 10_000
"""So many crops are worth the seconds that a faster form of the network takes to make."""
LOOK_SECONDS, LINE_SECONDS = 0.2, 60
"""How often the first process looks whether the others have done, and says in a log how far all are."""


def answer_into(
    folder: Path, model: str, paths: Sequence[str], listed: str | None, *, whole: bool, as_json: bool
) -> int:
    """Answer what `folder` lacks, and tell what it holds then. Of several processes the first decides and tells.

    Returns the exit code. Raises ValueError where the folder cannot take these answers.
    """
    parts = Parts(folder)
    if torchrun.rank() > 0:
        with stoppable(Lines()):
            plan = json.loads(torchrun.told(""))  # it comes when the first process has found nothing wrong
            begun = About.from_json(plan["about"])
            models, asked = load(model, whole)
            check_same(folder, begun, asked)
            answer_chunks(parts, begun, plan["missing"], models, Counts(), Meter(0))
        return 0
    with stoppable(Lines(), STOPPED), parts.held():
        found = look_for_new(parts, paths, listed)  # before the models: it takes memory for a while
        models, asked = load(model, whole)
        begun = parts.begin(asked, found)
        before, missing = what_is_there(parts, begun)
        torchrun.told(json.dumps({"about": begun.to_json(), "missing": missing}))
        if before.photos and missing:
            log.info("%s of %s photos are answered already.", f"{before.photos:,}", f"{begun.photos:,}")
        started = time.monotonic()
        counts = Counts()
        with Meter(begun.photos - before.photos, hidden=as_json).shown() as meter:
            answer_chunks(parts, begun, missing, models, counts, meter)
            meter.wait_for_others(counts)
        seconds = time.monotonic() - started
    passed, absent, answers, failed = map(
        counts.get, ("photos", "absent", "answers", "failed")
    )  # of all processes
    tell(folder, before, Tally(passed - absent, answers, failed), absent, seconds, as_json=as_json)
    # torchrun takes any other exit code for a crash, and would start anew.
    return 1 if before.failed + failed + absent and not torchrun.launched() else 0


def look_for_new(parts: Parts, paths: Sequence[str], listed: str | None) -> Found:
    """Photos that are on none of the folder's lists. Nobody is asked again where these are all that is known.

    A list from standard input cannot be read again by what torchrun has started anew.
    """
    if parts.about() is not None and (torchrun.restarts() or (not paths and listed is None)):
        return parts.look_for_new(())
    return parts.look_for_new(find(paths, listed))


def load(reference: str, whole: bool) -> "tuple[dict[str, Model], About]":
    """The models by name, and what their answers would have in common."""
    from trainer.commands.models import load_all
    from trainer.inference.predictor import Predictor

    models = load_all(reference)
    # What has another format is a version of a registry, where a name stands for the same for ever.
    prints = {name: m.fingerprint() if isinstance(m, Predictor) else "" for name, m in models.items()}
    return models, About(prints, whole)


def what_is_there(parts: Parts, about: About) -> tuple[Tally, list[int]]:
    """What the parts hold that are there, and the numbers of the chunks whose parts are not."""
    there, missing = Tally(), []
    for number, photos in enumerate(about.sizes()):
        if (tally := parts.tally(number, photos)) is not None:
            there += tally
        else:
            missing.append(number)
    return there, missing


def answer_chunks(
    parts: Parts, about: About, missing: Sequence[int], models: "Mapping[str, Model]", counts: Counts,
    meter: "Meter",
) -> None:  # fmt: skip
    """Take one missing chunk after the other, as long as there are any; each is taken by one process.

    Where no photo of a chunk is there, the disk may not be, or the working folder is another: the chunk is passed over,
    and so it is where a disk goes away while it is read.
    `counts` are those of all: chunks that were taken, photos, those of them that are absent, answers and failures.
    """
    from trainer.inference.answers import flat
    from trainer.inference.stream import ask_all

    if about.whole and about.photos >= MANY and missing:
        models = {name: quick(model) for name, model in models.items()}

    def pass_over(chunk: Chunk, why: str, *said: str) -> None:
        log.warning(why, several(len(chunk.paths), "photo"), chunk.paths[0], *said)
        counts.add("absent", len(chunk.paths))
        meter.set(counts.add("photos", len(chunk.paths)))

    columns = shape(dict.fromkeys(name for model in models.values() for name in model.class_names))
    chunks = parts.chunks(about)
    while (turn := counts.add("chunks taken", 1)) <= len(missing):
        chunk = next(chunk for chunk in chunks if chunk.number == missing[turn - 1])
        if not any(map(os.path.exists, chunk.paths)):
            pass_over(chunk, ABSENT)
            continue
        rows, failed, away = [], 0, None
        items = ask_all(chunk.paths, models, about.whole, keep_pixels=False)
        for index, item in enumerate(items, chunk.index):
            if item.passing:
                away = item
                break
            rows += [{"index": index, **flat(row)} for row in item.rows]
            if item.failure:
                rows.append({"index": index, "photo": item.name, "failure": item.failure})
                failed += 1
            meter.advance()
        if away is not None:  # what is written is asked about no more
            items.close()
            pass_over(chunk, AWAY, away.name, away.failure)
            continue
        # The disk went while it was read, unless somebody has taken away what was answered.
        if item.failure and not any(map(os.path.exists, chunk.paths)):
            pass_over(chunk, ABSENT)
            continue
        parts.write(chunk.number, rows, columns)
        counts.add("answers", len(rows) - failed)
        counts.add("failed", failed)
        meter.set(counts.add("photos", len(chunk.paths)))


def quick(model: "Model") -> "Model":
    """The same in ONNX Runtime, two to three times faster; probabilities differ by some millionths.

    Where faces are looked for, the network is a fiftieth of the work, and this would gain nothing.
    """
    from trainer.inference.export import QuickModel
    from trainer.inference.predictor import Predictor

    return QuickModel(model) if isinstance(model, Predictor) else model


def tell(folder: Path, before: Tally, now: Tally, absent: int, seconds: float, *, as_json: bool) -> None:
    total = before + now
    if as_json:
        facts = {
            "output": str(folder),
            "photos": total.photos,
            "answers": total.answers,
            "failed": total.failed,
            "absent": absent,
        }
        print(json.dumps(facts | {"photos_this_time": now.photos, "seconds": round(seconds, 1)}))
        return
    if now.photos:
        rate = now.photos / max(seconds, 0.001)
        print(
            f"Answered {now.photos:,} photos in {duration(seconds)}, {rate:,.{0 if rate >= 100 else 1}f} a second."
        )
    elif not absent:
        print("Everything is answered already.")
    if absent:
        print(f"Not there, and still to be answered by the same command: {several(absent, 'photo')}.")
    why = "; the column failure says why" if total.failed else ""
    print(
        f"{folder} holds {total.answers:,} answers to {total.photos:,} photos, {total.failed:,} of which failed{why}."
    )


class Meter:
    """How many photos all processes have answered: as a bar on a terminal, else as a line a minute."""

    def __init__(self, total: int, *, hidden: bool = False):
        self._total = total
        self._done = 0
        self._bar: Progress | None = None
        self._hidden = hidden or torchrun.rank() > 0
        self._started = self._said = time.monotonic()

    @contextmanager
    def shown(self) -> Iterator["Meter"]:
        console = Console(stderr=True)
        if self._hidden or not console.is_terminal:
            yield self
            return
        columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as self._bar:
            self._bar.add_task("photos", total=self._total)
            yield self

    def advance(self) -> None:
        """One more was answered by this process."""
        self.set(self._done + 1)

    def set(self, done: int) -> None:
        self._done = max(done, self._done)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done)
        elif self._done and not self._hidden and time.monotonic() - self._said >= LINE_SECONDS:
            self._said = time.monotonic()
            left = (self._said - self._started) * (self._total / self._done - 1)
            log.info("%s of %s photos, %s left", f"{self._done:,}", f"{self._total:,}", duration(left))

    def wait_for_others(self, counts: Counts) -> None:
        """Until all have been answered; where one of them dies, torchrun ends this process."""
        while (done := counts.get("photos")) < self._total:
            self.set(done)
            time.sleep(LOOK_SECONDS)
