"""FER-2013, wherever it lies: in a folder, an archive, its original CSV, or on Kaggle."""

import functools
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from trainer.data.base import Dataset, DatasetSource
from trainer.data.kaggle import DownloadError, download
from trainer.data.layouts import visible
from trainer.data.loading import load_images

NAME = "fer2013"
DEFAULT_PATH = "data/fer2013"
KAGGLE_DATASET = "msambare/fer2013"
HOW_TO_GET = (
    f"To get FER-2013: run `kaggle datasets download {KAGGLE_DATASET} -p {DEFAULT_PATH}`, or download it at "
    f"https://www.kaggle.com/datasets/{KAGGLE_DATASET}; then put the zip, the unpacked folder or fer2013.csv "
    f"at {DEFAULT_PATH}, or pass its path with --data-dir."
)

logger = logging.getLogger(__name__)


def load(data_dir: Path | None, parts: Sequence[str]) -> Dataset:
    """FER-2013 at 48×48 px.

    The first call decodes the images (seconds); later ones read them from the cache.

    Args:
        data_dir: a folder, an archive or a CSV; None for MOODIFY_FER2013, `data/fer2013` or the download.
        parts: "train", "test" or both; only these need to be there.

    Raises:
        ValueError: what is there cannot be used.
        FileNotFoundError: nothing is there.
    """
    dataset = load_images(NAME, _locate(data_dir), parts)
    if "test" in dataset.parts and not any(map(group, dataset.parts["test"].sample_ids)):
        _tell_others(dataset.source)
    return dataset


def group(sample_id: str) -> str | None:
    """The official half of test that a sample belongs to, from its file name."""
    usage = sample_id.rpartition("/")[2].partition("_")[0]
    return {"PublicTest": "public", "PrivateTest": "private"}.get(usage)


SOURCE = DatasetSource(load=load, group=group)


def _locate(data_dir: Path | None) -> Path:
    given = data_dir or os.environ.get("MOODIFY_FER2013")
    if given:
        path = Path(os.path.expanduser(given))  # noqa: PTH111  (no error for a user who is not there)
        if not path.exists():
            raise FileNotFoundError(f"There is no FER-2013 at {path}: the path does not exist.\n{HOW_TO_GET}")
        return path
    path = Path(DEFAULT_PATH)
    if path.is_file() or (path.is_dir() and visible(path)):
        return path
    try:
        return download(KAGGLE_DATASET)
    except DownloadError as error:
        raise FileNotFoundError(
            f"There is no FER-2013 at {path.absolute()}, and it could not be downloaded: {error}.\n{HOW_TO_GET}"
        ) from error


@functools.cache  # a command may load its data more than once
def _tell_others(source: str) -> None:
    logger.warning(
        f"{source}: no test image is named PublicTest_… or PrivateTest_…, as FER-2013's are. Images of your own need a "
        f"name of their own (--dataset NAME): their models would be versions of {NAME}-emotion"
    )
