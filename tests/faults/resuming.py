"""What may not be resumed: a run in other hands, with other data, or of another version. And a clock that goes back."""

import json
import time
from pathlib import Path

from tests.faults.disk import clear
from tests.faults.scene import apart, command, place, result, slowly, train, whole


def twice() -> list[str]:
    """Two processes resume one run: the second is refused, and the first is not disturbed."""
    with place():
        first = train("--epochs", "6")
        assert first.finish() == 0, first.said()
        expected = apart(result, first.run_id)
        victim = train("--epochs", "6", before=slowly)
        assert victim.wait_for("epoch   2/"), victim.said()
        victim.kill()
        one = command("train", "--resume", str(victim.run_id), before=slowly)
        assert one.wait_for("epoch "), one.said()
        two = command("train", "--resume", str(victim.run_id))
        assert two.finish() == 2, two.said()
        row = apart(whole)["runs"][victim.run_id]
        assert row["status"] == "running", row  # and not stale, by the process of the one that was refused
        assert one.finish() == 0, one.said()
        assert apart(result, victim.run_id) == expected
        return [
            f"the second: {clear(two.said())}",
            "the first is shown as running and ends with the same result",
        ]


def changed() -> list[str]:
    """An image less, and a field of the configuration more."""
    with place() as folder:
        victim = train("--epochs", "6", before=slowly)
        assert victim.wait_for("epoch   2/"), victim.said()
        victim.kill()
        face = next((folder / "faces" / "train" / "happy").iterdir())
        face.rename(folder / face.name)
        refused = command("train", "--resume", str(victim.run_id))
        assert refused.finish() == 2, refused.said()
        lines = [f"other data: {clear(refused.said())}"]
        (folder / face.name).rename(face)
        kept = Path(f"mlruns/checkpoints/{victim.run_id}/config.json")
        config = json.loads(kept.read_text())
        for what, other in (
            ("an unknown field", {**config, "warp": 9}),
            ("a missing field", {key: value for key, value in config.items() if key != "mixup"}),
        ):
            kept.write_text(json.dumps(other))
            refused = command("train", "--resume", str(victim.run_id))
            assert refused.finish() == 2, refused.said()
            lines.append(f"{what}: {clear(refused.said())}")
        kept.write_text("{")
        refused = command("train", "--resume", str(victim.run_id))
        assert refused.finish() == 2, refused.said()
        lines.append(f"half a file: {clear(refused.said())}")
        kept.write_text(json.dumps(config))
        resumed = command("train", "--resume", str(victim.run_id))
        assert resumed.finish() == 0, resumed.said()
        return [*lines, "with data and configuration put back it is resumed"]


def clock_back() -> None:
    """Python's clocks of the wall go back by an hour after two seconds."""
    began, real, real_ns = time.monotonic(), time.time, time.time_ns

    def back() -> int:
        return 3600 if time.monotonic() - began > 2 else 0

    time.time = lambda: real() - back()
    time.time_ns = lambda: real_ns() - back() * 10**9
    slowly()


def clock() -> list[str]:
    """The wall's clock is set back by an hour in the middle of a training (in Python; not the system's)."""
    with place():
        first = train("--epochs", "6")
        assert first.finish() == 0, first.said()
        expected = apart(result, first.run_id)
        victim = train("--epochs", "6", before=clock_back)
        assert victim.wait_for("epoch   4/"), victim.said()
        row = apart(whole)["runs"][victim.run_id]
        assert row["status"] == "running", row
        assert victim.finish() == 0, victim.said()
        assert apart(result, victim.run_id) == expected
        last = apart(_row, victim.run_id)
        return [
            f"shown as running meanwhile; the same result; shown afterwards: {last['status']}, "
            f"{last['seconds']:.0f} s, {last['epochs_done']} epochs"
        ]


def _row(run_id: str) -> dict:
    from trainer.store.location import open_store
    from trainer.store.reader import Reader

    return (
        Reader(open_store(create=False))
        .snapshot()
        .runs.loc[run_id, ["status", "seconds", "epochs_done"]]
        .to_dict()
    )
