"""A registered model that is tested again: its run then tells of the new test set, and loses nothing."""

import dataclasses
import math
import shutil
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.extra.grey_faces import Trained
from tests.extra.odd_runs import make_run
from trainer.__main__ import main
from trainer.contract import CARD_FILE, EARLIER_PREDICTIONS_FILE, Tag, metric_key
from trainer.data.splits import load_splits
from trainer.evaluation.card import card
from trainer.evaluation.comparison import Predictions, same_images
from trainer.store.location import open_store
from trainer.store.reader import Reader
from trainer.store.registry import all_versions, find_version
from trainer.store.writer import RunWriter
from trainer.training import retest
from trainer.training.retest import bundled_elsewhere

MODEL = "fer2013-emotion/1"


@pytest.mark.slow
def test_a_larger_test_set_replaces_the_one_before_and_nothing_is_lost(trained_copy: Trained, capsys):
    store = open_store()
    version = find_version(store, MODEL)
    reader = Reader(store)
    before, row = reader.predictions(version.run_id), reader.snapshot().runs.loc[version.run_id]
    store.client().log_metric(
        version.run_id, "slices/watermark/with a watermark", -0.5
    )  # of images that are gone
    for picture in sorted((trained_copy.data_dir / "test" / "sad").iterdir())[:3]:
        shutil.copy(picture, picture.with_name(f"again_{picture.name}"))
    assert main(["evaluate", MODEL, "--data-dir", str(trained_copy.data_dir), "--log"]) == 0
    assert "logged to its" in capsys.readouterr().out

    after, again = reader.predictions(version.run_id), reader.snapshot().runs.loc[version.run_id]
    assert (row["test_images"], again["test_images"]) == (40, 43)
    assert again["test_fingerprint"] != row["test_fingerprint"]
    assert again["tested_at"]
    assert again["curve"] == row["curve"]
    old, new = (Predictions.from_table(table) for table in (before, after))
    assert same_images(old, new) == "they were tested on different images (40 and 43)"
    place_of = {sample_id: index for index, sample_id in enumerate(new.sample_ids)}
    kept = [place_of[sample_id] for sample_id in old.sample_ids]
    assert abs(new.probabilities[kept] - old.probabilities).max() < 1e-5
    assert (
        Predictions.from_table(after, "validation").sample_ids
        == Predictions.from_table(before, "validation").sample_ids
    )

    client = store.client()
    earlier = EARLIER_PREDICTIONS_FILE.format(fingerprint=row["test_fingerprint"][:8])
    pd.testing.assert_frame_equal(pd.read_parquet(client.download_artifacts(version.run_id, earlier)), before)
    history = client.get_metric_history(version.run_id, metric_key("test", "support", "sad"))
    assert [metric.value for metric in history] == [8, 11]
    version = find_version(store, MODEL)
    assert version.tags[Tag.TEST_FINGERPRINT] == again["test_fingerprint"]
    assert "On 43 test images" in version.description
    assert "with a watermark" not in version.description
    assert math.isnan(client.get_run(version.run_id).data.metrics["slices/watermark/with a watermark"])
    assert client.download_artifacts(version.run_id, CARD_FILE)


@pytest.mark.slow
def test_what_was_answered_before_is_kept_also_where_writing_was_cut_short_and_is_done_again(
    trained_copy: Trained, monkeypatch
):
    store = open_store()
    version = find_version(store, MODEL)
    before = Reader(store).predictions(version.run_id)
    fingerprint = Reader(store).snapshot().runs.loc[version.run_id, "test_fingerprint"]
    picture = next((trained_copy.data_dir / "test" / "sad").iterdir())
    shutil.copy(picture, picture.with_name("again.png"))

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as cut:
        cut.setattr(RunWriter, "set_tags", stop)
        cut.setattr(retest._HoldingWriter, "_send", RunWriter._send)  # at once
        with pytest.raises(KeyboardInterrupt):
            retest.retest(store, version, str(trained_copy.data_dir))
    assert len(Reader(store).predictions(version.run_id)) > len(before)
    retest.retest(store, version, str(trained_copy.data_dir))
    kept = EARLIER_PREDICTIONS_FILE.format(fingerprint=fingerprint[:8])
    pd.testing.assert_frame_equal(
        pd.read_parquet(store.client().download_artifacts(version.run_id, kept)), before
    )


