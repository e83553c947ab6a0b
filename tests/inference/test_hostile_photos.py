"""Whatever file is sent as a photo, there are its pixels or one line that says why not, on all ways to a model."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from dashboard.album import MOST_PHOTOS, Album
from tests.extra.drawn_photos import Upload, encoded
from tests.extra.grey_faces import Trained
from tests.extra.hostile_photos import PICTURE, Case, cases, face_files, huge_png, png_chunk
from trainer.__main__ import main
from trainer.data.images import ImageError
from trainer.inference import quality
from trainer.inference.faces import Photo, crops, find_faces, read_photo, whole

CASES = cases()
NO_FACE = "no face was found; --whole takes the whole image as the face"
LONGEST_MESSAGE = 200
JPEG_ERROR = 4.0
"""Mean difference in levels between a drawn picture and what lossy formats make of it."""

pytestmark = pytest.mark.filterwarnings(
    "error::PIL.Image.DecompressionBombWarning", "ignore::UserWarning:PIL"
)  # pytest resets ours


def outcome(case: Case) -> Photo | str:
    """The photo, or why it is none; it is checked that this is what the case foresees."""
    try:
        photo = read_photo(case.build())
    except ImageError as error:
        message = str(error)
        assert case.message is not None, message
        assert re.fullmatch(case.message, message)
        assert len(message) <= LONGEST_MESSAGE
        assert message.isprintable()
        return message
    assert case.message is None or case.either, "it should have been refused"
    return photo


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_file_is_read_as_it_looks_or_refused_in_one_line(case: Case) -> None:
    photo = outcome(case)
    if isinstance(photo, str):
        return
    assert case.size in (None, (photo.width, photo.height))
    height, width = photo.pixels.shape[:2]
    assert max(height, width) == min(2048, max(photo.width, photo.height))
    if case.shows is not None:
        shown = np.array(case.shows)
        assert photo.pixels.shape == shown.shape
        assert np.abs(photo.pixels.astype(int) - shown).mean() <= JPEG_ERROR
    assert find_faces(photo) == []
    face = whole(photo)
    assert crops(photo, [face], 48).shape == (1, 1, 48, 48)
    assert all(isinstance(flag, str) for flag in quality.flags(photo, face))


def test_there_are_enough_cases_and_each_has_a_name_of_its_own() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names)) >= 65
    assert sum(case.message is None for case in CASES) >= 60
    assert sum(case.message is not None and not case.either for case in CASES) >= 60


def test_the_reference_picture_would_show_any_wrong_turn() -> None:
    upright = np.array(PICTURE.resize((40, 40))).astype(int)
    for way in Image.Transpose:
        turned = np.array(PICTURE.resize((40, 40)).transpose(way))
        assert np.abs(turned - upright).mean() > 5 * JPEG_ERROR


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cases and the good photos as files."""
    made = tmp_path_factory.mktemp("hostile")
    for case in CASES:
        (made / case.name).write_bytes(case.build())
    for name, data in face_files().items():
        (made / name).write_bytes(data)
    return made


@pytest.mark.parametrize("takes_whole", [False, True], ids=["finding faces", "whole"])
def test_predict_names_every_file_that_it_cannot_use_and_answers_the_others(
    trained: Trained, folder: Path, capsys: pytest.CaptureFixture[str], takes_whole: bool
) -> None:
    command = ["predict", "fer2013-emotion/1", str(folder), "--json", *["--whole"] * takes_whole]
    assert main(command) == 1
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    failed = {Path(path).name: reason for path, reason in found["failed"].items()}
    answered = [Path(row["photo"]).name for row in found["predictions"]]
    for case in CASES:
        assert (case.name in failed) != (case.name in answered), case.name
        reason = failed.get(case.name)
        if reason is None or (reason == NO_FACE and not takes_whole):
            assert case.message is None or case.either, case.name
        else:
            assert case.message is not None, (case.name, reason)
            assert re.fullmatch(case.message, reason), case.name
    assert not takes_whole or not set(answered) - {case.name for case in CASES} - set(face_files())
    for name in face_files():
        assert answered.count(name) == 1, name
    lines = shown.err.splitlines()
    assert len(lines) == len(failed)
    assert all(line.startswith(f"error: {folder}") and line.isprintable() for line in lines)


