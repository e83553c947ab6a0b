"""Images are the same dataset from a folder, an archive or the CSV, and it is said what is wrong with them."""

import logging
import os
import shutil
import sys
import unicodedata
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from tests.extra.small_fer2013 import (
    BOTH,
    CLASSES,
    contents,
    csv_row,
    many_faces,
    png,
    random_faces,
    write_csv,
    write_files,
    write_folder,
    write_tar,
    write_zip,
)
from trainer.data.base import Dataset
from trainer.data.loading import _tell, load_images

pytestmark = pytest.mark.usefixtures("cwd")
load = partial(load_images, "faces")


def test_a_folder_becomes_uint8_tensors_with_sorted_classes_and_relative_ids(tmp_path: Path) -> None:
    faces = random_faces()
    dataset = load(write_folder(tmp_path / "faces", faces), BOTH)
    assert dataset.class_names == CLASSES
    assert dataset.source == str(tmp_path / "faces")
    assert list(dataset.parts) == ["train", "test"]
    for part, split in dataset.parts.items():
        ids = sorted(sample_id for sample_id in faces if sample_id.startswith(part))
        assert split.sample_ids == tuple(ids)
        assert split.images.dtype == torch.uint8
        assert split.images.shape == (len(ids), 1, 48, 48)
        assert split.target.dtype == torch.int64
        for image, label, sample_id in zip(
            split.images, split.target.tolist(), split.sample_ids, strict=True
        ):
            assert np.array_equal(image[0].numpy(), faces[sample_id])
            assert CLASSES[label] == sample_id.split("/")[1]


def test_folder_zip_tar_and_csv_of_the_same_images_are_the_same_dataset(tmp_path: Path) -> None:
    faces = random_faces()
    members = {sample_id: png(pixels) for sample_id, pixels in faces.items()}
    folder = load(write_folder(tmp_path / "faces", faces), BOTH)
    archives = [
        write_zip(tmp_path / "faces.zip", faces),
        write_zip(tmp_path / "wrapped.zip", faces, "archive/"),
        write_tar(tmp_path / "faces.tar", members),
        write_tar(
            tmp_path / "faces.tar.xz", {f"./fer2013/{name}": data for name, data in members.items()}, "w:xz"
        ),
        write_tar(tmp_path / "faces.tar.gz", dict(reversed(members.items())), "w:gz"),
    ]
    for archive in archives:
        dataset = load(archive, BOTH)
        for part in BOTH:
            ours, theirs = dataset.parts[part], folder.parts[part]
            assert ours.fingerprint(dataset.class_names) == theirs.fingerprint(folder.class_names), archive
    csv = load(write_csv(tmp_path / "fer2013.csv", [csv_row(*face) for face in faces.items()]), BOTH)
    assert csv.class_names == folder.class_names
    assert contents(csv) == contents(folder)


def test_csv_rows_are_named_by_usage_and_position(tmp_path: Path) -> None:
    faces = random_faces(train=1)
    path = write_csv(tmp_path / "any name.csv", [csv_row(*face) for face in faces.items()])
    dataset = load(path, BOTH)
    assert dataset.parts["train"].sample_ids == tuple(f"train/Training_{index}" for index in range(7))
    test_ids = [f"test/PublicTest_{index}" for index in range(7, 14)]
    test_ids += [f"test/PrivateTest_{index}" for index in range(14, 21)]
    assert dataset.parts["test"].sample_ids == tuple(test_ids)


def test_the_icml_csv_with_spaces_in_its_header_is_read(tmp_path: Path) -> None:
    rows = []
    for face in random_faces().items():
        emotion, pixels, usage = csv_row(*face).split(",")
        rows.append(f"{emotion},{usage},{pixels}")
    write_csv(tmp_path / "icml_face_data.csv", rows, header="\ufeffemotion, Usage, pixels")
    assert contents(load(tmp_path, BOTH)) == contents(
        load(write_folder(tmp_path / "faces", random_faces()), BOTH)
    )


