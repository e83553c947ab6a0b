"""The reader and what follows from it, behind Streamlit's caches; shared between sessions, never changed.

What cannot be read leaves a cached function as an exception, which is not remembered: the next look asks anew.
"""

import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from trainer import search
from trainer.data.cache_file import cache_files
from trainer.data.pictures import find_pictures, png
from trainer.evaluation.attention import Attention
from trainer.evaluation.audit import Audit
from trainer.evaluation.comparison import Comparison, Predictions, compare
from trainer.evaluation.reliability import Reliability, measure
from trainer.evaluation.robustness import Robustness
from trainer.evaluation.slices import Slices, by_condition
from trainer.search import Dimension, Value
from trainer.store.location import Store, StoreError, open_store, store_uri, which_file
from trainer.store.reader import Reader
from trainer.store.snapshot import Snapshot, SweepRun

T = TypeVar("T")
NEWEST = 100
"""So many of a server's runs are read first, and more where somebody asks."""
FRESH_SECONDS = 2
"""How old a snapshot may be; a promotion made elsewhere shows after about so long."""
ASK_AGAIN_SECONDS = 60
MOST_WANTED = 50
"""Runs that one address may name."""
_tested: dict[str, frozenset[str]] = {}
"""Store → when its runs were tested again: then what was read of their answers is read anew."""


def store() -> Store:
    return reader().store


def _address() -> str:
    """Of the store as it lies there now: nothing that was read of a deleted one answers for what took its place."""
    uri = store_uri()
    return f"{uri} {which_file(uri)}"


def reader() -> Reader:
    """Raises StoreError where there is no store, or it does not answer."""
    return _reader(_address())


@st.cache_resource(show_spinner=False, max_entries=4)
def _reader(uri: str) -> Reader:
    return Reader(open_store(create=False), newest=NEWEST)


def snapshot(wanted: Iterable[str] = ()) -> Snapshot:
    """Of a server its newest runs, and whatever anybody has asked for.

    Args:
        wanted: Ids of runs or their beginnings, NAME/VERSION and NAME@ALIAS that have to be there, however old.

    Raises StoreError.
    """
    uri = _address()
    found = _snapshot(uri)
    if found.has_older or found.has_older_versions:
        known = {f"{v.name}/{v.version}" for v in found.versions}
        known |= {f"{v.name}@{alias}" for v in found.versions for alias in v.aliases}
        missing = [name for name in wanted if name not in known and not _holds(found, name)]
        if missing and _fetch(uri, tuple(sorted(missing)[:MOST_WANTED])):
            found = _snapshot(uri)
    return found


def _holds(found: Snapshot, beginning: str) -> bool:
    return any(run_id.startswith(beginning) for run_id in found.runs.index)


@st.cache_resource(show_spinner=False, ttl=ASK_AGAIN_SECONDS, max_entries=64)
def _fetch(uri: str, references: tuple[str, ...]) -> bool:
    """Once, and again after a while: it may be that there is no such run."""
    _reader(uri).want(references)
    _snapshot.clear()
    return True


def reach(newest: int) -> Snapshot:
    """With at least so many of the newest runs of a server, for everybody who looks. Raises StoreError."""
    if (held := reader().newest) is not None and newest > held:
        reader().reach(newest)
        _snapshot.clear()
    return snapshot()


def search_names(text: str, most: int) -> int:
    """Fetch runs of a server with this in their names, however old; returns how many there are.

    Raises StoreError, and ValueError for text that cannot be asked for.
    """
    found = reader().want_named(text, most)
    _snapshot.clear()
    return found


def with_trials(sweep: str) -> Snapshot:
    """With all trials of this sweep, by the id of its run. Raises StoreError."""
    if reader().newest is not None:
        _fetch_trials(_address(), sweep)
    return snapshot()


@st.cache_resource(show_spinner=False, ttl=ASK_AGAIN_SECONDS, max_entries=64)
def _fetch_trials(uri: str, sweep: str) -> bool:
    _reader(uri).want_trials(sweep)
    _snapshot.clear()
    return True


