"""From a photo to answers: the page's path, models by themselves on two runtimes, and the command on a folder.

The networks have the recipes' shapes and fresh weights: speed does not depend on what was learned.
"""

import io
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from tests.benchmarks.alone import peak_mib
from tests.benchmarks.worker import Worker
from tests.extra.drawn_photos import encoded, scene

CLASS_NAMES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
PHOTO_PX, FOLDER_PX = (4000, 3000), (1600, 1200)
FOLDER_PHOTOS, SAMPLE = 500, 40
WARM_UPS, REPEATS = 3, 15
NETWORKS = {
    "report's CNN": ("cnn", "report"),
    "fast CNN": ("cnn", "fast"),
    "ResNet18 at 48 px": ("resnet18", "fast"),
}


@dataclass(frozen=True, kw_only=True)
class Photos:
    """Seconds in every list, one number a trial; stages and runtimes by name.

    stages: of one photo on the page; "all" is their sum. runtimes: network → runtime → one crop. importing, loading:
    torch with all that a model needs, and the first model after that. command, alone: a folder of photos by the
    command, and by detector and network on pixels that are there. differences: largest of the two runtimes' answers.
    """

    stages: dict[str, list[float]]
    runtimes: dict[str, dict[str, list[float]]]
    differences: dict[str, float]
    importing: list[float]
    loading: list[float]
    command: list[float]
    alone: list[float]
    photos: int
    peak_mib: float


def measure_photos(scratch: Path, rounds: int, photos: int, say: Callable[[str], None]) -> Photos:
    """Each part in a process of its own, in turn."""
    say("writing models and photos")
    with Worker() as worker:
        folders = worker.call(write_models, scratch)
        worker.call(write_photos, scratch / "folder", photos)
    say("a photo of 12 megapixels on the page")
    with Worker() as worker:
        stages, peak = worker.call(page_stages, folders["report's CNN"])
    runtimes, differences = {}, {}
    for name, folder in folders.items():
        say(f"{name}: torch and ONNX Runtime")
        with Worker() as worker:
            runtimes[name], differences[name] = worker.call(crop_latencies, folder)
    importing, loading, command, alone = [], [], [], []
    for number in range(1, rounds + 1):
        say(f"loading, and a folder of {photos} photos, round {number} of {rounds}")
        with Worker() as worker:
            both = first_load(folders["report's CNN"])
            importing.append(both[0])
            loading.append(both[1])
            # Interleaved: a disturbance of the machine falls on both.
            alone.append(
                worker.call(detector_and_network, folders["report's CNN"], scratch / "folder", photos)
            )
            command.append(worker.call(run_command, folders["report's CNN"], scratch / "folder"))
    return Photos(
        stages=stages, runtimes=runtimes, differences=differences, importing=importing, loading=loading,
        command=command, alone=alone, photos=photos, peak_mib=peak,
    )  # fmt: skip


def write_models(scratch: Path) -> dict[str, Path]:
    """Name of the network → folder of the model format."""
    import torch

    from trainer.config import recipe_defaults
    from trainer.inference.bundle import ModelSpec, write

    folders = {}
    for number, (name, (architecture, recipe)) in enumerate(NETWORKS.items()):
        torch.manual_seed(0)
        options = recipe_defaults(recipe, architecture).options()
        spec = ModelSpec(
            architecture=architecture, options=options, class_names=CLASS_NAMES, source_size=48, image_size=48,
            channels=1, mean=(0.5,), std=(0.25,), dataset="faces", train_fingerprint="0",
        )  # fmt: skip
        folders[name] = scratch / f"model-{number}"
        folders[name].mkdir()
        write(folders[name], spec, spec.build().state_dict())
    return folders


def write_photos(folder: Path, count: int) -> None:
    """Drawn photos of FOLDER_PX with one to three faces; ten different ones, again and again."""
    folder.mkdir()
    places = [(100, 200), (620, 420), (1150, 120)]
    files = [
        encoded(
            scene(places[: 1 + seed % 3], size=FOLDER_PX, side=300 + 10 * seed, turns=(4 * seed,)), quality=90
        )
        for seed in range(10)
    ]
    for index in range(count):
        (folder / f"{index:04}.jpg").write_bytes(files[index % len(files)])


