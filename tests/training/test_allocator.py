"""What the process keeps of its memory, in processes of their own: the settings are for good."""

import subprocess
import sys

import pytest

from trainer.training.allocator import keep_memory, return_memory

KEPT_AND_RETURNED = """
from pathlib import Path
from resource import getpagesize
from trainer.training.allocator import keep_memory, return_memory
def mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize() / 2**20

assert keep_memory()
before = mib()
blocks = [bytearray(b"x") * 2**22 for _ in range(100)]
still_used = blocks[50][:]
del blocks
kept = mib()
assert return_memory()
print(kept - before > 390, mib() - before < 40)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator is Linux's")
def test_what_was_freed_is_kept_until_it_is_returned():
    answer = subprocess.run(
        [sys.executable, "-c", KEPT_AND_RETURNED], capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == ["True", "True"], answer


def test_on_another_system_nothing_is_kept_or_returned(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_memory()
    assert not return_memory()
