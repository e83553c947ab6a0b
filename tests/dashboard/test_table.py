"""The table of runs, seeds folded into one row, and the report that leaves the dashboard."""

import re

import numpy as np
import pandas as pd
import pytest
import streamlit as st

from dashboard import report
from dashboard.findings import (
    COSTS,
    METRICS,
    compare_all,
    cost_table,
    cost_values,
    headline,
    metric_note,
    metric_table,
    parameter_table,
    price_table,
)
from dashboard.selection import Chosen, describe, full_names
from dashboard.table import COLUMNS, fold_seeds, run_table
from tests.extra.grey_faces import Trained
from tests.extra.odd_runs import HOSTILE_NAME, log_predictions, make_run, predictions
from trainer.__main__ import main
from trainer.evaluation.comparison import Predictions, compare
from trainer.store.location import open_store
from trainer.store.reader import Reader


@pytest.fixture(autouse=True)
def forget_what_was_read():
    st.cache_resource.clear()


def test_every_column_can_be_shown_for_any_run(odd):
    runs = Reader(open_store()).snapshot().runs
    table, config = run_table(runs, full_names(runs), list(COLUMNS))
    assert list(table.columns) == list(COLUMNS)
    assert set(config) <= set(table.columns)
    assert len(table) == len(runs)
    assert table["training time"].tolist() == pytest.approx(list(runs["training_seconds"] / 60), nan_ok=True)
    assert config["training time"]["label"] == "training (min)"


def test_seeds_are_folded_into_mean_and_standard_deviation(trained: Trained):
    runs = Reader(open_store(create=False)).snapshot().runs
    runs = runs.assign(configuration="same", test_accuracy=[0.60, 0.64], seed=[0.0, 1.0])
    folded = fold_seeds(runs)
    assert len(folded) == 1
    row = folded.iloc[0]
    assert row["members"] == list(runs.index)
    assert row["test_accuracy"] == pytest.approx(0.62)
    assert row["curve"] == pytest.approx(np.mean([runs.iloc[0]["curve"], runs.iloc[1]["curve"]], axis=0))
    table, _ = run_table(folded, full_names(runs), ["run", "test accuracy"])
    assert table["test accuracy"][0] == "0.620 ± 0.028"
    assert table["run"][0].endswith("(2 seeds)")


def test_a_seed_counts_once_and_runs_without_results_do_not(trained: Trained):
    runs = Reader(open_store(create=False)).snapshot().runs
    four = pd.concat([runs, runs])
    four.index = pd.Index([f"{number:032}" for number in range(4)], name="run_id")
    four = four.assign(
        configuration="same", test_accuracy=[np.nan, 0.60, 0.64, 0.70], seed=[0.0, 0.0, 1.0, 1.0],
        recalls=[{}, {"sad": 0.5}, {"sad": 0.7}, {"sad": 1.0}], curve=[[], [0.5], [0.7], [1.0]],
    )  # fmt: skip
    # Seed 1 was trained again, an hour later, to 0.70.
    four["started"] = pd.to_datetime([4, 3, 1, 2], unit="h")
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 3, 0, 1]):
        runs = four.iloc[order]
        row = fold_seeds(runs).iloc[0]
        assert (row["members"], row["seeds"]) == (list(runs.index), 2)
        assert row["test_accuracy"] == pytest.approx(0.65)
        assert row["deviations"]["test_accuracy"] == pytest.approx(0.1 / np.sqrt(2))
        assert row["recalls"] == pytest.approx({"sad": 0.75})
        assert row["curve"] == pytest.approx([0.75])
    three = fold_seeds(four.assign(seed=[0.0, 1.0, 2.0, 3.0])).iloc[0]  # the first was not tested
    assert three["seeds"] == 3
    assert three["recalls"] == pytest.approx({"sad": 2.2 / 3})
    assert three["curve"] == pytest.approx([2.2 / 3])
    table, _ = run_table(fold_seeds(four), full_names(four), ["run"])
    assert table["run"][0].endswith("(2 seeds)")


