"""What stands around a command: its arguments, the encoding and the width of the terminal, a pipe that is closed."""

import io
import json
import subprocess
import sys

import pytest

from tests.extra.grey_faces import Trained
from trainer.__main__ import empty_argument, main
from trainer.commands.evaluate import print_json


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (["a@champion", "x.png"], None),
        (["--data-dir", "x"], None),
        (["a", "--check"], None),
        (["", "x.png"], "as the first argument"),
        (["a@champion", ""], "after 'a@champion'"),
        (["--output", ""], "to --output"),
        (["--data-dir="], "to --data-dir"),
        (["--progressive=", "--reason", "", "--output", ""], "to --output"),
        (["--progressive", "", "x.png"], None),
    ],
)
def test_an_empty_argument_is_found(arguments, where):
    assert empty_argument(arguments) == where


def test_an_empty_path_is_not_the_working_folder(workplace, capsys):
    assert main(["predict", "a@champion", "x.png", "--output", ""]) == 2
    assert capsys.readouterr().err == "error: nothing is given to --output\n"


def test_letters_that_a_terminal_lacks_end_no_command(trained: Trained, monkeypatch):
    screen = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(screen, "latin-1", write_through=True))
    assert main(["compare", "fer2013-emotion/1", "fer2013-emotion/2"]) == 0
    assert b"?" in screen.getvalue()


def test_json_is_whole_on_every_terminal(monkeypatch):
    screen = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(screen, "ascii", write_through=True))
    print_json({"photo": "Ömer 😀.png"})
    assert json.loads(screen.getvalue()) == {"photo": "Ömer 😀.png"}


@pytest.mark.parametrize("columns", ["0", "20"])
def test_figures_are_whole_on_a_narrow_terminal(trained: Trained, monkeypatch, capsys, columns):
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["evaluate", "fer2013-emotion/1", "--data-dir", str(trained.data_dir)]) == 0
    wide = capsys.readouterr().out
    assert "…" not in wide
    assert "accuracy" in wide


def test_a_command_ends_well_without_a_standard_output(workplace, monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    monkeypatch.setattr("trainer.commands.backup.main", lambda arguments: 0)
    assert main(["backup"]) == 0


def test_a_reader_who_has_seen_enough_gets_no_message(trained: Trained):
    arguments = [sys.executable, "-m", "trainer", "runs", "--json"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        command.stdout.close()
        assert command.stderr is not None
        assert command.stderr.read() == ""
    assert command.returncode == 1
