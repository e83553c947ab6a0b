"""The part of a server's runs and versions that is held: the newest, what goes on, and what was asked for.

A server with 10,000 runs takes most of a minute to give them all. What people look at first are the newest; older ones
are fetched when somebody asks for them.
"""

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial

import pandas as pd

from trainer.contract import Tag
from trainer.store.location import Store
from trainer.store.registry import Version
from trainer.store.rows import APART, PAGE, ClientRows, Details, Head
from trainer.store.version_window import VersionWindow

STEP = 10
"""Runs of each kind that one reading looks at again: a server takes about 8 ms for each."""
STEP_OF_WANTED = 3
"""The same of those that were asked for."""
MOST_RUNNING = 100
MOST_WANTED = 2000
"""Runs that were asked for; the one that was asked for first goes first."""
MOST_NAMED = 20
"""Runs of one name, or with one beginning of their id."""
_OTHERS = tuple(APART)
_ID = re.compile(r"[0-9a-zA-Z]{4,64}")
RUNNING = "RUNNING"
_QUOTES = re.compile(r"['\"`\\]")
Search = Callable[..., tuple[list[Head], str | None]]


class Window:
    """The rows of a server, bounded: `trainer.store.rows.Rows` of what is held.

    The first reading takes as many of the newest runs as are wanted. Each later one takes those that go on, those that
    have begun since, and STEP of the others, so that after a round of readings all that has changed or was deleted is
    known.
    """

    def __init__(self, store: Store, newest: int):
        self._rows = ClientRows(store.client())
        self._versions = VersionWindow(store, newest)
        self._trainings = _Walk(newest)
        others = (_Walk(newest, tag) for tag in (Tag.AUDIT, Tag.SWEEP, Tag.SWEEP_RUN))
        self._walks = (self._trainings, *others)
        self._held: dict[str, Head] = {}
        self._wanted: dict[str, None] = {}  # in the order in which they were asked for
        self._absent: set[str] = set()  # of versions whose runs are gone

    @property
    def newest(self) -> int:
        """How many of the newest trainings are held, where there are so many."""
        return self._trainings.most

    @property
    def has_older(self) -> bool:
        """Whether the server has trainings that are not held."""
        return self._trainings.has_older

    @property
    def has_older_versions(self) -> bool:
        return self._versions.has_older

    def version(self) -> object:
        return None

    def heads(self) -> list[Head]:
        """Of what is held, as it is now."""
        self._rows.forget()
        experiments = self._rows.experiments()
        fresh, ended = self._read_runs(experiments)
        self._held |= self._read_versions(experiments, fresh)
        self._trim(self._versions.own_runs() | ended)
        self._versions.trim(self._held)
        self._want(ended & set(self._held))  # whoever has watched it sees how it ended
        return list(self._held.values())

    def restart(self) -> None:
        """Read everything anew the next time: where a reading was cut short, nobody knows what it has missed."""
        self._held = {}
        for walk in self._walks:
            walk.restart()

    def _read_runs(self, experiments: Mapping[str, str]) -> tuple[dict[str, Head], set[str]]:
        """Those that were looked at now, and which of those that were older than the newest have ended since."""
        others = {key: name for key, name in experiments.items() if name.endswith(_OTHERS)}
        trainings = {key: name for key, name in experiments.items() if key not in others}
        active = set(experiments.values())
        held = {run_id: head for run_id, head in self._held.items() if head.experiment in active}
        fresh: dict[str, Head] = {}
        going = {run_id for run_id, head in held.items() if head.status == RUNNING}
        doubtful = going | self._next_wanted() | (set(self._wanted) - set(held))
        for walk in self._walks:
            if place := others if walk.tag else trainings:
                found, gone = walk.read(partial(self._rows.search, place), held)
                fresh |= found
                doubtful |= gone
        if experiments:
            condition = f"attributes.status = '{RUNNING}'"
            running, _ = self._rows.search(experiments, condition, most=MOST_RUNNING)
            fresh |= _by_id(running)
        found = self._with_ids(experiments, doubtful - set(fresh))
        gone = doubtful - set(fresh) - set(found)
        fresh |= found
        self._wanted = {run_id: None for run_id in self._wanted if run_id not in gone}
        self._held = {run_id: head for run_id, head in (held | fresh).items() if run_id not in gone}
        return fresh, {run_id for run_id in going & set(found) if found[run_id].status != RUNNING}

    def _read_versions(self, experiments: Mapping[str, str], fresh: Mapping[str, Head]) -> dict[str, Head]:
        """Also of the runs that were looked at; returns runs of versions that are not held yet."""
        anew = self._trainings.has_come_round
        self._versions.read({run_id: head.started_ms for run_id, head in fresh.items()}, anew=anew)
        self._absent = set() if anew else self._absent
        missing = self._versions.own_runs() - set(self._held) - self._absent
        found = self._with_ids(experiments, missing)
        self._absent |= missing - set(found)
        self._want(found)
        return found

    def versions(self) -> list[Version]:
        """Of the held runs, the newest, and where aliases point; in order of name and number."""
        return self._versions.versions()

    def details(self, run_ids: Sequence[str]) -> dict[str, Details]:
        """Of those among them that were read just now."""
        return self._rows.details(run_ids)

    def history(self, keys: Sequence[str], run_ids: Sequence[str]) -> pd.DataFrame:
        return self._rows.history(keys, run_ids)

    def reach(self, newest: int) -> None:
        """Hold at least so many of the newest runs and versions from now on."""
        self._versions.most = max(self._versions.most, newest)
        for walk in self._walks:
            walk.most = max(walk.most, newest)

    def want(self, references: Iterable[str], *, by_name: bool) -> None:
        """Hold the runs that these stand for, too: ids or their beginnings, NAME@ALIAS and NAME/VERSION, and names."""
        experiments = self._rows.experiments()
        for reference in references:
            if (run_id := self._versions.want(reference.removeprefix("models:/"))) is not None:
                self._want([run_id])
            if _ID.fullmatch(reference):
                self._want(self._matching(experiments, f"attributes.run_id LIKE '{reference}%'", MOST_NAMED))
            if by_name and _is_plain(reference):
                self._want(self._matching(experiments, f"attributes.run_name = '{reference}'", MOST_NAMED))

    def want_trials(self, sweep: str) -> None:
        """Hold the trials of a sweep, by the id of its run."""
        if _ID.fullmatch(sweep):
            self._want(self._matching(self._rows.experiments(), f"tags.{Tag.SWEEP_RUN} = '{sweep}'", PAGE))

    def want_named(self, text: str, most: int) -> int:
        """Hold the newest runs with this in their names; returns how many were found.

        Raises ValueError for text that cannot be asked for.
        """
        if not _is_plain(text):
            raise ValueError("names with quotes or backslashes cannot be looked for on a server")
        found = self._matching(self._rows.experiments(), f"attributes.run_name ILIKE '%{text}%'", most)
        self._want(found)
        return len(found)

    def _matching(self, experiments: Mapping[str, str], condition: str, most: int) -> list[str]:
        """Ids of the newest runs that fulfil it."""
        heads, _ = self._rows.search(experiments, condition, most=most) if experiments else ([], None)
        return [head.run_id for head in heads]

    def _want(self, run_ids: Iterable[str]) -> None:
        for run_id in run_ids:
            self._wanted.setdefault(run_id)
        while len(self._wanted) > MOST_WANTED:
            self._wanted.pop(next(iter(self._wanted)))

    def _next_wanted(self) -> set[str]:
        """Some of those that were asked for; others the next time."""
        chosen = list(self._wanted)[:STEP_OF_WANTED]
        for run_id in chosen:
            self._wanted[run_id] = self._wanted.pop(run_id)
        return set(chosen)

    def _with_ids(self, experiments: Mapping[str, str], run_ids: Collection[str]) -> dict[str, Head]:
        """Those that are still there."""
        found: dict[str, Head] = {}
        ids = sorted(run_id for run_id in run_ids if _ID.fullmatch(run_id))
        for start in range(0, len(ids), PAGE):
            some = ", ".join(f"'{run_id}'" for run_id in ids[start : start + PAGE])
            heads, _ = self._rows.search(experiments, f"attributes.run_id IN ({some})", most=PAGE)
            found |= _by_id(heads)
        return found

    def _trim(self, kept: Collection[str]) -> None:
        """Let go of the oldest where newer ones have come, but for those, and what was asked for."""
        for walk in self._walks:
            own = [head for head in self._held.values() if walk.owns(head)]
            own.sort(key=lambda head: head.started_ms, reverse=True)
            for head in own[walk.most :]:
                if head.run_id not in kept and head.run_id not in self._wanted and head.status != RUNNING:
                    del self._held[head.run_id]
                    walk.has_older = True