@st.cache_resource(show_spinner=False, ttl=FRESH_SECONDS, max_entries=4)
def _snapshot(uri: str) -> Snapshot:
    found = _reader(uri).snapshot()
    tested = frozenset(found.runs["tested_at"])
    if _tested.setdefault(uri, tested) != tested:
        _tested[uri] = tested
        for cached in (_predictions, _reliability, _comparison, _robustness, _slices, _attention, _figure):
            cached.clear()
    return found


def forget() -> None:
    """Read the store anew: after a change of our own."""
    _snapshot.clear()


def _or_why(read: Callable[[str, str, str], T | str], run_id: str, status: str) -> T | str:
    """What a cached function gives, or why the store gave nothing."""
    try:
        return read(_address(), run_id, status)
    except StoreError as error:
        return str(error)


def predictions(run_id: str, status: str) -> Predictions | str:
    """The predictions of a run on its test set, or one sentence on why there are none."""
    return _or_why(_predictions, run_id, status)


@st.cache_resource(show_spinner=False, max_entries=64)
def _predictions(uri: str, run_id: str, status: str) -> Predictions | str:
    return _read_predictions(uri, run_id, "test")


def _read_predictions(uri: str, run_id: str, part: str) -> Predictions | str:
    table = _reader(uri).predictions(run_id)
    try:
        return "it logged no predictions" if table is None else Predictions.from_table(table, part)
    except ValueError as error:
        return str(error)


def reliability(run_id: str, status: str, part: str = "test") -> Reliability | str:
    """Of the probabilities that a run gave to that part, or one sentence on why there are none."""
    try:
        return _reliability(_address(), run_id, status, part)
    except StoreError as error:
        return str(error)


@st.cache_resource(show_spinner=False, max_entries=64)
def _reliability(uri: str, run_id: str, status: str, part: str) -> Reliability | str:
    known = part == "test"
    found = _predictions(uri, run_id, status) if known else _read_predictions(uri, run_id, part)
    if isinstance(found, str):
        return found if known else "what it answered before calibration was not kept"
    return measure(found.target, found.probabilities)


def comparison(a: str, b: str) -> Comparison:
    """Of two finished runs whose predictions are there. Raises ValueError where they cannot be compared."""
    return _comparison(_address(), a, b)


@st.cache_resource(show_spinner=False, max_entries=256)
def _comparison(uri: str, a: str, b: str) -> Comparison:
    found = []
    for run_id in (a, b):
        if isinstance(one := _predictions(uri, run_id, "finished"), str):
            raise ValueError(f"run {run_id[:8]}: {one}")
        found.append(one)
    return compare(*found)


def robustness(run_id: str, status: str) -> Robustness | str:
    """The answers of a run to worse images, or why there are none."""
    return _or_why(_robustness, run_id, status)


@st.cache_resource(show_spinner=False, max_entries=64)
def _robustness(uri: str, run_id: str, status: str) -> Robustness | str:
    table = _reader(uri).robustness(run_id)
    try:
        return "it was not asked about worse images" if table is None else Robustness.from_table(table)
    except ValueError as error:
        return str(error)


def audit(run_id: str) -> Audit:
    """What an audit found. Raises StoreError where it cannot be read."""
    return _audit(_address(), run_id)


@st.cache_resource(show_spinner=False, max_entries=4)
def _audit(uri: str, run_id: str) -> Audit:
    return _reader(uri).audit(run_id)


def slices(run_id: str, status: str) -> Slices | str:
    """The test images of a run, cut by what they are like, or why they are not."""
    return _or_why(_slices, run_id, status)


@st.cache_resource(show_spinner=False, max_entries=64)
def _slices(uri: str, run_id: str, status: str) -> Slices | str:
    found = _predictions(uri, run_id, status)
    if isinstance(found, str):
        return found
    table = _reader(uri).conditions(run_id)
    if table is None or "sample_id" not in table:
        return "what its test images are like was not measured"
    try:
        return by_condition(table, found.sample_ids)
    except ValueError as error:
        return f"what its test images are like cannot be read: {error}"


