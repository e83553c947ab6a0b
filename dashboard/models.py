"""Registered models by name, and those that are loaded: shared between sessions, bounded in memory."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import streamlit as st
from cachetools import LRUCache

from dashboard.address import is_asked_again, keep_missing, tell_missing, write
from dashboard.selection import COLOURS, GREY
from trainer.contract import CHAMPION, Tag
from trainer.inference.model import Model
from trainer.store.location import store_uri
from trainer.store.registry import Version
from trainer.store.snapshot import Snapshot

KEY = "models"
LOADED_BYTES = 1024**3
"""Of the weights of all loaded models together; the one that was used longest ago goes first."""
MOST = len(COLOURS)
Key = tuple[str, str, int, int]


@dataclass(frozen=True)
class Candidate:
    """A chosen version as the page shows it; reference: as it was chosen, by alias or by number."""

    version: Version
    reference: str
    label: str
    colour: str

    @property
    def name(self) -> str:
        return f"{self.version.name}/{self.version.version}"

    @property
    def key(self) -> Key:
        """Of exactly this version: a number can come again after its version was deleted."""
        return store_uri(), self.version.name, self.version.version, self.version.created_ms


def choose_models(snapshot: Snapshot) -> list[Candidate]:
    """The bar at the top: versions by alias or number; an alias means whatever it points to now."""
    known = references(snapshot.versions)
    if KEY not in st.session_state or is_asked_again(KEY):
        wanted = [name for name in dict.fromkeys(st.query_params.get_all(KEY)) if name in known][:MOST]
        st.session_state[KEY] = wanted or default(snapshot.versions)
        missing = [name for name in st.query_params.get_all(KEY) if name not in known]
        keep_missing(KEY, missing, st.session_state[KEY])
    elif any(name not in known for name in st.session_state[KEY]):
        st.session_state[KEY] = [name for name in st.session_state[KEY] if name in known]
    chosen = st.multiselect(
        "Models",
        list(known),
        format_func=lambda name: describe(name, known[name]),
        key=KEY,
        persist_state="session",
        max_selections=MOST,
        placeholder="Choose versions or aliases",
        wrap=True,
    )
    write(**{KEY: chosen})
    tell_missing(KEY, chosen, "registry")
    return candidates([(name, known[name]) for name in chosen])


def references(versions: Sequence[Version]) -> dict[str, Version]:
    """NAME@ALIAS and NAME/NUMBER → version; aliases first, the newest versions first."""
    newest = sorted(versions, key=lambda version: -version.created_ms)
    aliases = {f"{v.name}@{alias}": v for v in newest for alias in v.aliases}
    return aliases | {f"{v.name}/{v.version}": v for v in newest}


def default(versions: Sequence[Version]) -> list[str]:
    """The newest champion; one of photographs before one of drawings."""
    crowned = [version for version in versions if CHAMPION in version.aliases]
    if not crowned:
        newest = max(versions, key=lambda version: version.created_ms)
        return [f"{newest.name}/{newest.version}"]
    best = max(crowned, key=lambda version: (version.tags.get(Tag.DATASET) != "sketch", version.created_ms))
    return [f"{best.name}@{CHAMPION}"]


def describe(reference: str, version: Version) -> str:
    """`fer2013-emotion@champion (version 3, cnn)`."""
    architecture = version.tags.get(Tag.ARCHITECTURE, "")
    parts = [f"version {version.version}"] if "@" in reference else []
    parts += [architecture] if architecture else []
    return f"{reference} ({', '.join(parts)})" if parts else reference


def candidates(chosen: Sequence[tuple[str, Version]]) -> list[Candidate]:
    """Each version once, with a label that tells it from the others."""
    distinct = {(version.name, version.version): (name, version) for name, version in reversed(chosen)}
    several_names = len({name for name, _ in distinct}) > 1
    found = []
    for index, (reference, version) in enumerate(reversed(distinct.values())):
        architecture = version.tags.get(Tag.ARCHITECTURE)
        where = version.name if several_names or not architecture else ""
        label = " · ".join(filter(None, (architecture, where, f"version {version.version}")))
        found.append(Candidate(version, reference, label, COLOURS[index] if index < MOST else GREY))
    return found


_loaded: LRUCache[Key, Model] = LRUCache(LOADED_BYTES, getsizeof=lambda model: model.size_bytes)
_keeping = threading.Lock()
"""While `_loaded` is looked into or changed."""
_loading = threading.Lock()
"""One model at a time, which may be a slow download."""


def load(candidate: Candidate) -> Model:
    """Raises ValueError (StoreError, BundleError), with a message for the user."""
    if (model := _kept(candidate.key)) is not None:
        return model
    with _loading:
        if (model := _kept(candidate.key)) is not None:  # by whoever was waited for
            return model
        from trainer.store.models import load_model, share_cores

        share_cores()
        model = load_model(candidate.version)
        # The first answer is the slowest. Noise, for there are models that fail on an even image.
        shape = (1, model.channels, model.size, model.size)
        model(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
        if model.size_bytes <= LOADED_BYTES:
            with _keeping:
                _loaded[candidate.key] = model
        return model


def _kept(key: Key) -> Model | None:
    with _keeping:
        return _loaded.get(key)


def load_ahead() -> None:
    """Import torch in the background, while somebody looks for a photo."""
    threading.Thread(target=_import_torch, daemon=True).start()


def _import_torch() -> None:
    with _loading:
        import trainer.store.models  # noqa: F401
