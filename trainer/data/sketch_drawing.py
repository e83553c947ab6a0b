"""Draws a face of `sketch_face` in grey, layer by layer: what lies behind, skin, folds, features, hair."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter

from trainer.data.sketch_face import (
    ACROSS,
    CIRCLE,
    FLAT,
    PICTURE_PX,
    ROUNDED_SQUARE,
    SIDES,
    Expression,
    Eye,
    Identity,
    Mouth,
    Pose,
    Sheet,
    between,
    brow_line,
    curve,
    flip,
    head_outline,
    mirrored,
)


def draw_portrait(who: Identity, face: Expression, pose: Pose, backdrop: float) -> Sheet:
    """The face in even light, on a sheet of PICTURE_PX."""
    sheet, mask, mouth = Sheet(pose, backdrop), Sheet(pose, 0), Mouth.of(who, face)
    draw_behind(sheet, who)
    mask.fill(head_outline(who, face), 255, depth=0.0)
    sheet.develop().paste(draw_skin(who, face, pose, mouth), mask=mask.develop())
    for side in SIDES:
        draw_eye(sheet, who, face, side)
        draw_brow(sheet, who, face, side)
    draw_nose(sheet, who, face)
    draw_mouth(sheet, who, mouth)
    draw_hair(sheet, who, face)
    draw_glasses(sheet, who)
    return sheet


EAR = curve(0.93 - 0.22j, 1.08 - 0.25j, 1.15 - 0.08j, 1.08 + 0.18j, 0.95 + 0.28j, closed=True)
EAR_HOLE = 0.55 * (EAR - EAR.mean()) + EAR.mean()
NECK = mirrored(0.7j, 0.52 + 0.8j, 0.5 + 1.35j, 0.62 + 1.9j, 2.0j)
SHIRT = mirrored(1.62j, 0.45 + 1.48j, 1.2 + 1.6j, 1.8 + 1.9j, 1.9 + 2.6j, 2.6j)


def draw_behind(sheet: Sheet, who: Identity) -> None:
    """Long hair, the neck, the shirt and the ears."""
    w, skin = who.face_width, who.skin_tone
    if who.hair_style in ("long", "parted"):
        end = 2.3j if who.hair_style == "long" else 1.0j
        fall = (1.12 * w - 0.7j, 1.2 * w + 0.1j, 1.22 * w + end)
        sheet.fill(mirrored(-1.38j, 0.7 - 1.25j, *fall, 0.5 + 0.1j + end), who.hair_tone * 0.8, depth=-0.3)
    elif who.hair_style == "bun":
        sheet.disc(-1.42j, 0.42, 0.34, who.hair_tone * 0.9, depth=-0.2)
    sheet.fill(NECK, skin * 0.66, depth=-0.1)
    sheet.fill(SHIRT, who.shirt_tone, depth=-0.1)
    if who.hair_style not in ("long", "parted", "curly"):
        for side in SIDES:
            sheet.fill(flip(EAR + (w - 1.0), side), skin * 0.86, depth=-0.1)
            sheet.fill(flip(EAR_HOLE + (w - 1.0), side), skin * 0.66, depth=-0.1)


def draw_skin(who: Identity, face: Expression, pose: Pose, mouth: Mouth) -> Image.Image:
    """Skin with the hollows, the bulges and the folds that the muscles make, PICTURE_PX square."""
    broad, fine = Sheet(pose, FLAT, PICTURE_PX // 4), Sheet(pose, FLAT, PICTURE_PX // 2)
    cheek = face.cheek_raise
    for side in SIDES:
        broad.disc(side * 0.40 - 0.20j, 0.30, 0.17, 138)
        broad.disc(side * 0.56 + 0.30j - 0.06j * cheek, 0.22, 0.18, 170 + 16 * cheek)
        broad.disc(side * 0.20 + 0.14j, 0.07, 0.30, 146)
    broad.disc(-0.72j, 0.5, 0.22, 169)
    broad.disc(0.05j, 0.07, 0.3, 178)
    broad.fill(mouth.lower_lip + 0.09j, 140)
    draw_folds(fine, who, face, mouth)
    draw_beard(fine, who, face, mouth)
    wrinkles = fine.develop()
    hills = broad.develop().filter(ImageFilter.GaussianBlur(2.2))
    hills = hills.resize(wrinkles.size, Image.Resampling.BILINEAR)
    relief = np.asarray(hills).astype(np.uint32) * np.asarray(wrinkles.filter(ImageFilter.BoxBlur(1.5)))
    skin = np.minimum(relief * int(who.skin_tone) // FLAT**2, 255).astype(np.uint8)
    return Image.fromarray(skin).resize((PICTURE_PX, PICTURE_PX), Image.Resampling.NEAREST)


def draw_folds(sheet: Sheet, who: Identity, face: Expression, mouth: Mouth) -> None:
    """Wrinkles: across the forehead, between the brows, around the eyes, on the nose, beside the mouth."""

    def fold(strength: float, width: float, *knots: complex, both_sides: bool = True) -> None:
        if strength < 0.1:
            return
        line, tone = curve(*knots), FLAT * (1.0 - 0.42 * min(strength, 1.1))
        for side in SIDES if both_sides else (1,):
            sheet.stroke(flip(line, side), width, tone)

    smile, frown = face.lip_corner_pull, face.lip_corner_depress
    sneer = max(face.nose_wrinkle, face.upper_lip_raise)
    raised = (0.4 + 0.8 * who.age) * (0.85 * face.inner_brow_raise + 0.5 * face.outer_brow_raise)
    bend = 1j * (0.04 * face.brow_lower - 0.03 * face.outer_brow_raise)
    for level in (-0.62j, -0.74j, -0.86j):
        fold(raised, 0.035, -0.5 + level + bend, level - 0.02j, 0.5 + level + bend, both_sides=False)
    fold((0.5 + who.age) * face.brow_lower, 0.035, 0.09 - 0.28j, 0.075 - 0.40j, 0.10 - 0.52j)
    outer = who.eye_distance + 0.28
    for turn in (-0.07j, 0.0j, 0.07j):
        feet = (outer - 0.08j + 0.4 * turn, outer + 0.14 - 0.06j + 1.6 * turn)
        fold((0.3 + 0.9 * who.age) * face.cheek_raise, 0.025, *feet)
    bag = 0.25 * who.age + 0.5 * face.cheek_raise + 0.35 * face.lid_tighten
    fold(bag, 0.035, 0.27 + 0.03j, 0.45 + 0.09j, 0.63 + 0.02j)
    for level in (-0.08j, 0.02j, 0.12j):
        fold(1.1 * face.nose_wrinkle, 0.045, 0.05 - 0.04j + level, 0.13 + level, 0.19 + 0.08j + level)
    corner = complex(mouth.upper_edge[-1])
    beside_nose = (0.19 + 0.26j - 0.06j * sneer, 0.36 + 0.07 * smile + 0.42j - 0.04j * sneer)
    cheek = 0.3 * who.age + 0.75 * smile + 0.6 * sneer + 0.3 * frown
    fold(cheek, 0.05, *beside_nose, corner + 0.1 + 0.03 * smile + 0.04j)
    fold(frown, 0.05, corner + 0.03 + 0.02j, corner + 0.07 + 0.1j, corner + 0.06 + 0.2j)
    fold(face.chin_raise, 0.06, -0.16 + 0.93j, 0.89j, 0.16 + 0.93j, both_sides=False)


def draw_beard(sheet: Sheet, who: Identity, face: Expression, mouth: Mouth) -> None:
    tone = FLAT * (0.8 if who.beard == "stubble" else min(max(who.hair_tone / who.skin_tone, 0.38), 0.75))
    if who.beard == "moustache":
        under_nose = curve(-0.3 + 0.6j, -0.12 + 0.46j, 0.47j, 0.12 + 0.46j, 0.3 + 0.6j)
        sheet.fill(between(mouth.upper_lip * 1.05 - 0.02j, under_nose), tone)
    elif who.beard != "none":
        head = head_outline(who, face, grow=0.05)
        jaw = head[head.imag > 0.1]
        cheeks = (0.86 + 0.2j, 0.7 + 0.48j, 0.42 + 0.5j)
        top = curve(*cheeks, 0.46j, *(-knot.conjugate() for knot in reversed(cheeks)))
        sheet.fill(between(jaw, top), tone)
        sheet.fill(between(mouth.upper_lip - 0.02j, mouth.lower_lip + 0.05j), FLAT * 0.9)


def draw_eye(sheet: Sheet, who: Identity, face: Expression, side: int) -> None:
    eye, skin = Eye.of(who, face, side), who.skin_tone
    gaze, size = sheet.pose.gaze, who.eye_size
    iris = eye.centre - 0.01j + 0.07 * complex(side * gaze.real, gaze.imag)
    upper, lower = eye.lid(eye.upper), eye.lid(eye.lower)
    sheet.fill(flip(between(upper, lower), side), min(150 + 0.42 * skin, 240))
    sheet.fill(flip(eye.between_lids(0.118 * size * CIRCLE + iris), side), who.iris_tone)
    sheet.fill(flip(eye.between_lids(0.062 * size * CIRCLE + iris), side), 12)
    sheet.fill(flip(eye.between_lids(0.030 * CIRCLE + iris - side * 0.035 - 0.045j), side), 250)
    sheet.stroke(flip(lower, side), 0.025, skin * 0.55)
    sheet.stroke(flip(upper, side), 0.058 - 0.02 * np.abs(ACROSS), skin * 0.16)
    sheet.stroke(flip(upper[2:-2] - 0.075j + 0.02j * face.upper_lid_raise, side), 0.03, skin * 0.62)


def draw_brow(sheet: Sheet, who: Identity, face: Expression, side: int) -> None:
    line = flip(brow_line(who, face, side), side)
    out = np.linspace(0.0, 1.0, len(line))
    widths = who.brow_thickness * np.minimum(0.75 + out, 1.0) * (1.0 - 1.15 * np.maximum(out - 0.35, 0.0))
    sheet.stroke(line, widths, min(who.hair_tone * 0.75, who.skin_tone * 0.55))


def draw_nose(sheet: Sheet, who: Identity, face: Expression) -> None:
    skin, w = who.skin_tone, who.nose_width * (1.0 + 0.15 * face.nose_wrinkle + 0.1 * face.lip_corner_pull)
    tip = 1j * (0.34 * who.nose_length - 0.07 * face.nose_wrinkle)
    wing = (0.4 * w + tip, 0.95 * w + 0.01j + tip, w - 0.08j + tip)
    line = curve(*(-knot.conjugate() for knot in reversed(wing)), tip + 0.035j, *wing)
    sheet.stroke(line, 0.038, skin * 0.60, depth=1.0)
    for side in SIDES:
        sheet.disc(side * 0.5 * w + tip - 0.005j, 0.05, 0.026, skin * 0.34, depth=1.0)
    sheet.disc(tip - 0.09j, 0.045, 0.035, skin * 1.12, depth=1.1)


def draw_mouth(sheet: Sheet, who: Identity, mouth: Mouth) -> None:
    skin = who.skin_tone
    sheet.fill(between(mouth.upper_lip, mouth.upper_edge), skin * 0.60)
    sheet.fill(between(mouth.lower_edge, mouth.lower_lip), skin * 0.72)
    if mouth.opening > 0.03:
        sheet.fill(between(mouth.upper_edge, mouth.lower_edge), 26)
        if mouth.opening > 0.2:
            sheet.fill(between(mouth.tongue, mouth.lower_edge)[3:-3], skin * 0.42)
        sheet.fill(between(mouth.upper_edge, mouth.upper_teeth), 232)
        sheet.fill(between(mouth.lower_teeth, mouth.lower_edge), 205)
        sheet.stroke(mouth.lower_edge, 0.02, skin * 0.4)
    sheet.stroke(mouth.upper_edge, 0.05, skin * 0.28)


# The edge of the hair from the right ear to the parting, and how high the parting lies.
HAIRLINES: dict[str, tuple[Sequence[complex], float]] = {
    "short": ((1.06 - 0.05j, 0.93 - 0.32j, 0.84 - 0.72j, 0.42 - 0.84j), -0.84),
    "side": ((1.06 - 0.05j, 0.92 - 0.35j, 0.78 - 0.62j, 0.52 - 0.68j), -0.98),
    "fringe": ((1.07 + 0.1j, 0.9 - 0.3j, 0.76 - 0.53j, 0.4 - 0.56j), -0.6),
    "long": ((1.12 + 1.0j, 0.95 + 0.3j, 0.92 - 0.35j, 0.52 - 0.8j), -1.08),
    "parted": ((1.12 + 0.6j, 0.98 + 0.1j, 0.9 - 0.4j, 0.48 - 0.72j), -1.06),
    "bun": ((1.05 - 0.15j, 0.9 - 0.5j, 0.52 - 0.88j), -0.96),
    "curly": ((1.1 + 0.05j, 0.93 - 0.35j, 0.73 - 0.68j, 0.27 - 0.72j), -0.74),
}


def draw_hair(sheet: Sheet, who: Identity, face: Expression) -> None:
    if who.hair_style == "bald":
        return
    w, part = who.face_width, who.hair_part
    knots, height = HAIRLINES[who.hair_style]
    right = [complex(knot.real * w, knot.imag) for knot in knots]
    hairline = curve(*right, complex(part, height), *(-knot.conjugate() for knot in reversed(right)))
    head = head_outline(who, face, grow=0.14 if who.hair_style == "curly" else 0.09)
    crown = head[head.imag < max(knots[0].imag, -0.2)]
    crown = crown[np.argsort(np.angle(crown * 1j))]  # from the left ear over the top to the right one
    sheet.fill(np.concatenate([crown, hairline]), who.hair_tone, depth=0.0)
    if who.hair_style == "curly":
        for angle in np.linspace(-1.75, 1.75, 11).tolist():
            curl = complex(1.06 * w * np.sin(angle), -0.35 - 0.98 * np.cos(angle))
            sheet.disc(curl, 0.26, 0.25, who.hair_tone, depth=0.0)
    for start, shine in ((-0.66, 1.15), (-0.4, 0.8), (-0.12, 1.2), (0.18, 0.8), (0.44, 1.2), (0.68, 0.85)):
        tip = start * 1.15 - 0.92j + 0.25j * start**2
        strand = curve(start * 0.55 + part * 0.45 - 1.22j, start * 0.9 - 1.08j, tip)
        sheet.stroke(strand, 0.055, who.hair_tone * shine + 8 * (shine > 1), depth=0.0)


def draw_glasses(sheet: Sheet, who: Identity) -> None:
    if who.glasses == "none":
        return
    lens = who.eye_distance - 0.07j + 0.28 * (CIRCLE if who.glasses == "round" else ROUNDED_SQUARE)
    temple = np.array([who.eye_distance + 0.28 - 0.12j, 0.84 * who.face_width - 0.15j])
    for side in SIDES:
        if who.glasses == "sun":
            sheet.fill(flip(lens, side), 22, depth=0.95)
        sheet.stroke(flip(lens, side), np.full(len(lens), 0.04), 25, depth=0.95)
        sheet.stroke(flip(temple, side), np.full(2, 0.045), 25, depth=0.6)
    sheet.stroke(curve(-0.16 - 0.1j, -0.15j, 0.16 - 0.1j), 0.05, 25, depth=0.95)