def attention(run_id: str, status: str) -> Attention | str:
    """What the network of a run looks at on average, or why that is not known."""
    return _or_why(_attention, run_id, status)


@st.cache_resource(show_spinner=False, max_entries=64)
def _attention(uri: str, run_id: str, status: str) -> Attention | str:
    return _reader(uri).attention(run_id) or "what it looks at was not kept"


def importances(sweep: SweepRun, judged: tuple[tuple[dict[str, Value], float], ...]) -> dict[str, float]:
    """Setting → its share, computed again when a trial has finished."""
    return _importances(_address(), sweep.run_id, len(judged), sweep.space, judged)


@st.cache_resource(show_spinner=False, max_entries=32)
def _importances(
    uri: str, run_id: str, finished: int, _space: tuple[Dimension, ...],
    _judged: tuple[tuple[dict[str, Value], float], ...],
) -> dict[str, float]:  # fmt: skip
    return search.importances(_space, _judged)


def progress(runs: pd.DataFrame) -> tuple[object, ...]:
    """What tells when the curves of runs have grown: their epochs, or time, where another program's run counts none."""
    states = runs.loc[runs["epochs_done"] == 0, "status"]
    now = int(time.time() // FRESH_SECONDS) if "running" in set(states) else 0
    return (int(runs["epochs_done"].sum()), now, *states)


def histories(run_ids: Sequence[str], progress: tuple[object, ...]) -> pd.DataFrame:
    """As the reader gives them; read again when their `progress` is another."""
    return _histories(_address(), tuple(run_ids), progress)


@st.cache_resource(show_spinner=False, max_entries=64)
def _histories(uri: str, run_ids: tuple[str, ...], progress: tuple[object, ...]) -> pd.DataFrame:
    return _reader(uri).histories(run_ids)


def figure(key: Hashable, build: Callable[[], go.Figure]) -> go.Figure:
    """The chart that `build` draws, where it was not drawn before; `key` names all that it depends on."""
    return _figure(_address(), key, build)


@st.cache_resource(show_spinner=False, max_entries=200)
def _figure(uri: str, key: Hashable, _build: Callable[[], go.Figure]) -> go.Figure:
    return _build()


def pictures(run_id: str, dataset: str, fingerprint: str) -> "Pictures":
    """The test images of a run: all where this machine has decoded the dataset, else what it kept."""
    try:
        decoded = tuple((file.name, file.stat().st_ino) for file in cache_files(dataset))
        return _pictures(_address(), run_id, dataset, fingerprint, decoded)
    except (StoreError, OSError) as error:
        return Pictures({}, None, {}, f"The pictures cannot be read: {error}")


@st.cache_resource(show_spinner=False, max_entries=8)
def _pictures(
    uri: str, run_id: str, dataset: str, fingerprint: str, decoded: tuple[tuple[str, int], ...]
) -> "Pictures":
    """decoded: the files of the dataset on this machine, which may have become others."""
    found = _predictions(uri, run_id, "finished")
    images = None
    if isinstance(found, Predictions):
        labels = [found.class_names[index] for index in found.target]
        images = find_pictures(dataset, found.sample_ids, labels, found.class_names, fingerprint)
        if images is not None:
            return Pictures(dict(zip(found.sample_ids, range(len(found)), strict=True)), images, {})
    return Pictures({}, None, _reader(uri).worst_images(run_id))


class Pictures:
    """Encodes a picture when it is asked for."""

    def __init__(
        self, rows: dict[str, int], images: np.ndarray | None, kept: dict[str, bytes], missing: str = ""
    ):
        self._rows, self._images, self._kept = rows, images, kept
        self.missing = missing or "The pictures are neither decoded on this machine nor kept by the run"
        """Why there are none, where there are none."""
        self.complete = images is not None
        """Whether every test image is at hand."""

    def __len__(self) -> int:
        return len(self._rows) or len(self._kept)

    def get(self, sample_id: str) -> bytes | None:
        if self._images is not None and sample_id in self._rows:
            return png(self._images[self._rows[sample_id]])
        return self._kept.get(sample_id)
