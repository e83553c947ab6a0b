"""What a sketched face is made of: a head, its muscles and its pose, and the lines that follow from them.

Points of a face are complex numbers x + iy: 0 lies between the eyes and the tip of the nose, x grows to the
right of the picture, y downwards, and 1 is half the width of a broad face. Paired features are made for the
right half of the picture and mirrored for the left one.
"""

from dataclasses import dataclass, fields
from functools import cached_property, lru_cache

import numpy as np
from PIL import Image, ImageDraw

PICTURE_PX = 192
"""Width of the drawing: four times that of the finished face, so that its edges come out smooth."""

UNIT_PX = 62.0
"""One unit of the face in pixels of the drawing, at scale 1."""

FLAT = 160
"""The grey of a relief that leaves the skin as it is; brighter lifts, darker hollows."""

ON_SKIN = float("nan")
"""The depth of points that lie on the skin, which bulges towards the viewer."""

Width = float | np.ndarray

SIDES = (-1, 1)
ACROSS = np.linspace(-1.0, 1.0, 15)  # from one corner of an eye or of the mouth to the other
DOME = 1.0 - ACROSS**2
CIRCLE = np.exp(1j * np.linspace(0.0, 2 * np.pi, 25))
ROUNDED_SQUARE = CIRCLE / np.maximum(np.abs(CIRCLE.real), np.abs(CIRCLE.imag)) ** 0.75


@dataclass(frozen=True)
class Identity:
    """Whose face it is: tones are grey levels from 0 to 255, age goes from 0, smooth, to 1, wrinkled."""

    face_width: float
    jaw_width: float
    chin_length: float
    eye_size: float
    eye_distance: float
    eye_tilt: float
    iris_tone: float
    brow_height: float
    brow_thickness: float
    brow_arch: float
    nose_length: float
    nose_width: float
    mouth_width: float
    lip_thickness: float
    skin_tone: float
    hair_tone: float
    shirt_tone: float
    hair_style: str
    hair_part: float
    beard: str
    glasses: str
    age: float


@dataclass(frozen=True)
class Expression:
    """Action units, 0 at rest and 1 at full strength (Ekman and Friesen, Facial Action Coding System, 1978).

    asymmetry is how much more the right half of the picture moves, as a share.
    """

    inner_brow_raise: float = 0.0  # AU1
    outer_brow_raise: float = 0.0  # AU2
    brow_lower: float = 0.0  # AU4
    upper_lid_raise: float = 0.0  # AU5
    cheek_raise: float = 0.0  # AU6
    lid_tighten: float = 0.0  # AU7
    nose_wrinkle: float = 0.0  # AU9
    upper_lip_raise: float = 0.0  # AU10
    lip_corner_pull: float = 0.0  # AU12
    lip_corner_depress: float = 0.0  # AU15
    lower_lip_depress: float = 0.0  # AU16
    chin_raise: float = 0.0  # AU17
    lip_stretch: float = 0.0  # AU20
    lip_press: float = 0.0  # AU24
    lips_part: float = 0.0  # AU25
    jaw_drop: float = 0.0  # AU26
    lid_droop: float = 0.0  # AU43
    asymmetry: float = 0.0

    @classmethod
    def from_facs(cls, code: str) -> "Expression":
        """The expression that is scored as `code`, such as "6D+12E": unit, then strength from A to E."""
        scores = (score for score in code.split("+") if score)
        return cls(**{ACTION_UNITS[int(score[:-1])]: ("ABCDE".index(score[-1]) + 1) / 5 for score in scores})


# The number of an action unit and the field that holds it.
ACTION_UNITS = dict(
    zip(
        (1, 2, 4, 5, 6, 7, 9, 10, 12, 15, 16, 17, 20, 24, 25, 26, 43),
        (field.name for field in fields(Expression) if field.name != "asymmetry"),
        strict=True,
    )
)


