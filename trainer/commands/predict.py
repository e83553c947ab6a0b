"""`predict`: the emotion of every face on photos."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from trainer import torchrun

if TYPE_CHECKING:
    from trainer.inference.stream import Item

WRITTEN = (".csv", ".json", ".parquet")
ANNOTATED_PX = 1600


def main(arguments: list[str]) -> int:
    with ExitStack() as stack:
        if torchrun.rank() > 0:  # the first process speaks for all
            nowhere = stack.enter_context(Path(os.devnull).open("w"))
            stack.enter_context(redirect_stdout(nowhere))
            stack.enter_context(redirect_stderr(nowhere))
        try:
            return tyro.cli(predict, args=arguments, prog="python -m trainer predict")
        except SystemExit as end:
            if torchrun.rank() > 0 and end.code:
                torchrun.told("")  # the first process says what is wrong, and torchrun ends this one
            raise


def predict(
    model: Annotated[str, tyro.conf.Positional],
    paths: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PATH...")],
    /,
    *,
    listed: Annotated[str | None, tyro.conf.arg(name="from", metavar="LIST")] = None,
    whole: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    output: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None,
    annotate: Path | None = None,
) -> int:
    """Find the faces on photos and name their emotions.

    Every face is turned upright and cropped as the training images are. Ends with exit code 1 where a photo could
    not be read, shows no face or has one that a model fails on; each is named.

    Args:
        model: NAME@ALIAS, NAME/VERSION, models:/…, runs:/RUN_ID, or a folder of the model format. Several, with
            commas between them, answer side by side.
        paths: Files, folders (with all that is below them) or quoted patterns ('photos/**/*.jpg').
        listed: Also the files that LIST names, one a line; `-` reads standard input.
        whole: Take each image as one face, without looking for faces: for images that are such crops already.
        json: Print one JSON object instead of a table.
        output: Write the answers to this file as well: .csv, .json or .parquet. Or, for any number of photos, into this
            folder, in parts: the same command again goes on after an interruption, and torchrun shares the work.
        annotate: Write each photo, with its faces and answers drawn on it, into this folder, over earlier such ones;
            where it lies among the photos, these are left out.
    """
    if output is not None and is_folder(output):
        if annotate is not None:
            raise ValueError("--annotate goes with a table or a file of answers, not with a folder of them")
        from trainer.commands.bulk import answer_into

        return answer_into(Path(output), model, paths, listed, whole=whole, as_json=json)
    if torchrun.world_size() > 1:
        raise ValueError("several processes write their answers into a folder: add --output FOLDER/")
    return answer_here(
        model,
        paths,
        listed,
        whole=whole,
        json=json,
        output=Path(output) if output else None,
        annotate=annotate,
    )


def is_folder(output: str) -> bool:
    """Raises ValueError where it is neither a folder nor a file that could be written."""
    path = Path(output)
    if output.endswith("/") or path.is_dir() or not path.suffix:
        return True
    if path.suffix not in WRITTEN:
        raise ValueError(
            f"--output {output}: the name must end in {', '.join(WRITTEN)}, or in / for a folder"
        )
    return False


def answer_here(
    model: str, paths: Sequence[str], listed: str | None, *, whole: bool, json: bool, output: Path | None,
    annotate: Path | None,
) -> int:  # fmt: skip
    """Answer all photos, then show and write all answers; returns the exit code."""
    from trainer.inference.listing import find

    photos = list(dict.fromkeys(find(paths, listed)))
    if annotate is not None:
        photos = without_pictures(photos, annotate)
    from trainer.commands.models import load_all

    models = load_all(model)
    if annotate is not None:
        annotate.mkdir(parents=True, exist_ok=True)
    from trainer.drafts import check_writable, draft
    from trainer.inference.stream import ask_all

    answers, failed, drawn = [], {}, set[str]()
    unwritten: list[OSError] = []
    if output is not None:
        check_writable(output)  # not after all photos
    with progress(len(photos), quiet=json) as advance:
        for item in ask_all(photos, models, whole, keep_pixels=annotate is not None):
            answers += item.rows
            if item.failure:
                failed[item.name] = item.failure
            if annotate is not None and item.rows:
                try:
                    write_annotated(item, annotate, drawn)
                except OSError as error:
                    unwritten.append(error)
            advance()
    if output is not None:
        try:
            with draft(output) as file:
                write_answers(file, list(models), answers, failed)
        except OSError as error:
            unwritten.append(error)
    # The file is there before anything is shown: who reads the table in a pager may end this.
    if json:
        from trainer.commands.evaluate import print_json
        from trainer.inference.answers import as_object

        print_json(as_object(list(models), answers, failed))
    elif answers:
        print_table(answers)
    for path, reason in failed.items():
        print(f"error: {one_line(path)}: {reason}", file=sys.stderr)
    if unwritten:
        others = f" (and {len(unwritten) - 1:,} more)" if len(unwritten) > 1 else ""
        print(f"error: not written: {unwritten[0]}{others}", file=sys.stderr)
    return 1 if failed or unwritten else 0


def without_pictures(photos: Sequence[str], folder: Path) -> list[str]:
    """Those that are no picture which this command has drawn into `folder`."""
    from trainer.inference.annotate import is_ours

    here = folder.resolve()
    left = [photo for photo in photos if Path(photo).parent.resolve() != here or not is_ours(Path(photo))]
    if not left:
        raise ValueError(f"there are only pictures in {folder} that this command has drawn")
    return left


def write_annotated(item: "Item", folder: Path, drawn: set[str]) -> None:
    """A picture never takes the place of anything but an earlier one.

    drawn: names of this command's pictures, in small letters: several folders share theirs, and to some file systems
        A.jpg and a.jpg are one.
    """
    from trainer.drafts import draft
    from trainer.inference.annotate import annotated, as_ours, is_ours

    assert item.photo is not None
    per_face: dict[int, list[str]] = {}
    for row in item.rows:
        words = f"{row['answer']} {row['probability']:.2f}" if row["sure"] else "not sure"
        per_face.setdefault(row["face"], []).append(words)
    numbers = range(1, len(item.faces) + 1)
    labels = [f"{number}  {' / '.join(per_face.get(number, ['no answer']))}" for number in numbers]
    picture = annotated(item.photo, item.faces, labels, ANNOTATED_PX)
    stem = Path(item.path).stem
    name, count = f"{stem}.jpg", 1
    while name.lower() in drawn or (os.path.lexists(folder / name) and not is_ours(folder / name)):
        count += 1
        name = f"{stem}-{count}.jpg"
    drawn.add(name.lower())
    with draft(folder / name) as file:
        file.write_bytes(as_ours(picture))


def write_answers(
    path: Path, models: Sequence[str], answers: Sequence[dict[str, Any]], failed: dict[str, str]
) -> None:
    from trainer.inference.answers import csv_text, json_text, table

    if path.suffix == ".parquet":
        table(answers).to_parquet(path, index=False)
    elif path.suffix == ".csv":
        path.write_text(csv_text(answers), encoding="utf-8")
    else:
        path.write_text(json_text(models, answers, failed) + "\n", encoding="utf-8")


def print_table(answers: Sequence[dict[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    from trainer.commands.report import screen

    several = len({row["model"] for row in answers}) > 1
    numbered = len(answers) > len({(row["photo"], row["model"]) for row in answers})
    flagged = any(row["flags"] for row in answers)
    paths = {row["photo"] for row in answers}
    short = len({Path(path).name for path in paths}) == len(paths)
    table = Table(show_edge=False)
    table.add_column("photo", overflow="fold")
    if numbered:
        table.add_column("face", no_wrap=True)
    if several:
        table.add_column("model", overflow="fold")  # a folder's name may be long
    table.add_column("answer", min_width=8)
    table.add_column("p", justify="right", no_wrap=True)
    table.add_column("then")
    if flagged:
        table.add_column("mind that it is")
    for row in answers:
        ranked = sorted(row["probabilities"].items(), key=lambda item: -item[1])
        cells = [Path(row["photo"]).name if short else row["photo"]]
        cells += [str(row["face"])] * numbered + [row["model"]] * several
        cells += [row["answer"] if row["sure"] else f"not sure: {ranked[0][0]} or {ranked[1][0]}"]
        cells += [
            f"{row['probability']:.3f}",
            ", ".join(f"{name} {value:.3f}" for name, value in ranked[1:3]),
        ]
        cells += [", ".join(row["flags"])] * flagged
        table.add_row(*(Text(one_line(cell)) for cell in cells))
    screen().print(table)


def one_line(text: str) -> str:
    """A name, of a file or of a class, without what would move the cursor or turn the direction of writing."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def progress(total: int, *, quiet: bool) -> Any:
    """A bar on stderr, where a person sees it and there is something to wait for."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    @contextmanager
    def shown() -> Iterator[Any]:
        console = Console(stderr=True)
        hidden = quiet or total < 8 or not console.is_terminal
        bar = Progress(*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn(),
                       console=console, disable=hidden, transient=True)  # fmt: skip
        with bar:
            task = bar.add_task("photos", total=total)
            yield lambda: bar.advance(task)

    return shown()
