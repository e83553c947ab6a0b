"""Takes the README's pictures of the dashboard anew, from a store: it is no test, and needs Chromium.

    MLFLOW_TRACKING_URI=sqlite:///mlruns/mlflow.db python -m tests.readme_pictures --only compare

The store has to hold runs of two architectures on FER-2013 and on sketch, and a sweep. FER-2013's
images are nobody's to show here: pages that show faces are taken of sketch, and the photo is drawn.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import tyro
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tests.e2e.conftest import FLAGS, HOST, ROOT, opened, serving, unused_port, wait_for
from tests.e2e.test_dashboard import settle, visit
from tests.extra.drawn_photos import encoded, scene
from trainer.store.location import open_store
from trainer.store.reader import Reader, Snapshot


@dataclass(frozen=True)
class Shot:
    """What a picture shows. path: of the page, with its query. height: of the picture, in px, at a width of 1440."""

    name: str
    path: str
    height: int
    first: Callable[[Page], None] = field(default=lambda page: None)
    """What a person does before it is taken."""


def main(only: tuple[str, ...] = ()) -> None:
    """Write docs/NAME.png of each page, or of those that are named."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        sync_playwright() as playwright,
        playwright.chromium.launch(
            executable_path=os.environ.get("MOODIFY_CHROMIUM", "/usr/bin/chromium"), args=FLAGS
        ) as chromium,
        serving(Path(scratch, "dashboard.log"), "dashboard", "--port", str(port := unused_port())),
    ):
        wait_for(f"http://{HOST}:{port}/_stcore/health")
        context = chromium.new_context(reduced_motion="reduce")
        for shot in shots(Reader(open_store(create=False)).snapshot()):
            if only and shot.name not in only:
                continue
            with opened(context) as tab:
                tab.page.set_viewport_size({"width": 1440, "height": shot.height})
                visit(tab.page, f"http://{HOST}:{port}/{shot.path}")
                shot.first(tab.page)
                settle(tab.page)
                tab.page.wait_for_timeout(1500)  # charts and tables draw themselves after they are there
                picture = ROOT / "docs" / f"{shot.name}.png"
                tab.page.screenshot(path=picture)
            with Image.open(picture) as image:
                image.quantize(256).save(picture, optimize=True)
            print(picture.relative_to(ROOT), f"{picture.stat().st_size / 1000:.0f} kB")


def shots(snapshot: Snapshot) -> Iterator[Shot]:
    pair, drawn = query(snapshot, "fer2013"), query(snapshot, "sketch")
    yield Shot("runs", "?dataset=fer2013", 720)
    yield Shot("compare", f"compare?{pair}", 900)
    yield Shot("recall", f"recall?{pair}", 880)
    yield Shot("calibration", f"calibration?{pair}", 1000)
    yield Shot("confusion", f"confusion?{pair}", 1330)
    yield Shot("mistakes", f"mistakes?{drawn}", 900)
    yield Shot("try_it", "try_it?models=fer2013-emotion@champion", 1200, upload)
    yield Shot("registry", "registry?model=fer2013-emotion", 900)
    yield Shot("sweep", "sweep", 1330)
    yield Shot("train", "train", 820)


def query(snapshot: Snapshot, dataset: str) -> str:
    """That chooses the best finished run of each architecture."""
    runs = snapshot.runs
    runs = runs[(runs["dataset"] == dataset) & (runs["status"] == "finished")]
    chosen = runs.sort_values("test_accuracy", ascending=False).drop_duplicates("architecture").index
    return "&".join(
        f"runs={run_id[:8]}" for run_id in sorted(chosen, key=list(runs.index).index, reverse=True)
    )


def upload(page: Page) -> None:
    photo = encoded(scene([(80, 60), (600, 300)], class_names=("happy", "surprise")), quality=92)
    chooser = page.get_by_test_id("stFileUploader").first.locator("input[type=file]")
    chooser.set_input_files({"name": "drawn.jpg", "mimeType": "image/jpeg", "buffer": photo})
    page.locator(".answer").first.wait_for(timeout=60_000)


if __name__ == "__main__":
    tyro.cli(main)
