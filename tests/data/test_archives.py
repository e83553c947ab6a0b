"""The data set in archives, whole, damaged or hostile."""

import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.extra.small_fer2013 import (
    BOTH,
    CLASSES,
    many_faces,
    png,
    random_faces,
    write_files,
    write_tar,
    write_zip,
)
from trainer.data.fer2013 import load

pytestmark = pytest.mark.usefixtures("cwd")


@pytest.mark.parametrize(
    "name", ["../train/a/x.png", "/train/a/x.png", "train/../../x.png", "C:/x.png", "..\\x.png"]
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_that_points_outside_of_itself_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    faces = random_faces()
    path = tmp_path / f"faces.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(write_zip(path, faces), "a") as archive:
            archive.writestr(name, b"x")
    else:
        write_tar(path, {sample_id: png(pixels) for sample_id, pixels in faces.items()} | {name: b"x"})
    with pytest.raises(ValueError, match="points outside of it"):
        load(path, BOTH)


def test_a_damaged_archive_is_one_clear_error(tmp_path: Path) -> None:
    members = {sample_id: png(pixels) for sample_id, pixels in random_faces().items()}
    for path in (
        write_zip(tmp_path / "x.zip", random_faces()),
        write_tar(tmp_path / "x.tar.xz", members, "w:xz"),
        write_tar(tmp_path / "x.tar.gz", members, "w:gz"),
        write_tar(tmp_path / "x.tar", members),
    ):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match=r"incomplete|damaged"):
            load(path, BOTH)
        (tmp_path / "in").mkdir(exist_ok=True)
        path.rename(tmp_path / "in" / path.name)
        with pytest.raises(ValueError, match=r"incomplete|damaged"):
            load(tmp_path / "in", BOTH)
        (tmp_path / "in" / path.name).unlink()


def test_a_tar_file_that_was_cut_anywhere_is_refused(tmp_path: Path) -> None:
    members = {sample_id: png(pixels) for sample_id, pixels in random_faces().items()}
    path = write_tar(tmp_path / "x.tar", members)
    content = path.read_bytes()
    with tarfile.open(path) as archive:
        last = [member.offset for member in archive][-3:]
    for end in (
        *last,
        last[-1] + 200,
        last[-1] + tarfile.BLOCKSIZE + 7,
    ):  # between two files, in a header, in a file
        path.write_bytes(content[:end])
        with pytest.raises(ValueError, match="damaged or incomplete"):
            load(path, BOTH)
    path.write_bytes(content)
    assert len(load(path, BOTH).parts["train"]) == 21


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.LNKTYPE, "train/angry/Training_0.png"),
    ],
)
def test_another_name_of_a_file_in_a_tar_file_is_an_image_of_its_own(
    tmp_path: Path, kind: bytes, target: str
) -> None:
    path = write_tar(
        tmp_path / "x.tar", {sample_id: png(pixels) for sample_id, pixels in random_faces().items()}
    )
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("train/angry/again.png")
        link.type, link.linkname = kind, target
        archive.addfile(link)
    train = load(path, BOTH).parts["train"]
    first, again = (train.sample_ids.index(f"train/angry/{name}.png") for name in ("Training_0", "again"))
    assert torch.equal(train.images[first], train.images[again])


