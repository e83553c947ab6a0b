"""The story of one model that is tested again: on other images than before, or for what its run did not log yet."""

import dataclasses
import math
import tempfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from trainer.contract import EARLIER_PREDICTIONS_FILE, Tag
from trainer.data import absolute, still_at
from trainer.data.exclusion import list_digest
from trainer.data.splits import Splits
from trainer.evaluation.metrics import Evaluation
from trainer.settings import configuration
from trainer.store.files import read_file
from trainer.store.location import Store, StoreError
from trainer.store.models import load_bundle
from trainer.store.outbox import describe_again
from trainer.store.reader import FEW, Reader
from trainer.store.registry import Version, all_versions, place_of_images
from trainer.store.writer import RunWriter
from trainer.training.data import configured_splits
from trainer.training.results import log_test

_OF_TEST = ("test/", "test_", "slices/", "slices_decided/", "robustness/", "saliency/")
"""Beginnings of the names of metrics that are measured on a test set."""


class _HoldingWriter(RunWriter):
    """Holds what is logged until all is measured, which takes minutes: whoever stops it leaves the run as it was."""

    def __init__(self, store: Store, run_id: str):
        super().__init__(store, run_id)
        self._held: list[tuple[Mapping[str, Any], Path | None]] = []

    def _send(self, record: Mapping[str, Any], files: Path | None = None, *, urgent: bool = False) -> None:
        self._held.append((record, files))

    def forget(self, earlier: Iterable[str]) -> None:
        """Log NaN for those of the metrics that are of a test set, and have no value on this one."""
        known = {row[0] for record, _ in self._held for row in record.get("metrics", ())}
        if gone := [key for key in earlier if key.startswith(_OF_TEST) and key not in known]:
            self.log_metrics(dict.fromkeys(gone, math.nan))

    def let_go(self) -> None:
        """Write all of it; folders that were logged must be there still."""
        earliest = self.last_logged_ms() + 1
        for record, files in self._held:
            rows = [
                [key, value, max(at, earliest), step] for key, value, at, step in record.get("metrics", ())
            ]
            super()._send({**record, "metrics": rows} if rows else record, files)


def retest(store: Store, version: Version, data_dir: str | None = None) -> Evaluation:
    """Measure all that a training measures at its end, and log it to the run that `version` came from.

    What the run knew of its test set is replaced: its metrics' last values, its files, its fingerprint and its card.
    A metric that other images have no value of (a slice, a group, images without twins) becomes NaN. Metrics of before
    stay in their histories, answers to other images in `contract.EARLIER_PREDICTIONS_FILE`.

    Args:
        data_dir: Folder or archive of the dataset; without it where the run found it, else where it usually is.

    Raises StoreError where the run is gone or did not finish, and ValueError where it was trained on other images than
    those at hand: some of the test images might be among them.
    """
    reader, run_id = Reader(store, newest=FEW), version.run_id or ""
    reader.want([run_id])
    snapshot = reader.snapshot()
    if run_id not in snapshot.runs.index:
        raise StoreError(f"the run of {version.uri} is gone: there is nothing to log to")
    before, known = snapshot.runs.loc[run_id], reader.predictions(run_id)
    if before["status"] != "finished" or known is None:
        raise StoreError(f"the run of {version.uri} is {before['status']}, or has lost its predictions")
    config = configuration(snapshot.params[run_id])
    # Its list of exclusions may be gone, or be another by now: validation and test are the same without it.
    digest = snapshot.params[run_id].get("excluded_digest")
    is_same_list = (
        digest is not None and config.exclude is not None and list_digest(Path(config.exclude)) == digest
    )
    listed = config.exclude if is_same_list else None
    place = data_dir or still_at(config.dataset, place_of_images(store, run_id))
    splits = configured_splits(dataclasses.replace(config, data_dir=place, exclude=listed))
    fingerprints = splits.fingerprints()
    if config.exclude == listed:
        is_same = fingerprints["train"] == before["train_fingerprint"]
    else:  # what was left is not known, but which images of train were held out from it
        if config.validation != "stratified":
            raise ValueError(
                f"{version.uri} was trained without the images of {config.exclude}, which is not at hand"
            )
        is_same = fingerprints["validation"] == snapshot.params[run_id].get("validation_fingerprint")
    if not is_same:
        raise ValueError(
            f"{version.uri} learned other images than those of {splits.source}: whether it has seen some of these "
            "test images cannot be told"
        )
    predictor = load_bundle(version)
    writer = _HoldingWriter(store, run_id)
    with tempfile.TemporaryDirectory() as scratch:
        folder, former = Path(scratch, "now"), Path(scratch, "before")
        folder.mkdir()
        kept = EARLIER_PREDICTIONS_FILE.format(fingerprint=before["test_fingerprint"][:8])
        # Where it is, this was cut short before, and `known` may be new already.
        is_kept = read_file(store, run_id, kept, lambda _: True) is not None
        if fingerprints["test"] != before["test_fingerprint"] and not is_kept:
            (former / kept).parent.mkdir(parents=True)
            known.to_parquet(former / kept, index=False)
            writer.log_folder(former)  # by itself, and first: the new answers will take the place of these
        evaluation = log_test(
            writer, folder, splits, predictor.network.classifier, predictor.spec, torch.device("cpu"),
            known[known["part"] == "validation"],
        )  # fmt: skip
        writer.log_folder(folder)
        if fingerprints["test"] != before["test_fingerprint"]:
            writer.forget(store.client().get_run(run_id).data.metrics)
        tags = {
            Tag.TEST_ACCURACY: f"{evaluation.summary['accuracy']:.4f}",
            Tag.TEST_FINGERPRINT: fingerprints["test"],
            Tag.TESTED_AT: datetime.now(UTC).isoformat(timespec="seconds"),
        }
        writer.set_tags(tags | ({Tag.DATA_DIR: absolute(place)} if place else {}))
        writer.let_go()
    if writer.is_waiting:
        raise StoreError(
            "the tracking server went away: what was measured is kept; when it answers again, run `python -m trainer "
            "deliver`, and then this again"
        )
    describe_again(store, version, predictor.spec, tags)
    return evaluation


def bundled_elsewhere(store: Store, splits: Splits) -> Version | None:
    """The model that came with the program, where it learned these images but was tested on others than these."""
    fingerprints = splits.fingerprints()
    return next(
        (
            version
            for version in all_versions(store)
            if version.tags.get(Tag.BUNDLED) == "true"
            and version.tags.get(Tag.TRAIN_FINGERPRINT) == fingerprints["train"]
            and version.tags.get(Tag.TEST_FINGERPRINT) != fingerprints["test"]
        ),
        None,
    )
