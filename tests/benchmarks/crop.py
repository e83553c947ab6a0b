"""How much around a face a crop should hold: measured on FER-2013, whose images are such crops.

`python -m tests.benchmarks.crop MODEL...` finds the face in validation images that the models were not trained on,
crops it anew as a photo is cropped, and asks the models; it also gives the limits of quality that photos are held to.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from trainer.commands.models import load_predictor
from trainer.data.splits import load_splits
from trainer.inference import faces, quality
from trainer.inference.faces import ENLARGED, MARGIN_PX, Face, Photo, Region, framed_crop

SIDES = (0.9, 1.0, 1.1, 1.2, 1.26, 1.3, 1.4, 1.6, 1.8)


@dataclass(frozen=True)
class Options:
    """Measure the crop on FER-2013's validation images."""

    models: Annotated[tuple[str, ...], tyro.conf.Positional]
    """NAME/VERSION, trained with validation `stratified` and seed 0."""
    images: int = 2871


def main() -> None:
    options = tyro.cli(Options, prog="python -m tests.benchmarks.crop")
    splits = load_splits("fer2013")
    images = splits.validation.images[: options.images].numpy()[:, 0]
    target = splits.validation.target[: options.images].numpy()
    photos = [Photo(np.repeat(image[..., None], 3, axis=2), *image.shape[::-1]) for image in images]
    found = [find_one(image) for image in images]
    kept = [index for index, face in enumerate(found) if face is not None]
    console = Console(width=110)
    console.print(f"{len(kept)} of {len(images)} validation images have one face that is found.")
    geometry(console, [found[index] for index in kept], images.shape[-1])
    table = Table(
        "side / box width", "upright", "as it leans", title="Accuracy of the models on crops made anew"
    )
    for model in options.models:
        predictor, name = load_predictor(model)

        def accuracy(pixels: np.ndarray, ask=predictor) -> float:
            return float((ask(pixels).argmax(1) == target[kept]).mean())

        table.add_row(f"{name}: the images themselves", f"{accuracy(images[kept][:, None]):.3f}", "")
        for side in SIDES:
            row = [f"{side:.2f}"]
            for keeps_angle in (True, False):
                pixels = [resized(photos[i], found[i], side, keeps_angle) for i in kept]
                row.append(f"{accuracy(np.stack(pixels)):.3f}")
            table.add_row(*row)
    console.print(table)
    limits(console, images, [found[index] for index in kept])


def find_one(image: np.ndarray) -> Face | None:
    """The largest face, in px of the image."""
    large = framed_crop(image)
    photo = Photo(np.repeat(large[..., None], 3, axis=2), *large.shape[::-1])
    if not (found := faces.find_faces(photo)):
        return None
    face = max(found, key=lambda face: face.region.side)
    region, landmarks = face.region, face.landmarks
    return Face(
        Region(
            (region.x - MARGIN_PX) / ENLARGED,
            (region.y - MARGIN_PX) / ENLARGED,
            region.side / ENLARGED,
            region.angle,
        ),
        face.score,
        (landmarks - MARGIN_PX) / ENLARGED,
    )


def resized(photo: Photo, face: Face, side: float, keeps_angle: bool) -> np.ndarray:
    region = face.region
    size = region.side / faces.SIDE_PER_BOX_WIDTH * side
    return faces.crop(
        photo, Region(region.x, region.y, size, region.angle if keeps_angle else 0.0), photo.width
    )


def geometry(console: Console, found: list[Face], size: int) -> None:
    """What frame the data set's own crops have, in terms of the detector's box."""
    widths = np.array([face.region.side for face in found]) / faces.SIDE_PER_BOX_WIDTH
    eyes_to_mouth = np.array(
        [(face.landmarks[:2].mean(0) + face.landmarks[3:].mean(0)) / 2 for face in found]
    )
    raised = (eyes_to_mouth[:, 1] - size / 2) / widths
    for name, values in (("side / box width", size / widths), ("raised by, in box widths", raised)):
        low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
        console.print(f"{name}: median {middle:.3f}, half of the images between {low:.3f} and {high:.3f}")
    angles = np.abs([face.region.angle for face in found])
    console.print(f"turned by at most {np.quantile(angles, 0.95):.0f}° in 95% of the images")


def limits(console: Console, images: np.ndarray, found: list[Face]) -> None:
    sharpness = [quality.sharpness(image) for image in images]
    turned = [quality.turned_away(face.landmarks) for face in found]
    low, high = np.quantile(sharpness, 0.02), np.quantile(turned, 0.98)
    console.print(f"sharpness: 2% of the images lie below {low:.3f}; the limit is {quality.BLURRED:g}")
    console.print(f"turned away: 2% of the images lie above {high:.2f}; the limit is {quality.TURNED_AWAY:g}")


if __name__ == "__main__":
    main()
