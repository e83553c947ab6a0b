"""What every page begins with: the store as it is now, and the answer in a sentence."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import plotly.graph_objects as go
import streamlit as st
from PIL import Image, ImageDraw

from dashboard import cache, charts
from dashboard.address import SHORTEST_ID
from dashboard.selection import Chosen
from dashboard.text import plain
from trainer.evaluation.comparison import Predictions, same_images
from trainer.evaluation.robustness import Robustness
from trainer.store.location import SQLITE_PREFIX, StoreError, store_uri
from trainer.store.snapshot import Snapshot

T = TypeVar("T")
ROW_PX = 33
"""Height of a table's row, and of its header, at the theme's `baseFontSize`."""
LOADED = "loaded"
LOADED_AT_ONCE = (200, 1000)
MOST_LOADED = 3000
"""Of the newest runs of a server: beyond, every view would take seconds."""


def load(title: str, *, without_runs: bool = False, wanted: Sequence[str] = ()) -> Snapshot:
    """The store's content; where there is none, says what to do and ends the page.

    Args:
        without_runs: Whether the page has something to show where there are none.
        wanted: What has to be there, beside what was chosen; see `cache.snapshot`.
    """
    try:
        _reach()
        snapshot = cache.snapshot([*wanted, *_chosen()])
    except StoreError as error:
        unreadable(title, error)
    if snapshot.runs.empty and not without_runs:
        answer(title, "There are no runs yet.")
        _begin()
        st.stop()
    return snapshot


@contextmanager
def tell_errors() -> Iterator[None]:
    """What the store does not give within this block is said in a line, and the page goes on without it."""
    try:
        yield
    except StoreError as error:
        st.warning(f"{plain(str(error))}.")


def unreadable(title: str, error: StoreError) -> NoReturn:
    """Says that there is no store, or that it does not answer, why, and what to do; ends the page."""
    uri = store_uri()
    missing = is_missing_store(uri)
    silent = f"The tracking {'server' if uri.startswith('http') else 'store'} does not answer."
    answer(title, "There is nothing to show yet." if missing else silent)
    why = str(error)
    st.markdown(plain(f"{why[:1].upper()}{why[1:]}."))
    if missing:
        _begin()
    elif not uri.startswith(SQLITE_PREFIX):
        st.markdown(
            "Check that it runs, and that `MLFLOW_TRACKING_URI` is its address. This page tries again when it is "
            "reloaded."
        )
    st.stop()


def is_missing_store(uri: str) -> bool:
    """Whether it is a file that the first training makes."""
    return uri.startswith(SQLITE_PREFIX) and not Path(uri.removeprefix(SQLITE_PREFIX)).exists()


def _begin() -> None:
    """How the first runs come to be."""
    st.markdown("Train a CNN and a ResNet18: some minutes on drawn faces, over an hour on FER-2013.")
    st.code("make train", language="bash")
    st.page_link("app_pages/train.py", label="Or start a training here")


def older(sentence: str, what: str) -> None:
    """Says that a server has more than was read, and loads it where that is wanted; the number is in the URL.

    Args:
        sentence: What is there; Markdown.
        what: There is more of: `runs` or `versions`.
    """
    held = cache.reader().newest or 0
    st.caption(sentence)
    if held >= MOST_LOADED:
        st.caption("No more are loaded here: “python -m trainer runs --limit 0” lists all runs.")
        return
    with st.container(horizontal=True):
        for more in LOADED_AT_ONCE:
            if st.button(f"Load {more:,} older {what}", key=f"older-{more}"):
                st.query_params[LOADED] = str(min(held + more, MOST_LOADED))
                st.rerun()


def _reach() -> None:
    """What the address says has been loaded."""
    wanted = st.query_params.get(LOADED, "")
    if wanted.isdecimal():
        cache.reach(min(int(wanted[:9]), MOST_LOADED))  # a number of thousands of digits Python does not read


def _chosen() -> list[str]:
    """The runs and models that the session and the address name, which differ where somebody goes back to one."""
    return [name for name in _given("runs") if len(name) >= SHORTEST_ID] + _given("models")


def _given(key: str) -> list[str]:
    return [*st.session_state.get(key, ()), *st.query_params.get_all(key)]


def answer(title: str, sentence: str) -> None:
    """The page's name, and the sentence that a person came for (Markdown: escape what strangers named)."""
    st.caption(title)
    st.header(sentence, anchor=False)