@pytest.mark.parametrize("name", ["fer2013.csv", "fer2013/fer2013.csv", "a/b/icml_face_data.csv"])
def test_an_archive_of_the_csv_is_read_as_the_csv_is(tmp_path: Path, name: str) -> None:
    csv = write_csv(tmp_path / "fer2013.csv", [csv_row(*face) for face in random_faces().items()])
    members = {"fer2013/README": b"", "fer2013/train.csv": b"", name: csv.read_bytes()}
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    plain = load(csv, BOTH)
    for path in (tmp_path / "x.zip", write_tar(tmp_path / "x.tar.gz", members, "w:gz")):
        dataset = load(path, BOTH)
        assert dataset.parts["train"].sample_ids == plain.parts["train"].sample_ids
        assert contents(dataset) == contents(plain)
    path = write_tar(tmp_path / "other.tar", {name: b"a,b"})
    with pytest.raises(ValueError, match=f"^{name} in .*other.tar needs the columns emotion"):
        load(path, BOTH)


@pytest.mark.parametrize(
    "where", ["itself", "wrapped", "zip inside", "csv inside", "wrapped zip", "beside its archive"]
)
def test_the_data_are_found_in_a_folder_and_one_folder_deeper(tmp_path: Path, where: str) -> None:
    faces, data_dir = random_faces(), tmp_path / "given"
    inside = data_dir / "archive"
    inside.mkdir(parents=True)
    (data_dir / ".DS_Store").touch()
    (data_dir / "__MACOSX").mkdir()
    if where == "itself":
        write_folder(data_dir, faces)
    elif where == "wrapped":
        write_folder(inside, faces)
    elif where == "zip inside":
        write_zip(data_dir / "download.zip", faces)
    elif where == "csv inside":
        write_csv(data_dir / "fer2013.csv", [csv_row(*face) for face in faces.items()])
    elif where == "beside its archive":
        (data_dir / "fer2013.tar.gz").touch()  # it would be refused
        write_csv(inside / "fer2013.csv", [csv_row(*face) for face in faces.items()])
    else:
        write_zip(inside / "download.zip", faces)
    assert len(load(data_dir, BOTH).parts["train"]) == 21


def test_only_the_wanted_part_is_needed(tmp_path: Path) -> None:
    faces = random_faces()
    only_test = {sample_id: pixels for sample_id, pixels in faces.items() if sample_id.startswith("test")}
    rows = [csv_row(*face) for face in only_test.items()]
    for path in (
        write_folder(tmp_path / "faces", only_test),
        write_zip(tmp_path / "faces.zip", only_test),
        write_csv(tmp_path / "faces.csv", rows),
    ):
        dataset = load(path, ["test"])
        assert list(dataset.parts) == ["test"]
        assert len(dataset.parts["test"]) == 14
        with pytest.raises(ValueError, match=r"no folder train/|no train part"):
            load(path, BOTH)


def test_hidden_folders_and_files_that_are_no_images_are_not_data(tmp_path: Path) -> None:
    faces = random_faces(("yes", "no"))
    expected = load(write_folder(tmp_path / "faces", faces), BOTH).parts["train"].sample_ids
    root = write_folder(tmp_path / "littered", faces)
    extra = [
        "train/.git/x.png",
        "train/__MACOSX/x.png",
        "train/yes/.DS_Store",
        "train/no/Thumbs.db",
        "train/notes.txt",
    ]
    for name in extra:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("no image")
    assert load(root, BOTH).parts["train"].sample_ids == expected
    with zipfile.ZipFile(write_zip(tmp_path / "littered.zip", faces), "a") as archive:
        for name in [*extra, "__MACOSX/train/yes/._x.png"]:
            archive.writestr(name, "no image")
    assert load(tmp_path / "littered.zip", BOTH).parts["train"].sample_ids == expected


def test_any_image_extension_and_size_is_read(tmp_path: Path) -> None:
    root = tmp_path / "faces"
    for name, (file_name, kind) in {
        "a": ("x.JPG", "JPEG"),
        "b": ("x.webp", "WEBP"),
        "c": ("x.bmp", "BMP"),
    }.items():
        (root / "test" / name).mkdir(parents=True)
        Image.new("RGB", (100, 60), "gray").save(root / "test" / name / file_name, kind)
    dataset = load(root, ["test"])
    assert dataset.class_names == ("a", "b", "c")
    assert (dataset.parts["test"].images.int() - 128).abs().max() <= 1


