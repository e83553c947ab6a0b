"""A dataset comes back from the cache as it was built, whatever happens to the cache."""

import logging
import multiprocessing
import os
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainer.data.base import Dataset, Split
from trainer.data.cache import KEPT, cached

TEXT = st.text(max_size=12)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of the test; it does not exist yet."""
    monkeypatch.setenv("MOODIFY_CACHE", str(tmp_path / "deep" / "cache"))
    return tmp_path / "deep" / "cache"


def random_dataset(seed: int = 0, count: int = 6) -> Dataset:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=generator)
    target = torch.randint(0, 2, (count,), generator=generator)
    ids = tuple(f"train/é/{index}.png" for index in range(count))
    parts = {"train": Split(images, target, ids), "test": Split(images[:2], target[:2], ids[:2])}
    return Dataset("toy", ("é", "b"), parts, f"/data/{seed}", ("train/é/x.png: empty",), notes=("a", "é"))


def assert_same(one: Dataset, other: Dataset) -> None:
    assert (one.name, one.class_names, one.source, one.skipped, one.notes) == (
        other.name,
        other.class_names,
        other.source,
        other.skipped,
        other.notes,
    )
    assert list(one.parts) == list(other.parts)
    for part, split in one.parts.items():
        assert torch.equal(split.images, other.parts[part].images)
        assert torch.equal(split.target, other.parts[part].target)
        assert split.images.dtype == other.parts[part].images.dtype
        assert split.target.dtype == other.parts[part].target.dtype
        assert split.sample_ids == other.parts[part].sample_ids


def never() -> Dataset:
    raise AssertionError("built although it lies in the cache")


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def test_the_second_call_reads_what_the_first_one_built() -> None:
    built = cached("toy", "a", random_dataset)
    assert_same(built, random_dataset())
    assert_same(cached("toy", "a", never), built)


@given(names=st.lists(TEXT, min_size=1, max_size=4), ids=st.lists(TEXT, max_size=4), count=st.integers(0, 3))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_and_any_number_of_images_survive(names: list[str], ids: list[str], count: int) -> None:
    split = Split(
        torch.zeros(count, 1, 2, 3, dtype=torch.uint8), torch.zeros(count, dtype=torch.int64), tuple(ids)
    )
    dataset = Dataset("any", tuple(names), {"test": split}, "".join(ids), tuple(ids))
    signature = repr((names, ids, count))
    cached("any", signature, lambda: dataset)
    assert_same(cached("any", signature, never), dataset)


def test_another_signature_or_name_is_another_dataset() -> None:
    cached("toy", "a", random_dataset)
    assert_same(cached("toy", "b", lambda: random_dataset(1)), random_dataset(1))
    assert_same(cached("other", "a", lambda: random_dataset(2)), random_dataset(2))
    assert_same(cached("toy", "a", never), random_dataset())


def test_changing_the_tensors_in_memory_leaves_the_cache_alone() -> None:
    cached("toy", "a", random_dataset)
    cached("toy", "a", never).parts["train"].images.zero_()
    assert_same(cached("toy", "a", never), random_dataset())


@pytest.mark.parametrize("damage", ["truncated", "emptied", "overwritten", "one bit"])
def test_a_damaged_file_is_built_again_with_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    cached("toy", "a", random_dataset)
    (file,) = files(folder)
    content = file.read_bytes()
    file.write_bytes(
        {
            "truncated": content[:-10],
            "emptied": b"",
            "overwritten": b"not a safetensors file" * 100,
            "one bit": content[:-1] + bytes([content[-1] ^ 1]),
        }[damage]
    )
    assert_same(cached("toy", "a", random_dataset), random_dataset())
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(file) in caplog.text
    assert_same(cached("toy", "a", never), random_dataset())


def test_a_cache_that_cannot_be_written_only_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MOODIFY_CACHE", str(tmp_path / "file" / "cache"))
    for _ in range(2):
        assert_same(cached("toy", "a", random_dataset), random_dataset())
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "no cache" in caplog.text


@pytest.mark.skipif(sys.platform == "win32", reason="needs a process limit")
def test_a_disk_that_fills_up_only_warns(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    import resource
    import signal

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limits[1]))
    try:
        assert_same(cached("toy", "a", lambda: random_dataset(count=500)), random_dataset(count=500))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert "could not be written" in caplog.text
    assert [path.name for path in folder.iterdir() if path.suffix != ".lock"] == []


def test_an_error_of_the_build_is_passed_on_and_caches_nothing(folder: Path) -> None:
    def fail() -> Dataset:
        raise ValueError("no images")

    with pytest.raises(ValueError, match="no images"):
        cached("toy", "a", fail)
    assert files(folder) == []
    assert_same(cached("toy", "a", random_dataset), random_dataset())


def test_the_last_used_signatures_stay_and_older_ones_go(folder: Path) -> None:
    cached("toy-other", "a", random_dataset)
    for index in range(KEPT):
        cached("toy", str(index), random_dataset)
        time.sleep(0.01)  # file times are the order
    cached("toy", "0", never)
    time.sleep(0.01)
    (folder / "toy-0123456789abcdef.tmp").write_text("left by a killed process")
    cached("toy", "new", random_dataset)
    for kept in ("0", "2", "3", "new"):
        cached("toy", kept, never)
    with pytest.raises(AssertionError, match="built although"):
        cached("toy", "1", never)
    cached("toy-other", "a", never)
    assert list(folder.glob("*.tmp")) == []


def build_slowly(marks: Path) -> Dataset:
    (marks / str(os.getpid())).touch()
    time.sleep(0.3)
    return random_dataset()


def ask(start: "threading.Barrier", marks: Path) -> None:
    start.wait()
    assert_same(cached("toy", "a", lambda: build_slowly(marks)), random_dataset())


@pytest.mark.skipif(
    sys.platform == "win32", reason="forks, because a new process would import torch for seconds"
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_processes_that_ask_at_the_same_moment_share_one_build(folder: Path, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    fork = multiprocessing.get_context("fork")
    start = fork.Barrier(3)
    processes = [fork.Process(target=ask, args=(start, marks)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(list(marks.iterdir())) == 1
    assert len(files(folder)) == 1


def test_waiting_for_another_process_is_logged(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trainer.data.cache")
    folder.mkdir(parents=True)
    held = threading.Event()

    def hold() -> None:
        with FileLock(folder / "toy.lock"):
            held.set()
            time.sleep(0.2)

    threading.Thread(target=hold).start()
    held.wait()
    assert_same(cached("toy", "a", random_dataset), random_dataset())
    assert "another process is reading the same dataset" in caplog.text