class _Walk:
    """The newest runs of a kind, which it looks through again and again, a step at a time.

    most: how many. tag: what tells the kind, see `Head.kind`.
    """

    def __init__(self, most: int, tag: str = ""):
        self.most = most
        self.tag = tag
        self.has_older = False
        self._condition = f"tags.{tag} LIKE '%'" if tag else ""
        self._reached = 0
        self._newest_ms = 0
        self._next: str | None = None  # token of the next step
        self._place = 0  # how many runs lie before it
        self._above = math.inf  # when the run before it began

    def restart(self) -> None:
        self._reached, self._next = 0, None

    @property
    def has_come_round(self) -> bool:
        """Whether the last step was the last one of its round."""
        return self._next is None

    def owns(self, head: Head) -> bool:
        return head.kind == self.tag

    def read(self, search: Search, held: Mapping[str, Head]) -> tuple[dict[str, Head], set[str]]:
        """What was found, and which of the held runs may be gone: they are not where they were."""
        if self._reached < self.most:
            return self._begin(search), set()
        found = self._newer(search)
        if self._next is None:
            self._place, self._above = 0, math.inf
        more, gone = self._step(search, held)
        return found | more, gone

    def _begin(self, search: Search) -> dict[str, Head]:
        """All of them at once."""
        found: dict[str, Head] = {}
        token: str | None = ""
        while token is not None and len(found) < self.most:
            page, token = search(self._condition, most=min(PAGE, self.most - len(found)), token=token)
            found |= _by_id(page)
        self._reached, self._next, self.has_older = self.most, None, token is not None
        self._newest_ms = max((head.started_ms for head in found.values()), default=0)
        return found

    def _newer(self, search: Search) -> dict[str, Head]:
        """What has begun since the newest that is known."""
        since = f"attributes.start_time >= {self._newest_ms}"
        page, _ = search(" and ".join(filter(None, (self._condition, since))), most=self.most)
        self._newest_ms = max((head.started_ms for head in page), default=self._newest_ms)
        return _by_id(page)

    def _step(self, search: Search, held: Mapping[str, Head]) -> tuple[dict[str, Head], set[str]]:
        most = min(STEP, self.most - self._place)
        page, following = search(self._condition, most=most, token=self._next or "")
        found = _by_id(page)
        last = -math.inf if following is None else page[-1].started_ms
        gone = {
            run_id
            for run_id, head in held.items()
            if last < head.started_ms < self._above and run_id not in found and self.owns(head)
        }
        self._place, self._above = self._place + len(page), last
        self._next = following if self._place < self.most else None
        return found, gone


def _is_plain(text: str) -> bool:
    """Whether it can stand between quotes in MLflow's language of filters."""
    return bool(text) and text.isprintable() and not _QUOTES.search(text)


def _by_id(heads: Iterable[Head]) -> dict[str, Head]:
    return {head.run_id: head for head in heads}