def page_stages(model: Path) -> tuple[dict[str, list[float]], float]:
    """What the page does on the server for a new photo, and the peak memory of the process in MiB."""
    from dashboard.album import SHOWN_PX, Album
    from trainer.inference.predictor import Predictor, share_cores

    share_cores()
    large = scene([(300, 100), (620, 300)]).resize(PHOTO_PX, Image.Resampling.BICUBIC)
    grain = np.random.default_rng(0).normal(0, 3, (*PHOTO_PX[::-1], 1))
    data = encoded(Image.fromarray((np.asarray(large) + grain).clip(0, 255).astype(np.uint8)), quality=92)
    predictor = Predictor.load(model)
    candidate = SimpleNamespace(key=("", "", 1, 0), name="cnn/1", label="cnn")
    stages: dict[str, list[float]] = {}
    for trial in range(WARM_UPS + REPEATS):
        album = Album()
        upload = SimpleNamespace(file_id=str(trial), name="photo.jpg", size=len(data), getvalue=lambda: data)
        clock = Clock()
        album.update([upload], lambda share, text: None)
        clock.stop("read and find the faces")
        album.ask(candidate, predictor)
        clock.stop("the network's answers")
        (seen,) = album.seen.values()
        album.explain(seen, seen.used, candidate, predictor)
        clock.stop("what it looked at")
        album.picture(seen, [candidate], SHOWN_PX, words=False)
        clock.stop("the picture with its squares")
        assert len(seen.spots) == 2
        if trial >= WARM_UPS:
            for name, seconds in (clock.laps | {"all": sum(clock.laps.values())}).items():
                stages.setdefault(name, []).append(seconds)
    return stages, peak_mib()


class Clock:
    """Seconds between its stops, by name."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def stop(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self._last = now - self._last, now


def crop_latencies(model: Path) -> tuple[dict[str, list[float]], float]:
    """Runtime → seconds for one crop, and the largest difference of their probabilities."""
    import onnxruntime
    import torch

    from trainer.inference.bundle import read
    from trainer.inference.predictor import Predictor

    torch.set_num_threads(1)  # as the page does
    predictor = Predictor.load(model)
    images = np.random.default_rng(0).integers(0, 256, (1, 1, 48, 48), dtype=np.uint8)
    floats = images.astype(np.float32) / 255
    classifier, spec = read(model)
    stream = io.BytesIO()
    with redirect_stdout(io.StringIO()):
        exported = torch.onnx.export(
            spec.answering(classifier),
            (torch.from_numpy(floats),),
            dynamo=True,
            verbose=False,
        )
        exported.save(stream)  # type: ignore[union-attr]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(stream.getvalue(), options, providers=["CPUExecutionProvider"])
    (name,) = (one.name for one in session.get_inputs())
    calls = {
        "torch": lambda: predictor(images),
        "ONNX Runtime": lambda: session.run(None, {name: images.astype(np.float32) / 255})[0],
    }
    times = {
        runtime: [timed(call) for _ in range(WARM_UPS + 10 * REPEATS)][WARM_UPS:]
        for runtime, call in calls.items()
    }
    answers = [call() for call in calls.values()]
    return times, float(np.abs(answers[0] - answers[1]).max())


def first_load(model: Path) -> tuple[float, float]:
    """Seconds to import torch with all that a model needs, and to load the first model and be answered; new."""
    code = (
        "import sys, time\nstart = time.perf_counter()\nimport numpy as np\nfrom pathlib import Path\n"
        "from trainer.inference.predictor import Predictor\nimported = time.perf_counter()\n"
        "Predictor.load(Path(sys.argv[1]))(np.zeros((1, 1, 48, 48), np.uint8))\n"
        "print(imported - start, time.perf_counter() - imported)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(model)], capture_output=True, text=True, check=True
    )
    importing, loading = map(float, found.stdout.split())
    return importing, loading


def detector_and_network(model: Path, folder: Path, count: int) -> float:
    """Seconds for `count` photos whose pixels are there already: faces found on both cores, the network in batches."""
    import cv2

    from trainer.inference.faces import find_faces, read_photo
    from trainer.inference.predictor import Predictor, share_cores
    from trainer.inference.stream import BATCH_FACES, WORKERS

    cv2.setNumThreads(1)
    share_cores()
    predictor = Predictor.load(model)
    photos = [read_photo(path) for path in sorted(folder.iterdir())[:SAMPLE]]
    batch = np.zeros((BATCH_FACES, 1, 48, 48), np.uint8)
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(find_faces, photos[:4]))
        predictor(batch)
        started = time.perf_counter()
        faces = sum(len(found) for found in pool.map(find_faces, photos))
        finding = time.perf_counter() - started
    return (finding + faces / BATCH_FACES * timed(lambda: predictor(batch))) * count / len(photos)


def run_command(model: Path, folder: Path) -> float:
    """Seconds of the whole command, imports apart."""
    from trainer.__main__ import main

    with redirect_stdout(io.StringIO()):
        main(["predict", str(model), str(next(folder.iterdir())), "--json"])  # imports what it needs

    def call() -> None:
        with redirect_stdout(io.StringIO()):
            assert main(["predict", str(model), str(folder), "--json"]) == 0

    return timed(call)


def timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def median_ms(seconds: list[float]) -> float:
    return 1000 * statistics.median(seconds)
