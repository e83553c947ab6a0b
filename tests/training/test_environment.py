"""What a run says about its machine, and the precision that suits it."""

import dataclasses
import logging
import subprocess

import pytest
import torch
from lightning_utilities.core import rank_zero

from trainer.config import Config, recipe_defaults
from trainer.training import environment as module
from trainer.training.energy import check_country
from trainer.training.environment import computes_bf16, environment, git_commit, in_bf16, make_fabric

CPU = Config(device="cpu")


@pytest.mark.parametrize(
    ("abilities", "precision"),
    [({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({"avx512_f": True}, "32")],
)
def test_auto_takes_bf16_where_the_processor_has_instructions_for_it(monkeypatch, abilities, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: abilities, raising=False)
    fabric = make_fabric(CPU)
    assert environment(fabric)["precision_used"] == precision
    with fabric.autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)


def test_an_older_torch_that_does_not_tell_trains_in_32_bits(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not computes_bf16(torch.device("cpu"))


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_a_precision_that_was_asked_for_is_taken_on_every_machine(precision):
    fabric = make_fabric(dataclasses.replace(CPU, precision=precision))
    assert environment(fabric)["precision_used"] == precision
    assert in_bf16(fabric) == (precision == "bf16")


def test_fabric_is_quiet_by_whatever_logger_it_speaks(monkeypatch, caplog):
    loud = logging.getLogger(
        "pytorch_lightning.utilities.rank_zero"
    )  # where that is installed, and imported later
    monkeypatch.setattr(rank_zero, "log", loud)
    loud.setLevel(logging.INFO)
    make_fabric(dataclasses.replace(CPU, precision="bf16"))
    assert not caplog.records


def test_the_report_trains_in_32_bits_and_fast_by_the_machine():
    assert recipe_defaults("report", "cnn").precision == "32"
    assert recipe_defaults("fast", "cnn").precision == "auto"


def test_a_country_that_is_none_is_refused(monkeypatch):
    for country in ("", "DEU"):
        monkeypatch.setenv("MOODIFY_COUNTRY", country)
        check_country()
    for country in ("DE", "Germany", "deu"):
        monkeypatch.setenv("MOODIFY_COUNTRY", country)
        with pytest.raises(ValueError, match=f"MOODIFY_COUNTRY={country}: take the three letters"):
            check_country()


def test_a_device_that_is_not_here_is_refused_in_one_line():
    if torch.backends.mps.is_available():
        pytest.skip("mps is here")
    with pytest.raises(ValueError, match=r"^--device mps cannot be used here: [^\n]+$"):
        make_fabric(dataclasses.replace(CPU, device="mps"))


def test_a_checkout_around_the_program_is_not_its_own(monkeypatch, tmp_path):
    assert environment(make_fabric(CPU))["git_commit"] == git_commit()
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    somebody = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    subprocess.run(
        ["git", *somebody, "commit", "--quiet", "--allow-empty", "-m", "x"], cwd=tmp_path, check=True
    )
    (tmp_path / "vendor/trainer/training").mkdir(parents=True)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "vendor/trainer/training/environment.py"))
    assert git_commit() == ""