@dataclass(frozen=True)
class Pose:
    """How the head is held: angles in radians, shift in units of the face, gaze from -1 to 1 each way."""

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    scale: float = 1.0
    shift: complex = 0j
    gaze: complex = 0j

    @cached_property
    def camera(self) -> tuple[complex, complex, complex]:
        """What 1, a step towards the viewer and 0 become in pixels x + iy."""
        unit = complex(UNIT_PX * self.scale * np.exp(1j * self.roll))
        step = complex(np.sin(self.yaw), np.sin(self.pitch)) * unit
        return unit, step, self.shift * UNIT_PX + (96 + 98j)

    def project(self, points: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """Pixels x + iy of the drawing, complex (N,), for points, complex (N,).

        depth (N,) is how far before the axis of the head they lie, or ON_SKIN.
        """
        unit, step, origin = self.camera
        dome = 0.85 - 0.35 * (points.real**2 + points.imag**2)
        return points * unit + np.where(np.isnan(depth), dome, depth) * step + origin


class Sheet:
    """A square sheet of grey paper on which a face in a certain pose is drawn."""

    def __init__(self, pose: Pose, tone: float, size_px: int = PICTURE_PX) -> None:
        self.pose = pose
        self.image = Image.new("L", (size_px, size_px), int(tone))
        self._shapes: list[tuple[np.ndarray, float, float]] = []

    def develop(self) -> Image.Image:
        """The image with all that was drawn so far; at once, for sixty projections cost more than one."""
        if not self._shapes:
            return self.image
        outlines, tones, depths = zip(*self._shapes, strict=True)
        self._shapes.clear()
        lengths = [len(outline) for outline in outlines]
        px = self.pose.project(np.concatenate(outlines), np.repeat(depths, lengths))
        # Whole pixels, for Pillow would cut fractions off, and the last bit of a cosine would show.
        flat = np.rint(px * (self.image.width / PICTURE_PX)).view(np.float64).tolist()
        pen, start = ImageDraw.Draw(self.image), 0
        for length, tone in zip(lengths, tones, strict=True):
            pen.polygon(flat[start : start + 2 * length], fill=min(int(tone), 255))
            start += 2 * length
        return self.image

    def fill(self, outline: np.ndarray, tone: float, depth: float = ON_SKIN) -> None:
        self._shapes.append((outline, tone, depth))

    def disc(self, centre: complex, width: float, height: float, tone: float, depth: float = ON_SKIN) -> None:
        self.fill(disc(centre, width, height), tone, depth)

    def stroke(self, line: np.ndarray, width: Width, tone: float, depth: float = ON_SKIN) -> None:
        """Draws along a line (N,): one width tapers towards the ends, widths (N,) are kept."""
        along = np.empty_like(line)
        along[1:-1] = line[2:] - line[:-2]
        along[0], along[-1] = line[1] - line[0], line[-1] - line[-2]
        widths = width if isinstance(width, np.ndarray) else width * taper(len(line))
        side = along * (0.5j * widths / (np.abs(along) + 1e-9))
        self.fill(np.concatenate([line + side, (line - side)[::-1]]), tone, depth)


@lru_cache
def taper(points: int) -> np.ndarray:
    return np.sin(np.linspace(0.15, np.pi - 0.15, points))


@lru_cache
def spline(knots: int, closed: bool) -> np.ndarray:
    """The matrix (M, knots) that turns knots into points of the Catmull-Rom curve through them."""
    steps = 6
    t = np.arange(steps)[:, None] / steps
    pulls = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2)
    weights = np.hstack(pulls) / 2
    segments = knots if closed else knots - 1
    basis = np.zeros((segments * steps + 1, knots))
    for segment in range(segments):
        for offset in range(4):
            knot = segment + offset - 1
            column = knot % knots if closed else min(max(knot, 0), knots - 1)
            basis[segment * steps : (segment + 1) * steps, column] += weights[:, offset]
    basis[-1, 0 if closed else -1] = 1.0
    return basis.astype(np.complex128)


def curve(*knots: complex, closed: bool = False) -> np.ndarray:
    """A smooth line, complex (M,), through the knots."""
    return spline(len(knots), closed) @ np.array(knots, np.complex128)


def mirrored(*knots: complex) -> np.ndarray:
    """A smooth closed outline from the knots of its right half."""
    return curve(*knots, *(-knot.conjugate() for knot in reversed(knots) if knot.real), closed=True)


def flip(points: np.ndarray, side: int) -> np.ndarray:
    """Points of the right half of the face, on the side that is asked for."""
    return points if side > 0 else -points.conj()


def disc(centre: complex, width: float, height: float) -> np.ndarray:
    return CIRCLE.real * width + CIRCLE.imag * (1j * height) + centre


