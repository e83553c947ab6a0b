"""Every page on a store of really trained runs, and on stores that hold anything else."""

import dataclasses
import os
import shutil
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from dashboard import address, cache, frame
from dashboard.app import PAGES
from dashboard.selection import after_ticks
from dashboard.table import state_of
from dashboard.text import plain
from tests.extra.audits import HOSTILE, SAMPLES, audit_of
from tests.extra.grey_faces import Trained
from tests.extra.odd_runs import HOSTILE_NAME, add_odd_runs, log_predictions, make_run, predictions
from tests.extra.own_store import own_store
from trainer.contract import PREDICTIONS_FILE, UNCALIBRATED, Tag
from trainer.store.location import Store, StoreError, embedded_uri, open_store
from trainer.store.reader import Reader
from trainer.store.sweeps import begin_sweep

APP = str(Path(__file__).parents[2] / "dashboard" / "app.py")


@pytest.fixture(autouse=True)
def forget_what_was_read():
    st.cache_resource.clear()


def open_page(page: str, **query: str | list[str]) -> AppTest:
    app = AppTest.from_file(APP, default_timeout=60)
    for key, value in query.items():
        app.query_params[key] = value
    app.run()
    if page != "runs.py":
        for key, value in query.items():
            app.query_params[key] = value
        app.switch_page(f"app_pages/{page}").run()
    assert not app.exception, app.exception
    return app


def answer(app: AppTest) -> str:
    """The sentence that the page opens with."""
    return app.header[0].value.replace("\\", "")


def text(app: AppTest) -> str:
    return " ".join(element.value for element in [*app.header, *app.markdown, *app.caption]).replace("\\", "")


@pytest.fixture
def ids(trained: Trained) -> list[str]:
    """Of the resnet18 and the cnn."""
    return list(Reader(open_store(create=False)).snapshot().runs.index)


@pytest.mark.parametrize(
    ("page", "opening"),
    [
        ("runs.py", "2 runs on fer2013, best"),
        ("compare.py", "No difference in accuracy that 40 images can show"),
        ("recall.py", "Every class is found in every case by"),
        (
            "calibration.py",
            "off before calibration. Answering only the surest 80%, it is right in 100% of cases",
        ),
        ("confusion.py", "confuses nothing on 40 images"),
        ("mistakes.py", "Of 40 test images both get 0 wrong"),
        ("registry.py", "Version 1 (cnn) is the champion of fer2013-emotion, with 1.000 test accuracy"),
    ],
)
def test_each_page_opens_with_its_answer(trained: Trained, page: str, opening: str):
    assert opening in answer(open_page(page))


@pytest.mark.parametrize("page", PAGES)
def test_without_a_store_each_page_says_what_to_do(workplace, page: str):
    app = open_page(page)
    if page != "train.py":
        assert answer(app) == "There is nothing to show yet."
        assert [code.value for code in app.code] == ["make train"]
    assert not (workplace / "mlruns" / "mlflow.db").exists()


@pytest.mark.parametrize("page", ["runs.py", "train.py"])
def test_a_server_that_is_down_is_said_to_be_and_why(workplace, monkeypatch, page: str):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MOODIFY_ALLOW_TRAINING", "1")
    app = open_page(page)
    assert answer(app) == "The tracking server does not answer."
    assert "nothing listens at 127.0.0.1:9" in text(app)
    assert "MLFLOW_TRACKING_URI" in text(app)
    assert "make train" not in [code.value for code in app.code]


@pytest.mark.parametrize("page", PAGES)
def test_an_empty_store_is_no_error(stocked, page: str):
    open_store()
    assert answer(open_page(page))


def test_a_link_to_what_is_gone_says_so_until_another_choice_is_made(trained: Trained, ids):
    said = "The link names what is not in the store, or not any more: deadbeef."
    app = open_page("compare.py", runs=[ids[0][:8], "deadbeef"])
    assert said in text(app)
    app.multiselect(key="runs").set_value(ids).run()
    assert said not in text(app)
    app.multiselect(key="runs").set_value(ids[:1]).run()
    assert said not in text(app)
    assert "deadbeef" not in text(open_page("compare.py", runs=[one[:8] for one in ids]))
    app = open_page("try_it.py", models=["nobody/1", "fer2013-emotion@gone"])
    assert "not in the registry, or not any more: nobody/1, fer2013-emotion@gone." in text(app)
    assert "not any more" not in text(open_page("try_it.py", models=["fer2013-emotion@champion"]))


def test_going_back_in_the_browser_brings_back_what_was_chosen(stocked, monkeypatch):
    registered([0.1, 0.2, 0.3], ["same"] * 3)
    ids = list(Reader(open_store()).snapshot().runs.index)
    came_back = SimpleNamespace(is_history_navigation=True)  # AppTest knows of no browser
    for page, key, first, second in (
        ("compare.py", "runs", ids[:2], ids[1:]),
        ("try_it.py", "models", ["faces/1"], ["faces/2", "faces@champion"]),
        ("registry.py", "version", 1, 3),
    ):
        app = open_page(page)
        kind = "selectbox" if page == "registry.py" else "multiselect"
        getattr(app, kind)(key=key).set_value(first).run()
        before = app.query_params[key]
        getattr(app, kind)(key=key).set_value(second).run()
        assert app.query_params[key] != before
        app.query_params[key] = before
        with monkeypatch.context() as back:
            back.setattr(address, "get_script_run_ctx", lambda: came_back)
            app.run()
        assert getattr(app, kind)(key=key).value == first, page
        assert app.query_params[key] == before


