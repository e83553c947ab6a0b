"""FER-2013 in small, in every form that it comes in: a folder, an archive, a CSV."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from trainer.data.base import Dataset

CLASSES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
CODES = {"angry": 0, "disgust": 1, "fear": 2, "happy": 3, "sad": 4, "surprise": 5, "neutral": 6}
BOTH = ("train", "test")
Faces = dict[str, np.ndarray]


def random_faces(classes: tuple[str, ...] = CLASSES, train: int = 3, test: int = 2) -> Faces:
    """Sample id → uint8 (48, 48), in the order of the CSV: train, public test, private test."""
    draw = np.random.default_rng(0)
    usages = [("train", "Training")] * train + [("test", "PublicTest"), ("test", "PrivateTest")] * (test // 2)
    usages.sort(key=lambda usage: ["Training", "PublicTest", "PrivateTest"].index(usage[1]))
    named = [(part, usage, name) for part, usage in usages for name in classes]
    return {
        f"{part}/{name}/{usage}_{index}.png": draw.integers(0, 256, (48, 48), dtype=np.uint8)
        for index, (part, usage, name) in enumerate(named)
    }


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_folder(root: Path, faces: Faces) -> Path:
    for sample_id, pixels in faces.items():
        (root / sample_id).parent.mkdir(parents=True, exist_ok=True)
        (root / sample_id).write_bytes(png(pixels))
    return root


def write_zip(path: Path, faces: Faces, prefix: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for sample_id, pixels in faces.items():
            archive.writestr(prefix + sample_id, png(pixels))
    return path


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def csv_row(sample_id: str, pixels: np.ndarray) -> str:
    _, name, file_name = sample_id.split("/")
    return f"{CODES[name]},{' '.join(map(str, pixels.ravel()))},{file_name.partition('_')[0]}"


def write_csv(path: Path, rows: list[str], header: str = "emotion,pixels,Usage") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def contents(dataset: Dataset) -> dict[tuple[str, int], tuple[str, bytes]]:
    """(part, number in the file name) → class name and pixels: what does not depend on the layout."""
    return {
        (part, int(sample_id.removesuffix(".png").rpartition("_")[2])): (
            dataset.class_names[label],
            image.numpy().tobytes(),
        )
        for part, split in dataset.parts.items()
        for image, label, sample_id in zip(split.images, split.target.tolist(), split.sample_ids, strict=True)
    }


def many_faces(broken: int) -> dict[str, bytes]:
    """100 test images of each of two classes as files, of which `broken` are unreadable."""
    files = {
        f"test/{name}/{index:03}.png": png(np.full((48, 48), index, np.uint8))
        for index in range(100)
        for name in "ab"
    }
    damage = [b"", files["test/a/005.png"][:60], b"text", b"text"]
    return files | {f"test/a/{index:03}.png": damage[index] for index in range(broken)}


def write_files(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root
