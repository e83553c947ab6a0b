"""`data`: find or download a dataset, decode it once, and show what is in it."""

from pathlib import Path
from typing import Annotated

import tyro


def main(arguments: list[str]) -> int:
    return tyro.cli(data, args=arguments, prog="python -m trainer data")


def data(
    name: Annotated[str, tyro.conf.Positional],
    /,
    *,
    data_dir: Path | None = None,
    contact_sheet: Path | None = None,
) -> int:
    """Find or download a dataset, decode it into the cache, and print its class counts.

    Args:
        name: fer2013, sketch, or any name for images of your own, with --data-dir.
        data_dir: Folder, archive or CSV, where it is not in its usual place.
        contact_sheet: Write a picture (.png, .jpg, …) with eight training images of each class here.
    """
    if contact_sheet is not None:
        check_picture(contact_sheet)
    import numpy as np
    from rich.markup import escape
    from rich.table import Table

    from trainer.commands.report import screen
    from trainer.data import dataset_source
    from trainer.drafts import draft
    from trainer.evaluation.pictures import contact_sheet as draw

    dataset = dataset_source(name).load(data_dir, ("train", "test"))
    table = Table(title=escape(f"{dataset.name}: {dataset.source}"), title_justify="left", show_edge=False)
    table.add_column("class")
    for part in dataset.parts:
        table.add_column(part, justify="right")
    counts = {part: split.class_counts(len(dataset.class_names)) for part, split in dataset.parts.items()}
    for k, class_name in enumerate(dataset.class_names):
        table.add_row(escape(class_name), *(f"{column[k]:,}" for column in counts.values()))
    table.add_section()
    table.add_row("all", *(f"{sum(column):,}" for column in counts.values()))
    screen().print(table)
    for line in dataset.skipped:
        print(f"skipped {line}")
    if contact_sheet is not None:
        train = dataset.parts["train"]
        target = train.target.numpy()
        index = np.concatenate([np.flatnonzero(target == k)[:8] for k in range(len(dataset.class_names))])
        captions = [(dataset.class_names[k],) for k in target[index]]
        with draft(contact_sheet) as file:
            draw(train.images.numpy()[index], captions, columns=8, side_px=96).save(file)
        print(f"wrote {contact_sheet}")
    return 0


def check_picture(path: Path) -> None:
    """Raises ValueError where no picture that can be written has such a name."""
    from PIL import Image

    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise ValueError(
            f"--contact-sheet {path}: the name must end in .png, .jpg or what else pictures are named by"
        )
