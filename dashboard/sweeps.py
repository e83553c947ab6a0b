"""What the trials of a sweep come to: a sentence, and tables for the charts."""

import pandas as pd

from dashboard.text import number, plain, several
from trainer.search import Dimension, Value, in_full, read_values
from trainer.settings import configuration, flags
from trainer.store.snapshot import Snapshot, SweepRun


def trials_of(snapshot: Snapshot, sweep: SweepRun) -> pd.DataFrame:
    """Its rows of `Snapshot.trials`, in the order in which they began."""
    trials = snapshot.trials
    return trials[trials["sweep"] == sweep.run_id].sort_values(["started", "trial"], kind="stable")


def best_trial(trials: pd.DataFrame) -> pd.Series | None:
    """The finished one with the highest validation accuracy, the earlier of equals."""
    finished = trials[(trials["status"] == "finished") & trials["validation_accuracy"].notna()]
    return None if finished.empty else finished.loc[finished["validation_accuracy"].idxmax()]


def opening(sweep: SweepRun, trials: pd.DataFrame) -> str:
    """The best so far and how many trials there were, in Markdown."""
    best = best_trial(trials)
    states = trials["status"].value_counts()
    counts = [
        f"{states[state]:,} {words}"
        for state, words in (
            ("pruned", "pruned"),
            ("running", "running"),
            ("failed", "could not be trained"),
            ("stopped", "stopped"),
            ("stale", "lost"),
        )
        if states.get(state)
    ]
    of = several(len(trials), "trial") + (f" ({', '.join(counts)})" if counts else "")
    if best is None:
        return f"{plain(sweep.name)} has {of}, and none is finished."
    return (
        f"Best of {of} in {plain(sweep.name)} is trial {best['trial']:.0f}, "
        f"with {number(best['validation_accuracy'])} validation accuracy."
    )


def in_words(one: Dimension) -> str:
    """`learning rate 0.0008 to 0.02, by powers of ten`, `architecture cnn or resnet18`."""
    name = one.name.replace("_", " ")
    if one.choices:
        return f"{name} {' or '.join(map(str, one.choices))}"
    return f"{name} {one.low:g} to {one.high:g}{', by powers of ten' if one.log else ''}"


def progress_table(trials: pd.DataFrame) -> pd.DataFrame:
    """Columns trial, ended (UTC), minutes (since the first began), accuracy, best (so far), status; as they ended."""
    table = trials[trials["validation_accuracy"].notna() & (trials["status"] != "running")].copy()
    table["ended"] = table["started"] + pd.to_timedelta(table["seconds"].fillna(0), unit="s")
    table = table.sort_values("ended", kind="stable")
    finished = table["validation_accuracy"].where(table["status"] == "finished")
    first = trials["started"].min()
    return pd.DataFrame(
        {
            "trial": table["trial"],
            "minutes": (table["ended"] - first).dt.total_seconds() / 60,
            "accuracy": table["validation_accuracy"],
            "best": finished.cummax().ffill(),
            "status": table["status"],
        }
    )


def values_table(snapshot: Snapshot, sweep: SweepRun, trials: pd.DataFrame) -> pd.DataFrame:
    """One row a trial: what was tried, in words or numbers, and `validation accuracy`; those with an accuracy."""
    known = trials[trials["validation_accuracy"].notna()]
    params = [snapshot.params.get(run_id, {}) for run_id in known.index]
    table = pd.DataFrame(
        {one.name: [values.get(one.name, "") for values in params] for one in sweep.space}, index=known.index
    )
    for one in sweep.space:
        if not one.choices:
            table[one.name] = pd.to_numeric(table[one.name], errors="coerce")
    table["validation accuracy"] = known["validation_accuracy"]
    return table


def judged(
    snapshot: Snapshot, sweep: SweepRun, trials: pd.DataFrame
) -> tuple[tuple[dict[str, Value], float], ...]:
    """What each finished trial tried, and its accuracy."""
    finished = trials[(trials["status"] == "finished") & trials["validation_accuracy"].notna()]
    found = []
    for run_id, accuracy in finished["validation_accuracy"].items():
        values = read_values(sweep.space, snapshot.params.get(str(run_id), {}))
        if values is not None:
            found.append((values, float(accuracy)))
    return tuple(found)


def command(snapshot: Snapshot, sweep: SweepRun, run_id: str) -> list[str] | None:
    """Arguments of `python -m trainer train` for the settings of a trial in full; None where they cannot be read."""
    try:
        return flags(in_full(configuration(snapshot.params.get(run_id, {})), sweep.space))
    except (ValueError, KeyError):
        return None
