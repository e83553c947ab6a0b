"""Photos in, answers out: in their order, few at a time, with the reading beside the networks."""

import os
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from trainer.data.images import AwayError, ImageError
from trainer.inference import faces
from trainer.inference.answers import Answer, rows
from trainer.inference.faces import Face, Photo
from trainer.inference.model import Model, asked
from trainer.inference.predictor import share_cores
from trainer.inference.quality import flags

BATCH_FACES = 64
WORKERS = 2
IN_FLIGHT = 8
"""Photos that are read ahead; each takes at most 13 MB once it is decoded."""
FAILURES_FIRST = 8
"""A model that fails on so many faces before it has answered one is taken for broken."""


@dataclass
class Item:
    """A photo on its way: what was seen on it, then what the models answered."""

    path: str
    photo: Photo | None = None
    faces: Sequence[Face] = ()
    flags: Sequence[list[str]] = ()
    images: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)
    failure: str = ""
    passing: bool = False
    """Whether it failed because its disk is away."""
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The path, with a sign for each byte that is no UTF-8: no file of answers could hold it."""
        return os.fsencode(self.path).decode(errors="replace")


def ask_all(
    photos: Sequence[str], models: Mapping[str, Model], whole: bool, *, keep_pixels: bool
) -> Generator[Item, None, None]:
    """Photos in their order, with answers. Reading and detection run in threads, beside the networks.

    keep_pixels: leave each its photo, of which then few are in memory at once.
    """
    kinds = {(model.size, model.channels) for model in models.values()}
    cv2.setNumThreads(1)  # one thread a photo is faster than several threads on one
    share_cores()
    most = IN_FLIGHT if keep_pixels else BATCH_FACES
    waiting: deque[Future[Item]] = deque()
    batch: list[Item] = []
    answering: set[str] = set()
    names = iter(photos)
    with ThreadPoolExecutor(WORKERS) as pool:
        while True:
            while len(waiting) < IN_FLIGHT and (path := next(names, None)) is not None:
                waiting.append(pool.submit(look, path, kinds, whole, keep_pixels))
            if waiting:
                batch.append(waiting.popleft().result())
            if not waiting or sum(len(item.faces) for item in batch) >= BATCH_FACES or len(batch) >= most:
                answer(batch, models, answering)
                yield from batch
                batch = []
            if not waiting:
                return


def look(path: str, kinds: set[tuple[int, int]], whole: bool, keep_pixels: bool) -> Item:
    """Decode, find faces, crop; runs in a thread."""
    item = Item(path)
    try:
        photo = faces.read_photo(Path(path))
    except ImageError as error:
        item.failure, item.passing = str(error), isinstance(error, AwayError)
        return item
    item.faces = [faces.whole(photo)] if whole else faces.find_faces(photo)
    if not item.faces:
        item.failure = "no face was found; --whole takes the whole image as the face"
        return item
    item.flags = [flags(photo, face) for face in item.faces]
    item.images = {kind: faces.crops(photo, item.faces, *kind) for kind in kinds}
    item.photo = photo if keep_pixels else None
    return item


def answer(batch: Sequence[Item], models: Mapping[str, Model], answering: set[str]) -> None:
    """Fill in the rows of a batch: each model is asked once for all its faces.

    answering: models that have answered anything, here or before. Raises ValueError where another one answers none of
    FAILURES_FIRST faces or more.
    """
    full = [item for item in batch if item.faces]
    if not full:
        return
    given = []
    for name, model in models.items():
        told = asked(model, np.concatenate([item.images[model.size, model.channels] for item in full]))
        if not all(isinstance(one, str) for one in told):
            answering.add(name)
        elif name not in answering and len(told) >= FAILURES_FIRST:
            raise ValueError(f"{name} gives no answer: {told[0]}")
        given.append(told)
    answers = zip(*given, strict=True)
    for item in full:
        for number, (face, amiss) in enumerate(zip(item.faces, item.flags, strict=True), start=1):
            found = []
            for (name, model), told in zip(models.items(), next(answers), strict=True):
                if isinstance(told, str):
                    item.failure = f"{name} gives no answer to face {number}: {told}"
                else:
                    found.append(Answer(name, model.class_names, told))
            item.rows += rows(item.name, number, face, amiss, found)
