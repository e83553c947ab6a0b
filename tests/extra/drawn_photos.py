"""Photos of people who do not exist: drawn faces on a plain ground, where it is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps

from trainer.data.sketch import draw_expression, draw_identity
from trainer.data.sketch_drawing import draw_portrait
from trainer.data.sketch_face import Pose

GROUND = (217, 191, 173)  # of the drawings themselves
INK, SKIN = (38, 26, 24), (255, 226, 205)


def portrait(seed: int, class_name: str = "happy", side: int = 240) -> Image.Image:
    """A drawn face that looks straight ahead, in colour: RGB, (side, side)."""
    generator = np.random.default_rng(seed)
    who = draw_identity(generator)
    face = draw_expression(generator, class_name, 1.0)
    grey = draw_portrait(who, face, Pose(), 210.0).develop().convert("L")
    return ImageOps.colorize(grey, INK, SKIN).resize((side, side), Image.Resampling.BICUBIC)


def scene(
    places: Sequence[tuple[int, int]], *, size: tuple[int, int] = (960, 640), side: int = 240,
    class_names: Sequence[str] = ("happy",), turns: Sequence[float] = (0,),
) -> Image.Image:  # fmt: skip
    """Portraits with their upper left corners at `places`; names and turns (degrees clockwise) repeat."""
    photo = Image.new("RGB", size, GROUND)
    for index, place in enumerate(places):
        one = portrait(index, class_names[index % len(class_names)], side)
        photo.paste(one.rotate(-turns[index % len(turns)], Image.Resampling.BICUBIC, fillcolor=GROUND), place)
    return photo


def encoded(photo: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    stream = BytesIO()
    photo.save(stream, kind, **options)
    return stream.getvalue()


@dataclass
class Upload:
    """What Streamlit hands over."""

    file_id: str
    name: str
    data: bytes | None
    size: int

    def getvalue(self) -> bytes:
        assert self.data is not None, "it is too large to be read"
        return self.data