def test_an_address_that_the_browser_does_not_show_yet_takes_no_choice_back(stocked):
    registered([0.1, 0.2, 0.3], ["same"] * 3)
    ids = list(Reader(open_store()).snapshot().runs.index)
    app = open_page("compare.py", runs=[one[:8] for one in ids[:2]])
    before = app.query_params["runs"]
    app.multiselect(key="runs").set_value(ids[1:]).run()
    app.query_params["runs"] = before  # a click right after that one still comes with the address of before
    app.run()
    assert app.multiselect(key="runs").value == ids[1:]


@pytest.mark.parametrize("loaded", ["9" * 5000, "-1", "1.5", "²"])
def test_no_number_of_runs_in_an_address_is_an_error(stocked, loaded: str):
    assert answer(open_page("runs.py", loaded=loaded)) == "There are no runs yet."


def test_names_of_runs_are_no_markdown_in_a_table_and_where_one_of_them_is_picked(stocked):
    store = open_store()
    runs = []
    for architecture in ("a*b*c", ":red[x]"):
        run_id = make_run(
            store.client(), store.experiment_id("a"), tags={Tag.ARCHITECTURE: architecture, Tag.DATASET: "a"},
            metrics={"test/accuracy": 0.5}, params={"architecture": architecture},
        )  # fmt: skip
        log_predictions(store.client(), run_id, predictions(("cat", "dog")))
        runs.append(run_id[:8])
    table = open_page("compare.py", runs=runs).table[0].value
    assert list(table.columns) == ["a\\*b\\*c", "\\:red\\[x\\]", "difference"]
    [by] = [one for one in open_page("confusion.py", runs=runs).get("button_group") if one.key == "by"]
    assert [option.content for option in by.proto.options] == ["a\\*b\\*c", "\\:red\\[x\\]"]
    for label, run_id in zip(("a*b*c", ":red[x]"), runs, strict=True):
        for asked in (label, plain(label)):  # as it is, or as the page writes it
            app = open_page("confusion.py", runs=runs, by=asked)
            [by] = [one for one in app.get("button_group") if one.key == "by"]
            assert by.value.startswith(run_id)
            assert not app.warning


def test_curves_of_a_run_that_counts_no_epochs_are_read_again_while_it_goes_on(monkeypatch):
    monkeypatch.setattr(cache.time, "time", lambda: 1000.0)
    ours = pd.DataFrame({"epochs_done": [3, 4], "status": ["running", "finished"]})
    others = pd.DataFrame({"epochs_done": [3, 0], "status": ["finished", "running"]})
    first = cache.progress(ours), cache.progress(others)
    monkeypatch.setattr(cache.time, "time", lambda: 1000.0 + cache.FRESH_SECONDS)
    assert cache.progress(ours) == first[0]
    assert cache.progress(others) != first[1]
    ended = others.assign(status="finished")
    assert cache.progress(ended) not in (cache.progress(others), first[1])


def test_what_the_store_does_not_give_is_not_called_not_kept(trained: Trained, ids: list[str], monkeypatch):
    run = Reader(open_store(create=False)).snapshot().runs.loc[ids[0]]

    def silent(*_: object) -> None:
        raise StoreError("the store is away")

    st.cache_resource.clear()
    monkeypatch.setattr(Reader, "predictions", silent)
    monkeypatch.setattr(Reader, "worst_images", silent)
    assert cache.reliability(ids[0], run["status"], UNCALIBRATED) == "the store is away"
    monkeypatch.setenv("MOODIFY_CACHE", str(trained.root / "empty"))
    found = cache.pictures(ids[0], run["dataset"], run["test_fingerprint"])
    assert (len(found), found.missing) == (0, "The pictures cannot be read: the store is away")


def test_pictures_are_found_when_the_data_are_decoded_after_the_first_look(
    trained: Trained, ids, monkeypatch
):
    run = Reader(open_store(create=False)).snapshot().runs.loc[ids[0]]
    asked = ids[0], run["dataset"], run["test_fingerprint"]
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("MOODIFY_CACHE", str(trained.root / "empty"))
        assert not cache.pictures(*asked).complete
    assert cache.pictures(*asked).complete


def test_a_run_that_was_tested_again_is_read_again(trained_once: Trained, workplace):
    store = own_store(trained_once)
    [run_id, *_] = Reader(store).snapshot().runs.index
    before = cache.predictions(run_id, "finished")
    assert cache.snapshot() is not None
    assert cache.predictions(run_id, "finished") is before
    store.client().set_tag(run_id, Tag.TESTED_AT, "2026-11-27T06:00:00+00:00")
    cache._snapshot.clear()
    cache.snapshot()
    assert cache.predictions(run_id, "finished") is not before


