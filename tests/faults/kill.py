"""kill -9 at random moments of a training."""

import random
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from tests.faults.scene import Training, apart, command, place, result, slowly, train, whole

EPOCHS = "3"
PHASES = {"caching": 3, "an epoch": 5, "evaluating and logging": 4, "export": 4, "registration": 4}
"""When, and how many of the 20 kills."""


def kill(phases: Mapping[str, int] = PHASES, seed: int = 0) -> list[str]:
    """Kill, look, mark, resume, compare; AssertionError where anything was lost."""
    chance = random.Random(seed)
    told = Counter[str]()
    with place(images=200) as folder:
        first = train("--epochs", EPOCHS)
        assert first.finish() == 0, first.said()
        expected = apart(result, first.run_id)
        assert expected["status"] == "FINISHED"
        for number, phase in enumerate([phase for phase, count in phases.items() for _ in range(count)], 1):
            if phase == "caching":
                shutil.rmtree(folder / "cache")
            # Of an epoch that takes a moment there would be nothing to interrupt.
            victim = train("--epochs", EPOCHS, before=slowly if phase == "an epoch" else None)
            _wait(victim, phase, chance)
            victim.kill()
            state, found = _after(victim, expected, marked=number % 2 == 0)
            told[state] += 1
            print(f"{number:>3}. killed in {phase}: {state}; {found}", flush=True)
    return [f"{times} times: {state}" for state, times in told.most_common()]


def _wait(victim: Training, phase: str, chance: random.Random) -> None:
    """Until a random moment of the phase."""
    words = {"caching": "decoding", "an epoch": "Run "}.get(phase, "Evaluating")
    models = set(Path("mlruns/artifacts/models").glob("*"))
    assert victim.wait_for(words), victim.said()
    if phase == "export":
        while victim.ended() is None and set(Path("mlruns/artifacts/models").glob("*")) == models:
            time.sleep(0.002)
    if phase == "registration":
        while victim.ended() is None and not _registered(str(victim.run_id)):
            time.sleep(0.002)
    longest = {
        "caching": 0.4,
        "an epoch": 7,
        "evaluating and logging": 3,
        "export": 0.3,
        "registration": 0.03,
    }[phase]
    time.sleep(chance.uniform(0, longest))


def _registered(run_id: str) -> bool:
    with closing(sqlite3.connect("mlruns/mlflow.db", timeout=30)) as connection:
        found = connection.execute("SELECT 1 FROM model_versions WHERE run_id = ?", [run_id]).fetchone()
    return found is not None


def _after(victim: Training, expected: dict, *, marked: bool) -> tuple[str, str]:
    """(how the store was left, what became of the run)."""
    seen = apart(whole)
    run_id = victim.run_id or next((r for r, row in seen["runs"].items() if row["status"] == "stale"), None)
    before = [version for version in seen["versions"] if version[2] == run_id]
    if run_id is None:
        again = train("--epochs", EPOCHS)
        assert again.finish() == 0, again.said()
        found = apart(result, again.run_id)
        assert found == expected, (found, expected)
        return "no run was begun yet", "started anew with the same result"
    status = seen["runs"][run_id]["status"]
    if status == "finished":
        assert len(before) == 1
        assert apart(result, run_id) == expected
        return "the run had finished", "nothing to do"
    assert status == "stale", status
    assert len(before) <= 1
    if marked:
        done = command("runs", "--mark-stale")
        assert done.finish() == 0, done.said()
        row = apart(whole)["runs"][run_id]
        assert row["status"] == "failed", row
        assert "its process ended" in row["reason"], row
    epochs = seen["runs"][run_id]["epochs_done"]
    if not Path(f"mlruns/checkpoints/{run_id}/state.pt").is_file():
        assert not before
        assert epochs == 0
        return "begun a moment ago, without a checkpoint", "no epoch was lost; it is trained anew"
    resumed = command("train", "--resume", run_id)
    assert resumed.finish() == 0, resumed.said()
    found = apart(result, run_id)
    assert found == expected, (found, expected)
    versions = [version for version in apart(whole)["versions"] if version[2] == run_id]
    assert len(versions) == 1, versions
    assert not Path(f"mlruns/checkpoints/{run_id}").exists()
    state = "registered, not ended" if before else "interrupted, not registered"
    return (
        state,
        f"{'marked, then ' if marked else ''}resumed after epoch {epochs}, the same result, one version",
    )