def test_two_classes_whose_metrics_would_have_one_name_are_refused(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "faces", random_faces(("happy", "a&b", "a+b")))
    with pytest.raises(ValueError, match=r"metrics of a&b and a\+b would have one name"):
        load(root, BOTH)


def break_missing_class(root: Path) -> None:
    shutil.rmtree(root / "test/happy")


def break_other_class(root: Path) -> None:
    (root / "train/happy").rename(root / "train/Happy")


def break_empty_class(root: Path) -> None:
    for file in (root / "train/sad").iterdir():
        file.unlink()


def break_single_class(root: Path) -> None:
    for name in CLASSES[1:]:
        shutil.rmtree(root / "train" / name)


def break_nested(root: Path) -> None:
    (root / "train/sad/more").mkdir()
    (root / "train/sad/more/x.png").write_bytes(png(np.zeros((48, 48), np.uint8)))


def break_no_train(root: Path) -> None:
    (root / "train").rename(root / "training")


def test_a_class_that_is_spelt_by_other_code_points_is_the_same_class(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "faces", random_faces(("fâché", "joie")))
    (root / "train" / "fâché").rename(root / "train" / unicodedata.normalize("NFD", "fâché"))
    assert load(root, BOTH).class_names == ("fâché", "joie")


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (break_missing_class, "test has no class happy"),
        (break_other_class, "train has no class happy|test has no class Happy"),
        (break_empty_class, "train has no readable image of class sad"),
        (break_single_class, "two classes or more; it has: angry"),
        (break_nested, "deeper than <part>/<class>/<image>"),
        (break_no_train, "no folder train/: the layout is train/<class>/<image>"),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_broken_layout_is_one_clear_error(
    tmp_path: Path, break_it: Callable[[Path], None], message: str, kind: str
) -> None:
    root = write_folder(tmp_path / "faces", random_faces())
    break_it(root)
    if kind == "zip":
        root = Path(shutil.make_archive(str(tmp_path / "faces"), "zip", root))
    with pytest.raises(ValueError, match=message) as caught:
        load(root, BOTH)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_up_to_one_percent_unreadable_images_are_skipped_named_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    path = (
        write_files(tmp_path / "faces", many_faces(2))
        if kind == "folder"
        else write_tar(tmp_path / "x.tar", many_faces(2))
    )
    for _ in range(2):  # the second time from the cache
        dataset = load(path, ["test"])
        assert len(dataset.parts["test"]) == 198
        assert [line.partition(": ")[0] for line in dataset.skipped] == ["test/a/000.png", "test/a/001.png"]
        assert "empty" in dataset.skipped[0]
    (warning,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert "skipped 2 unreadable images" in warning
    assert "test/a/000.png" in warning


def test_what_was_skipped_is_told_by_every_command_also_where_it_reads_the_cache(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_files(tmp_path / "faces", many_faces(1))
    for _ in range(2):
        _tell.cache_clear()  # as in another process
        load(root, ["test"])
    assert [record.message for record in caplog.records if "skipped 1 unreadable" in record.message] == [
        f"skipped 1 unreadable images of {root}: test/a/000.png: the file is empty"
    ] * 2


def test_a_file_that_could_not_be_read_once_is_read_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_files(tmp_path / "faces", many_faces(0))
    read_bytes = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "007.png" and path.parent.name == "b":
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        dataset = load(root, ["test"])
    assert dataset.skipped == ("test/b/007.png: the file cannot be read: Permission denied",)
    assert "files that could not be read this time: 1" in caplog.text
    assert len(load(root, ["test"]).parts["test"]) == 200


def test_more_than_one_percent_unreadable_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"3 of the 200 images of test cannot be read.*1%.*test/a/000.png"):
        load(write_files(tmp_path / "faces", many_faces(3)), ["test"])


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_photos_of_a_kind_that_cannot_be_read_count_as_unreadable(tmp_path: Path, kind: str) -> None:
    heic = {f"test/b/{index}.HEIC": b"\0\0\0\x18ftypheic" + bytes(99) for index in range(3)}
    for count in (2, 3):
        files = many_faces(0) | dict(list(heic.items())[:count])
        root = tmp_path / str(count)
        path = write_files(root, files) if kind == "folder" else write_tar(root.with_suffix(".tar"), files)
        if count == 2:
            skipped = load(path, ["test"]).skipped
            assert [line.partition(", ")[0] for line in skipped] == [
                f"test/b/{index}.HEIC: HEIC is not an image that can be read (JPEG" for index in range(2)
            ]
        else:
            with pytest.raises(ValueError, match=r"3 of the 203 images of test cannot be read.*1%.*HEIC"):
                load(path, ["test"])


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_how_many_images_lie_in_no_class_folder_is_told_by_every_command(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    loose = dict.fromkeys(
        ("test/one.png", "test/two.heic", "test/._two.png", "test/notes.txt", "x.png"), b"x"
    )
    files = many_faces(0) | loose
    path = write_files(tmp_path / "x", files) if kind == "folder" else write_tar(tmp_path / "x.tar", files)
    for _ in range(2):  # the second time from the cache
        _tell.cache_clear()  # as in another process
        assert len(load(path, ["test"]).parts["test"]) == 200
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        f"{path}: passed over 2 images of test/ that lie in none of its class folders"
    ] * 2


@pytest.mark.parametrize("kind", ["folder", "zip", "wrapped"])
def test_a_validation_folder_is_said_to_be_unused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    faces = random_faces()
    faces |= {name.replace("test/", "val/"): pixels for name, pixels in faces.items()}
    if kind == "folder":
        path = write_folder(tmp_path / "faces", faces)
    else:
        path = write_zip(tmp_path / "x.zip", faces, "faces/" if kind == "wrapped" else "")
    load(path, ["test"])
    assert "not used" not in caplog.text
    assert len(load(path, BOTH).parts["train"]) == 21
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        f"{path}: val/ is not used: validation is a part of train/, a tenth where nothing else is asked for"
    ]


