"""The built-in dataset `sketch`: which faces it holds, what they express and how they were photographed."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import ImageFilter

from trainer.data.base import Dataset, DatasetSource, Split
from trainer.data.cache import cached
from trainer.data.sketch_drawing import draw_portrait
from trainer.data.sketch_face import (
    ACTION_UNITS,
    PICTURE_PX,
    Expression,
    Identity,
    Pose,
    Sheet,
    curve,
    flip,
)

logger = logging.getLogger(__name__)

Choice = TypeVar("Choice")

VERSION = 2
"""Raise it with every change that draws another pixel: cached faces are found by it."""

SEED = 0
FACE_PX = 48
PART_SIZES = {"train": 6_600, "test": 1_400}

# Images of each class in the training part of FER-2013 (Goodfellow et al., 2013).
FER2013_COUNTS = {
    "angry": 3995,
    "disgust": 436,
    "fear": 4097,
    "happy": 7215,
    "neutral": 4965,
    "sad": 4830,
    "surprise": 3171,
}
CLASS_NAMES: tuple[str, ...] = tuple(FER2013_COUNTS)

# Ways to show each emotion, after EMFACS (Friesen and Ekman, 1983), in the notation of the Facial Action
# Coding System: the number of an action unit, then its strength from A, a trace, to E, the most there is.
PROTOTYPES = {
    "angry": ("4E+5B+7D+17A+24E", "4E+7D+15B+17B+24D", "4E+5C+7C+10B+16C+20A+25D+26A"),
    "disgust": ("4C+6B+7D+9E+10E+15B+16B+25A", "4C+6B+7D+9E+10D+15C+17C"),
    "fear": ("1E+2C+4C+5E+7A+16A+20E+25D+26A", "1E+2D+4C+5E+20B+25C+26C", "1E+2B+4D+5D+15B+20D+25A"),
    "happy": ("6E+12E+25E", "6D+12E", "6E+12E+25E+26B"),
    "neutral": ("",),
    "sad": ("1E+4B+15E+17B+43A", "1D+4A+15D+43C", "1E+4C+6A+15D+20B+25C+43A"),
    "surprise": ("1E+2E+5E+25C+26E", "1E+2E+5D+25C+26B"),
}

HAIR_STYLES = {
    "bald": 0.08,
    "short": 0.26,
    "side": 0.15,
    "fringe": 0.14,
    "long": 0.13,
    "parted": 0.1,
    "bun": 0.06,
    "curly": 0.08,
}


@dataclass(frozen=True)
class Scene:
    """How the face was photographed: backdrop, brightness and noise in grey levels, light towards the lamp."""

    backdrop: float
    light: tuple[float, float, float]
    ambient: float
    gamma: float
    contrast: float
    brightness: float
    blur_px: float
    noise: float
    occlusion: str


def one_of(generator: np.random.Generator, shares: Mapping[Choice, float]) -> Choice:
    """One of the keys, by its share; the shares add up to 1."""
    place = np.searchsorted(np.cumsum(list(shares.values())), generator.random(), side="right")
    return list(shares)[min(int(place), len(shares) - 1)]


def draw_identity(generator: np.random.Generator) -> Identity:
    """Any head: proportions, skin, hair, beard, glasses and age are drawn one by one."""

    def around(middle: float, spread: float) -> float:
        return middle * (1.0 + spread * min(max(generator.standard_normal(), -2.2), 2.2))

    skin_tone = one_of(generator, {110: 0.15, 150: 0.2, 185: 0.35, 205: 0.3}) * around(1.0, 0.06)
    hair_tone = one_of(generator, {28: 0.38, 60: 0.27, 105: 0.18, 165: 0.1, 200: 0.07}) * around(1.0, 0.1)
    hair_style = one_of(generator, HAIR_STYLES)
    beard = one_of(generator, {"none": 0.66, "stubble": 0.14, "full": 0.12, "moustache": 0.08})
    return Identity(
        face_width=around(0.95, 0.04),
        jaw_width=around(0.92, 0.05),
        chin_length=around(1.0, 0.035),
        eye_size=around(1.0, 0.09),
        eye_distance=around(0.425, 0.035),
        eye_tilt=around(0.012, 1.5),
        iris_tone=generator.uniform(30, 105),
        brow_height=0.025 * generator.standard_normal(),
        brow_thickness=around(0.085, 0.22),
        brow_arch=around(0.075, 0.4),
        nose_length=around(1.0, 0.07),
        nose_width=around(0.17, 0.13),
        mouth_width=around(0.33, 0.08),
        lip_thickness=around(0.08, 0.22),
        skin_tone=skin_tone,
        hair_tone=min(hair_tone, skin_tone * 1.05),
        shirt_tone=generator.uniform(40, 220),
        hair_style=hair_style,
        hair_part=generator.uniform(-0.45, 0.45),
        beard=beard if hair_style in ("bald", "short", "side", "curly") else "none",
        glasses=one_of(generator, {"none": 0.83, "round": 0.07, "square": 0.07, "sun": 0.03}),
        age=generator.uniform(0.0, 1.0) ** 1.5,
    )


def draw_intensity(generator: np.random.Generator) -> float:
    """How strongly an emotion is shown, from 0.2 to 1.1: some faces hardly give it away."""
    return 0.2 + 0.9 * generator.beta(2.0, 1.5)


def draw_expression(generator: np.random.Generator, class_name: str, intensity: float) -> Expression:
    """One person's way to show an emotion, over a resting face that may itself look cross or sad."""
    ways = PROTOTYPES[class_name]
    prototype = Expression.from_facs(ways[generator.integers(len(ways))])
    aimed = np.array([getattr(prototype, unit) for unit in ACTION_UNITS.values()])
    personal = np.clip(1.0 + 0.2 * generator.standard_normal(len(aimed)), 0.4, 1.6)
    stray = 0.055 * generator.standard_normal(len(aimed))
    # Some muscle is always busy with something else: speech, the sun, a thought.
    stray[generator.integers(len(aimed))] += generator.exponential(0.13)
    units = np.clip(aimed * personal * intensity + stray, 0.0, 1.25)
    asymmetry = float(np.clip(0.1 * generator.standard_normal(), -0.3, 0.3))
    return Expression(**dict(zip(ACTION_UNITS.values(), units.tolist(), strict=True)), asymmetry=asymmetry)


