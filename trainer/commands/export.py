"""`export`: a model as ONNX files, checked against itself."""

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    import numpy as np

    from trainer.data.base import Dataset

log = logging.getLogger(__name__)

MOST_DIFFERENT = 1e-4
"""Of a probability, between torch and ONNX Runtime; beyond it an export counts as broken."""
CALIBRATION_IMAGES = 512


def main(arguments: list[str]) -> int:
    return tyro.cli(export, args=arguments, prog="python -m trainer export")


def export(
    model: Annotated[str, tyro.conf.Positional],
    /,
    *,
    format: Literal["onnx"] = "onnx",
    output: Path = Path("exported"),
    dataset: str | None = None,
    data_dir: Path | None = None,
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> int:
    """Write a model as ONNX: in 32-bit floats, and in 8-bit integers where its training data are at hand.

    ONNX Runtime gives the same probabilities from the first file (within 1e-4, or the command fails). For the second,
    training images decide the scales; what it loses on the test set is measured, printed and, for a registered
    version and its own test set, logged with its run.

    Args:
        model: NAME@ALIAS, NAME/VERSION, models:/…, runs:/RUN_ID, or a folder of the model format.
        format: Of the files.
        output: Folder for the files.
        dataset: Whose images are taken; without it the dataset that the model was trained on.
        data_dir: Folder, archive or CSV of the dataset; without it where the model's run found it, else where it
            usually is.
        json: Print one JSON object instead of a table.
    """
    from trainer.commands.evaluate import output_index
    from trainer.commands.models import chosen_by_test, data_meant, load_predictor
    from trainer.data import dataset_source
    from trainer.data.splits import group_positions
    from trainer.drafts import drafts
    from trainer.inference.export import OnnxModel, write_int8, write_onnx

    predictor, name = load_predictor(model)
    stem = re.sub(r"\W+", "-", name.removeprefix("models:/")).strip("-") or "model"
    files = {"onnx": output / f"{stem}.onnx", "int8": output / f"{stem}.int8.onnx"}
    data, missing, caveat = None, "", ""
    try:
        wanted, found_at = data_meant([(predictor, name)], dataset, data_dir)
        source = dataset_source(wanted)
        data = source.load(found_at, ("train", "test"))
        output_index(predictor.spec.class_names, data.class_names)
    except (ValueError, FileNotFoundError) as error:
        if dataset or data_dir:
            raise
        reason = str(error).splitlines()[0].rstrip(".")
        data, missing = None, reason if "--data-dir" in reason else f"{reason}: give --data-dir"
    if data is not None and (side := data.parts["test"].images.shape[-1]) != predictor.size:
        raise ValueError(
            f"the model takes images of {predictor.size} px, and those of {data.name} have {side}"
        )
    with drafts(list(files.values())) as [onnx, int8]:
        write_onnx(predictor, onnx)
        models: dict[str, Any] = {"torch": predictor, "onnx": OnnxModel(onnx)}
        if data is not None:
            caveat = chosen_by_test(predictor, name, data.name, group_positions(data.parts["test"], source))
            write_int8(onnx, int8, calibration_images(data))
            models["int8"] = OnnxModel(int8)
        found = measure(models, data, predictor.spec.class_names, predictor.size)
        if not (difference := found["onnx"]["max_difference"]) <= MOST_DIFFERENT:  # NaN is not near anything
            raise ValueError(f"{files['onnx']} differed from the model by {difference:.1e} in a probability")
    for runtime, values in found.items():
        file = files.get(runtime)
        values |= {"file": file and str(file), "bytes": file and file.stat().st_size}
    if json:
        from trainer.commands.evaluate import print_json

        print_json({"model": name, **found, **({"caveat": caveat} if caveat else {})})
    else:
        print_table(name, found)
        if caveat:
            print(f"\n{caveat}")
        if missing:
            print(f"\nNo 8-bit file: its scales come from training images, and {missing}")
    if name.startswith("models:/"):
        log_with_run(name, found, data)
    return 0


def calibration_images(data: "Dataset") -> "np.ndarray":
    """uint8 (N, 1, S, S): training images, drawn with a fixed seed."""
    import numpy as np

    images = data.parts["train"].images.numpy()
    chosen = np.random.default_rng(0).permutation(len(images))[:CALIBRATION_IMAGES]
    return images[np.sort(chosen)]


def measure(
    models: dict[str, Any],
    data: "Dataset | None",
    class_names: tuple[str, ...],
    side: int,
) -> dict[str, dict[str, Any]]:
    """For each runtime: milliseconds for one image, and on the test set accuracy and difference."""
    import statistics
    import time

    import numpy as np

    from trainer.commands.evaluate import output_index
    from trainer.inference.predictor import share_cores

    share_cores()  # as ONNX Runtime here: one thread each
    images = np.random.default_rng(0).integers(0, 256, (64, 1, side, side), dtype=np.uint8)
    target = None
    if data is not None:
        test = data.parts["test"]
        images = test.images.numpy()
        target = output_index(class_names, data.class_names)[test.target.numpy()]
    found: dict[str, dict[str, Any]] = {}
    for name, model in models.items():
        answers = model(images)
        if name == "torch":
            reference = answers
        times = []
        for _ in range(30):
            started = time.perf_counter()
            model(images[:1])
            times.append((time.perf_counter() - started) * 1000)
        found[name] = {
            "latency_ms": statistics.median(times),
            "max_difference": float(np.abs(answers - reference).max()),
            "same_answer": float((answers.argmax(1) == reference.argmax(1)).mean()),
            "test_images": None if target is None else len(target),
            "test_accuracy": None if target is None else float((answers.argmax(1) == target).mean()),
        }
    return found


def log_with_run(name: str, found: dict[str, dict[str, Any]], data: "Dataset | None") -> None:
    """`export/<file>_<what>`, with the run that made the version; not where that was tested on other images."""
    from trainer.contract import Tag
    from trainer.store.location import StoreError, open_store
    from trainer.store.registry import find_version
    from trainer.store.writer import RunWriter

    store = open_store(create=False)
    version = find_version(store, name)
    tested_on = version.tags.get(Tag.TEST_FINGERPRINT)
    if data is not None and data.parts["test"].fingerprint(data.class_names) != tested_on:
        log.warning("Nothing of this is logged: the run of %s was tested on other images.", version.uri)
        return
    metrics = {
        f"export/{file}_{what}": float(values[what])
        for file, values in found.items()
        for what in ("bytes", "latency_ms", "max_difference", "test_accuracy")
        if file != "torch" and values[what] is not None
    }
    if "int8" in found:
        loss = found["torch"]["test_accuracy"] - found["int8"]["test_accuracy"]
        metrics["export/int8_accuracy_loss"] = loss
    if version.run_id:
        try:
            RunWriter(store, version.run_id).log_metrics(metrics)
        except StoreError as error:  # one may read who may not write
            log.warning("Nothing of this is logged: %s", error)


def print_table(name: str, found: dict[str, dict[str, Any]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from trainer.commands.report import number, screen

    images = found["torch"]["test_images"]
    title = f"{name}, one thread; " + (f"{images:,} test images" if images else "64 images of noise")
    table = Table(title=escape(title), title_justify="left", show_edge=False)
    for column in ("", "KB", "ms an image", "largest difference", "same answer", "test accuracy"):
        table.add_column(column, justify="right" if column else "left")
    for runtime, values in found.items():
        accuracy = values["test_accuracy"]
        table.add_row(
            runtime,
            f"{values['bytes'] / 1000:,.0f}" if values["bytes"] else "–",
            f"{values['latency_ms']:.2f}",
            f"{values['max_difference']:.1e}",
            f"{values['same_answer']:.1%}",
            number(accuracy) if accuracy is not None else "–",
        )
    console = screen()
    console.print(table)
    written = [values["file"] for values in found.values() if values["file"]]
    console.print(f"\nWritten: {escape(', '.join(written))}", soft_wrap=True, highlight=False)