def test_a_seed_that_goes_on_changes_no_mean_and_is_told_in_the_status(trained: Trained):
    runs = Reader(open_store(create=False)).snapshot().runs
    four = pd.concat([runs, runs])
    four.index = pd.Index([f"{number:032}" for number in range(4)], name="run_id")
    four = four.assign(
        configuration="same", seed=[3.0, 2.0, 1.0, 0.0], status=["running", *["finished"] * 3],
        test_accuracy=[np.nan, 0.60, 0.62, 0.64], validation_accuracy=[0.30, 0.65, 0.65, 0.65],
        curve=[[0.3], *[[0.5, 0.65]] * 3], training_seconds=[1.0, 60.0, 60.0, 60.0], estimated_kwh=[np.nan, 1, 1, 1],
        started=pd.to_datetime([4, 3, 2, 1], unit="h"),
    )  # fmt: skip
    folded = fold_seeds(four)
    row = folded.iloc[0]
    assert (row["members"], row["seeds"]) == (list(four.index), 3)
    assert (row["validation_accuracy"], row["deviations"]["validation_accuracy"]) == pytest.approx((0.65, 0))
    assert row["curve"] == pytest.approx([0.5, 0.65])
    assert (row["training_seconds"], row["estimated_kwh"]) == (60, 1)
    assert (row["status"], row["started"]) == ("3 finished, 1 running", four["started"].max())
    table, _ = run_table(folded, full_names(four), ["run", "status", "validation"])
    assert table["run"][0].endswith("(3 seeds)")
    assert table[["status", "validation"]].to_numpy().tolist() == [["3 finished, 1 running", "0.650 ± 0.000"]]
    begun = fold_seeds(four.assign(test_accuracy=np.nan, status="running")).iloc[0]
    assert (begun["seeds"], begun["status"]) == (0, "running")
    assert begun["validation_accuracy"] == pytest.approx(np.mean([0.30, 0.65, 0.65, 0.65]))


def test_each_version_is_named_with_its_model_also_where_it_was_copied_to_another(
    stocked, capsys, monkeypatch
):
    store = open_store()
    client, experiment = store.client(), store.experiment_id("fer2013")
    client.create_registered_model("fer2013-emotion")
    ids = [make_run(client, experiment, params={"seed": str(seed), "epochs": "1"}) for seed in range(11)]
    for run_id in ids:
        client.create_model_version("fer2013-emotion", "nowhere", run_id)
    client.copy_model_version("models:/fer2013-emotion/10", "production")  # as MLflow's "Promote model" does
    make_run(client, experiment, params={"seed": "11", "epochs": "1"}, status="FAILED")  # the newest has none
    runs = Reader(store).snapshot().runs
    names = full_names(runs)
    table, _ = run_table(runs, names, ["version"])
    assert table["version"].head(3).tolist() == [
        "",
        "11 (fer2013-emotion)",
        "10 (fer2013-emotion), 1 (production)",
    ]
    folded, _ = run_table(fold_seeds(runs), names, ["version"])
    numbered = [f"{number} (fer2013-emotion)" for number in range(1, 12)]
    assert folded["version"].tolist() == [", ".join([*numbered, "1 (production)"])]
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["runs"]) == 0
    assert " 10, production/1\n" in capsys.readouterr().out


def test_averages_of_seeds_are_text_in_columns_of_text(trained: Trained):
    runs = Reader(open_store(create=False)).snapshot().runs
    names, columns = full_names(runs), list(COLUMNS)
    _, alone = run_table(runs, names, columns)
    table, folded = run_table(fold_seeds(runs.assign(configuration="same", seed=[0.0, 1.0])), names, columns)
    texts = {name for name in columns if name in alone and table[name].map(type).eq(str).all()}
    texts -= {"run", "version", "aliases"}
    assert texts == {"validation", "test accuracy", "macro recall", "macro F1", "log loss", "ECE"}
    for name in texts:
        assert alone[name]["type_config"]["type"] == "number"
        assert folded[name]["type_config"]["type"] == "text"


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
    assert costs["parameters"].tolist()[1] == "2.8 M"