def test_of_figures_that_the_new_test_set_has_none_of_nothing_stays(stocked):
    store = open_store()
    of_before = ("slices/a/b", "slices_decided/a/b", "test_without_twins/accuracy", "test_private/recall/sad")
    others = {"training_seconds": 9.0, "validation_best/accuracy": 0.7, "train/loss": 0.5}
    metrics = dict.fromkeys(of_before, 0.6) | {"test/accuracy": 0.65} | others
    run_id = make_run(store.client(), store.experiment_id("fer2013"), metrics=metrics)
    writer = retest._HoldingWriter(store, run_id)
    writer.log_metrics({"test/accuracy": 0.66, "test_public/accuracy": 0.66})
    writer.forget(metrics)
    writer.let_go()
    found = store.client().get_run(run_id).data.metrics
    assert all(math.isnan(found.pop(key)) for key in of_before)
    assert found == others | {"test/accuracy": 0.66, "test_public/accuracy": 0.66}
    found |= {"test/macro_recall": 0.6, "test/ece": 0.1, "test/support/sad": 40.0}
    text = card("emotion", {}, found | dict.fromkeys(of_before, math.nan), ["sad"])
    assert "nan" not in text


def test_what_is_measured_again_counts_also_where_the_clock_is_behind(stocked):
    store = open_store()
    client, later = store.client(), int(time.time() * 1000) + 3_600_000
    run_id = make_run(client, store.experiment_id("x"))
    client.log_metric(run_id, "test/accuracy", 0.9, later)
    writer = retest._HoldingWriter(store, run_id)
    writer.log_metrics({"test/accuracy": 0.5})
    writer.let_go()
    assert client.get_run(run_id).data.metrics["test/accuracy"] == 0.5


def test_a_run_that_was_tested_on_other_images_is_not_compared(trained_copy: Trained, capsys):
    store = open_store()
    store.client().set_tag(find_version(store, MODEL).run_id, Tag.TEST_FINGERPRINT, "f" * 32)
    assert main(["compare", MODEL, "fer2013-emotion/2"]) == 2
    assert "was tested on other data than" in capsys.readouterr().err


