"""What is kept of the accuracy when images are made worse: sentences and tables, as pure functions of what was read."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from dashboard.selection import Chosen
from dashboard.text import number, percent, plain, signed
from trainer.evaluation.robustness import Robustness, by_kind, compare_robustness, curves, relative


def robustness_sentence(found: Mapping[str, Robustness], chosen: Sequence[Chosen]) -> str:
    """What each run keeps, and which corruption costs most; Markdown."""
    labels = {run.run_id: plain(run.label) for run in chosen}
    scores = {run_id: relative(answers) for run_id, answers in found.items()}
    order = sorted(scores, key=lambda run_id: (math.isnan(scores[run_id].value), -scores[run_id].value))
    shares = [
        percent(score.value)
        + (
            ""
            if math.isnan(score.low)
            else f" ({percent(score.low).removesuffix('%')} to {percent(score.high)})"
        )
        for score in (scores[run_id] for run_id in order)
    ]
    several = len(order) > 1
    left = {(run_id, kind): share for run_id in order for kind, share in by_kind(found[run_id]).items()}
    lost = {one: float(found[one[0]].clean.mean()) - share for one, share in left.items()}
    run_id, kind = max(lost, key=lost.__getitem__)
    said, by = f"{labels[run_id]} keeps {shares[0]}", ""
    if several:
        kept = ", ".join(f"{labels[one]} {share}" for one, share in zip(order, shares, strict=True))
        said, by = f"the runs keep: {kept}", f" by {labels[run_id]}"
    most = f" Most is lost to {plain(kind)}{by}: {percent(left[run_id, kind])} right are left."
    return (
        f"Of {'their' if several else 'its'} accuracy, on {len(found[order[0]]):,} test images that are made worse in "
        f"{len(by_kind(found[order[0]]))} ways, {said}.{most if max(lost.values()) > 1e-9 else ''}"
    )


def robustness_table(found: Mapping[str, Robustness], chosen: Sequence[Chosen]) -> pd.DataFrame:
    """Text, one row a kind: mean accuracy over five strengths; of two runs with the same images also the difference."""
    shown = [run for run in chosen if run.run_id in found]
    columns = {run.label: pd.Series(by_kind(found[run.run_id])).map(number) for run in shown}
    table = pd.DataFrame(columns).rename_axis("corruption")
    if len(shown) != 2:
        return table
    try:
        difference = compare_robustness(*(found[run.run_id] for run in shown)).set_index("kind")
    except ValueError:
        return table  # other images were asked about
    table.loc["all"] = [number(difference.at["all", name]) for name in ("a", "b")]
    table["difference"] = [
        signed(row["difference"])
        + (f" ({signed(row['low'])} to {signed(row['high'])})" if row["low"] == row["low"] else "")
        + (" *" if row["decided"] else "")
        for _, row in difference.loc[table.index].iterrows()
    ]
    return table


def curve_table(found: Mapping[str, Robustness]) -> pd.DataFrame:
    """Columns run_id, kind, strength, accuracy, low, high."""
    return pd.concat([curves(answers).assign(run_id=run_id) for run_id, answers in found.items()])
