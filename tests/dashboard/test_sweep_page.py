"""The page of a sweep, on one that was really run."""

import shlex

import pytest
import streamlit as st

from dashboard.sweeps import in_words
from tests.commands.test_sweep import FLAGS, SEARCH
from tests.dashboard.test_pages import answer, open_page, text
from tests.extra.grey_faces import Trained
from trainer.__main__ import main
from trainer.config import recipe_defaults
from trainer.search import Dimension, importances
from trainer.store.location import open_store
from trainer.store.reader import Reader
from trainer.store.sweeps import begin_sweep, begin_trial


@pytest.fixture(autouse=True)
def forget_what_was_read():
    st.cache_resource.clear()


def test_a_sweep_is_told_by_its_best_trial_and_its_trials_stay_out_of_runs(trained: Trained):
    flags = ["--data-dir", str(trained.data_dir), *FLAGS, *SEARCH, "--epochs", "1", "--trials", "3"]
    assert main(["sweep", *flags, "--study", "shown"]) == 0
    app = open_page("sweep.py")
    snapshot = Reader(open_store(create=False)).snapshot()
    # Other tests may have searched in this store before.
    trials = snapshot.trials[snapshot.trials["sweep"] == snapshot.sweeps[0].run_id]
    best = trials.sort_values(["validation_accuracy", "trial"], ascending=[False, True]).iloc[0]
    assert answer(app).replace("\\", "") == (
        f"Best of 3 trials in shown is trial {best['trial']:.0f}, "
        f"with {best['validation_accuracy']:.3f} validation accuracy."
    )
    assert "test has not been looked at" in text(app)
    command = app.code[0].value
    assert command.startswith("python -m trainer train ")
    params = open_store().client().get_run(str(best.name)).data.params
    given = dict(part.strip("'\"").removeprefix("--").split("=", 1) for part in shlex.split(command)[4:])
    recipe = recipe_defaults("fast", "cnn")
    assert float(given.get("dropout", recipe.dropout)) == float(params["dropout"])
    assert float(given.get("learning-rate", recipe.learning_rate)) == float(params["learning_rate"])
    assert "trial 0" not in text(open_page("runs.py"))


@pytest.mark.slow
def test_a_link_to_the_newest_sweep_opens_it_when_there_is_a_newer_one(stocked):
    store = open_store()
    first = begin_sweep(store, "faces", "first", "", {}, {})
    link = open_page("sweep.py").query_params["sweep"]
    assert link in (first, [first])
    second = begin_sweep(store, "faces", "second", "", {}, {})
    st.cache_resource.clear()
    app = open_page("sweep.py", sweep=first)
    assert app.selectbox(key="sweep").value == first
    assert "first" in answer(app)
    app.selectbox(key="sweep").select(second).run()
    assert app.query_params["sweep"] in (second, [second])


@pytest.mark.slow
def test_all_trials_are_shown_where_epochs_were_searched(trained: Trained):
    flags = ["--data-dir", str(trained.data_dir), *FLAGS, *SEARCH, "--search", "epochs=1:2", "--trials", "2"]
    assert main(["sweep", *flags, "--study", "searched"]) == 0
    app = open_page("sweep.py", view="All trials")
    assert "in searched is trial" in answer(app)
    [table] = app.dataframe
    assert {"epochs done", "epochs", "learning_rate"} <= set(table.value.columns)


def test_what_is_searched_is_told_in_words():
    assert in_words(Dimension("learning_rate", low=0.0008, high=0.02, log=True)) == (
        "learning rate 0.0008 to 0.02, by powers of ten"
    )
    assert in_words(Dimension("mode", ("full", "head"))) == "mode full or head"


def test_importance_finds_the_setting_that_decides():
    space = (Dimension("dropout", low=0.0, high=1.0), Dimension("mixup", low=0.0, high=1.0))
    trials = [({"dropout": i / 20, "mixup": (i * 7 % 20) / 20}, i / 20) for i in range(20)]
    found = importances(space, trials)
    assert list(found) == ["dropout", "mixup"]
    assert found["dropout"] > 0.8
    assert importances(space, trials[:5]) == {}


def test_a_trial_that_goes_on_here_is_told_where_trainings_are_started(stocked, monkeypatch):
    monkeypatch.setenv("MOODIFY_ALLOW_TRAINING", "1")
    store = open_store()
    parent = begin_sweep(store, "fer2013", "of tonight", "dropout=0:0.5", {}, {})
    begin_trial(store, "fer2013", parent, 3, {})
    app = open_page("train.py")
    assert answer(app).startswith("trial 3 of of tonight is ")
    assert "Two on one machine slow each other down" in text(app)


def test_trials_that_all_failed_are_shown_with_their_reasons(trained: Trained):
    store = open_store()
    parent = begin_sweep(store, "fer2013", "all failed", "dropout=0:0.5", {}, {})
    for number in range(2):
        writer = begin_trial(store, "fer2013", parent, number, {})
        with pytest.raises(ValueError, match="cannot be"), writer:
            raise ValueError("that cannot be trained")
    st.cache_resource.clear()
    app = open_page("sweep.py", sweep=parent)
    assert "No trial came to the end of its first epoch" in text(app)
    [table] = app.dataframe
    assert list(table.value["reason"]) == ["ValueError: that cannot be trained"] * 2
