"""The table of runs, seeds folded into one row, and the report that leaves the dashboard."""

import re

import numpy as np
import pandas as pd
import pytest
import streamlit as st

from dashboard import report
from dashboard.findings import (
    compare_all,
    cost_table,
    headline,
    metric_table,
    parameter_table,
    price_table,
)
from dashboard.selection import Chosen, describe, full_names
from dashboard.table import COLUMNS, fold_seeds, run_table
from tests.extra.grey_faces import Trained
from tests.extra.odd_runs import HOSTILE_NAME, add_odd_runs
from trainer.store.location import open_store
from trainer.store.reader import Reader


@pytest.fixture(autouse=True)
def forget_what_was_read():
    st.cache_resource.clear()


def test_every_column_can_be_shown_for_any_run(workplace):
    store = open_store()
    add_odd_runs(store)
    runs = Reader(store).snapshot().runs
    table, config = run_table(runs, full_names(runs), list(COLUMNS))
    assert list(table.columns) == list(COLUMNS)
    assert set(config) <= set(table.columns)
    assert len(table) == len(runs)


def test_seeds_are_folded_into_mean_and_standard_deviation(trained: Trained):
    runs = Reader(open_store(create=False)).snapshot().runs
    runs = runs.assign(configuration="same", test_accuracy=[0.60, 0.64])
    folded = fold_seeds(runs)
    assert len(folded) == 1
    row = folded.iloc[0]
    assert row["members"] == list(runs.index)
    assert row["test_accuracy"] == "0.620 ± 0.028"
    assert row["curve"] == pytest.approx(np.mean([runs.iloc[0]["curve"], runs.iloc[1]["curve"]], axis=0))
    table, _ = run_table(folded, full_names(runs), ["run", "test accuracy"])
    assert table["run"][0].endswith("(2 seeds)")


def test_the_findings_of_two_trained_runs(trained: Trained):
    snapshot = Reader(open_store(create=False)).snapshot()
    chosen = describe(snapshot, list(snapshot.runs.index)[::-1])
    runs = snapshot.runs.loc[[run.run_id for run in chosen]]
    comparisons, reasons = compare_all(snapshot, chosen)
    assert not reasons
    assert headline(runs, chosen, comparisons, reasons).startswith("No difference in accuracy")
    text, decided = metric_table(runs, chosen, comparisons)
    assert list(text.columns) == ["cnn", "resnet18", "difference"]
    assert text.loc["accuracy"].tolist()[:2] == ["1.000", "1.000"]
    assert text.loc["accuracy", "difference"].startswith("+0.000 (−0.")
    assert not decided.loc["accuracy"].any()
    assert "architecture" in parameter_table(snapshot, chosen).index
    assert "seed" not in parameter_table(snapshot, chosen).index
    assert "seed" in parameter_table(snapshot, chosen, everything=True).index
    costs = cost_table(runs, chosen)
    assert costs["parameters"].tolist()[1] == "11 M"


def test_the_report_is_one_file_that_needs_no_network(trained: Trained):
    snapshot = Reader(open_store(create=False)).snapshot()
    chosen = describe(snapshot, list(snapshot.runs.index))
    comparisons, reasons = compare_all(snapshot, chosen)
    page = report.comparison_html(snapshot, chosen, comparisons, reasons)
    assert page.startswith("<!doctype html>")
    assert "No difference in accuracy that 40 images can show" in page
    assert page.count("Plotly.newPlot(") == 4
    assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="?http', page)
    for run_id in snapshot.runs.index:
        assert run_id in page


def test_a_report_on_hostile_runs_holds_their_names_as_text(workplace):
    store = open_store()
    found = add_odd_runs(store)
    snapshot = Reader(store).snapshot()
    chosen = describe(snapshot, [found["hostile"], found["nan"]])
    page = report.comparison_html(snapshot, chosen, *compare_all(snapshot, chosen))
    assert HOSTILE_NAME.split(" ")[0] not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_a_point_of_accuracy_has_a_price_along_the_front_only():
    chosen = [
        Chosen(name, name, "#000", "solid", "circle") for name in ("cheap", "beaten", "dear", "unknown")
    ]
    runs = pd.DataFrame(
        {
            "test_accuracy": [0.60, 0.58, 0.64, 0.9],
            "estimated_kwh": [0.010, 0.020, 0.090, float("nan")],
            "test_fingerprint": "same",
        },
        index=["cheap", "beaten", "dear", "unknown"],
    )
    [step] = price_table(runs, chosen, "energy").to_dict("records")
    assert (step["from"], step["to"]) == ("cheap", "dear")
    assert step["more accuracy (points)"] == "4.0"
    assert step["energy for each point"] == "20.0 Wh"
    assert price_table(runs.assign(test_fingerprint=["a", "a", "b", "b"]), chosen, "energy").empty