@pytest.mark.parametrize("page", PAGES)
def test_each_page_survives_whatever_runs_there_are(odd: dict[str, str], page: str):
    kept = [run_id[:8] for kind, run_id in odd.items() if kind != "deleted"]
    choices = (kept[:6], kept[-6:], [odd["hostile"][:8]], [odd["deleted"][:8]])
    for chosen in choices if page not in ("train.py", "try_it.py") else choices[:1]:  # these choose no runs
        app = open_page(page, runs=chosen)
        assert answer(app)


def test_a_hostile_name_is_shown_as_it_is_written(odd: dict[str, str]):
    app = open_page("compare.py", runs=[odd["hostile"][:8]])
    assert HOSTILE_NAME.split("**")[0].strip() in answer(app)
    assert "<script>" not in app.header[0].value.replace("\\<", "")
    for element in [*app.markdown, *app.caption, *app.header]:
        assert "[link](" not in element.value


def test_runs_without_predictions_are_left_out_with_a_reason(odd: dict[str, str]):
    chosen = [odd[kind][:8] for kind in ("other_classes", "no_test", "foreign_table", "broken_table", "bare")]
    shown = text(open_page("recall.py", runs=chosen))
    for reason in (
        "there are no predictions for test",
        "they lack label",
        "cannot be read",
        "it logged no predictions",
    ):
        assert reason in shown, reason


def test_runs_of_different_test_sets_are_not_compared(trained: Trained, ids: list[str]):
    store = open_store(create=False)
    found = add_odd_runs(store)
    try:
        app = open_page("compare.py", runs=[ids[0][:8], found["other_classes"][:8]])
        assert (
            "These runs cannot be compared. other_classes was tested on other data than resnet18 ("
            in answer(app)
        )
        for kind in ("bare", "no_test"):  # the one without answers is named, whichever comes first
            said = answer(open_page("compare.py", runs=[ids[0][:8], found[kind][:8]]))
            assert "These runs cannot be compared." in said
            assert "resnet18:" not in said
            assert said == answer(open_page("compare.py", runs=[found[kind][:8], ids[0][:8]]))
        app = open_page("recall.py", runs=[ids[0][:8], found["other_classes"][:8]])
        assert "their classes differ" in text(app)
    finally:
        for kind, run_id in found.items():
            if kind != "deleted":
                store.client().delete_run(run_id)


def test_images_that_were_drawn_anew_under_their_old_ids_are_others(trained: Trained, ids: list[str]):
    snapshot = Reader(open_store(create=False)).snapshot()
    found = {run_id: cache.predictions(run_id, "finished") for run_id in ids}
    assert frame.different_tests(snapshot, found, *ids) is None
    snapshot.runs.loc[ids[1], "test_fingerprint"] = "another"
    assert frame.different_tests(snapshot, found, *ids) == "the fingerprints of the test sets differ"
    snapshot.runs["test_fingerprint"] = ""
    assert frame.different_tests(snapshot, found, *ids) is None  # by their ids and labels


def test_calibration_tells_before_and_after_and_what_is_not_kept(trained: Trained, ids: list[str]):
    app = open_page("calibration.py", runs=[ids[0][:8]])
    [table] = app.dataframe
    assert list(table.value["run"]) == ["resnet18, before", "resnet18"]
    assert table.value["temperature"][0] == "1.00"
    assert table.value["right in the surest 80%"].str.startswith("100% (").all()
    app.toggle(key="before").set_value(False).run()
    assert list(app.dataframe[0].value["run"]) == ["resnet18"]
    file = trained.root / "mlruns" / "artifacts" / ids[0] / "artifacts" / PREDICTIONS_FILE
    whole = pd.read_parquet(file)
    try:
        whole[whole["part"] != UNCALIBRATED].to_parquet(file, index=False)
        st.cache_resource.clear()
        app = open_page("calibration.py", runs=[ids[0][:8]])
        assert "what it answered before calibration was not kept" in text(app)
        assert "before calibration" not in answer(app)
        app = open_page("calibration.py", runs=[ids[0][:8], ids[1][:8]])
        assert (
            "resnet18 is shown as calibrated alone: what it answered before calibration was not kept."
            in text(app)
        )
        assert list(app.dataframe[0].value["run"]) == ["resnet18", "cnn, before", "cnn"]
    finally:
        whole.to_parquet(file, index=False)


def test_a_link_opens_the_runs_that_it_names(trained: Trained, ids: list[str]):
    app = open_page("compare.py", runs=[ids[1][:8], ids[0][:8]])
    assert list(app.multiselect(key="runs").value) == [ids[1], ids[0]]
    assert app.table[0].value.columns[:2].tolist() == ["cnn", "resnet18"]


def test_what_is_kept_on_worse_images_is_told_for_each_run(trained: Trained, ids: list[str]):
    app = open_page("compare.py", runs=[ids[1][:8], ids[0][:8]], detail="Worse images")
    shown = text(app)
    assert "Of their accuracy, on 40 test images that are made worse in 10 ways, the runs keep: " in shown
    table = app.dataframe[0].value
    assert list(table.columns) == ["cnn", "resnet18", "difference"]
    assert list(table.index)[-1] == "all"


