"""Backup and restore of a store that is written to."""

import os
import shutil
from pathlib import Path

from tests.faults.disk import clear
from tests.faults.scene import apart, command, place, result, slowly, train, whole


def backup() -> list[str]:
    """Three backups while two trainings log and register; each is restored, and what was cut off is resumed there."""
    with place() as folder:
        first = train("--epochs", "6")
        assert first.finish() == 0, first.said()
        expected = apart(result, first.run_id)
        running = [train("--epochs", "6", before=slowly), train("--epochs", "6")]
        assert running[0].wait_for("epoch   1/"), running[0].said()
        lines = []
        for number in range(3):
            saved = command("backup", f"{folder}/{number}.tar")
            assert saved.finish() == 0, saved.said()
            lines.append(saved.said().strip().splitlines()[-1].replace(f"{folder}/", ""))
        again = command("backup", f"{folder}/0.tar")
        assert again.finish() == 2
        assert all(victim.finish() == 0 for victim in running)
        lines.append(clear(again.said()).replace(f"{folder}/", ""))
        over = command("restore", f"{folder}/0.tar")
        assert over.finish() == 2
        lines.append(clear(over.said()).replace(f"{folder}/", ""))
        resumed = 0
        for number in range(3):
            other = folder / f"other{number}"
            other.mkdir()
            shutil.copytree("faces", other / "faces")
            os.chdir(other)
            made = command("restore", f"{folder}/{number}.tar")
            assert made.finish() == 0, made.said()
            seen = apart(whole)
            for run_id, row in seen["runs"].items():
                if row["status"] == "finished":
                    assert apart(result, run_id) == expected
                elif Path(f"mlruns/checkpoints/{run_id}/state.pt").is_file():
                    done = command("train", "--resume", run_id)
                    assert done.finish() == 0, done.said()
                    assert apart(result, run_id) == expected
                    resumed += 1
            apart(whole)
            os.chdir(folder)
        damaged = Path("0.tar").read_bytes()
        middle = len(damaged) // 2
        Path("bad.tar").write_bytes(damaged[:middle] + bytes([damaged[middle] ^ 1]) + damaged[middle + 1 :])
        Path("empty").mkdir()
        os.chdir("empty")
        refused = command("restore", f"{folder}/bad.tar")
        assert refused.finish() == 2, refused.said()
        assert not Path("mlruns/mlflow.db").exists()
        lines.append(f"one bit wrong: {clear(refused.said())}".replace(f"{folder}/", ""))
        os.chdir(folder)
        return [
            *lines,
            f"three stores were made from them, {resumed} cut-off runs resumed there to the same result",
        ]
