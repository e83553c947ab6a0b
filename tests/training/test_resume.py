"""A run that goes on where it was interrupted."""

import dataclasses
from pathlib import Path

import pytest
import torch

from tests.extra.grey_faces import write_grey_folder
from trainer.commands.progress import Silent
from trainer.config import Config
from trainer.store.location import open_store
from trainer.store.reader import Reader
from trainer.training.checkpoint import STATE_FILE, Checkpoint
from trainer.training.loop import Epoch
from trainer.training.run import of_the_run, train


class Impatient(Silent):
    def epoch(self, epoch: Epoch) -> None:
        if epoch.number == 1:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_epochs_that_another_device_had_logged_before_the_interruption_are_told_anew(workplace):
    """By a run whose images have moved meanwhile."""
    config = Config(
        data_dir=str(write_grey_folder(workplace / "faces")), blocks="8", hidden=8, batch_size=16, epochs=3
    )
    with pytest.raises(KeyboardInterrupt):
        train(config, Impatient())
    client = open_store(create=False).client()
    [run] = client.search_runs(["1"])
    for key, value in {"train/loss": 9.0, "validation/accuracy": 0.5, "validation/loss": 9.0}.items():
        client.log_metric(run.info.run_id, key, value, timestamp=run.info.start_time, step=3)
    (workplace / "faces").rename(workplace / "moved")
    with pytest.raises(FileNotFoundError, match="faces"):
        train(config, Silent(), resume=run.info.run_id)
    train(Config(data_dir=str(workplace / "moved")), Silent(), resume=run.info.run_id)
    losses = Reader(open_store(create=False)).histories([run.info.run_id], ["train/loss", "validation/loss"])
    assert len(losses) == 6
    assert losses["value"].max() < 9


@pytest.mark.parametrize(
    "damage", ["emptied", "truncated", "zeroed", "one byte", "text", "of another program"]
)
def test_a_damaged_checkpoint_is_told_in_one_line(tmp_path: Path, damage: str):
    with Checkpoint(tmp_path, "1234") as checkpoint:
        checkpoint.save({"train": "a"}, {"model": {"weight": torch.ones(500)}, "history": []})
    file = tmp_path / "1234" / STATE_FILE
    content = file.read_bytes()
    if damage == "of another program":
        torch.save({"weight": torch.ones(3)}, file)
    else:
        file.write_bytes(
            {
                "emptied": b"",
                "truncated": content[: len(content) // 2],
                "zeroed": bytes(len(content)),
                "one byte": content[:100] + bytes([content[100] ^ 255]) + content[101:],
                "text": b"no checkpoint",
            }[damage]
        )
    with pytest.raises(ValueError, match=r"^the checkpoint .*state\.pt is damaged .*: train anew") as caught:
        checkpoint.load()
    assert "\n" not in str(caught.value)


def test_a_run_goes_on_with_its_images_where_they_were_or_where_they_are_said_to_be(stocked: Path):
    store, config = open_store(), Config(data_dir="faces", epochs=3)
    with Checkpoint(store.checkpoints, "1234") as checkpoint:
        checkpoint.begin(config, {}, {})
    assert of_the_run("1234", store, Config(epochs=9)) == config
    assert of_the_run("1234", store, Config(data_dir="moved")) == dataclasses.replace(
        config, data_dir="moved"
    )