def test_whoever_stops_it_leaves_the_run_as_it_was(trained_copy: Trained, monkeypatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    store = open_store()
    before = Reader(store).snapshot()
    shutil.rmtree(trained_copy.data_dir / "test" / "sad")
    (trained_copy.data_dir / "test" / "sad").mkdir()
    shutil.copy(
        next((trained_copy.data_dir / "test" / "happy").iterdir()),
        trained_copy.data_dir / "test" / "sad" / "x.png",
    )
    monkeypatch.setattr("trainer.training.results.log_weaknesses", stop)
    assert main(["evaluate", MODEL, "--data-dir", str(trained_copy.data_dir), "--log"]) == 130
    pd.testing.assert_frame_equal(Reader(store).snapshot().runs, before.runs)


@pytest.mark.slow
@pytest.mark.parametrize("changed", [False, True])
def test_of_a_run_with_exclusions_the_held_out_images_tell_whether_it_knows_these(
    trained_copy: Trained, monkeypatch, changed
):
    real = retest.configuration
    monkeypatch.setattr(
        retest, "configuration", lambda params: dataclasses.replace(real(params), exclude="gone.txt")
    )
    if changed:
        for path in list((trained_copy.data_dir / "train" / "sad").iterdir())[::2]:
            path.unlink()
    assert main(["evaluate", MODEL, "--data-dir", str(trained_copy.data_dir), "--log"]) == (
        2 if changed else 0
    )


@pytest.mark.slow
def test_a_list_of_exclusions_that_is_at_hand_is_left_out_of_train_again(trained_copy: Trained, monkeypatch):
    some = sorted(path.name for path in (trained_copy.data_dir / "train" / "sad").iterdir())[:12]
    Path("list.txt").write_text("".join(f"train/sad/{name}\n" for name in some))
    flags = [
        "--data-dir",
        str(trained_copy.data_dir),
        "--blocks",
        "4 8",
        "--epochs",
        "1",
        "--exclude",
        "list.txt",
    ]
    assert main(["train", *flags]) == 0
    newest = max(all_versions(open_store()), key=lambda version: version.version)
    learned = []
    real = retest.log_test
    monkeypatch.setattr(retest, "log_test", lambda *args: learned.append(args[2].exclusion) or real(*args))
    evaluate = [
        "evaluate",
        f"{newest.name}/{newest.version}",
        "--data-dir",
        str(trained_copy.data_dir),
        "--log",
    ]
    assert main(evaluate) == 0
    Path("list.txt").unlink()
    assert main(evaluate) == 0
    with_list, without = learned
    assert with_list.images + with_list.elsewhere == 12
    assert without is None


@pytest.mark.slow
def test_a_model_that_learned_from_models_of_another_store_is_tested_again(
    trained_copy: Trained, monkeypatch
):
    """As the one in the box is, by its teachers."""
    real = retest.configuration
    monkeypatch.setattr(retest, "configuration", lambda params: real(params | {"teacher": "elsewhere: a/1"}))
    assert main(["evaluate", MODEL, "--data-dir", str(trained_copy.data_dir), "--log"]) == 0


def test_on_the_same_images_a_run_only_gains(trained_copy: Trained):
    store = open_store()
    version = find_version(store, MODEL)
    reader = Reader(store)
    row = reader.snapshot().runs.loc[version.run_id]
    (store.artifact_root / version.run_id / "artifacts/evaluation/robustness.parquet").unlink()
    assert reader.robustness(version.run_id) is None
    assert main(["evaluate", MODEL, "--data-dir", str(trained_copy.data_dir), "--log"]) == 0
    again = Reader(store).snapshot().runs.loc[version.run_id]
    assert again["test_fingerprint"] == row["test_fingerprint"]
    assert again["test_accuracy"] == row["test_accuracy"]
    assert reader.robustness(version.run_id) is not None
    assert not (store.artifact_root / version.run_id / "artifacts/evaluation/earlier").exists()


def test_a_model_of_other_training_images_is_not_tested_again(trained_copy: Trained, capsys):
    next((trained_copy.data_dir / "train" / "sad").iterdir()).unlink()
    before = Reader(open_store()).snapshot().runs
    assert main(["evaluate", MODEL, "--data-dir", str(trained_copy.data_dir), "--log"]) == 2
    assert "learned other images than those of" in capsys.readouterr().err
    pd.testing.assert_frame_equal(Reader(open_store()).snapshot().runs, before)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset", "sketch"], "fer2013-emotion is not one of sketch"),
        (["--slices"], "leave out --slices and --groups"),
    ],
)
def test_what_cannot_be_logged_is_refused(trained: Trained, capsys, flags, message):
    assert main(["evaluate", MODEL, "--log", *flags]) == 2
    assert message in capsys.readouterr().err


def test_the_model_of_the_box_is_found_where_it_was_tested_on_other_images(trained_copy: Trained):
    store = open_store()
    splits = load_splits("fer2013", str(trained_copy.data_dir))
    assert bundled_elsewhere(store, splits) is None
    for key, value in ((Tag.BUNDLED, "true"), (Tag.TEST_FINGERPRINT, "f" * 32)):
        store.client().set_model_version_tag("fer2013-emotion", "1", key, value)
    assert bundled_elsewhere(store, splits) == find_version(store, MODEL)
    store.client().set_model_version_tag("fer2013-emotion", "1", Tag.TRAIN_FINGERPRINT, "f" * 32)
    assert bundled_elsewhere(store, splits) is None
