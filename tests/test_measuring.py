"""Commands that measure on machines which are seldom at hand still run here."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_what_measures_a_gpu_runs_to_its_end_on_a_cpu(workplace):
    flags = ["--device", "cpu", "--quick", "--dataset", "sketch", "--architectures", "cnn"]
    command = [sys.executable, "-m", "tests.benchmarks.gpu", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    for words in (
        "bare steps, batch 16",
        "share of the bare rate",
        "Self CPU",
        "on validation after",
        "on test",
    ):
        assert words in done.stdout, words
