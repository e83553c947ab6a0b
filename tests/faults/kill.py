"""kill -9 at random moments of a training."""

import random
import shutil
import time
from collections import Counter
from pathlib import Path

from tests.faults.scene import Training, apart, command, place, result, train, whole

EPOCHS = "3"
# Phase, what the training says when it begins, and how many of 20 kills it gets.
PHASES = (
    ("caching", "decoding", 3),
    ("an epoch", "Run ", 6),
    ("evaluating and logging", "Evaluating", 4),
    ("export and registration", "Evaluating", 7),
)


def kill(count: int = 20, seed: int = 0) -> list[str]:
    """Kill, look, mark, resume, compare; AssertionError where anything was lost."""
    chance = random.Random(seed)
    told = Counter[str]()
    with place(images=200) as folder:
        first = train("--epochs", EPOCHS)
        assert first.wait_for("Evaluating"), first.said()
        started = time.monotonic()
        assert first.finish() == 0, first.said()
        ending = time.monotonic() - started
        expected = apart(result, first.run_id)
        assert expected["status"] == "FINISHED"
        pool = [phase for phase in PHASES for _ in range(phase[2])]
        plan = pool if count == len(pool) else chance.sample(pool, count)
        for number, (phase, words, _) in enumerate(plan, 1):
            if phase == "caching":
                shutil.rmtree(folder / "cache")
            victim = train("--epochs", EPOCHS)
            assert victim.wait_for(words), victim.said()
            moments = {
                "caching": (0, 0.4), "an epoch": (0, 1.5),
                "evaluating and logging": (0, ending * 0.6), "export and registration": (ending * 0.6, ending),
            }  # fmt: skip
            time.sleep(chance.uniform(*moments[phase]))
            victim.kill()
            state, found = _after(victim, expected, marked=number % 2 == 0)
            told[state] += 1
            print(f"{number:>3}. killed in {phase}: {state}; {found}", flush=True)
    return [f"{times} times: {state}" for state, times in told.most_common()]


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