@pytest.mark.parametrize("other", ["images", "fingerprint", "kinds"])
def test_answers_to_worse_versions_of_other_images_are_left_out(
    trained: Trained, ids: list[str], monkeypatch, other: str
):
    from dashboard import cache

    read, robust = cache.snapshot, cache.robustness

    def with_other_fingerprint(names=()):
        found = read(names)
        return dataclasses.replace(found, runs=found.runs.assign(test_fingerprint=found.runs.index))

    def of_other_images(run_id, status):
        found = robust(run_id, status)
        return found if run_id == ids[1] else dataclasses.replace(found, sample_ids=found.sample_ids[::-1])

    def of_fewer_kinds(run_id, status):
        found = robust(run_id, status)
        if run_id == ids[1]:
            return found
        return dataclasses.replace(found, kinds=found.kinds[1:], worse=found.worse[:, 1:])

    reason = "they were asked about worse versions of different images"
    if other == "images":
        monkeypatch.setattr(cache, "robustness", of_other_images)
    elif other == "kinds":
        monkeypatch.setattr(cache, "robustness", of_fewer_kinds)
        reason = "their images were made worse in different ways (only one's by blur)"
    else:
        monkeypatch.setattr(cache, "snapshot", with_other_fingerprint)
    app = open_page("compare.py", runs=[ids[1][:8], ids[0][:8]], detail="Worse images")
    assert f"resnet18 is left out beside cnn: {reason}" in text(app)
    assert list(app.dataframe[0].value.columns) == ["cnn"]


def test_slices_of_the_test_set_are_told_with_their_recalls(trained: Trained, ids: list[str]):
    app = open_page("compare.py", runs=[ids[1][:8], ids[0][:8]], detail="Slices")
    assert "cnn has no slice in which it is worse by more than chance." in text(app)
    table = app.dataframe[0].value
    assert list(table["by"])[:3] == ["brightness"] * 3
    assert list(table["slice"])[:3] == ["darkest", "medium", "brightest"]
    assert "angry" in app.dataframe[1].value.columns


def test_without_a_face_nothing_is_told_of_what_a_network_looks_at(trained: Trained, ids: list[str]):
    app = open_page("compare.py", runs=[ids[1][:8]], detail="What it looks at")
    assert "none of these runs has done so" in text(app)  # levels of grey hold no face


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        ("predictions", "predictions"),
        ("robustness", "robustness"),
        ("slices", "conditions"),
        ("slices", "predictions"),
        ("attention", "attention"),
        ("reliability", "predictions"),
        ("pictures", "worst_images"),
    ],
)
def test_a_store_that_failed_once_is_asked_again(
    trained: Trained, ids: list[str], monkeypatch, kind: str, asked: str
):
    from dashboard import cache

    def fail(self: Reader, run_id: str) -> None:
        raise StoreError("the server is away")

    arguments = ("fer2013", "unknown") if kind == "pictures" else ("finished",)

    def look() -> object:
        return getattr(cache, kind)(ids[0], *arguments)

    with monkeypatch.context() as away:
        away.setattr(Reader, asked, fail)
        found = look()
        if kind == "pictures":
            assert not len(found)
        else:
            assert found == "the server is away"
    found = look()
    assert len(found) if kind == "pictures" else found != "the server is away"


def test_a_page_goes_on_without_what_the_store_does_not_give_and_says_why(
    trained: Trained, ids: list[str], monkeypatch
):
    store = open_store(create=False)
    sweep = begin_sweep(store, "fer2013", "away", "", {}, {})
    read = Reader.snapshot

    def fail(self: Reader, asked: object, *_: object) -> None:
        raise StoreError("the server is away")

    def opens(page: str, **query: str | list[str]) -> str:
        app = open_page(page, **query)
        told = [warning.value for warning in app.warning if "does not pass every gate" not in warning.value]
        assert told == ["the server is away."]  # another test may have promoted
        return answer(app)

    with monkeypatch.context() as away:
        for asked in ("histories", "want", "want_trials"):
            away.setattr(Reader, asked, fail)
        away.setattr(Reader, "newest", 1)  # as of a server
        away.setattr(Reader, "snapshot", lambda self: dataclasses.replace(read(self), has_older=True))
        assert "No difference in accuracy" in opens("compare.py", runs=[one[:8] for one in ids])
        assert "Version 1 (cnn) is the champion" in opens("registry.py", version="99")
        assert "away has 0 trials" in opens("sweep.py", sweep=sweep)
    assert not open_page("compare.py", runs=[one[:8] for one in ids]).warning
    store.client().delete_run(sweep)


def test_a_store_that_took_the_place_of_another_is_shown_without_a_restart(stocked: Path, other: Store):
    from dashboard import cache

    store = open_store(uri=embedded_uri())
    make_run(store.client(), store.experiment_id("x"), "old", metrics={"test/accuracy": 0.5})
    new = make_run(other.client(), other.experiment_id("x"), "new", metrics={"test/accuracy": 0.5})
    assert "best old with 0.500" in text(open_page("runs.py"))
    assert len(cache.store().client().search_experiments()) == 2  # MLflow has it open as well
    shutil.rmtree(stocked / "mlruns")
    assert "There is no tracking store at" in text(open_page("runs.py"))
    shutil.move(stocked / "other", stocked / "mlruns")
    assert "best new with 0.500" in text(open_page("runs.py"))
    assert cache.store().client().get_run(new).info.run_name == "new"