def test_every_answer_of_predict_survives_as_csv_and_table(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, data in face_files().items():
        (photos / name).write_bytes(data)
    csv = tmp_path / "answers.csv"
    assert main(["predict", "fer2013-emotion/1", str(photos), "--output", str(csv)]) == 0
    assert "\x1b[2J" not in capsys.readouterr().out
    import pandas as pd

    assert len(pd.read_csv(csv)) == len(face_files())


def uploads(files: dict[str, bytes]) -> list[Upload]:
    return [Upload(f"id {index}", name, data, len(data)) for index, (name, data) in enumerate(files.items())]


def batches() -> Iterator[dict[str, bytes]]:
    files = {case.name: case.build() for case in CASES} | face_files()
    names = list(files)
    for start in range(0, len(names), MOST_PHOTOS):
        yield {name: files[name] for name in names[start : start + MOST_PHOTOS]}


@pytest.mark.slow
def test_the_page_keeps_a_failure_for_each_photo_and_sees_the_others() -> None:
    expected = {case.name: case for case in CASES}
    seen = {}
    for files in batches():
        album = Album()
        album.update(uploads(files), lambda *_: None)
        assert [one.name for one in album.seen.values()] == list(files)
        seen |= {one.name: one for one in album.seen.values()}
        for one in album.seen.values():
            if not one.failure:
                album.take_whole(one, True)
                assert len(one.spots) == 1
                assert album.picture(one, [], 1000, words=False)
                album.take_whole(one, False)
    for name, case in expected.items():
        if seen[name].failure:
            assert case.message is not None, (name, seen[name].failure)
            assert re.fullmatch(case.message, seen[name].failure), name
            assert not seen[name].spots
        else:
            assert case.message is None or case.either, name
            assert case.size in (None, (seen[name].width, seen[name].height)), name
    for name in face_files():
        assert not seen[name].failure
        assert len(seen[name].spots) == 1


def test_the_page_refuses_50_megabytes_without_touching_them() -> None:
    album = Album()
    album.update([Upload("1", "noise.jpg", None, 50 * 1024**2)], lambda *_: None)
    assert album.seen["1"].failure == "it has 50 MB; at most 40 MB are read"


def test_50_megabytes_of_noise_are_no_image() -> None:
    noise = np.random.default_rng(0).bytes(50 * 1024**2)
    with pytest.raises(ImageError, match="not an image"):
        read_photo(b"\0" + noise)


def test_a_postscript_file_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = tmp_path / "was started"
    trap = tmp_path / "gs"
    trap.write_text(f"#!/bin/sh\necho >> '{trace}'\n")
    trap.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    drawing = encoded(PICTURE, "EPS")
    (tmp_path / "drawing.jpg").write_bytes(drawing)
    for source in (drawing, tmp_path / "drawing.jpg"):
        with pytest.raises(ImageError, match="not an image"):
            read_photo(source)
    assert not trace.exists()
    with Image.open(tmp_path / "drawing.jpg") as opened, pytest.raises(OSError):  # noqa: PT011  (whatever it says)
        opened.load()
    assert trace.exists(), "the trap does not work"


MEASURE = """
import io, resource, sys
from pathlib import Path
from PIL import Image
from trainer.inference.faces import find_faces, read_photo

small = io.BytesIO()
Image.new("RGB", (64, 64)).save(small, "PNG")
find_faces(read_photo(small.getvalue()))
path = Path(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
photo = read_photo(path)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, photo.width, photo.height)
"""
HUGE = {
    "colour and transparency": lambda: huge_png(6, 4),
    "a transparent palette": lambda: huge_png(
        3, 1, before=png_chunk(b"PLTE", bytes(6)) + png_chunk(b"tRNS", b"\0")
    ),
    "16 bits": lambda: huge_png(0, 1, bits=16),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", HUGE)
@pytest.mark.timeout(60)
def test_64_megapixels_take_less_memory_than_is_promised(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(HUGE[kind]())
    # A shell in between: Linux hands the peak of the process that starts another on to that one.
    command = ["sh", "-c", '"$0" "$@"; exit $?', sys.executable, "-c", MEASURE, str(path)]
    child = subprocess.run(command, check=True, capture_output=True, text=True, timeout=50)
    taken, width, height = map(int, child.stdout.split())
    assert (width, height) == (8000, 8000)
    unit = 1 if sys.platform == "darwin" else 1024
    assert 64e6 < taken * unit < 0.8e9
