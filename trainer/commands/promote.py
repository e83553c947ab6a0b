"""`promote`: point an alias at a version; a champion is judged by the promotion gates first."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from trainer.contract import CHAMPION

if TYPE_CHECKING:
    from trainer.evaluation.comparison import Comparison
    from trainer.evaluation.gates import Verdict


def main(arguments: list[str]) -> int:
    return tyro.cli(promote, args=arguments, prog="python -m trainer promote")


def promote(
    model: Annotated[str, tyro.conf.Positional],
    version: Annotated[int, tyro.conf.Positional],
    /,
    *,
    alias: str = CHAMPION,
    check: bool = False,
    reason: str = "",
) -> int:
    """Make a version of a registered model its champion, or move another alias to it.

    A champion is judged by the gates of the file that MOODIFY_GATES names, of gates.toml, or of [tool.moodify.gates] in
    pyproject.toml, in this folder.

    Args:
        model: Name of the registered model, such as fer2013-emotion.
        version: Number of the version.
        alias: What to point at it: champion, challenger, or a name of your own.
        check: Only tell each gate's verdict; the exit status is 1 where one is not passed. The champion of today is
            judged against the one that it followed.
        reason: Why it becomes champion although a gate is not passed; kept with the version.
    """
    from trainer.evaluation.gates import failed, read_gates
    from trainer.store.location import open_store
    from trainer.store.promotion import champion_of, compare_runs, judged, judged_champion
    from trainer.store.promotion import promote as make_champion
    from trainer.store.reader import FEW, Reader
    from trainer.store.registry import find_version, set_alias

    if alias != CHAMPION and alias.casefold() == CHAMPION:
        raise ValueError(f"--alias {alias}: write {CHAMPION}")  # another alias, of which no gate is asked
    store = open_store(create=False)
    candidate = find_version(store, f"{model}/{version}")
    model = candidate.name  # without the models:/ of an address
    if alias != CHAMPION and not check:
        before = set_alias(store, model, version, alias)
        was = f"; before, it was version {before}" if before is not None and before != version else ""
        print(f"{model} version {version} is now {alias}{was}.")
        return 0
    gates = read_gates(Path.cwd())
    reader = Reader(store, newest=FEW)
    reader.want([f"{model}/{version}"])
    snapshot = reader.snapshot()
    champion = champion_of(snapshot, model)
    if champion is not None and champion.version == version and not check:
        print(f"{model} version {version} is champion already.")
        return 0

    def comparison(a: str, b: str) -> "Comparison":
        return compare_runs(reader, a, b)

    if champion is not None and champion.version == version:
        verdicts, against = judged_champion(gates, snapshot, champion, comparison)
    else:
        verdicts, against = judged(gates, snapshot, candidate, champion, comparison), champion
    print_verdicts(f"{model} version {version}", against.version if against else None, verdicts)
    lost = failed(verdicts)
    if check:
        return 1 if lost else 0
    if lost and not reason.strip():
        raise ValueError(
            f'not promoted: {", ".join(lost)} {"is" if len(lost) == 1 else "are"} not passed; with --reason "WHY" '
            "it becomes champion all the same"
        )
    make_champion(store, candidate, champion, verdicts, reason)
    was = f"; before, it was version {champion.version}" if champion else ""
    print(f"{model} version {version} is now champion{was}.")
    return 0


def print_verdicts(name: str, against: int | None, verdicts: list["Verdict"]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from trainer.commands.report import screen

    title = f"{name}, judged against version {against}" if against else f"{name}, judged by itself"
    table = Table(title=escape(title), title_justify="left", show_edge=False)
    for column in ("gate", "passed", "why"):
        table.add_column(column)
    words = {True: "yes", False: "no", None: "cannot be told"}
    for verdict in verdicts:
        table.add_row(verdict.gate, words[verdict.passed], escape(verdict.text))
    screen().print(table)