def between(line: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.concatenate([line, other[::-1]])


def head_outline(who: Identity, face: Expression, grow: float = 0.0) -> np.ndarray:
    w, jaw = who.face_width + grow, who.jaw_width + grow
    chin = 1j * (1.16 * who.chin_length + 0.17 * face.jaw_drop - 0.03 * face.chin_raise + grow)
    skull = (-1.28j - 1j * grow, 0.52 * w - 1.19j - 1j * grow, 0.9 * w - 0.78j - 1j * grow)
    cheek = (w - 0.2j, 0.95 * w + 0.28j)
    return mirrored(*skull, *cheek, 0.8 * jaw + 0.62 * chin, 0.48 * jaw + 0.9 * chin, 0.18 + chin, chin)


@dataclass(frozen=True)
class Eye:
    """A right eye around `centre`: its lids (15,) from the nose outwards."""

    centre: complex
    half_width: float
    upper: np.ndarray
    lower: np.ndarray

    @classmethod
    def of(cls, who: Identity, face: Expression, side: int) -> "Eye":
        moved = 1.0 + side * face.asymmetry
        wide, tight, cheek = face.upper_lid_raise, face.lid_tighten, face.cheek_raise
        up = 0.125 + moved * (0.085 * wide - 0.085 * face.lid_droop - 0.045 * tight - 0.04 * cheek)
        down = 0.082 + moved * (0.015 * wide - 0.035 * tight - 0.085 * cheek)
        up = max(up, 0.02 - 0.8 * min(down, 0.0))
        # Sad brows pull the inner end of the lid up, angry ones press it down.
        slant = 0.055 * face.inner_brow_raise - 0.05 * face.brow_lower + 0.02 * face.outer_brow_raise
        upper = -who.eye_tilt * ACROSS - who.eye_size * (up * DOME**0.8 - slant * ACROSS * DOME)
        lower = np.maximum(-who.eye_tilt * ACROSS + who.eye_size * down * DOME, upper + 0.015)
        return cls(who.eye_distance - 0.1j, 0.225 * who.eye_size, upper, lower)

    def lid(self, height: np.ndarray) -> np.ndarray:
        return ACROSS * self.half_width + 1j * height + self.centre

    def between_lids(self, outline: np.ndarray) -> np.ndarray:
        """What the lids leave of an outline, both complex (M,)."""
        inside = outline - self.centre
        x = np.minimum(np.maximum(inside.real / self.half_width, -1.0), 1.0)
        y = np.maximum(inside.imag, np.interp(x, ACROSS, self.upper))
        return x * self.half_width + 1j * np.minimum(y, np.interp(x, ACROSS, self.lower)) + self.centre


def brow_line(who: Identity, face: Expression, side: int) -> np.ndarray:
    """The middle of a right brow (M,), from the nose outwards."""
    moved = 1.0 + side * face.asymmetry
    inner, outer = face.inner_brow_raise * moved, face.outer_brow_raise * moved
    lower = face.brow_lower * moved
    base, arch = who.eye_distance - 1j * (0.39 + who.brow_height), who.brow_arch
    return curve(
        base - 0.27 - 0.055 * lower + 1j * (0.16 * lower - 0.20 * inner + 0.05 * face.nose_wrinkle),
        base - 0.10 - 0.02 * lower + 1j * (0.12 * lower - 0.10 * inner - 0.08 * outer - 0.75 * arch),
        base + 0.12 + 1j * (0.06 * lower + 0.01 * inner - 0.16 * outer - arch),
        base + 0.29 + 1j * (0.02 * lower + 0.05 * inner - 0.14 * outer + 0.04),
    )


@dataclass(frozen=True)
class Mouth:
    """The lines of the mouth (15,), from its left corner to its right one."""

    upper_lip: np.ndarray
    upper_edge: np.ndarray
    upper_teeth: np.ndarray
    tongue: np.ndarray
    lower_teeth: np.ndarray
    lower_edge: np.ndarray
    lower_lip: np.ndarray
    opening: float

    @classmethod
    def of(cls, who: Identity, face: Expression) -> "Mouth":
        smile, stretch, jaw = face.lip_corner_pull, face.lip_stretch, face.jaw_drop
        width = 1.0 + 0.3 * smile + 0.26 * stretch - 0.14 * face.lip_press - 0.2 * jaw * (1.0 - smile)
        corner = 0.17 * face.lip_corner_depress - 0.17 * smile + 0.035 * stretch - 0.012
        corners = corner * (1.0 + ACROSS * face.asymmetry) * np.abs(ACROSS) ** 1.7
        rest = 0.68 + 0.03 * smile - 0.06 * face.chin_raise + corners
        opening = (0.085 + 0.06 * smile) * face.lips_part + 0.36 * jaw
        # A stretched or a smiling mouth opens over its whole width, a dropped jaw makes an oval.
        gape = DOME ** (0.62 - 0.27 * min(stretch + smile, 1.0))
        upper = rest - (0.3 * opening + 0.075 * face.upper_lip_raise + 0.02 * face.nose_wrinkle) * gape
        lower = rest + (0.7 * opening + 0.075 * face.lower_lip_depress) * gape
        lower = np.maximum(lower - 0.015 * face.lip_press, upper)
        lips = who.lip_thickness * (1.0 - 0.7 * min(face.lip_press, 1.2)) * (1.0 - 0.25 * smile)
        cupids_bow = DOME * (1.0 - 0.28 * np.exp(-((ACROSS / 0.16) ** 2)))
        room, bared = lower - upper, 0.06 * (face.lower_lip_depress + stretch)
        x = ACROSS * (who.mouth_width * width)
        return cls(
            upper_lip=x + 1j * (upper - lips * cupids_bow),
            upper_edge=x + 1j * upper,
            upper_teeth=x + 1j * (upper + np.minimum(0.8 * room, 0.085 * gape)),
            tongue=x + 1j * (lower - 0.34 * room * DOME),
            lower_teeth=x + 1j * (lower - np.minimum(0.22 * room, bared * gape)),
            lower_edge=x + 1j * lower,
            lower_lip=x + 1j * (lower + 1.25 * lips * DOME),
            opening=float(room.max()),
        )