def test_choosing_other_runs_changes_the_url_and_the_answer(trained: Trained, ids: list[str]):
    app = open_page("compare.py")
    app.multiselect(key="runs").set_value([ids[1]]).run()
    assert app.query_params["runs"] in ([ids[1][:8]], ids[1][:8])
    assert "cnn has 1.000 test accuracy; choose a second run" in answer(app)


def test_the_runs_page_filters_searches_sorts_and_folds(trained: Trained):
    app = open_page("runs.py")
    assert list(app.dataframe[0].value["architecture"]) == ["resnet18", "cnn"]
    app.selectbox(key="architecture").select("cnn").run()
    assert list(app.dataframe[0].value["architecture"]) == ["cnn"]
    assert "2 runs chosen, 1 of them not shown by these filters." in text(app)
    app.selectbox(key="architecture").select("any").run()
    app.text_input(key="text").set_value("RESNET").run()
    assert list(app.dataframe[0].value["architecture"]) == ["resnet18"]
    app.text_input(key="text").set_value("no such run").run()
    assert "No run fits these filters." in text(app)
    app.text_input(key="text").set_value("").run()
    app.selectbox(key="sort").select("size").run()
    assert list(app.dataframe[0].value["architecture"]) == ["cnn", "resnet18"]
    app.multiselect(key="columns").set_value(["run", "ECE"]).run()
    assert list(app.dataframe[0].value.columns) == ["run", "ECE"]
    app.toggle(key="fold").set_value(True).run()
    assert not app.exception
    assert len(app.dataframe[0].value) == 2


def test_folded_seeds_are_sorted_by_their_mean_and_the_same_in_every_order(stocked):
    store = open_store(create=False)
    client, experiment = store.client(), store.experiment_id("a")
    runs = [
        ("even", 0, 0.68),
        ("even", 1, 0.69),
        ("uneven", 0, 0.72),
        ("uneven", 1, 0.65),
        ("uneven", 0, 0.60),
    ]
    for recipe, seed, accuracy in runs:
        make_run(
            client, experiment, tags={Tag.DATASET: "a", Tag.RECIPE: recipe},
            params={"recipe": recipe, "seed": str(seed)}, metrics={"test/accuracy": accuracy},
        )  # fmt: skip
        time.sleep(0.002)  # or they might begin in the same millisecond
    rows = []
    for sort in ("newest", "test accuracy", "size"):
        app = open_page("runs.py", fold="true", sort=sort, columns=["recipe", "test accuracy"])
        rows.append(app.dataframe[0].value.to_numpy().tolist())
    even, uneven = ["0.685 ± 0.007", "even"], ["0.625 ± 0.035", "uneven"]
    assert rows == [[uneven, even], [even, uneven], [uneven, even]]
    app = open_page("runs.py", fold="true", text="no such run")
    assert "No run fits these filters." in text(app)


def test_filters_that_leave_no_run_say_so_whatever_is_searched(trained: Trained):
    app = open_page("runs.py", status="finished", architecture="cnn", text="x")
    app.selectbox(key="architecture").set_value("resnet18").run()
    assert not app.exception
    app.text_input(key="text").set_value("no such name").run()
    assert "No run fits these filters." in text(app)
    app.selectbox(key="dataset").set_value("fer2013").run()
    assert not app.exception


def test_the_runs_page_tells_of_two_datasets_and_of_what_is_training(stocked):
    store = open_store()
    client = store.client()
    for dataset in "abcd":
        make_run(client, store.experiment_id(dataset), dataset, tags={Tag.DATASET: dataset})
    here = {Tag.HOST: socket.gethostname(), Tag.PID: str(os.getpid()), Tag.DATASET: "a"}
    make_run(client, store.experiment_id("a"), "going", status=None, tags=here)
    said = answer(open_page("runs.py"))
    assert "; more on 2 other datasets; " in said
    assert "is training" in said


def test_the_best_run_is_of_the_largest_test_set_alone(stocked):
    store = open_store()
    client, experiment = store.client(), store.experiment_id("a")
    for name, images, accuracy in (("few", 50.0, 0.9), ("many", 100.0, 0.7)):
        make_run(
            client, experiment, name, tags={Tag.DATASET: "a", Tag.TEST_FINGERPRINT: name},
            metrics={"test/accuracy": accuracy, "test/support/happy": images},
        )  # fmt: skip
    assert answer(open_page("runs.py")) == "2 runs on a, best many with 0.700 test accuracy on 100 images."


def test_unticking_a_row_leaves_what_was_chosen_singly():
    groups = [["a0", "a1"], ["b"]]
    assert after_ticks(["a1", "gone"], groups, [1]) == ["a1", "gone", "b"]
    assert after_ticks(["a0", "a1", "b"], groups, [1]) == ["b"]
    assert after_ticks(["a1"], groups, [0]) == ["a1", "a0"]


def test_a_running_training_is_shown_with_its_progress_and_the_dead_one_as_such(stocked):
    add_odd_runs(open_store())
    app = open_page("runs.py")
    # Two are running here; which comes first is a matter of milliseconds.
    assert "and 1 more is training" in answer(app)
    assert "epoch 3 of 20, 3 min 0 s left" in " ".join(bar.text for bar in app.progress).replace("\\", "")
    assert "its process is gone" in text(app)
    assert "ValueError: no data" in text(app)


