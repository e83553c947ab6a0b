"""Runs are named by what tells them apart, and look the same on every page."""

import pandas as pd

from dashboard.selection import (
    COLOURS,
    GREY,
    best_two,
    describe,
    differing_parameters,
    full_names,
    short_names,
)
from trainer.store.snapshot import Snapshot


def snapshot(*runs: dict, params: list[dict[str, str]] | None = None) -> Snapshot:
    base = {"name": "", "architecture": "cnn", "mode": "full", "recipe": "fast", "seed": 0.0}
    base |= {"test_accuracy": float("nan"), "test_fingerprint": "a"}
    rows = [base | run for run in runs]
    ids = [f"{index:032x}"[::-1] for index in range(1, len(rows) + 1)]
    table = pd.DataFrame(rows, index=pd.Index(ids, name="run_id"))
    return Snapshot(table, dict(zip(ids, params or [{}] * len(rows), strict=True)))


def labels(found: Snapshot) -> list[str]:
    ids = list(found.runs.index)
    return [short_names(found, ids)[run_id] for run_id in ids]


def test_names_are_shortened_to_what_differs():
    assert labels(snapshot({"recipe": "report"}, {"recipe": "fast"})) == ["cnn · report", "cnn · fast"]
    assert labels(snapshot({"architecture": "cnn"}, {"architecture": "resnet18"})) == ["cnn", "resnet18"]
    assert labels(snapshot({"seed": 0.0}, {"seed": 1.0})) == ["cnn · seed 0", "cnn · seed 1"]


def test_a_parameter_tells_apart_what_mode_recipe_and_seed_do_not():
    found = snapshot(
        {}, {}, params=[{"epochs": "3", "optimizer": "sgd"}, {"epochs": "9", "optimizer": "sgd"}]
    )
    assert labels(found) == ["cnn · epochs 3", "cnn · epochs 9"]


def test_a_long_value_keeps_its_ends_and_the_label_fits_a_column():
    teachers = "fer2013-emotion/1,fer2013-emotion/2,fer2013-emotion/3"
    found = snapshot({}, {}, params=[{"epochs": "3", "teacher": teachers}, {"epochs": "3"}])
    assert labels(found) == ["cnn · teacher fer2013-e…motion/3", "cnn"]


def test_only_what_tells_those_apart_that_look_alike_is_added_and_nothing_of_the_machine():
    found = snapshot(
        {}, {}, {"recipe": "report"},
        params=[{"averaging": "ten", "git_commit": "1"}, {"averaging": "ten", "git_commit": "2", "teacher": "x/1"},
                {"averaging": "none"}],
    )  # fmt: skip
    assert labels(found) == ["cnn · fast", "cnn · fast · teacher x/1", "cnn · report"]


def test_runs_that_nothing_tells_apart_have_their_names_or_ids():
    assert labels(snapshot({"name": "a"}, {"name": "b"})) == ["a", "b"]
    same = labels(snapshot({"name": "a"}, {"name": "a"}))
    assert len(set(same)) == 2
    foreign = labels(snapshot({"architecture": "", "name": ""}))
    assert foreign[0]


def test_labels_that_only_their_middle_tells_apart_do_not_become_one():
    base = {"label_smoothing": "0.1", "learning_rate": "0.01", "mixup": "0.0"}
    changes = ({}, {"label_smoothing": "0.0"}, {"learning_rate": "0.001"}, {"mixup": "0.2"})
    found = snapshot(*[{"name": f"run {n}"} for n in range(4)], params=[base | change for change in changes])
    assert len(set(labels(found))) == 4


def test_a_name_that_is_the_label_of_another_run_has_a_part_of_its_id():
    found = snapshot({"name": "resnet18"}, {"name": "b"}, {"name": "c", "architecture": "resnet18"})
    assert len(set(labels(found))) == 3


def test_names_in_the_list_of_runs_are_unique_and_not_endless():
    names = full_names(snapshot({"name": "a"}, {"name": "a"}, {"name": ""}, {"name": "n" * 1000}).runs)
    assert len(set(names.values())) == 4
    assert max(map(len, names.values())) < 60


def test_a_run_has_a_colour_of_its_own_up_to_six_and_then_grey():
    found = snapshot(*[{"name": str(index)} for index in range(8)])
    shown = describe(found, list(found.runs.index))
    assert [run.colour for run in shown] == [*COLOURS, GREY, GREY]
    assert len({(run.colour, run.dash, run.marker) for run in shown[:6]}) == 6


def test_all_runs_that_compare_shows_are_told_apart_without_their_colours():
    found = snapshot(*[{"name": str(index)} for index in range(24)])
    shown = describe(found, list(found.runs.index))
    assert len({(run.dash, run.marker) for run in shown}) == 24


def test_the_two_best_on_the_newest_test_set_are_chosen_first_the_better_one_last():
    found = snapshot(
        {"test_accuracy": 0.6, "test_fingerprint": "new"},
        {"test_accuracy": 0.7, "test_fingerprint": "new"},
        {"test_accuracy": 0.5, "test_fingerprint": "new"},
        {"test_accuracy": 0.99, "test_fingerprint": "easy"},
    )
    ids = list(found.runs.index)
    assert best_two(found.runs) == [ids[0], ids[1]]
    assert best_two(snapshot({}).runs) == list(snapshot({}).runs.index)


def test_only_parameters_that_differ_are_told():
    found = snapshot({}, {}, params=[{"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "4"}])
    one, two = found.runs.index
    assert differing_parameters(found, [one, two]) == {"b": {one: "2", two: "3"}, "c": {one: "", two: "4"}}


def test_one_run_and_none_are_no_error():
    found = snapshot({"name": "x"})
    assert len(describe(found, list(found.runs.index))) == 1
    assert describe(found, []) == []
