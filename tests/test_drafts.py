"""Files that are there whole, or not at all."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.extra.small_files import small_files
from trainer.drafts import check_writable, draft, drafts, write_text


def test_what_is_not_written_takes_an_earlier_one_away_and_all_come_at_once(tmp_path: Path):
    first, second, third = files = [tmp_path / "new" / name for name in ("a.txt", "b.txt", "c.txt")]
    second.parent.mkdir()
    second.write_text("of yesterday")
    with drafts(files) as [one, _, three]:
        one.write_text("1")
        three.write_text("3")
        assert second.read_text() == "of yesterday"
        assert not first.exists()
    assert [path.name for path in sorted(second.parent.iterdir())] == ["a.txt", "c.txt"]
    assert (first.read_text(), third.read_text()) == ("1", "3")


@pytest.mark.parametrize("mistake", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path: Path, mistake):
    file = tmp_path / "a.txt"
    file.write_text("of yesterday")

    def fail() -> None:
        with draft(file) as written:
            written.write_text("half")
            raise mistake

    with pytest.raises(mistake):
        fail()
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_text() == "of yesterday"


def test_a_full_disk_is_told_with_the_files_name(tmp_path: Path):
    file = tmp_path / "a.txt"
    with (
        pytest.raises(OSError, match=r"File too large: .*/a\.txt'$"),
        small_files(100),
        draft(file) as written,
    ):
        written.write_bytes(bytes(101))
    assert not list(tmp_path.iterdir())


def test_a_folder_of_that_name_is_told_before_the_work(tmp_path: Path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(IsADirectoryError, match=r"a\.txt"), draft(tmp_path / "a.txt"):
        pytest.fail("it went on")


WRITING = """
import sys, time, types
from pathlib import Path
from trainer.__main__ import main
from trainer.drafts import draft

def write(arguments):
    with draft(Path(arguments[0])) as file:
        file.write_text("half")
        print("writing", flush=True)
        time.sleep(60)

sys.modules["trainer.commands.backup"] = types.SimpleNamespace(main=write)
sys.exit(main(["backup", sys.argv[1]]))
"""


def test_sigterm_ends_a_command_like_ctrl_c_and_leaves_nothing_half_written(tmp_path: Path):
    arguments = [sys.executable, "-c", WRITING, str(tmp_path / "store.tar")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        assert command.stdout.readline() == "writing\n"
        assert list(tmp_path.iterdir())
        command.send_signal(signal.SIGTERM)
        _, said = command.communicate(timeout=30)
    assert (command.returncode, said) == (130, "interrupted\n")
    assert not list(tmp_path.iterdir())


def test_a_link_still_leads_where_it_led_and_modes_are_kept(tmp_path: Path):
    file = tmp_path / "served" / "model.onnx"
    file.parent.mkdir()
    file.write_text("of yesterday")
    file.chmod(0o600)
    (link := tmp_path / "model.onnx").symlink_to(file)
    with draft(link) as written:
        written.write_text("of today")
    assert link.is_symlink()
    assert file.read_text() == "of today"
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["model.onnx"]


def test_what_is_protected_is_not_replaced(tmp_path: Path, monkeypatch):
    (file := tmp_path / "a.txt").write_text("of yesterday")
    file.chmod(0o444)
    monkeypatch.setattr("os.access", lambda path, mode: path != file)  # root may write everything
    with pytest.raises(PermissionError, match=r"a\.txt"):
        check_writable(file)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_text_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch):
    file, named = tmp_path / "job.json", []
    monkeypatch.setattr("os.fsync", lambda _: named.append(file.exists()))
    write_text(file, "17")
    assert named == [False]
    assert file.read_text() == "17"


def test_a_text_that_finds_no_room_leaves_the_one_before(tmp_path: Path):
    file = tmp_path / "job.json"
    write_text(file, "17")
    with small_files(1000), pytest.raises(OSError, match="File too large"):
        write_text(file, "8" * 20_000)
    assert file.read_text() == "17"
    assert list(tmp_path.iterdir()) == [file]
