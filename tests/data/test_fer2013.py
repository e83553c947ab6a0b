"""FER-2013 is found wherever it usually lies, and is told from other images."""

import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.extra.small_fer2013 import (
    BOTH,
    CLASSES,
    random_faces,
    write_folder,
    write_zip,
)
from trainer.data import dataset_source
from trainer.data.fer2013 import SOURCE, group, load
from trainer.data.kaggle import unreachable

pytestmark = pytest.mark.usefixtures("cwd")


def test_fer2013_is_registered() -> None:
    assert dataset_source("fer2013") is SOURCE


def test_groups_come_from_the_file_name() -> None:
    assert group("test/angry/PublicTest_10116449.jpg") == "public"
    assert group("test/PrivateTest_32300") == "private"
    assert group("train/angry/Training_3908.jpg") is None
    assert group("test/PublicTest/x.jpg") is None


def test_images_that_are_not_named_as_its_test_images_are_said_to_need_a_name_of_their_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    faces = random_faces()
    load(write_folder(tmp_path / "official", faces), BOTH)
    renamed = {
        key.replace("PublicTest", "im").replace("PrivateTest", "im"): face for key, face in faces.items()
    }
    own = write_folder(tmp_path / "own", renamed)
    load(own, ["train"])
    assert "of their own" not in caplog.text
    for _ in range(2):
        load(own, BOTH)
    assert caplog.text.count("Images of your own need a name of their own (--dataset NAME)") == 1


def test_a_given_path_that_does_not_exist_is_an_error_without_a_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere: the path does not exist.*\n.*--data-dir"):
        load(tmp_path / "nowhere", BOTH)
    monkeypatch.setenv("MOODIFY_FER2013", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="nowhere: the path does not exist"):
        load(None, BOTH)


def test_without_a_path_the_environment_then_the_usual_folder_is_read(
    tmp_path: Path, cwd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(cwd / "data/fer2013", random_faces())
    assert load(None, BOTH).source == "data/fer2013"
    monkeypatch.setenv("MOODIFY_FER2013", str(write_zip(tmp_path / "faces.zip", random_faces())))
    assert load(None, BOTH).source == str(tmp_path / "faces.zip")


def test_a_tilde_is_the_home_folder_where_no_shell_has_put_it_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in --data-dir=~/faces."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write_folder(tmp_path / "faces", random_faces())
    assert load(Path("~/faces"), BOTH).source == str(tmp_path / "faces")
    monkeypatch.setenv("MOODIFY_FER2013", "~/faces")
    assert load(None, BOTH).source == str(tmp_path / "faces")
    with pytest.raises(FileNotFoundError, match="~nobody-here/faces: the path does not exist"):
        load(Path("~nobody-here/faces"), BOTH)


@pytest.mark.parametrize("empty_folder", [False, True])
def test_where_nothing_is_there_the_error_tells_how_to_get_the_data(cwd: Path, empty_folder: bool) -> None:
    if empty_folder:
        (cwd / "data/fer2013").mkdir(parents=True)
        (cwd / "data/fer2013/.gitkeep").touch()
    with pytest.raises(FileNotFoundError) as caught:
        load(None, BOTH)
    for part in (str(cwd / "data/fer2013"), "MOODIFY_OFFLINE", "kaggle datasets download", "--data-dir"):
        assert part in str(caught.value)


def test_what_kagglehub_downloaded_before_is_used_without_a_network(tmp_path: Path) -> None:
    from kagglehub.cache import Cache
    from kagglehub.handle import parse_dataset_handle

    handle = parse_dataset_handle("msambare/fer2013/versions/1")
    folder = Path(Cache().get_path(handle))
    assert folder.is_relative_to(tmp_path)
    write_folder(folder, random_faces())
    with pytest.raises(FileNotFoundError):  # a download that did not finish
        load(None, BOTH)
    Cache().mark_as_complete(handle)
    assert load(None, BOTH).source == str(folder)
    shutil.rmtree(folder)  # by somebody who needs the room: its mark stays
    with pytest.raises(FileNotFoundError, match="MOODIFY_OFFLINE"):
        load(None, BOTH)


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_server_that_never_answers_is_given_up_in_time(silent_server: str) -> None:
    start = time.perf_counter()
    assert unreachable(silent_server, 0.3) is not None
    assert time.perf_counter() - start < 3


def test_certificates_that_are_unknown_here_may_be_known_to_kagglehub(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError(ssl.SSLCertVerificationError("unable to get local issuer certificate"))

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", refuse)
    assert unreachable("https://example.org", 1.0) is None


def test_a_download_that_is_not_possible_is_a_quick_plain_error(
    cwd: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # A proxy that is not there, so that no machine reaches Kaggle.
    for variable in ("MOODIFY_OFFLINE", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    start = time.perf_counter()
    with pytest.raises(FileNotFoundError, match=r"api\.kaggle\.com cannot be reached \(.*refused"):
        load(None, BOTH)
    assert time.perf_counter() - start < 15
    output = capfd.readouterr()
    assert output.out == ""
    assert "Traceback" not in output.err


@pytest.mark.slow
def test_the_real_fer2013_has_its_known_counts_classes_and_groups(fer2013: Path) -> None:
    dataset = load(fer2013, BOTH)
    train, test = dataset.parts["train"], dataset.parts["test"]
    assert dataset.class_names == CLASSES
    assert dataset.skipped == ()
    assert len(train) == 28_709
    assert train.class_counts(7) == [3995, 436, 4097, 7215, 4965, 4830, 3171]
    assert train.images.float().mean() / 255 == pytest.approx(0.5077, abs=1e-4)
    assert {group(sample_id) for sample_id in train.sample_ids} == {None}
    groups = [group(sample_id) for sample_id in test.sample_ids]
    assert groups.count("public") == 3_589
    assert groups.count("private") in (0, 3_589)
    assert None not in groups
    again = load(fer2013, BOTH)
    for part in BOTH:
        assert torch.equal(again.parts[part].images, dataset.parts[part].images)
        assert torch.equal(again.parts[part].target, dataset.parts[part].target)
        assert again.parts[part].sample_ids == dataset.parts[part].sample_ids
