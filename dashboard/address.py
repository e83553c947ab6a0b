"""Choices that a page's address always holds, so that a copied link opens the same when there is something newer."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from dashboard.text import plain, short

T = TypeVar("T", str, int)
SHORTEST_ID = 4
"""Characters of a run's id; fewer are not looked for."""


def write(**chosen: Sequence[str] | str) -> None:
    """Let the address say what is chosen: at once, for each time is an entry of its own in the browser's history."""
    wanted = {key: [value] if isinstance(value, str) else list(value) for key, value in chosen.items()}
    changed = {key: values for key, values in wanted.items() if st.query_params.get_all(key) != values}
    if changed:
        st.query_params.update(changed)


def is_asked_again(key: str) -> bool:
    """Whether somebody has gone back or forward in the browser to an address that says this: it counts, not what was
    chosen since."""
    run = get_script_run_ctx()
    return run is not None and run.is_history_navigation and key in st.query_params


def keep_missing(key: str, missing: Sequence[str], instead: Sequence[str]) -> None:
    """What the address named and the store does not have, and what was chosen instead; for `tell_missing`."""
    st.session_state[f"missing_{key}"] = list(missing), list(instead)


def tell_missing(key: str, chosen: Sequence[str], place: str) -> None:
    """Says so, until another choice is made."""
    missing, instead = st.session_state.get(f"missing_{key}", ([], []))
    if list(chosen) != instead:
        keep_missing(key, [], [])
    elif missing:
        named = ", ".join(plain(short(one)) for one in missing)
        st.caption(f"The link names what is not in the {place}, or not any more: {named}.")


def choose_newest(
    label: str,
    options: Sequence[T],
    newest: T,
    *,
    key: str,
    format_func: Callable[[T], str] = str,
    shown: bool = True,
) -> T:
    """A box that begins with what the address says, else with the newest; whoever asks writes the choice there.

    Streamlit's own binding leaves a default out of the address, and what is the newest today is not tomorrow.

    Args:
        shown: Whether there is anything to choose; else it is the newest.
    """
    names = {option: format_func(option) for option in options}
    times = Counter(names.values())
    # Streamlit cannot tell options of one name apart.
    names = {o: f"{name}, {str(o)[:8]}" if times[name] > 1 else name for o, name in names.items()}
    asked = st.query_params.get(key)
    chosen: T | None = st.session_state.get(key)
    if is_asked_again(key):
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
    return chosen
