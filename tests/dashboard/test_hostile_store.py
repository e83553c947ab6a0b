"""What strangers write into a store reaches no page, and no report, as HTML, Markdown, a path or code."""

import html.parser
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from dashboard.app import PAGES
from dashboard.text import document, plain, short
from tests.extra.hostile_texts import HOSTILE_TEXTS, MARKS
from tests.extra.odd_runs import log_predictions, make_run, predictions
from trainer.contract import PREDICTIONS_FILE, Tag
from trainer.store.location import StoreError, open_store
from trainer.store.reader import Reader

APP = str(Path(__file__).parents[2] / "dashboard" / "app.py")
RUNS = 6
DETAILS = ("What it cost", "Each class", "Slices", "Worse images", "What it looks at", "Parallel coordinates")
DRAWN = {
    *("div", "span", "figure", "figcaption", "img", "b", "i", "h1", "h2", "h4", "p", "br", "style", "small"),
    *("table", "thead", "tbody", "tr", "th", "td", "html", "meta", "title", "body", "script"),
}


class Drawn(html.parser.HTMLParser):
    """Every element of a piece of HTML, with its attributes, and what is shown as text."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open == "script":
            self.scripts.append(data)


def texts(block: Any) -> Iterator[tuple[str, str]]:
    """(kind, text) of everything on a page: Markdown, labels, which are Markdown as well, and HTML."""
    for child in getattr(block, "children", {}).values():
        yield from texts(child)
    proto = getattr(block, "proto", None)
    kind = getattr(block, "type", "")
    for field in ("body", "label", "text", "caption"):
        value = getattr(proto, field, None)
        if isinstance(value, str) and value:
            yield ("html" if kind == "html" else "markdown"), value
    if kind == "button_group":  # what can be picked is Markdown there
        yield from (("markdown", option.content) for option in proto.options)


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> dict[str, list[tuple[str, str, str]]]:
    """mark → (page, kind, the text that it stands in), over all pages and a report."""
    root = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("MOODIFY_CACHE", str(root / "cache"))
        patch.setenv("MOODIFY_OFFLINE", "1")
        ids = fill_store()
        st.cache_resource.clear()
        found: dict[str, list[tuple[str, str, str]]] = {mark: [] for mark in MARKS}
        for page, kind, text in [*pages(ids), *report(ids)]:
            for mark in MARKS:
                if mark in text:
                    found[mark].append((page, kind, text))
        yield found
        st.cache_resource.clear()


def fill_store() -> list[str]:
    """Runs that carry every text as name, tag, parameter, metric, class, image, version and card."""
    store = open_store()
    client = store.client()
    experiment = store.experiment_id("odd")
    classes = HOSTILE_TEXTS[12:17]
    ids = []
    for index in range(RUNS):
        some = [HOSTILE_TEXTS[(index + step * RUNS) % len(HOSTILE_TEXTS)] for step in range(5)]
        tags = {Tag.ARCHITECTURE: some[1], Tag.MODE: some[2], Tag.RECIPE: some[3], Tag.DATASET: "odd"}
        tags |= {Tag.TEST_FINGERPRINT: "same", "energy_method": some[4]}
        ids.append(
            make_run(
                client, experiment, some[0], tags=tags, curve=[0.2, 0.3],
                params={"epochs": "2", "teacher": some[4], "seed": str(index), "data_dir": some[3]},
                metrics={"test/accuracy": 0.4 + index / 100, "test/macro_recall": 0.5},
            )
        )  # fmt: skip
        table = predictions(classes, seed=index)
        table["sample_id"] = [f"{HOSTILE_TEXTS[n % 30]}/{n}" for n in range(len(table))]
        table["label"] = predictions(classes, seed=0)["label"]
        log_predictions(client, ids[-1], table)
    write_rows(
        [
            (f"test/{kind}/{text}", 0.5, 1, 0, 0, run_id)
            for kind in ("recall", "support")
            for text in HOSTILE_TEXTS
            for run_id in ids
        ]
    )
    make_run(client, experiment, HOSTILE_TEXTS[24], status="FAILED", tags={Tag.REASON: HOSTILE_TEXTS[18]})
    name = "odd-emotion <b>"
    client.create_registered_model(name)
    for number, run_id in enumerate(ids[:2]):
        tags = {f"tag{n}": text for n, text in enumerate(HOSTILE_TEXTS[20:])}
        tags |= {
            Tag.ARCHITECTURE: HOSTILE_TEXTS[number],
            Tag.PROMOTED_BY: HOSTILE_TEXTS[2],
            Tag.PROMOTION_REASON: HOSTILE_TEXTS[10],
        }
        tags |= {
            Tag.PROMOTED_AT: HOSTILE_TEXTS[11],
            Tag.PROMOTION_GATES: HOSTILE_TEXTS[12],
            Tag.PROMOTED_OVER: "../1",
        }
        client.create_model_version(
            name, source=f"runs:/{run_id}/x", run_id=run_id, tags=tags, description="\n\n".join(HOSTILE_TEXTS)
        )
    client.set_registered_model_alias(name, "champion", "1")
    return ids


def write_rows(rows: list[tuple]) -> None:
    """Metrics under names that MLflow would refuse, into its tables."""
    with closing(sqlite3.connect("mlruns/mlflow.db", timeout=30)) as connection, connection:
        connection.executemany(
            "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, ?, ?, ?, ?)",
            rows,
        )


def pages(ids: list[str]) -> Iterator[tuple[str, str, str]]:
    app = AppTest.from_file(APP, default_timeout=60)
    app.query_params["runs"] = chosen = [run_id[:8] for run_id in ids[:3]]
    app.run()
    for page, detail in [*((page, "") for page in PAGES), *(("compare.py", detail) for detail in DETAILS)]:
        app.query_params["runs"] = chosen
        if detail:
            app.query_params["detail"] = detail
        app.switch_page(f"app_pages/{page}").run()
        assert not app.exception, (page, app.exception)
        yield from ((page, kind, text) for kind, text in texts(app._tree))
        for table in app.dataframe:  # cells are drawn as they are
            frame = pd.DataFrame(table.value)
            yield page, "cells", f"{list(frame.columns)} {frame.to_dict()}"


def report(ids: list[str]) -> Iterator[tuple[str, str, str]]:
    from dashboard import cache
    from dashboard.report import comparison_html
    from dashboard.selection import describe
    from trainer.evaluation.comparison import Predictions, compare

    snapshot = cache.snapshot()
    runs = describe(snapshot, ids[:2])
    one, two = (cache.predictions(run.run_id, "finished") for run in runs)
    assert isinstance(one, Predictions)
    assert isinstance(two, Predictions)
    yield (
        "report",
        "html",
        comparison_html(snapshot, runs, {ids[1]: compare(one, two)}, {"x": HOSTILE_TEXTS[2]}),
    )


@pytest.mark.parametrize(("mark", "text"), list(zip(MARKS, HOSTILE_TEXTS, strict=True)), ids=MARKS)
def test_a_strangers_text_is_shown_as_text_and_nothing_else(seen, mark: str, text: str):
    assert seen[mark], "it is nowhere on the pages, so that nothing was tested"
    for page, kind, shown in seen[mark]:
        if kind == "markdown":
            forms = {plain(text)} | (
                {document(text)} if page == "registry.py" else set()
            )  # which has the card
            for length in range(len(text)):  # in a label
                forms |= {plain(short(text, length + 1)), plain(f"{text[:length]}…")}
            for form in sorted(forms, key=len, reverse=True):
                shown = shown.replace(form, "")
            assert mark not in shown, (page, shown)
        elif kind == "html":
            drawn = Drawn(shown)
            assert {name for name, _ in drawn.elements} <= DRAWN, (page, mark)
            for name, attributes in drawn.elements:
                assert not [key for key in attributes if key.startswith("on") or key in ("href", "srcset")], (
                    page,
                    name,
                )
                source = attributes.get("src")
                assert source is None or source.startswith("data:image/"), (page, source)
            for script in drawn.scripts:  # a report carries charts as data
                assert f"alert('{mark}')" not in script or "\\u003c" in script, page


def test_a_runs_id_leads_to_no_file_outside_of_the_store(seen):
    reader = Reader(open_store(create=False))
    id_ = "../../outside"
    file = Path("mlruns/artifacts", id_, "artifacts", PREDICTIONS_FILE).resolve()
    file.parent.mkdir(parents=True)
    predictions(("cat", "dog")).to_parquet(file)
    assert file.is_relative_to(Path("outside").resolve())
    with pytest.raises(StoreError):
        reader.predictions(id_)