@pytest.mark.parametrize(("encoding", "flag"), [("utf-8", 0x800), ("utf-8", 0), ("cp437", 0)])
def test_class_names_in_a_zip_are_those_that_were_meant_whichever_tool_wrote_them(
    tmp_path: Path, encoding: str, flag: int
) -> None:
    class Info(zipfile.ZipInfo):
        def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802  (zipfile's own name)
            return self.filename.encode(encoding), flag

    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for sample_id, pixels in random_faces(("colère", "joie")).items():
            archive.writestr(Info(sample_id), png(pixels))
    assert load(tmp_path / "x.zip", BOTH).class_names == ("colère", "joie")


def test_a_zip_with_a_password_is_to_be_unpacked(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", random_faces())
    with zipfile.ZipFile(path, "a") as archive:
        for info in archive.infolist():
            info.flag_bits |= 1  # as written at the end of the file, where it is looked up
        archive.writestr("a", b"")
    with pytest.raises(ValueError, match=r"x\.zip is encrypted: unpack it, and name its folder$"):
        load(path, BOTH)


def test_a_zip_that_python_has_no_decoder_for_is_to_be_unpacked(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", random_faces())
    with zipfile.ZipFile(path, "a") as archive:
        for info in archive.infolist():
            info.compress_type = 9  # Deflate64, as written at the end of the file
        archive.writestr("a", b"")
    message = r"x\.zip cannot be unpacked here \(.*compression.*\): unpack it, and name its folder$"
    with pytest.raises(ValueError, match=message):
        load(path, BOTH)


def test_an_archive_with_a_broken_checksum_is_one_clear_error(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", random_faces())
    content = bytearray(path.read_bytes())
    content[200] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged or incomplete"):
        load(path, BOTH)


@pytest.mark.parametrize(
    ("kind", "target", "reason"),
    [
        (
            tarfile.SYMTYPE,
            "{folder}/secret.png",
            "it is a symbolic link: unpack the archive, and name its folder",
        ),
        (tarfile.SYMTYPE, "Training_0.png", "it is a symbolic link: unpack the archive, and name its folder"),
        (tarfile.LNKTYPE, "test/a/none.png", "it is a link that leads to no file of the archive"),
    ],
)
def test_a_link_that_is_no_other_name_of_a_file_in_a_tar_file_is_skipped_and_named(
    tmp_path: Path, kind: bytes, target: str, reason: str
) -> None:
    (tmp_path / "secret.png").write_bytes(png(np.zeros((48, 48), np.uint8)))
    path = write_tar(tmp_path / "x.tar", many_faces(0))
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("test/a/link.png")
        link.type, link.linkname = kind, target.format(folder=tmp_path)
        archive.addfile(link)
    dataset = load(path, ["test"])
    assert dataset.skipped == (f"test/a/link.png: {reason}",)
    assert len(dataset.parts["test"]) == 200


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_file_in_an_archive_that_is_too_large_is_skipped_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Some kilobytes may stand for gigabytes of zeros."""
    monkeypatch.setattr("trainer.data.images.FILE_LIMIT", 1_000_000)
    files = many_faces(0) | {"test/a/zeros.png": bytes(1_000_001)}
    path = write_tar(tmp_path / "x.tar", files)
    if kind == "zip":
        path = Path(shutil.make_archive(str(tmp_path / "x"), "zip", write_files(tmp_path / "x", files)))
    dataset = load(path, ["test"])
    assert dataset.skipped == ("test/a/zeros.png: the file has more than 1 MB, the most that is read",)
    assert len(dataset.parts["test"]) == 200


@pytest.mark.parametrize(
    "name",
    ["notes/train/readme.txt", "code/train/src/deep/x.py", "code/train/src/", "train/angry/more/x.txt"],
)
def test_what_is_no_image_may_lie_anywhere_in_an_archive(tmp_path: Path, name: str) -> None:
    path = write_zip(tmp_path / "x.zip", random_faces())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"")
    dataset = load(path, BOTH)
    assert dataset.class_names == CLASSES
    assert len(dataset.parts["train"]) == 21


def test_an_archive_without_usable_data_is_said_to_lack_images_and_the_csv(tmp_path: Path) -> None:
    for content, names in (({"mine.csv": b"x", ".x": b""}, "mine.csv"), ({"a/b/train/c/x.png": b""}, "a")):
        path = write_tar(tmp_path / "x.tar", content)
        with pytest.raises(
            ValueError,
            match=rf"x\.tar holds {names}, but no images in the layout train/<class>/<image> .*; nor fer2013\.csv$",
        ):
            load(path, BOTH)


def test_a_layout_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", random_faces())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("copy/train/angry/x.png", b"x")
    with pytest.raises(ValueError, match="more than once, in: copy, its top"):
        load(path, BOTH)
    for name in ("one.zip", "two.zip"):
        write_zip(tmp_path / "work" / name, random_faces())
    with pytest.raises(ValueError, match=r"several archives \(one.zip, two.zip\)"):
        load(tmp_path / "work", BOTH)