def test_a_class_of_which_no_image_is_readable_is_refused(tmp_path: Path) -> None:
    files = many_faces(0) | {"test/c/x.png": b"text"}
    with pytest.raises(ValueError, match="test has no readable image of class c"):
        load(write_files(tmp_path / "faces", files), ["test"])


def test_a_dangling_link_counts_as_unreadable(tmp_path: Path) -> None:
    root = write_files(tmp_path / "faces", many_faces(0))
    (root / "test/a/link.png").symlink_to(tmp_path / "nowhere.png")
    dataset = load(root, ["test"])
    assert [line.partition(": ")[0] for line in dataset.skipped] == ["test/a/link.png"]
    assert not dataset.unread  # the cache keeps it: with its target back, the link has another size


@pytest.mark.skipif(sys.platform == "darwin", reason="its file system takes no such names")
@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_an_image_whose_name_is_not_utf8_is_skipped_and_named(tmp_path: Path, kind: str) -> None:
    """As in archives of older systems, in Latin-1."""
    files = many_faces(0) | {os.fsdecode(b"test/a/visage_\xe9.png"): png(np.zeros((48, 48), np.uint8))}
    path = write_files(tmp_path / "x", files) if kind == "folder" else write_tar(tmp_path / "x.tar", files)
    for _ in range(2):  # the second time from the cache
        dataset = load(path, ["test"])
        assert dataset.skipped == (r"'test/a/visage_\udce9.png': its name is not UTF-8",)
        assert dataset.parts["test"].fingerprint(dataset.class_names)


@pytest.mark.parametrize(
    ("cut", "reason"),
    [
        (lambda row: row[:500], "Usage is ''"),
        (lambda row: row.replace(" ", ",", 1), "Usage is"),
        (lambda row: "7" + row[1:], "emotion is '7', not 0 to 6"),
        (lambda row: row.replace(" ", " 256 ", 1), "2,305 pixels, not 2,304"),
        (lambda row: row[:2] + "-1 " + row[2:].partition(" ")[2], "outside of 0 to 255"),
        (lambda row: row[:2] + "x " + row[2:].partition(" ")[2], "not whole numbers"),
        (lambda row: "0,,Training", "0 pixels"),
    ],
)
def test_a_damaged_csv_row_is_skipped_and_named(
    tmp_path: Path, cut: Callable[[str], str], reason: str
) -> None:
    rows = [csv_row(*face) for face in random_faces(train=15).items()]
    rows[104] = cut(rows[104])  # the last of the 105 training rows
    dataset = load(write_csv(tmp_path / "fer2013.csv", rows), BOTH)
    assert len(dataset.parts["train"]) == 104
    assert len(dataset.parts["test"]) == 14
    (line,) = dataset.skipped
    assert line.startswith("train/")
    assert "_104: " in line
    assert reason in line