def draw_pose(generator: np.random.Generator) -> Pose:
    """A head that roughly faces the camera."""
    turns = np.clip(generator.standard_normal(7), -2.2, 2.2)
    yaw, pitch, roll, right, down, look_right, look_down = turns.tolist()
    return Pose(
        yaw=0.14 * yaw,
        pitch=0.08 * pitch,
        roll=0.07 * roll,
        scale=generator.uniform(1.0, 1.2),
        shift=complex(0.05 * right, 0.05 * down),
        gaze=complex(0.45 * look_right, 0.3 * look_down),
    )


def draw_scene(generator: np.random.Generator) -> Scene:
    """A lamp somewhere around the camera, a camera of some quality, sometimes something in the way."""
    angle, slant = generator.uniform(0.0, 2 * np.pi), generator.uniform(0.0, 0.85)
    return Scene(
        backdrop=generator.uniform(25, 235),
        light=(slant * np.cos(angle), slant * np.sin(angle) - 0.25, 1.0),
        ambient=generator.uniform(0.35, 0.7),
        gamma=np.exp(0.18 * generator.standard_normal()),
        contrast=generator.uniform(0.75, 1.2),
        brightness=generator.uniform(-12, 22),
        blur_px=one_of(generator, {0.0: 0.55, 0.4: 0.3, 0.65: 0.15}),
        noise=generator.uniform(1.0, 5.5),
        occlusion=one_of(generator, {"none": 0.89, "hand": 0.05, "caption": 0.03, "strand": 0.03}),
    )


def draw_occlusion(sheet: Sheet, generator: np.random.Generator, who: Identity, occlusion: str) -> None:
    """Puts a hand, a line of text or a strand of hair before the face."""
    side = one_of(generator, {-1: 0.5, 1: 0.5})
    if occlusion == "hand":
        x, y = generator.uniform(0.1, 0.6), generator.uniform(0.6, 1.0)
        widths = np.array([0.19, 0.19, 0.17, 0.11])
        for finger, reach in enumerate((0.42, 0.52, 0.5, 0.38)):
            knuckle = complex(x + 0.34 - 0.2 * finger, y + 0.02 * finger)
            bones = knuckle + np.array([0.5j, 0j, -0.08 - 0.6j * reach, -0.1 - 1j * reach])
            sheet.stroke(flip(bones, side), widths + 0.03, who.skin_tone * 0.5, depth=1.2)
            sheet.stroke(flip(bones, side), widths, who.skin_tone * 0.92, depth=1.2)
        sheet.disc(complex(side * (x + 0.05), y + 0.55), 0.48, 0.42, who.skin_tone * 0.88, depth=1.2)
    elif occlusion == "caption":
        y = generator.uniform(0.55, 1.2)
        sheet.stroke(np.array([complex(-2.5, y), complex(2.5, y)]), np.full(2, 0.24), 235, depth=1.0)
        for x in np.arange(-1.4, 1.5, 0.16).tolist():
            sheet.disc(complex(x, y), 0.05, generator.uniform(0.04, 0.09), 40, depth=1.0)
    elif occlusion == "strand" and who.hair_style != "bald":
        x = generator.uniform(0.15, 0.55)
        strand = curve(0.2 - 1.25j, x + 0.1 - 0.6j, x - 0.1j, x + 0.25 + 0.5j)
        sheet.stroke(flip(strand, side), 0.26, who.hair_tone, depth=1.0)


