"""What is seen on a session's photos, and what the chosen models say of it."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dashboard.text import several
from trainer.data.images import ImageError
from trainer.inference import annotate, faces, quality
from trainer.inference.answers import Answer, agreement, rows
from trainer.inference.faces import Face, Photo, Region
from trainer.inference.model import Model, asked
from trainer.store.snapshot import Snapshot

if TYPE_CHECKING:
    from dashboard.models import Candidate, Key

MOST_PHOTOS = 200
LARGEST_BYTES = 40 * 1024**2
SHOWN_PX, SAVED_PX, FACE_PX = 1000, 1600, 144
ASKED_AT_ONCE = 64
"""Faces; of 224 px in colour these are 10 MB."""
KEPT_BYTES = 48 * 48
"""An input that is no larger stays with its face; others are cut out of the photo anew for whoever wants them."""
_decoding = threading.Lock()
"""One photo at a time in the whole server: this bounds its memory. Others wait for some tenths of a second."""


@dataclass(eq=False)
class Spot:
    """A face on a photo: where it was found, where it is taken from, and what came of it.

    inputs: (size, channels) → what a model is shown, uint8 (channels, size, size), of at most KEPT_BYTES. answers,
    looks, milliseconds: by model; a look is the picture of what spoke for the answer. shown: size and channels of what
    a model was given.
    """

    number: int
    face: Face
    found: Region
    flags: list[str]
    used: bool = True
    inputs: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)
    answers: "dict[Key, Answer]" = field(default_factory=dict)
    milliseconds: "dict[Key, float]" = field(default_factory=dict)
    looks: "dict[Key, bytes | None]" = field(default_factory=dict)
    shown: "dict[Key, tuple[int, int]]" = field(default_factory=dict)


@dataclass(eq=False)
class Seen:
    """A photo and its faces, left to right; failure: why there is nothing to see, or empty."""

    file_id: str
    name: str
    failure: str = ""
    width: int = 0
    height: int = 0
    milliseconds: float = 0.0
    spots: list[Spot] = field(default_factory=list)
    whole: bool = False
    others: list[Spot] | None = None
    """While the whole photo is the face, those on it, and the other way round; None before that was ever asked for."""

    @property
    def used(self) -> list[Spot]:
        return [spot for spot in self.spots if spot.used]


class Album:
    """The photos of one session. Pixels are kept of the photo that was used last; others are decoded anew.

    seen: file id → what was seen, in the order of the uploads. snapshot: of the store, when it last answered.
    picture_taken: by the camera, as Streamlit gave it.
    """

    snapshot: Snapshot

    def __init__(self) -> None:
        self.picture_taken: Any = None
        self.seen: dict[str, Seen] = {}
        self._sources: dict[str, Any] = {}
        self._pixels: tuple[str, Photo] | None = None

    def update(self, uploads: Sequence[Any], progress: Callable[[float, str], object]) -> None:
        """Look at what is new among `uploads` (Streamlit's), and drop what is no longer there."""
        self._sources = {upload.file_id: upload for upload in uploads[:MOST_PHOTOS]}
        self.seen = {file_id: seen for file_id, seen in self.seen.items() if file_id in self._sources}
        if self._pixels is not None and self._pixels[0] not in self._sources:
            self._pixels = None
        new = [upload for file_id, upload in self._sources.items() if file_id not in self.seen]
        for index, upload in enumerate(new):
            progress(index / len(new), f"Photo {index + 1} of {len(new)}")
            self.seen[upload.file_id] = self._look(upload)
        self.seen = {file_id: self.seen[file_id] for file_id in self._sources}
        self._name()

    def take_whole(self, seen: Seen, whole: bool) -> None:
        """Take the whole photo as one face, or the faces on it, which stay as they were moved, drawn and chosen."""
        if seen.others is None:
            photo = self.photo(seen)
            found = [faces.whole(photo)] if whole else faces.find_faces(photo)
            seen.others = [_spot(number, photo, face) for number, face in enumerate(found, start=1)]
        seen.whole, seen.spots, seen.others = whole, seen.others, seen.spots

    def add(self, seen: Seen, region: Region) -> None:
        """A face that was not found."""
        seen.spots.append(_spot(len(seen.spots) + 1, self.photo(seen), Face(region)))

    def adjust(self, seen: Seen, spot: Spot, region: Region) -> None:
        """Take the face from another square; what models said of the former one is dropped."""
        if region == spot.face.region:
            return
        photo = self.photo(seen)
        face = Face(region, spot.face.score, spot.face.landmarks)
        spot.face, spot.flags = face, quality.flags(photo, face)
        for kept in (spot.inputs, spot.answers, spot.looks, spot.shown, spot.milliseconds):
            kept.clear()

    def photo(self, seen: Seen) -> Photo:
        """Raises ImageError. A download runs in a thread of its own, beside the page's."""
        pixels = self._pixels
        if pixels is None or pixels[0] != seen.file_id:
            with _decoding:
                pixels = seen.file_id, faces.read_photo(self._sources[seen.file_id].getvalue())
            self._pixels = pixels
        return pixels[1]

    def ask(self, candidate: "Candidate", model: Model) -> dict[str, str]:
        """Let a model answer about every face that it has not seen.

        Returns name of a photo → why the model fails on a face of it. Raises ValueError where it answers nothing.
        """
        new = [
            (seen, spot)
            for seen in self.seen.values()
            for spot in seen.used
            if candidate.key not in spot.answers
        ]
        failures: dict[str, str] = {}
        kind = (model.size, model.channels)
        for first in range(0, len(new), ASKED_AT_ONCE):
            some = new[first : first + ASKED_AT_ONCE]
            images = np.stack([self.input(seen, spot, kind) for seen, spot in some])
            started = time.perf_counter()
            answers = asked(model, images)
            milliseconds = 1000 * (time.perf_counter() - started) / len(some)
            for (seen, spot), told in zip(some, answers, strict=True):
                if isinstance(told, str):
                    failures[seen.name] = told
                    continue
                spot.answers[candidate.key] = Answer(candidate.name, model.class_names, told)
                spot.shown[candidate.key] = kind
                spot.milliseconds[candidate.key] = milliseconds
        if failures and not any(
            candidate.key in spot.answers for seen in self.seen.values() for spot in seen.used
        ):
            raise ValueError(next(iter(failures.values())))
        return failures

    def explain(self, seen: Seen, spots: Sequence[Spot], candidate: "Candidate", model: Model) -> None:
        """Have the pictures of what the model looked at, for some faces of one photo."""
        new = [spot for spot in spots if candidate.key not in spot.looks and candidate.key in spot.answers]
        if not new:
            return
        images = np.stack([self.input(seen, spot, (model.size, model.channels)) for spot in new])
        maps = model.saliency(images, [spot.answers[candidate.key].order[0] for spot in new])
        for index, spot in enumerate(new):
            spot.looks[candidate.key] = (
                None
                if maps is None
                else annotate.encoded(annotate.overlay(images[index], maps[index], FACE_PX))
            )

    def input(self, seen: Seen, spot: Spot, kind: tuple[int, int]) -> np.ndarray:
        """What a model is shown of a face, uint8 (channels, size, size); kind: size and channels. Raises ImageError."""
        if (image := spot.inputs.get(kind)) is None:
            image = faces.crop(self.photo(seen), spot.face.region, *kind)
            if image.nbytes <= KEPT_BYTES:
                spot.inputs[kind] = image
        return image

    def inputs(self, seen: Seen, spot: Spot, chosen: "Sequence[Candidate]") -> list[np.ndarray]:
        """What the chosen models were shown of a face: each kind once, and at most three."""
        kinds = sorted({spot.shown[one.key] for one in chosen if one.key in spot.shown})
        return [self.input(seen, spot, kind) for kind in kinds[:3]]

    def _name(self) -> None:
        """Photos that share a name, as a phone's do, are told apart by numbers."""
        taken: set[str] = set()
        for file_id, seen in self.seen.items():
            name, count = self._sources[file_id].name, 1
            stem, dot, suffix = name.rpartition(".")
            while name in taken:
                count += 1
                name = f"{stem} ({count}){dot}{suffix}" if stem else f"{suffix} ({count})"
            taken.add(name)
            seen.name = name

    def _look(self, upload: Any) -> Seen:
        seen = Seen(upload.file_id, upload.name)
        started = time.perf_counter()
        if upload.size > LARGEST_BYTES:
            seen.failure = (
                f"it has {upload.size / 1024**2:.0f} MB; at most {LARGEST_BYTES // 1024**2} MB are read"
            )
            return seen
        try:
            photo = self.photo(seen)
        except ImageError as error:
            seen.failure = str(error)
            return seen
        seen.width, seen.height = photo.width, photo.height
        found = faces.find_faces(photo)
        seen.spots = [_spot(number, photo, face) for number, face in enumerate(found, start=1)]
        for spot in seen.spots:  # of the usual size at once, while the pixels are here
            self.input(seen, spot, (48, 1))
        seen.milliseconds = 1000 * (time.perf_counter() - started)
        return seen

    def records(self, chosen: "Sequence[Candidate]") -> list[dict[str, Any]]:
        """One row an answer, as `python -m trainer predict` gives them."""
        return [
            row
            for seen in self.seen.values()
            for spot in seen.used
            for row in rows(seen.name, spot.number, spot.face, spot.flags, answers_of(spot, chosen))
        ]

    def failed(self, chosen: "Sequence[Candidate]") -> dict[str, str]:
        """Name of each photo without an answer → why."""
        reasons = {}
        for seen in self.seen.values():
            if not seen.used:
                missing = "every face is left out" if seen.spots else "no face was found"
                reasons[seen.name] = seen.failure or missing
            elif not any(answers_of(spot, chosen) for spot in seen.used):
                reasons[seen.name] = "no model gives an answer"
        return reasons

    def plain_picture(self, seen: Seen) -> bytes:
        """The photo alone, as a JPEG of SHOWN_PX."""
        return annotate.encoded(annotate.annotated(self.photo(seen), [], [], SHOWN_PX), "JPEG")

    def picture(self, seen: Seen, chosen: "Sequence[Candidate]", most_px: int, *, words: bool) -> bytes:
        """The photo with its faces drawn on it, as a JPEG: with numbers, or with answers as well."""
        labels = []
        for spot in seen.used:
            said = [
                f"{a.best} {a.probability:.2f}" if a.sure else "not sure" for a in answers_of(spot, chosen)
            ]
            labels.append(f"{spot.number}  {' / '.join(said)}" if words else f"{spot.number}")
        spots = [spot.face for spot in seen.used]
        return annotate.encoded(annotate.annotated(self.photo(seen), spots, labels, most_px), "JPEG")


def answers_of(spot: Spot, chosen: "Sequence[Candidate]") -> list[Answer]:
    return [spot.answers[candidate.key] for candidate in chosen if candidate.key in spot.answers]


def _spot(number: int, photo: Photo, face: Face) -> Spot:
    return Spot(number, face, face.region, quality.flags(photo, face))


def sentence(album: Album, chosen: "Sequence[Candidate]") -> str:
    """What a person came for: what was found on the photos, in one or two sentences."""
    readable = [seen for seen in album.seen.values() if not seen.failure]
    failed = len(album.seen) - len(readable)
    spots = [spot for seen in readable for spot in seen.used]
    if not readable:
        return "This photo cannot be read." if failed == 1 else f"None of {failed} photos can be read."
    lost = f" {failed} cannot be read." if failed else ""
    many = len(album.seen) > 1
    if not spots and (found := sum(len(seen.spots) for seen in readable)):
        return f"The only face is left out.{lost}" if found == 1 else f"All {found} faces are left out.{lost}"
    if not spots:
        return (
            f"No face was found on {several(len(readable), 'photo')}.{lost}" if many else "No face was found."
        )
    number = _number(len(spots))
    count = f"{len(album.seen)} photos, {number}" if many else number.capitalize()
    if len(spots) > 2 or many:
        return f"{count}{_tally(spots, chosen)}.{lost}"
    # A face that was drawn is the last one, wherever it is.
    said = [_said(spot, chosen) for spot in sorted(spots, key=lambda spot: spot.face.region.x)]
    if not all(said):
        return f"{count}."
    return f"{count}: {said[0]}." if len(said) == 1 else f"{count}. Left: {said[0]}. Right: {said[1]}."


def _number(of_faces: int) -> str:
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    return f"{words[of_faces] if of_faces < len(words) else of_faces} face{'' if of_faces == 1 else 's'}"


def _tally(spots: Sequence[Spot], chosen: "Sequence[Candidate]") -> str:
    """How often the first model gives each answer, the most frequent first."""
    first = [spot.answers[chosen[0].key] for spot in spots if chosen and chosen[0].key in spot.answers]
    if not first:
        return ""
    counts: dict[str, int] = {}
    for answer in first:
        name = answer.best if answer.sure else "not sure"
        counts[name] = counts.get(name, 0) + 1
    ranked = sorted(counts.items(), key=lambda item: (item[0] == "not sure", -item[1]))
    many = len(chosen) > 1
    disagree = sum(len({answer.best for answer in answers_of(spot, chosen)}) > 1 for spot in spots)
    doubt = any(len({answer.sure for answer in answers_of(spot, chosen)}) > 1 for spot in spots)
    complete = all(len(answers_of(spot, chosen)) == len(chosen) for spot in spots)
    alike = "; all models agree" if many and complete and not doubt else ""
    rest = f"; the models disagree on {disagree}" if disagree else alike
    says = f" {chosen[0].label} says" if many else ""
    return f":{says} " + ", ".join(f"{count} {name}" for name, count in ranked) + rest


def _said(spot: Spot, chosen: "Sequence[Candidate]") -> str:
    answers = answers_of(spot, chosen)
    if not answers:
        return ""
    together = agreement(answers)
    if len({(answer.best, answer.sure) for answer in answers}) > 1:
        labels = [candidate.label for candidate in chosen if candidate.key in spot.answers]
        return ", ".join(f"{a.words()} says {label}" for a, label in zip(answers, labels, strict=True))
    return f"{answers[0].words()}{f', {together}' if together else ''}"
