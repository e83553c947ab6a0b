"""Which photos are meant."""

import os
from pathlib import Path

import pytest

from trainer.inference.listing import find, read_list, walk


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (
        "b.jpg",
        "a-x.png",
        "a/z.JPG",
        "a/b/c.webp",
        "a0.gif",
        "a.jpg",
        "no.txt",
        "x.jpg/inside.bmp",
        "é.png",
        "y.HEIC",
        "._b.jpg",
        "__MACOSX/b.jpg",
    ):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "tree" / "again").symlink_to(tmp_path / "tree" / "a", target_is_directory=True)
    return tmp_path / "tree"


def test_a_folder_is_walked_in_the_order_of_its_sorted_paths(tree, monkeypatch):
    passed_over = ("no.txt", "._b.jpg", "__MACOSX/b.jpg")
    wanted = sorted(str(p) for p in tree.rglob("*") if p.is_file() and not str(p).endswith(passed_over))
    assert list(walk(str(tree))) == wanted
    assert len(wanted) == 9  # links to folders are not followed: they may lead in circles
    monkeypatch.chdir(tree)
    assert list(walk(".")) == [path.removeprefix(f"{tree}/") for path in wanted]


def test_a_link_to_a_folder_is_left_out_by_name(tree, caplog):
    (tree / "a" / "circle").symlink_to(tree, target_is_directory=True)
    (tree / "a" / "itself.jpg").symlink_to(tree / "a" / "itself.jpg")
    assert f"{tree}/a/itself.jpg" in walk(str(tree))  # reading it will say why it cannot be
    assert [record.getMessage() for record in caplog.records] == [
        f"left out: {tree}/again is a link to a folder; name it as well",
        f"left out: {tree}/a/circle is a link to a folder; name it as well",
    ]


def test_without_a_standard_input_a_list_from_there_is_refused(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(ValueError, match="no standard input"):
        list(find([], "-"))


def test_what_is_named_comes_in_the_order_named(tree):
    listed = tree / "list.txt"
    listed.write_bytes(b"one.jpg\r\n\nodd\xff.jpg\n")
    found = list(find(["missing.jpg", f"{tree}/*.png", str(tree / "a")], str(listed)))
    assert found == [
        "missing.jpg", f"{tree}/a-x.png", f"{tree}/é.png", f"{tree}/a/b/c.webp", f"{tree}/a/z.JPG",
        "one.jpg", os.fsdecode(b"odd\xff.jpg"),
    ]  # fmt: skip


def test_a_list_from_windows_begins_with_its_first_name(tree):
    (tree / "list.txt").write_bytes(b"\xef\xbb\xbfone.jpg\r\ntwo.jpg\r\n")
    assert list(read_list(str(tree / "list.txt"))) == ["one.jpg", "two.jpg"]


def test_names_that_are_ended_by_zeros_and_an_empty_name_are_refused(tree):
    (tree / "list.txt").write_bytes(b"one.jpg\0two.jpg\0")
    with pytest.raises(ValueError, match="not -print0"):
        list(find([], str(tree / "list.txt")))
    with pytest.raises(ValueError, match="is empty"):
        list(find([""]))  # it would be the folder here


def test_an_empty_list_is_refused(tmp_path):
    (tmp_path / "empty").write_text("\n\n")
    with pytest.raises(ValueError, match="it names no photo"):
        list(read_list(str(tmp_path / "empty")))