PIXEL = (np.arange(FACE_PX) + 0.5) / FACE_PX * 2.0 - 1.0


def photograph(sheet: Sheet, scene: Scene, generator: np.random.Generator) -> np.ndarray:
    """The drawing as a camera sees it, uint8 (FACE_PX, FACE_PX)."""
    small = sheet.develop().reduce(PICTURE_PX // FACE_PX)
    if scene.blur_px:
        small = small.filter(ImageFilter.GaussianBlur(scene.blur_px))
    # Doubles all the way: where one machine's last bit differs from another's, the rounded pixel does not.
    light = np.array(scene.light) / np.sqrt(np.square(scene.light).sum())
    x, y = PIXEL[None, :], PIXEL[:, None]
    dome = np.sqrt(np.maximum(1.0 - 0.5 * (x * x + y * y), 0.0))
    facing = x * light[0] + y * light[1] + dome * light[2]
    lit = scene.ambient + (1.0 - scene.ambient) * np.maximum(facing, 0.0) * 1.1
    grey = 255.0 * np.minimum(np.asarray(small) / 255.0 * lit, 1.0) ** scene.gamma
    grey = (grey - 120.0) * scene.contrast + 120.0 + scene.brightness
    grey += scene.noise * generator.standard_normal(grey.shape)
    return np.rint(np.clip(grey, 0.0, 255.0)).astype(np.uint8)


def draw_face(generator: np.random.Generator, class_name: str, intensity: float | None = None) -> np.ndarray:
    """A new face, uint8 (48, 48), that shows `class_name`.

    intensity is how strongly, from 0 (not at all) to about 1.1; where it is None it is drawn, too.
    """
    if class_name not in PROTOTYPES:
        raise ValueError(f"there is no class '{class_name}'; choose one of {', '.join(CLASS_NAMES)}")
    # What the face shows comes last: the same generator gives the same person in the same light.
    who, pose, scene = draw_identity(generator), draw_pose(generator), draw_scene(generator)
    drawn_intensity = draw_intensity(generator)
    face = draw_expression(generator, class_name, drawn_intensity if intensity is None else intensity)
    sheet = draw_portrait(who, face, pose, scene.backdrop)
    draw_occlusion(sheet, generator, who, scene.occlusion)
    return photograph(sheet, scene, generator)


def part_counts(part: str) -> dict[str, int]:
    """How many faces of each class `part` has: FER-2013's shares of PART_SIZES, by largest remainder."""
    if part not in PART_SIZES:
        raise ValueError(f"sketch has no part '{part}'; choose from {', '.join(PART_SIZES)}")
    size, total = PART_SIZES[part], sum(FER2013_COUNTS.values())
    counts = {name: size * count // total for name, count in FER2013_COUNTS.items()}
    by_remainder = sorted(CLASS_NAMES, key=lambda name: size * FER2013_COUNTS[name] % total, reverse=True)
    for name in by_remainder[: size - sum(counts.values())]:
        counts[name] += 1
    return counts


def draw_part(part: str, counts: Mapping[str, int], seed: int) -> Split:
    """The faces of one part, counts[class name] of each class, in an order of their own.

    A face depends on seed, part, its place in the part and its class, and on no other face.
    """

    def generator(*place: int) -> np.random.Generator:
        key = (list(PART_SIZES).index(part), *place)
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))

    target = np.repeat(np.arange(len(CLASS_NAMES)), [counts.get(name, 0) for name in CLASS_NAMES])
    target = generator().permutation(target)
    images = np.empty((len(target), 1, FACE_PX, FACE_PX), np.uint8)
    for index, label in enumerate(target):
        images[index, 0] = draw_face(generator(index), CLASS_NAMES[label])
    sample_ids = tuple(f"{part}/{index:05d}" for index in range(len(target)))
    return Split(torch.from_numpy(images), torch.from_numpy(target.astype(np.int64)), sample_ids)


def load(data_dir: Path | None, parts: Sequence[str]) -> Dataset:
    """Draws the wanted parts, or takes them from the cache.

    Raises:
        ValueError: `data_dir` is given, or a part is neither "train" nor "test".
    """
    if data_dir is not None:
        raise ValueError(f"sketch is drawn, it takes no --data-dir (given: {data_dir})")

    counts = {part: part_counts(part) for part in parts}

    def build() -> Dataset:
        total = sum(sum(of_part.values()) for of_part in counts.values())
        logger.info("drawing %d faces, some 300 a second; the cache keeps them", total)
        drawn = {part: draw_part(part, counts[part], SEED) for part in parts}
        return Dataset("sketch", CLASS_NAMES, drawn, source=f"drawn by trainer.data.sketch, seed {SEED}")

    return cached("sketch", f"version {VERSION}, seed {SEED}, parts {' '.join(parts)}", build)


SOURCE = DatasetSource(load=load)
