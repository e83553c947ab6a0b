"""Whether two ways of reading a store give the same."""

import pandas as pd

from trainer.store.reader import Reader


def assert_same(one: Reader, other: Reader) -> None:
    first, second = one.snapshot(), other.snapshot()
    pd.testing.assert_frame_equal(
        first.runs.sort_index().drop(columns="seconds"),
        second.runs.sort_index().drop(columns="seconds"),
        check_dtype=False,
    )
    pd.testing.assert_frame_equal(
        first.trials.sort_index().drop(columns="seconds"),
        second.trials.sort_index().drop(columns="seconds"),
        check_dtype=False,
    )
    assert first.sweeps == second.sweeps
    assert first.params == second.params
    assert first.versions == second.versions
    assert first.audits == second.audits
    ids = list(first.runs.index)
    pd.testing.assert_frame_equal(one.histories(ids), other.histories(ids), check_dtype=False)