def load_each(read: Callable[[str, str], T | str], snapshot: Snapshot, chosen: list[Chosen]) -> dict[str, T]:
    """run_id → what `cache` reads of those runs that have it; says of each other one why it is left out."""
    found = {}
    for run in chosen:
        result = read(run.run_id, snapshot.runs.at[run.run_id, "status"])
        if isinstance(result, str):
            st.caption(f"{plain(run.label)} is left out: {plain(result)}.")
        else:
            found[run.run_id] = result
    return found


def different_tests(snapshot: Snapshot, found: Mapping[str, Predictions], a: str, b: str) -> str | None:
    """Why the answers of two runs are not to the same images, or None where they are; found: run_id → answers.

    Images that were drawn or edited anew keep their ids, and only the fingerprints tell. Where both runs have none, as
    those of other programs, the same ids with the same labels have to do.
    """
    fingerprints = snapshot.runs["test_fingerprint"]
    if reason := same_images(found[a], found[b]):
        return reason
    return None if fingerprints[a] == fingerprints[b] else "the fingerprints of the test sets differ"


def same_test_set(
    snapshot: Snapshot, found: dict[str, Predictions], chosen: list[Chosen]
) -> dict[str, Predictions]:
    """Those tested on the first run's images; says of each other one why it is left out."""
    return _like_the_first(found, chosen, lambda a, b: different_tests(snapshot, found, a, b))


def same_worse_images(
    snapshot: Snapshot, found: dict[str, Robustness], chosen: list[Chosen]
) -> dict[str, Robustness]:
    """Those asked about the same worse versions of the first run's images; says of each other why it is left out."""
    fingerprints = snapshot.runs["test_fingerprint"]

    def difference(a: str, b: str) -> str | None:
        if found[a].sample_ids != found[b].sample_ids or fingerprints[a] != fingerprints[b]:
            sizes = f"{len(found[a]):,} and {len(found[b]):,}"
            return f"they were asked about worse versions of different images ({sizes})"
        if other := set(found[a].kinds) ^ set(found[b].kinds):
            return (
                f"their images were made worse in different ways (only one's by {', '.join(sorted(other))})"
            )
        return None

    return _like_the_first(found, chosen, difference)


def _like_the_first(
    found: dict[str, T], chosen: list[Chosen], difference: Callable[[str, str], str | None]
) -> dict[str, T]:
    """difference: of two runs, why they cannot be compared, or None."""
    labels = {run.run_id: run.label for run in chosen}
    kept = {}
    for run_id, answers in found.items():
        first = next(iter(found))
        if reason := difference(first, run_id):
            st.caption(f"{plain(labels[run_id])} is left out beside {plain(labels[first])}: {plain(reason)}.")
        else:
            kept[run_id] = answers
    return kept


def height(rows: int, most: int = 15) -> int | Literal["content"]:
    """Of a table: as high as it is, up to `most` rows and half of the next, which tells that there are more."""
    return "content" if rows <= most else round(ROW_PX * (1 + most + 0.5)) + 2


def right(names: Iterable[str]) -> dict[str, Any]:
    """Column configuration of numbers that are written out as text."""
    return {name: st.column_config.TextColumn(alignment="right") for name in names}


def chart(figure: go.Figure, *, alt: str, key: str | None = None, **arguments: Any) -> None:
    """A figure under its title."""
    if title := charts.title_of(figure):
        st.html(f'<div style="font-weight:600;font-size:.95rem">{title}</div>')
    st.plotly_chart(figure, config=charts.CONFIG, key=key, alt=alt, **arguments)


def theme() -> str:
    """`light` or `dark`."""
    return st.context.theme.type or "light"


def icon() -> Image.Image:
    """Two eyes and a mouth; a named icon would be fetched from another host."""
    image = Image.new("RGBA", (64, 64))
    draw = ImageDraw.Draw(image)
    draw.ellipse((4, 4, 60, 60), fill="#0B5C8A")
    for x in (22, 42):
        draw.ellipse((x - 4, 22, x + 4, 30), fill="white")
    draw.arc((18, 22, 46, 48), 20, 160, fill="white", width=4)
    return image
