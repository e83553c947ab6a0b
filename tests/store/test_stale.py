"""Runs whose process is gone are ended, and no others; and two processes never train one run."""

import pytest

from tests.extra.grey_faces import write_grey_folder
from tests.extra.odd_runs import add_odd_runs
from trainer.__main__ import main
from trainer.contract import Tag
from trainer.store.location import open_store
from trainer.store.reader import Reader
from trainer.training.checkpoint import Checkpoint


def test_only_runs_whose_process_is_gone_from_this_machine_are_marked(workplace, capsys):
    store = open_store()
    found = add_odd_runs(store)
    before = Reader(store).snapshot().runs["status"].to_dict()
    assert main(["runs", "--mark-stale"]) == 0
    assert f"gone ({found['gone']}): marked as failed" in capsys.readouterr().out
    after = Reader(store).snapshot().runs
    assert after["status"].to_dict() == before | {found["gone"]: "failed"}
    assert "its process ended without a word" in after.at[found["gone"], "reason"]
    assert main(["runs", "--mark-stale"]) == 0
    assert "Every run that counts as running has its process." in capsys.readouterr().out


def test_a_stale_run_that_is_being_resumed_is_left_alone(workplace, capsys):
    store = open_store()
    gone = add_odd_runs(store)["gone"]
    with Checkpoint(store.checkpoints, gone):
        assert main(["runs", "--mark-stale"]) == 0
    assert "it is being resumed" in capsys.readouterr().out
    assert Reader(store).snapshot().runs.at[gone, "status"] == "stale"


@pytest.fixture
def exploded(workplace, capsys) -> str:
    """A run that ended because its loss was no number; its id."""
    flags = [
        "--data-dir",
        str(write_grey_folder(workplace / "faces")),
        "--blocks",
        "4 8",
        "--batch-size",
        "16",
    ]
    flags += ["--optimizer", "sgd", "--learning-rate", "10", "--weight-decay", "10", "--epochs", "9"]
    assert main(["train", *flags]) == 2
    assert "lower --learning-rate" in capsys.readouterr().err
    [run_id] = Reader(open_store()).snapshot().runs.index
    return str(run_id)


def test_a_run_that_another_process_resumes_is_refused_untouched(exploded: str, capsys):
    store = open_store()
    run = store.client().get_run(exploded)
    assert run.info.status == "FAILED"
    assert "loss became" in run.data.tags[Tag.REASON]
    with Checkpoint(store.checkpoints, exploded):
        assert main(["train", "--resume", exploded]) == 2
    assert f"run {exploded} is being trained by another process" in capsys.readouterr().err
    again = store.client().get_run(exploded)
    assert (again.info.status, again.data.tags) == (run.info.status, run.data.tags)
