"""The flags of `train`: what they mean, and what is refused before anything slow happens."""

import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from trainer.commands.train import found_from_anywhere, parse
from trainer.config import Config, Recipe, recipe_defaults

HEAVY = ("torch", "torchvision", "mlflow", "pandas", "numpy", "sklearn", "lightning_fabric", "optuna")

REFUSED = {
    "--mode fc": "--mode fc",
    "--pretrained imagenet": "--pretrained imagenet",
    "--dataset sketch --data-dir faces": "--data-dir",
    "--dataset sketch --validation public": "--validation public",
    "--architecture resnet18 --mode fc --pretrained none": "--mode fc with --pretrained none",
    "--architecture resnet18 --blocks 4": "--blocks",
    "--architecture resnet18 --stem small --pretrained imagenet": "--stem small",
    "--stem small": "--stem",
    "--epochs 0": "--epochs 0: must lie between 1 and 10000",
    "--learning-rate nan": "--learning-rate nan",
    "--seed -1": "--seed -1: must lie between 0 and 2147483647",
    "--rotation -1": "--rotation -1.0: must lie between 0 and 180",
    "--dataset nope": "there is no dataset 'nope': choose one of",
    "--architecture nope": "'nope'; choose one of",
    "--epochs many": "--epochs",
    "--precision 64": "--precision",
    "--colour red": "--colour",
}

# Runs each command line of the list in argv[1]; writes what came of them, and what had been imported by then.
SCRIPT = """
import contextlib, io, json, sys
from trainer.__main__ import main

answers = []
for arguments in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(arguments)
        except SystemExit as end:
            code = end.code
    answers.append((code, out.getvalue(), err.getvalue()))
print(json.dumps({"answers": answers, "imported": sorted(sys.modules)}))
"""


def run_commands(*lines: list[str]) -> tuple[list[tuple[int, str, str]], set[str]]:
    """(exit code, stdout, stderr) of each command line in one new process, and the modules it imported."""
    command = [sys.executable, "-c", SCRIPT, json.dumps(lines)]
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(command, cwd=empty, capture_output=True, text=True, timeout=120, check=True)
    found = json.loads(done.stdout)
    return [tuple(answer) for answer in found["answers"]], set(found["imported"])


def test_help_answers_without_importing_anything_heavy():
    answers, imported = run_commands(
        ["--help"], ["train", "--help"], ["train", "--architecture", "resnet18", "--help"]
    )
    assert [code for code, _, _ in answers] == [0, 0, 0]
    assert "usage: python -m trainer COMMAND" in answers[0][1]
    assert "usage: python -m trainer train" in answers[1][1]
    assert imported.isdisjoint(HEAVY)


def test_what_cannot_be_trained_is_refused_before_anything_heavy_is_imported():
    answers, imported = run_commands(*(["train", *flags.split()] for flags in REFUSED))
    for (flags, message), (code, _, error) in zip(REFUSED.items(), answers, strict=True):
        assert code == 2, flags
        assert message in error, (flags, error)
        assert "Traceback" not in error
    assert imported.isdisjoint(HEAVY)


def test_help_documents_every_setting_and_shows_the_defaults_of_the_chosen_recipe():
    [(_, shown, _)], _ = run_commands(["train", "--recipe", "report", "--architecture", "resnet18", "--help"])
    for field in dataclasses.fields(Config):
        assert f"--{field.name.replace('_', '-')} " in shown
    assert "--resume" in shown
    words = " ".join(shown.replace("│", " ").split())
    assert "Side of the image that the network sees, in px. (default: 224)" in words
    assert "Highest learning rate. (default: 1e-05)" in words


def test_no_flag_at_all_is_the_fast_cnn():
    assert parse([]) == (recipe_defaults("fast", "cnn"), None)


@pytest.mark.parametrize("recipe", Recipe.__args__)
@pytest.mark.parametrize(("architecture", "mode"), [("cnn", "full"), ("resnet18", "layer4")])
def test_recipe_architecture_and_mode_decide_the_other_defaults(recipe, architecture, mode):
    config, _ = parse(["--mode", mode, "--architecture", architecture, "--recipe", recipe])
    assert config == recipe_defaults(recipe, architecture, mode)


def test_pretrained_none_decides_the_learning_rate_of_the_report_recipe():
    flags = ["--recipe", "report", "--architecture", "resnet18"]
    assert parse(flags)[0].learning_rate == 1e-5
    assert parse([*flags, "--pretrained", "none"])[0].learning_rate == 1e-3


def test_a_flag_changes_its_own_setting_and_no_other():
    flags = ["--epochs", "3", "--flip", "False", "--blocks", "4 8x2", "--data-dir", "faces"]
    config, _ = parse([*flags, "--class-weighting", "sqrt"])
    assert config == dataclasses.replace(
        recipe_defaults("fast", "cnn"),
        epochs=3,
        flip=False,
        blocks="4 8x2",
        data_dir="faces",
        class_weighting="sqrt",
    )


def test_an_unknown_architecture_is_named_beside_those_that_exist():
    with pytest.raises(ValueError, match="no architecture 'vgg'; choose one of cnn, resnet18"):
        parse(["--architecture", "vgg"])


@pytest.mark.parametrize("flags", [["--resume", "4f2a"], ["--resume=4f2a"]])
def test_resume_names_a_run(flags):
    assert parse(flags)[1] == "4f2a"


@pytest.mark.parametrize(
    "flags", [["--data-dir", "../faces"], ["--data-dir=../faces"], ["--data_dir", "../faces"]]
)
def test_a_run_finds_its_images_from_any_folder_and_resume_takes_where_they_moved(
    flags, tmp_path, monkeypatch
):
    (work := tmp_path / "work").mkdir()
    monkeypatch.chdir(work)
    for given in (flags, ["--resume", "4f2a", *flags]):
        found = Path(found_from_anywhere(parse(given)[0]).data_dir)
        assert found.is_absolute()
        assert found.resolve() == tmp_path / "faces"


@pytest.mark.parametrize(
    "others",
    [
        "--epochs 3",
        "--learning-rate 0.1",
        "--architecture resnet18",
        "--recipe report",
        "--architecture resnet18 --mode fc",
        "--architecture resnet18 --pretrained none",
        "--seed 0",
    ],
)
def test_resume_takes_no_other_flag(others):
    with pytest.raises(ValueError, match="--resume takes the configuration of the interrupted run"):
        parse(["--resume", "4f2a", *others.split()])


def test_a_list_is_found_from_any_working_folder():
    config, _ = parse(["--exclude", "build/audit/exclude.txt"])
    assert found_from_anywhere(config).exclude == str(Path.cwd() / "build/audit/exclude.txt")
    assert found_from_anywhere(Config()) == Config()