def test_a_csv_of_some_of_the_emotions_has_these_as_classes(tmp_path: Path) -> None:
    rows = [csv_row(*face) for face in random_faces(("happy", "angry")).items()]
    assert load(write_csv(tmp_path / "two.csv", rows), BOTH).class_names == ("angry", "happy")
    uneven = write_csv(tmp_path / "uneven.csv", [*rows, rows[0].replace("3", "2", 1)])
    for parts in (BOTH, ["test"]):
        with pytest.raises(
            ValueError, match=r"uneven\.csv has no test row of fear; train and test need the same"
        ):
            load(uneven, parts)
    with pytest.raises(
        ValueError, match=r"one\.csv has rows of one emotion alone, happy: it needs two or more"
    ):
        load(write_csv(tmp_path / "one.csv", [row for row in rows if row.startswith("3")]), BOTH)


def test_a_csv_with_other_columns_is_an_error(tmp_path: Path) -> None:
    for header in ("label,pixels,Usage", "", "0,1 2 3,Training"):
        with pytest.raises(ValueError, match="needs the columns emotion, pixels and Usage"):
            load(write_csv(tmp_path / "fer2013.csv", ["0,1 2,Training"], header), BOTH)


def test_a_quote_that_swallows_the_file_is_an_error(tmp_path: Path) -> None:
    rows = [csv_row(*face) for face in random_faces(train=15).items()]
    rows[3] = '"' + rows[3]
    with pytest.raises(ValueError, match=r"fer2013\.csv, line \d+: field larger"):
        load(write_csv(tmp_path / "fer2013.csv", rows), BOTH)


@given(arrays(np.uint8, (48, 48)), st.sampled_from(CLASSES))
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_image_survives_the_csv(tmp_path: Path, pixels: np.ndarray, name: str) -> None:
    faces = random_faces(train=0)
    path = write_csv(
        tmp_path / "any.csv",
        [csv_row(*face) for face in (faces | {f"test/{name}/PublicTest_x": pixels}).items()],
    )
    split = load(path, ["test"]).parts["test"]
    assert np.array_equal(split.images[-1, 0].numpy(), pixels)
    assert CLASSES[split.target[-1]] == name


def test_the_cache_gives_identical_tensors_and_notices_every_change(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trainer.data.loading")
    faces = random_faces()
    root = write_folder(tmp_path / "faces", faces)

    def load_again() -> tuple[Dataset, bool]:
        caplog.clear()
        return load(root, BOTH), "decoding 35 images" in caplog.text or "decoding 36 images" in caplog.text

    first, decoded = load_again()
    assert decoded
    second, decoded = load_again()
    assert not decoded
    for part in BOTH:
        assert torch.equal(first.parts[part].images, second.parts[part].images)
        assert torch.equal(first.parts[part].target, second.parts[part].target)
        assert first.parts[part].sample_ids == second.parts[part].sample_ids
    file = root / "train/angry/Training_0.png"
    os.utime(file, ns=(1, 1))
    assert load_again()[1]
    file.with_name("another.png").write_bytes(file.read_bytes())
    assert load_again()[1]
    file.with_name("another.png").unlink()
    assert not load(root, ["test"]).parts.keys() - {"test"}


@pytest.mark.parametrize(
    "content", [{}, {"notes.txt": b"x"}, {"train.csv": b"a,b"}, {"a/b/train/c/x.png": b"x"}]
)
def test_a_given_folder_without_usable_data_is_an_error(tmp_path: Path, content: dict[str, bytes]) -> None:
    (tmp_path / "given").mkdir()
    with pytest.raises(ValueError, match="but no images in the layout train/<class>/<image>"):
        load(write_files(tmp_path / "given", content), BOTH)


def test_a_given_file_of_another_kind_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "faces.rar").write_bytes(b"Rar!")
    with pytest.raises(ValueError, match=r"not a \.csv, \.zip or \.tar file"):
        load(tmp_path / "faces.rar", BOTH)