def test_promoting_a_version_moves_the_alias_in_the_store(trained: Trained):
    from trainer.store.registry import find_version, set_alias

    store = open_store(create=False)
    try:
        app = open_page("registry.py")
        app.selectbox(key="version").select(2).run()
        assert "Version 1 loses champion" in text(app)
        app.button(key="promote").click().run()
        assert any("No difference in accuracy" in m.value.replace("\\", "") for m in app.markdown)
        assert find_version(store, "fer2013-emotion@champion").version == 1  # not before it is confirmed
    finally:
        set_alias(store, "fer2013-emotion", 1, "champion")


def test_a_link_opens_the_version_that_it_names(trained: Trained, monkeypatch):
    from dashboard import cache

    wanted: list[str] = []
    read = cache.snapshot
    monkeypatch.setattr(cache, "snapshot", lambda names=(): (wanted.extend(names), read(names))[1])
    app = open_page("registry.py", version="1")
    assert app.selectbox(key="version").value == 1
    assert "fer2013-emotion/1" in wanted
    app.selectbox(key="version").select(2).run()
    app.selectbox(key="version").select(1).run()
    assert app.query_params["version"] in (["1"], "1")


def held(app: AppTest) -> dict[str, str]:
    """What the address says."""
    return {key: value[0] if isinstance(value, list) else value for key, value in app.query_params.items()}


def test_a_link_to_the_newest_version_opens_it_when_there_are_newer_ones_and_other_models(stocked: Path):
    store = open_store()
    client = store.client()

    def register(model: str) -> None:
        run_id = make_run(client, store.experiment_id("x"))
        client.create_model_version(model, "nowhere", run_id)

    client.create_registered_model("faces")
    register("faces")
    register("faces")
    link = held(open_page("registry.py"))
    assert (link["model"], link["version"]) == ("faces", "2")
    register("faces")
    client.create_registered_model("masks")
    register("masks")
    st.cache_resource.clear()
    app = open_page("registry.py", **link)
    assert (app.selectbox(key="model").value, app.selectbox(key="version").value) == ("faces", 2)
    assert held(app) == link
    app.selectbox(key="model").select("masks").run()
    assert app.selectbox(key="version").value == 1
    assert (held(app)["model"], held(app)["version"]) == ("masks", "1")
    app.selectbox(key="model").select("faces").run()
    assert app.selectbox(key="version").value == 3  # not the number of the other model's
    app = open_page("registry.py", model="faces", version="9")
    assert "There is no version 9; this is the newest" in text(app)
    assert app.selectbox(key="version").value == 3


def registered(accuracies: list[float], fingerprints: list[str]) -> AppTest:
    """The page of a model with a version of each accuracy, the first one the champion."""
    store = open_store(create=False)
    client = store.client()
    client.create_registered_model("faces")
    for accuracy, fingerprint in zip(accuracies, fingerprints, strict=True):
        tags = {Tag.TEST_FINGERPRINT: fingerprint} if fingerprint else {}
        run_id = make_run(client, store.experiment_id("x"), tags=tags, metrics={"test/accuracy": accuracy})
        client.create_model_version("faces", "nowhere", run_id)
    client.set_registered_model_alias("faces", "champion", "1")
    return open_page("registry.py")


@pytest.mark.parametrize(("other", "end"), [(0.70047, "0.700 test accuracy."), (0.70051, " reached 0.701.")])
def test_a_better_version_is_named_where_it_is_better_as_written(stocked: Path, other: float, end: str):
    assert answer(registered([0.70019, other], ["same", "same"])).endswith(end)


def test_a_test_set_that_nobody_knows_is_neither_the_same_nor_another(stocked: Path):
    app = registered([0.70, 0.90, 0.95, 0.80], ["", "", "b", "b"])
    assert answer(app).endswith("with 0.700 test accuracy.")
    assert "different test sets" not in text(app)  # only one is known


def test_a_confusion_of_few_in_many_is_not_called_none(stocked: Path):
    store = open_store(create=False)
    client = store.client()
    label = np.repeat(["cat", "dog"], 1000)
    said = np.where(np.arange(2000) < 3, "dog", label)
    table = predictions(("cat", "dog"), size=2000)
    table = table.assign(label=label, **{f"p_{name}": (said == name) * 0.8 + 0.1 for name in ("cat", "dog")})
    log_predictions(client, make_run(client, store.experiment_id("x"), "one"), table)
    app = open_page("confusion.py")
    assert "takes cat for dog in <1% of cases (3 images)" in answer(app)
    assert list(app.dataframe[0].value["share of the truth"]) == ["<1%"]


def test_the_card_of_the_chosen_version_is_shown(trained: Trained):
    app = open_page("registry.py")
    app.selectbox(key="version").select(2).run()
    [shown] = [expander for expander in app.expander if expander.label.startswith("Model card")]
    assert shown.label == "Model card of version 2"
    card = " ".join(m.value for m in shown.markdown)
    assert "Tells the expression of a face\\: resnet18" in card
    assert "#### What it cannot do" in card
    assert "| happy | 1.000 |" in card