def test_the_table_calls_accuracy_decided_where_the_headline_does():
    target = np.zeros(3589, np.int64)
    preds = np.ones((2, 3589), np.int64)
    preds[:, 794:], preds[0, :369], preds[1, 369:794] = 0, 0, 0
    a, b = (
        Predictions(("cat", "dog"), tuple(map(str, range(3589))), target, np.eye(2, dtype=np.float32)[said])
        for said in preds
    )
    found = compare(a, b)
    assert (found.only_a, found.only_b) == (369, 425)
    assert found.accuracy.low > 0  # Tango's interval and the exact test, with p = 0.0509, do not agree
    runs = pd.DataFrame({f"test_{name}": [0.5, 0.6] for name in METRICS}, index=["a", "b"])
    chosen = [Chosen(run_id, run_id, "#000000", "solid", "circle") for run_id in runs.index]
    assert headline(runs, chosen, {"b": found}, {}).startswith("No difference in accuracy")
    _, decided = metric_table(runs, chosen, {"b": found})
    assert not decided.at["accuracy", "difference"]
    assert decided.at["log loss ↓", "difference"]


def test_seeds_are_told_with_their_spread_beside_the_sampling_error_and_against_other_seeds(
    trained: Trained,
):
    store = open_store(create=False)
    client, experiment = store.client(), store.experiment_id("odd")
    truth, ids = predictions(("cat", "dog"), size=400), []
    recipes = (("best", 0.95), ("old", 0.6), ("new", 0.9))
    for recipe, right, seed in ((r, a, s) for r, a in recipes for s in range(3)):
        generator = np.random.default_rng(seed)
        said = np.where(generator.random(400) < right, truth["label"], "neither")
        shares = {f"p_{name}": np.where(said == name, 0.9, 0.4) for name in ("cat", "dog")}
        accuracy = float(np.mean(np.where(said == "neither", "cat", said) == truth["label"]))
        tags = {"architecture": "cnn", "recipe": recipe, "dataset": "odd", "test_fingerprint": "same"}
        params = {"recipe": recipe, "seed": str(seed)}
        run_id = make_run(client, experiment, tags=tags, params=params, metrics={"test/accuracy": accuracy})
        log_predictions(client, run_id, truth.assign(**shares))
        ids.append(run_id)
    best, ids = ids[:3], ids[3:]
    snapshot = Reader(store).snapshot()

    def told(run_ids: list[str]) -> str:
        chosen = describe(snapshot, run_ids)
        runs = snapshot.runs.loc[run_ids]
        return headline(runs, chosen, *compare_all(snapshot, chosen)).replace("\\", "")

    accuracies = snapshot.runs.loc[ids[:3], "test_accuracy"]
    mean = accuracies.mean()
    assert told(ids[:3]) == (
        f"3 seeds of one configuration: test accuracy {mean:.3f} ± {accuracies.std():.3f} between seeds (standard "
        f"deviation), beside ± {np.sqrt(mean * (1 - mean) / 400):.3f} by the sampling of 400 images (standard error of "
        "one accuracy)."
    )
    all_of_them = describe(snapshot, ids)
    comparisons, _ = compare_all(snapshot, all_of_them)
    assert {found.among for found in comparisons.values()} == {5}
    assert "two apart, corrected for 5 comparisons after Bonferroni)" in metric_note(all_of_them, comparisons)
    found = told(ids)
    assert found.startswith("cnn · new is better than cnn · old by 15.")
    assert "points of accuracy on the average of 3 and 3 seeds (" in found
    assert "the next best of 4 runs" in told([*ids[:3], ids[3]])  # one seed is no group
    found = told([*ids[:4], *best, *ids[4:]])
    assert "cnn · best is better than cnn · new, the next best of 3 configurations, by" in found
    assert "points of accuracy on the average of 3 and 3 seeds (" in found
    among = "cnn · best is better than cnn · old, the next best of 2 configurations with several seeds, by"
    assert among in told([*ids[:4], *best])
    ids.append(make_run(client, experiment, tags=tags, params=params, metrics={"test/accuracy": accuracy}))
    log_predictions(client, ids[-1], truth.assign(**shares))  # a seed that was trained already
    snapshot = Reader(store).snapshot()
    assert " of 3 and 3 seeds (" in told(ids)
    assert told(ids[4:]).startswith("2 seeds of one configuration")
    [other, *_] = snapshot.runs.index.difference([*ids, *best])
    assert "the next best of 4 runs" in told([*ids[:4], other])  # which was tested on other images
    for run_id in [*ids, *best]:
        client.delete_run(run_id)


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


