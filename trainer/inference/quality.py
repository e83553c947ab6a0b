"""What makes an answer about a face doubtful before any model has given it."""

import cv2
import numpy as np

from trainer.inference.faces import Face, Photo, crop

SMALL_PX = 48
"""Side of a region, in px of the photo as it is read, below which a model is shown enlarged pixels."""
COMPARED_PX = 48
"""Sharpness is measured at this size, whatever the model takes."""
CUT_OFF = 0.1
"""Share of a region beyond the edge of the photo."""
UNCERTAIN_SCORE = 0.7
"""Below it the detector itself is in doubt."""
# 2% of FER-2013's images are beyond each: `python -m tests.benchmarks.crop`.
BLURRED = 0.5
TURNED_AWAY = 1.0


def flags(photo: Photo, face: Face) -> list[str]:
    """What is amiss with a face, most telling first; each a few words that follow "this face is"."""
    found = []
    region = face.region
    if (read := region.side * photo.scale) < SMALL_PX:
        found.append(
            f"small ({region.side:.0f} px wide{'' if photo.scale == 1 else f', read as {read:.0f}'})"
        )
    elif sharpness(crop(photo, region, COMPARED_PX)[0]) < BLURRED:
        found.append("blurred")
    if face.landmarks is not None and turned_away(face.landmarks) > TURNED_AWAY:
        found.append("turned away")
    if (outside := region.share_outside(photo)) > CUT_OFF:
        found.append(f"cut off ({outside:.0%} lies beyond the edge)")
    if face.score is not None and face.score < UNCERTAIN_SCORE:
        found.append("perhaps no face")
    return found


def sharpness(image: np.ndarray) -> float:
    """Standard deviation of the Laplacian over that of the pixels, uint8 (S, S); contrast does not matter.

    After Pech-Pacheco et al. (2000), who take the variance of the Laplacian.
    """
    spread = float(image.std())
    if spread < 1:
        return 0.0
    return float(cv2.Laplacian(image, cv2.CV_64F).std()) / spread


def turned_away(landmarks: np.ndarray) -> float:
    """0 for a face seen from the front; 1 where the nose stands before an eye, more beyond it.

    landmarks: float (5, 2), as in Face.
    """
    right, left, nose = landmarks[0], landmarks[1], landmarks[2]
    across = left - right
    length = float(np.dot(across, across))
    if length == 0:
        return float("inf")
    along = float(np.dot(nose - (right + left) / 2, across)) / length
    return abs(along) * 2