def test_a_promotion_against_a_gate_needs_a_reason_and_a_champion_that_does_not_pass_is_told(
    trained: Trained,
):
    from dashboard import cache
    from trainer.evaluation.gates import Verdict
    from trainer.store.promotion import promote
    from trainer.store.registry import find_version, set_alias

    store = open_store(create=False)
    gates = trained.root / "gates.toml"
    gates.write_text("maximum_latency_ms = 0.0001\n")
    try:
        app = open_page("registry.py")
        told = " ".join(warning.value for warning in app.warning)
        assert "Version 1, the champion, does not pass every gate." in told
        assert "**latency**, not passed" in told
        app.selectbox(key="version").select(2).run()
        assert "**same test set**, passed: the same 40 images" in text(app)
        app.button(key="promote").click().run()
        assert app.button(key="confirm").disabled
        assert app.text_input(key="reason:fer2013-emotion:2").label == "Why it becomes champion all the same"
        one, two = (find_version(store, f"fer2013-emotion/{number}") for number in (1, 2))
        promote(store, two, one, [Verdict("latency", False, "")], "for the *demo*")
        cache.forget()
        app = open_page("registry.py")
        told = " ".join(warning.value for warning in app.warning)
        assert "Version 2, the champion, does not pass every gate. It was promoted all the same by" in told
        assert "for the \\*demo\\*" in told
        gates.write_text("maximum_latency = 1\n")
        app.run()
        assert "there is no gate 'maximum\\_latency'" in " ".join(warning.value for warning in app.warning)
    finally:
        gates.unlink()
        set_alias(store, "fer2013-emotion", 1, "champion")


def test_of_a_champion_that_was_made_so_in_mlflow_the_comparing_gates_cannot_be_told(trained: Trained):
    from trainer.store.registry import find_version, set_alias

    store = open_store(create=False)
    for key in {Tag.PROMOTED_OVER, Tag.PROMOTED_AT} & set(find_version(store, "fer2013-emotion/2").tags):
        store.client().delete_model_version_tag("fer2013-emotion", "2", key)  # of another test
    assert not open_page("registry.py").warning  # the first version followed nobody
    set_alias(store, "fer2013-emotion", 2, "champion")
    st.cache_resource.clear()
    try:
        [warning] = open_page("registry.py").warning
        assert warning.value.startswith("Version 2, the champion, does not pass every gate.")
        assert warning.value.count("cannot be told: nobody knows which champion it followed") == 3
    finally:
        set_alias(store, "fer2013-emotion", 1, "champion")


def test_gates_that_break_before_a_promotion_is_confirmed_are_told(trained: Trained):
    app = open_page("registry.py")
    app.selectbox(key="version").select(2).run()
    gates = trained.root / "gates.toml"
    gates.write_text("no gates")
    try:
        app.button(key="promote").click().run()
        assert not app.exception
        assert len([error for error in app.error if "cannot be read" in error.value]) == 2
        assert "confirm" not in {button.key for button in app.button}
    finally:
        gates.unlink()


def test_a_promotion_made_elsewhere_shows_on_the_next_look(trained: Trained):
    from trainer.store.registry import set_alias

    store = open_store(create=False)
    try:
        app = open_page("registry.py")
        set_alias(store, "fer2013-emotion", 2, "champion")
        import time

        time.sleep(2.1)
        app.run()
        assert "Version 2 (resnet18) is the champion" in answer(app)
    finally:
        set_alias(store, "fer2013-emotion", 1, "champion")


