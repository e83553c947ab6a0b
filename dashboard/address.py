"""Choices that a page's address always holds, so that a copied link opens the same when there is something newer."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

import streamlit as st

from dashboard.text import plain, short

T = TypeVar("T", str, int)
SETTLED_SECONDS = 1.0
"""After so long a browser shows the address that was written: what it says otherwise is an earlier or a later one."""


def write(key: str, values: Sequence[str]) -> None:
    """Let the address say what is chosen."""
    if st.session_state.get(_written(key), ([], 0.0))[0] != list(values):
        st.session_state[_written(key)] = list(values), time.monotonic()
    if st.query_params.get_all(key) != list(values):
        st.query_params[key] = list(values)


def from_history(key: str, chosen: Sequence[str] | None) -> list[str] | None:
    """What the address says since somebody went back or forward in the browser; None where the choice stands.

    Args:
        chosen: As the address would say it. Where that was not written yet, somebody has just chosen it.
    """
    asked, (written, when) = (
        st.query_params.get_all(key),
        st.session_state.get(_written(key), (None, 0.0)),
    )
    is_settled = time.monotonic() - when > SETTLED_SECONDS
    return asked if asked and chosen == written and asked != written and is_settled else None


def _written(key: str) -> str:
    return f"written-{key}"


def choose_newest(
    label: str,
    options: Sequence[T],
    newest: T,
    *,
    key: str,
    format_func: Callable[[T], str] = str,
    shown: bool = True,
) -> T:
    """A box that begins with what the address says, else with the newest, and writes its choice into the address.

    Streamlit's own binding leaves a default out of the address, and what is the newest today is not tomorrow.

    Args:
        shown: Whether there is anything to choose; else it is the newest, and the address says so all the same.
    """
    names = {option: format_func(option) for option in options}
    times = Counter(names.values())
    # Streamlit cannot tell options of one name apart.
    names = {o: f"{name}, {str(o)[:8]}" if times[name] > 1 else name for o, name in names.items()}
    asked = st.query_params.get(key)
    chosen: T | None = st.session_state.get(key)
    if chosen is not None and from_history(key, [str(chosen)]):
        chosen = None
    if chosen is None or chosen not in options:
        found = [option for option in options if asked in (str(option), names[option])]
        if asked and not found and chosen is None:
            st.caption(f"There is no {label.lower()} {plain(short(asked))}; this is the newest.")
        chosen = found[0] if found else newest
        if shown:
            st.session_state[key] = chosen
    if shown:
        chosen = st.selectbox(label, options, key=key, format_func=names.__getitem__)
    write(key, [str(chosen)])
    return chosen