def test_the_report_marks_what_is_decided_as_the_page_does(trained: Trained):
    snapshot = Reader(open_store(create=False)).snapshot()
    chosen = describe(snapshot, list(snapshot.runs.index))
    comparisons, reasons = compare_all(snapshot, chosen)
    target = np.arange(300) % 2
    some, every = (
        Predictions(("cat", "dog"), tuple(map(str, range(300))), target, np.eye(2, dtype=np.float32)[preds])
        for preds in (np.where(np.arange(300) < 60, 1 - target, target), target)
    )
    [other] = comparisons
    text, decided = metric_table(snapshot.runs, chosen, {other: (found := compare(some, every))})
    assert decided["difference"].any()
    page = report.comparison_html(snapshot, chosen, {other: found}, reasons)
    for cell, is_decided in zip(text["difference"], decided["difference"], strict=True):
        assert (f"<td>{cell} *</td>" in page) == is_decided
    assert "over the same 300 images; *: decided (accuracy by exact McNemar" in page


def test_a_report_on_hostile_runs_holds_their_names_as_text(odd):
    snapshot = Reader(open_store()).snapshot()
    chosen = describe(snapshot, [odd["hostile"], odd["nan"]])
    page = report.comparison_html(snapshot, chosen, *compare_all(snapshot, chosen))
    assert HOSTILE_NAME.split(" ")[0] not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_energy_is_told_with_what_it_may_be_at_least_and_at_most():
    chosen = [Chosen(name, name, "#000", "solid", "circle") for name in ("a", "b")]
    runs = pd.DataFrame(
        {column: float("nan") for column, _, _ in COSTS.values()}
        | {"test_accuracy": 0.5, "test_images": 100.0},
        index=["a", "b"],
    ).assign(estimated_kwh=[0.010, 0.004], uncertainty_factor=[2.0, float("nan")])
    assert cost_table(runs, chosen)["energy"].tolist() == ["10.0 Wh (5.0 to 20.0)", "4.0 Wh"]


def test_a_chart_of_costs_has_the_units_of_the_table():
    runs = pd.DataFrame(
        {"training_seconds": [90.0, 7200.0], "size_bytes": 3.8e6, "estimated_kwh": 0.0558, "latency_ms": 5.3}
    )
    found = {name: cost_values(runs, name) for name in ("training time", "size", "energy", "latency")}
    assert {name: (values.iloc[1], unit) for name, (values, unit) in found.items()} == {
        "training time": (120.0, "min"),
        "size": (pytest.approx(3.8), "MB"),
        "energy": (pytest.approx(55.8), "Wh, an estimate"),
        "latency": (5.3, "ms, one image on the CPU"),
    }
    values, unit = cost_values(runs[:1], "training time")
    assert (values.iloc[0], unit) == (90.0, "s")


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
    hardly = runs.assign(test_accuracy=[0.60, 0.6004, 0.64, float("nan")])
    assert price_table(hardly, chosen, "energy").to_dict("records") == [step]