@pytest.mark.slow
def test_pages_that_need_no_model_do_not_import_torch(trained: Trained):
    import subprocess
    import sys

    code = (
        "import sys\nfrom streamlit.testing.v1 import AppTest\n"
        f"app = AppTest.from_file({APP!r}, default_timeout=60).run()\nassert not app.exception\n"
        "for page in ('compare', 'recall', 'calibration', 'confusion', 'mistakes', 'registry', 'audit'):\n"
        "    app.switch_page(f'app_pages/{page}.py').run()\n    assert not app.exception, app.exception\n"
        "sys.exit('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]


@pytest.fixture
def audited(stocked) -> str:
    """An audit with a hostile name in it; the id of its run."""
    from trainer.evaluation.audit import BLANK, image_findings, twin_findings
    from trainer.store.audits import log_audit

    twins = twin_findings(SAMPLES, np.array([[0, 1], [2, 4], [3, 6]]), np.array([1.0, 2.0, 3.0]))
    blank = image_findings(BLANK, SAMPLES, np.array([4]), np.array([0.0]))
    audit = audit_of(twins, blank)
    audit.facts["data_dir"] = "my faces"
    return log_audit(open_store(), audit, ("blank",), {"folds": 0})


def test_an_audit_is_shown_with_its_findings_and_a_list_to_leave_out(audited: str):
    app = open_page("audit.py")
    assert answer(app).startswith(
        "faces has 3 pairs of near-duplicates, 67% of them with different labels; 1 image is"
    )
    assert [tab.label for tab in app.tabs] == [
        "Images", "Twins with different labels (2)", "Twins in different parts (1)", "Other twins (1)",
        "Suspected labels", "No face found (0)", "Blank (1)",
    ]  # fmt: skip
    assert list(app.dataframe[0].value.index) == ["happy", "sad", HOSTILE, "all"]
    assert [code.value for code in app.code] == [
        "python -m trainer train --dataset faces --data-dir 'my faces' --exclude exclude.txt"
    ]
    for element in [*app.header, *app.caption, *app.markdown]:
        assert "<script" not in element.value.replace("\\<", "")
    app.multiselect(key="leave-out").set_value([]).run()
    assert not app.code  # an empty list leaves nothing out
    assert answer(open_page("runs.py")) == "There are no runs yet."


def test_a_section_without_findings_says_that_none_was_found(audited: str):
    assert "None was found." in text(open_page("audit.py", findings="No face found (0)"))
    assert "None was found." not in text(open_page("audit.py", findings="Suspected labels"))
    assert "None was found." not in text(open_page("audit.py", findings="Blank (1)"))


def test_a_link_to_the_newest_audit_opens_it_when_there_is_a_newer_one(audited: str):
    link = held(open_page("audit.py"))
    assert link["audit"] == audited
    begun = (
        open_store().client().create_run(open_store().experiment_id("faces-audit"), tags={Tag.AUDIT: "true"})
    )
    open_store().client().set_terminated(begun.info.run_id)
    st.cache_resource.clear()
    app = open_page("audit.py", **link)
    assert app.selectbox(key="audit").value == audited
    assert answer(app).startswith("faces has 3 pairs")
    assert held(open_page("audit.py"))["audit"] == begun.info.run_id
    by_label = app.selectbox(key="audit").options[1]  # as links of before say it
    assert open_page("audit.py", audit=by_label).selectbox(key="audit").value == audited


def test_audits_of_the_same_minute_are_told_apart(stocked):
    store = open_store()
    ids = [
        make_run(store.client(), store.experiment_id("faces-audit"), "audit", tags={Tag.AUDIT: "true"})
        for _ in range(2)
    ]
    app = open_page("audit.py", audit=ids[0])
    assert len(set(app.selectbox(key="audit").options)) == 2
    assert app.selectbox(key="audit").value == ids[0]
    app.run()  # Streamlit takes a choice by its label
    assert app.selectbox(key="audit").value == ids[0]
    assert open_page("audit.py", audit=ids[1]).selectbox(key="audit").value == ids[1]


@pytest.mark.parametrize(
    "change",
    [
        lambda client, run_id: client.set_registered_model_alias("faces", "challenger", "2"),
        lambda client, run_id: client.create_model_version("faces", "nowhere", run_id),
        lambda client, run_id: client.set_tag(run_id, Tag.TESTED_AT, "2026-01-01"),
        lambda client, run_id: client.update_run(run_id, name="another"),
    ],
    ids=["an alias", "a version", "a test", "a name"],
)
def test_what_the_table_of_runs_says_is_drawn_anew_when_it_has_changed(stocked, change):
    registered([0.7, 0.8], ["same", "same"])
    store = open_store(create=False)
    before = Reader(store).snapshot().runs
    assert state_of(Reader(store).snapshot().runs) == state_of(before)
    change(store.client(), before.index[0])
    assert state_of(Reader(store).snapshot().runs) != state_of(before)


def test_runs_without_a_result_make_no_parallel_lines(stocked):
    store = open_store()
    client, place = store.client(), store.experiment_id("x")
    tested = [make_run(client, place, str(n), metrics={"test/accuracy": n / 10}) for n in range(1, 4)]
    begun = make_run(client, place, "begun", status="FAILED")
    app = open_page("compare.py", detail="Parallel coordinates", runs=[*tested[:2], begun])
    assert "Parallel coordinates need three runs or more that have been tested." in text(app)
    app = open_page("compare.py", detail="Parallel coordinates", runs=[begun, *tested])
    assert "Runs without a test result are left out." in text(app)
    assert "No run can be compared with begun, the first one." in answer(app)


def test_a_link_to_more_models_than_fit_shows_the_first(stocked):
    registered([0.1] * 8, ["same"] * 8)
    app = open_page("try_it.py", models=[f"faces/{number}" for number in range(1, 9)])
    assert app.multiselect(key="models").value == [f"faces/{number}" for number in range(1, 7)]


def test_tags_of_an_old_version_that_is_chosen_are_shown(stocked):
    registered([0.1] * 14, ["same"] * 14)
    app = open_page("registry.py", version="1")
    assert list(app.dataframe[-1].value) == [f"version {number}" for number in (*range(14, 2, -1), 1)]
    assert "Of the newest 12 versions and of the one that is chosen above." in text(app)


def test_pictures_of_an_audit_are_shown_with_names_as_they_are_written(audited: str):
    app = open_page("audit.py", findings="Twins with different labels (2)")
    [shown] = [element.proto.body for element in app.get("html") if "<figure" in element.proto.body]
    assert shown.count("<img") == 4
    assert "<script" not in shown
    assert "&lt;script&gt;" in shown


def test_an_audit_whose_files_are_gone_is_told(audited: str, stocked):
    (stocked / "mlruns" / "artifacts" / audited / "artifacts" / "audit" / "findings.parquet").write_text(
        "no parquet"
    )
    app = open_page("audit.py")
    assert answer(app) == "This audit cannot be read."
    assert "findings.parquet of run" in text(app)
