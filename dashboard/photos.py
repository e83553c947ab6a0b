"""The photos of a session: they live in its memory while its Try it page is open, and nowhere else."""

import streamlit as st
from streamlit import runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx

KEY = "album"
_SESSIONS: set[str] = set()


def keep(album: object) -> None:
    """Make `album`, all that was seen on photos, part of the session."""
    st.session_state[KEY] = album
    if (context := get_script_run_ctx(suppress_warning=True)) is not None:
        _SESSIONS.add(context.session_id)


def forget() -> None:
    """Free the session's photos and all that came of them: its page was left."""
    if KEY not in st.session_state:
        return
    del st.session_state[KEY]
    context = get_script_run_ctx(suppress_warning=True)
    if context is not None and runtime.exists():
        runtime.get_instance().uploaded_file_mgr.remove_session_files(context.session_id)


def known_sessions() -> list[str]:
    """Those that have had photos, and may be gone."""
    return list(_SESSIONS)


def forget_session(session_id: str) -> None:
    """Close a session whose tab is gone, and empty it: Streamlit's own loop keeps hold of the last one for long."""
    _SESSIONS.discard(session_id)
    server = runtime.get_instance()
    found = server._session_mgr.get_session_info(session_id)
    server.close_session(session_id)
    if found is not None:
        found.session.session_state.clear()
