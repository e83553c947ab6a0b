"""The page Train: what its form offers and refuses, who may start something there, and a start that is stopped."""

import dataclasses
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from mlflow.entities import Metric, Param, RunTag
from streamlit import config as streamlit_config
from streamlit.testing.v1 import AppTest
from streamlit.testing.v1.element_tree import Selectbox

from dashboard.cache import FRESH_SECONDS
from dashboard.trainings import is_forwarded, proposed
from tests.extra.grey_faces import write_grey_folder
from trainer import jobs
from trainer.config import Config, recipe_defaults
from trainer.contract import CONFIG_FILE, STATE_FILE, Tag, metric_key
from trainer.settings import flags
from trainer.store.location import open_store

APP = Path(__file__).parents[2] / "dashboard" / "app.py"
RECIPE = recipe_defaults("fast", "cnn")
SOURCE = dataclasses.replace(
    recipe_defaults("report", "resnet18", "layer4", "none"),
    dataset="sketch", mode="full", epochs=7, seed=3, batch_size=48, hidden=32, label_smoothing=0.05, flip=False,
)  # fmt: skip


@pytest.fixture
def place(workplace, monkeypatch):
    """An empty working directory, and a dashboard that listens on this machine only."""
    monkeypatch.delenv("MOODIFY_ALLOW_TRAINING", raising=False)
    before = streamlit_config.get_option("server.address")
    streamlit_config.set_option("server.address", "127.0.0.1")
    yield workplace
    streamlit_config.set_option("server.address", before)
    for job in jobs.jobs(workplace / "mlruns" / "jobs"):
        if job.alive:
            psutil.Process(job.pid).kill()


def write_run(config: Config, status: str = "FINISHED") -> str:
    """A run as a training logs it, as far as this page reads it."""
    store = open_store()
    client = store.client()
    run_id = client.create_run(store.experiment_id(config.dataset), run_name="first").info.run_id
    params = [
        Param(name, "" if value is None else str(value))
        for name, value in (dataclasses.asdict(config) | {"torch": "2.15.0"}).items()
    ]
    tags = [RunTag(Tag.DATASET, config.dataset), RunTag(Tag.ARCHITECTURE, config.architecture)]
    now = int(time.time() * 1000)
    metrics = [Metric("validation/accuracy", 0.5 + epoch / 100, now, epoch) for epoch in (1, 2)]
    metrics.append(Metric(metric_key("test", "accuracy"), 0.625, now, 0))
    client.log_batch(run_id, metrics=metrics, params=params, tags=tags)
    client.set_terminated(run_id, status)
    return run_id


def write_job(process: psutil.Process | None, *arguments: str, log: str) -> None:
    """As `trainer.jobs` keeps a training that was started a moment ago; without a process it has ended."""
    folder = open_store().checkpoints.parent / "jobs"
    folder.mkdir(exist_ok=True)
    started = datetime.now(UTC)
    file = folder / f"{started:%Y%m%d-%H%M%S-%f}.json"
    file.with_suffix(".log").write_text(log)
    pid, create_time = (process.pid, process.create_time()) if process else (1, 0.0)
    record = {
        "pid": pid,
        "create_time": create_time,
        "arguments": arguments,
        "started": started.isoformat(),
    }
    file.write_text(json.dumps(record))


@pytest.fixture
def process() -> Iterator[psutil.Process]:
    """That stands for a training's."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"]) as child:
        yield psutil.Process(child.pid)
        child.kill()


def keep_checkpoint(run_id: str) -> None:
    folder = open_store().checkpoints / run_id
    folder.mkdir(parents=True)
    (folder / CONFIG_FILE).write_text(SOURCE.to_json())
    (folder / STATE_FILE).touch()


def said(app: AppTest) -> str:
    """All text of the page but the logs."""
    texts = [element.value for element in [*app.header, *app.markdown, *app.caption]]
    return " ".join([*texts, *(one.label for one in app.expander)]).replace("\\", "")


def opened(**query: str) -> AppTest:
    app = AppTest.from_file(str(APP), default_timeout=120).run()
    app.switch_page("app_pages/train.py")
    for name, value in query.items():
        app.query_params[name] = value
    return shows(app.run())


def shows(app: AppTest) -> AppTest:
    assert not app.exception, app.exception[0].value
    return app


def field(app: AppTest, label: str):
    [found] = [
        w for kind in ("selectbox", "number_input", "text_input") for w in app.get(kind) if w.label == label
    ]
    return found


def choose(app: AppTest, label: str, value: object) -> None:
    field(app, label).set_value(value)
    shows(app.run())


def button(app: AppTest, beginning: str):
    [found] = [one for one in app.button if one.label.startswith(beginning)]
    return found


def filled(app: AppTest, label: str) -> object:
    return field(app, label).value


def command(app: AppTest) -> str:
    return next(code.value for code in app.code if code.value.startswith("python -m trainer train"))


def test_the_form_begins_with_the_recipe_and_follows_it(place):
    app = opened()
    assert app.header[0].value == "Nothing has been trained yet: choose what to train, and start."
    assert (filled(app, "Dataset"), filled(app, "Architecture"), filled(app, "Mode")) == (
        "fer2013",
        "cnn",
        "full",
    )
    assert (filled(app, "Epochs"), filled(app, "Learning rate"), filled(app, "Label smoothing")) == (
        RECIPE.epochs,
        RECIPE.learning_rate,
        0.1,
    )
    assert button(app, "Start").label == f"Start training cnn for {RECIPE.epochs} epochs"
    assert command(app) == "python -m trainer train"

    choose(app, "Recipe", "report")
    choose(app, "Architecture", "resnet18")
    choose(app, "Mode", "layer4")
    assert (filled(app, "Epochs"), filled(app, "Batch size"), filled(app, "Learning rate")) == (20, 64, 1e-4)
    assert (filled(app, "Pretrained"), filled(app, "Label smoothing")) == ("auto", 0.0)
    assert button(app, "Start").label == "Start training resnet18, mode layer4, for 20 epochs"
    choose(app, "Mode", "full")
    assert filled(app, "Learning rate") == 1e-5
    choose(app, "Pretrained", "none")  # the report's recipe trains from scratch at another rate
    assert filled(app, "Learning rate") == 1e-3
    choose(app, "Epochs", 3)
    assert command(app) == (
        "python -m trainer train --recipe=report --architecture=resnet18 --pretrained=none --epochs=3"
    )


def test_images_of_ones_own_are_a_dataset_of_a_new_name_and_a_place(place, monkeypatch):
    def index(self: Selectbox) -> int:
        """AppTest knows of no selectbox that takes what is in no list."""
        if self.value not in self.options:
            self.options.append(self.value)
        return self.options.index(self.value)

    monkeypatch.setattr(Selectbox, "index", property(index))
    app = opened()
    choose(app, "Dataset", "office")
    assert app.info[0].value == "Where are the images of office? Name their folder or archive under Data dir."
    assert button(app, "Start").disabled
    choose(app, "Data dir", "/images/office")
    assert not app.info
    assert command(app) == "python -m trainer train --dataset=office --data-dir=/images/office"
    choose(app, "Dataset", "my faces")
    assert "'my faces' cannot name a dataset" in app.error[0].value


def test_own_images_that_were_trained_on_are_offered_with_their_place(place, stocked):
    write_run(dataclasses.replace(RECIPE, dataset="office", data_dir="/images/office"))
    write_run(dataclasses.replace(RECIPE, dataset="fer2013", data_dir="/images/fer2013"))
    app = opened()
    assert field(app, "Dataset").options == ["fer2013", "sketch", "office"]
    assert (filled(app, "Dataset"), filled(app, "Data dir")) == ("fer2013", None)
    choose(app, "Dataset", "office")
    assert filled(app, "Data dir") == "/images/office"


def test_images_that_have_moved_are_offered_where_they_were_found_last(place, stocked):
    run_id = write_run(dataclasses.replace(RECIPE, dataset="office", data_dir="/images/office"))
    open_store().client().set_tag(run_id, Tag.DATA_DIR, "/moved/office")
    app = opened()
    assert filled(app, "Data dir") == "/moved/office"
    choose(app, "Settings", run_id)
    assert filled(app, "Data dir") == "/moved/office"
    assert any("Nothing is changed yet" in text.value for text in app.markdown)


def test_what_another_program_has_logged_is_no_dataset_to_train_on(place, stocked):
    client = open_store().client()
    client.set_terminated(client.create_run("0", run_name="theirs").info.run_id)
    app = opened()
    assert (filled(app, "Dataset"), field(app, "Dataset").options) == ("fer2013", ["fer2013", "sketch"])


def test_a_model_to_begin_with_keeps_its_network_and_goes_with_another_architecture():
    source = dataclasses.replace(RECIPE, start_from="office-emotion/1", layout="plain")
    best = proposed(source, "best", "cnn", "full")
    assert (best.start_from, best.blocks, best.layout, best.image_size) == (
        "office-emotion/1", RECIPE.blocks, "plain", RECIPE.image_size,
    )  # fmt: skip
    assert best.epochs == recipe_defaults("best", "cnn").epochs
    assert proposed(source, "fast", "resnet18", "full").start_from is None
    source = dataclasses.replace(recipe_defaults("fast", "resnet18"), start_from="a/1")
    assert proposed(source, "fast", "resnet18", "fc").pretrained == "none"


@pytest.mark.parametrize("recipe", ["fast", "best"])
@pytest.mark.parametrize("weights", ["imagenet", "auto"])
def test_initial_weights_bring_what_the_recipe_has_for_them(place, recipe, weights):
    app = opened()
    for label, value in {"Recipe": recipe, "Architecture": "resnet18", "Pretrained": weights}.items():
        choose(app, label, value)
    wanted = recipe_defaults(recipe, "resnet18", pretrained=weights)
    assert (filled(app, "Epochs"), filled(app, "Mixup")) == (wanted.epochs, wanted.mixup)
    assert not app.error
    words = [] if recipe == "fast" else [f"--recipe={recipe}"]
    assert command(app) == shlex.join(
        ["python", "-m", "trainer", "train", *words, "--architecture=resnet18", f"--pretrained={weights}"]
    )


def test_weights_that_are_chosen_bring_their_settings_to_a_run_that_is_trained_again():
    source = dataclasses.replace(recipe_defaults("fast", "resnet18"), dropout=0.1)
    wanted = dataclasses.replace(recipe_defaults("fast", "resnet18", pretrained="imagenet"), dropout=0.1)
    assert proposed(source, "fast", "resnet18", "full", "imagenet") == wanted


@pytest.mark.parametrize(
    ("chosen", "line"),
    [
        ({"Dataset": "sketch", "Data dir": "faces"}, "Data dir: sketch is drawn by the program and takes no folder"),
        ({"Epochs": 0}, "Epochs 0: must lie between 1 and 10000"),
        ({"Learning rate": 0.0}, "Learning rate 0.0: must lie above 0 and not above 10"),
        (
            {"Architecture": "resnet18", "Mode": "fc", "Pretrained": "none"},
            "Mode fc with pretrained none would freeze random weights: take mode full",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_one_line_and_nothing_is_started(place, chosen, line):
    app = opened()
    for label, value in chosen.items():
        choose(app, label, value)
    assert [error.value.replace("\\", "") for error in app.error] == [line]
    assert button(app, "Start").disabled
    assert not list(place.glob("mlruns/jobs/*"))


@pytest.mark.parametrize("address", [None, "0.0.0.0", "192.168.1.7", "faces.example.org"])
def test_others_on_the_network_start_nothing_unless_the_operator_allows_it(place, monkeypatch, address):
    streamlit_config.set_option("server.address", address)
    app = opened()
    said = app.header[0].value.replace("\\", "")
    assert said.startswith("Training cannot be started from here")
    assert (address or "every address of its machine") in said
    assert any("MOODIFY_ALLOW_TRAINING=1" in code.value for code in app.code)
    assert not app.button
    monkeypatch.setenv("MOODIFY_ALLOW_TRAINING", "1")
    assert not button(shows(app.run()), "Start").disabled


@pytest.mark.parametrize(
    "headers",
    [{"X-Forwarded-For": "10.0.0.7", "Host": "localhost:8501"}, {"forwarded": "for=10.0.0.7"}, {"Via": "1.1 caddy"},
     {"Host": "faces.example.org"}, {"Host": "192.168.1.7:8501"}, {"Host": "[::1"}, {"Host": ""}],
)  # fmt: skip
def test_what_comes_through_a_proxy_is_not_of_this_machine(headers):
    assert is_forwarded(headers)


@pytest.mark.parametrize("host", ["localhost:8501", "127.0.0.1", "127.0.0.1:8501", "[::1]:8501"])
def test_what_a_browser_of_this_machine_asks_comes_through_no_proxy(host):
    assert not is_forwarded({"Host": host, "Origin": f"http://{host}", "Upgrade": "websocket"})
    assert not is_forwarded({})


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_this_machine_alone_may_start_a_training(place, address):
    streamlit_config.set_option("server.address", address)
    assert button(opened(), "Start")


def test_a_run_is_trained_again_with_one_parameter_changed(place, stocked):
    run_id = write_run(SOURCE)
    app = opened(again=run_id[:8])
    assert app.header[0].value.replace("\\", "").endswith("first, finished with 0.625 test accuracy.")
    assert filled(app, "Settings") == run_id
    for label in (
        "Dataset",
        "Architecture",
        "Mode",
        "Recipe",
        "Epochs",
        "Seed",
        "Batch size",
        "Learning rate",
    ):
        assert filled(app, label) == getattr(SOURCE, label.lower().replace(" ", "_")), label
    assert any("Nothing is changed yet" in text.value for text in app.markdown)
    assert command(app).endswith(" ".join(flags(SOURCE)))
    assert {"--flip=False", "--hidden=32"} <= set(flags(SOURCE))  # they have no field, and are kept

    choose(app, "Seed", 4)
    assert any("seed 3 → 4" in text.value for text in app.markdown)
    assert "--seed=4" in command(app)
    app.switch_page("app_pages/runs.py").run()
    app.query_params.pop("again", None)  # as the browser does when the page changes
    shows(app.switch_page("app_pages/train.py").run())
    assert (filled(app, "Settings"), filled(app, "Seed")) == (run_id, 4)
    choose(app, "Seed", 3)
    choose(app, "Architecture", "cnn")  # its own flags stay, and what a CNN has not is left out
    assert filled(app, "Epochs") == 7
    assert filled(app, "Learning rate") == recipe_defaults("report", "cnn").learning_rate
    assert not app.error
    choose(app, "Settings", "")
    assert "again" not in app.query_params
    assert filled(app, "Epochs") == RECIPE.epochs


def test_an_unknown_run_and_one_of_another_program_are_said_and_the_recipe_taken(place, stocked):
    run_id = write_run(SOURCE)
    store = open_store()
    other = store.client().create_run(store.experiment_id("sketch"), run_name="other").info.run_id
    store.client().set_terminated(other)
    for wanted, said in (("0123abcd", "no finished run 0123abcd"), (other[:8], "logged no configuration")):
        app = opened(again=wanted)
        assert any(said in text.value.replace("\\", "") for text in app.caption)
        assert filled(app, "Epochs") == RECIPE.epochs
    assert filled(opened(again=run_id[:8]), "Epochs") == 7


def test_an_interrupted_run_with_a_checkpoint_can_go_on_and_one_without_cannot(place, stocked):
    able, unable = write_run(SOURCE, "KILLED"), write_run(SOURCE, "FAILED")
    keep_checkpoint(able)
    app = opened()
    assert [one.key for one in app.button if one.label.startswith("Resume")] == [f"resume-{able[:8]}"]
    assert "epoch" not in button(app, "Resume").label  # what is kept may be older than what was logged
    assert unable != able


def test_a_run_that_failed_in_its_test_goes_on_with_that(place, stocked):
    run_id = write_run(dataclasses.replace(SOURCE, epochs=2), "FAILED")
    keep_checkpoint(run_id)
    app = opened()
    assert button(app, "Resume").label == "Resume first"
    assert "failed after its 2 epochs, in the test." in said(app)


@pytest.mark.parametrize("trained", [False, True])
def test_the_model_that_comes_with_the_program_is_nobodys_last_training(place, stocked, trained: bool):
    own = write_run(SOURCE) if trained else ""
    run_id = write_run(SOURCE)
    client = open_store().client()
    client.create_registered_model("faces")
    client.create_model_version("faces", "nowhere", run_id, tags={Tag.BUNDLED: "true"})
    last = f"the last one, first {own[:8]}, finished with 0.625" if own else "Nothing has been trained yet: "
    assert last in said(opened())


def test_a_training_whose_run_is_deleted_has_not_failed_to_begin(place, stocked):
    run_id = write_run(SOURCE)
    write_job(None, "--epochs=7", log=f"Run {run_id}: cnn, mode full.\nEvaluating on test …\n")
    write_job(None, "--epochs=8", log="error: there is no data\n")
    (place / "mlruns/jobs/20260101-000000-17.json").touch()  # as a power failure leaves it
    app = opened()
    assert "the last one did not begin: there is no data." in said(app)
    assert ": finished with 0.625 test accuracy" in said(app)
    open_store().client().delete_run(run_id)
    time.sleep(FRESH_SECONDS + 0.1)
    assert ": has ended; its run is not in the store any more" in said(opened())


def test_between_the_end_of_a_run_and_of_its_process_the_training_is_ending(place, stocked, process):
    run_id = write_run(SOURCE)
    write_job(process, "--epochs=7", log=f"Run {run_id}: cnn, mode full.\n")
    app = opened()
    assert app.header[0].value == "first is ending."
    assert app.get("progress")[0].proto.value == 100


def test_a_run_that_is_resumed_is_starting_until_it_goes_on(place, stocked, process):
    run_id = write_run(SOURCE, "KILLED")
    write_job(process, "--resume", run_id, log="Loading …\n")
    assert opened().header[0].value == "first is starting."


@pytest.mark.slow
def test_why_a_run_could_not_go_on_is_told_until_it_has_gone_on(place, stocked):
    run_id = write_run(SOURCE, "KILLED")
    keep_checkpoint(run_id)
    write_job(None, "--resume", run_id, log="Starting …\nerror: there is no data in /faces.\n")
    app = opened()
    assert app.header[0].value.replace("\\", "") == (
        "No training is running; the last one, first, could not go on: there is no data in /faces."
    )
    assert "was stopped after epoch 2 of 7. It could not go on: there is no data in /faces." in said(app)
    assert [one.label for one in app.expander if ": could not go on" in one.label]
    client = open_store().client()
    client.update_run(run_id, "RUNNING")  # as at the command line
    client.set_terminated(run_id, "KILLED", int(time.time() * 1000) + 1)
    time.sleep(FRESH_SECONDS + 0.1)
    assert "It could not go on" not in said(opened())
    client.delete_run(run_id)
    time.sleep(FRESH_SECONDS + 0.1)
    assert f"{run_id[:8]}, could not go on" in said(opened())


def test_a_training_is_started_watched_and_stopped(place):
    faces = write_grey_folder(place / "faces", train=4, test=2)
    app = opened()
    choose(app, "Data dir", str(faces))
    choose(app, "Epochs", 1)
    choose(app, "Augmentation", 0.0)
    shows(button(app, "Start training cnn for 1 epoch").click().run())
    [job] = jobs.jobs(place / "mlruns" / "jobs")
    assert job.alive
    assert job.arguments == (f"--data-dir={faces}", "--epochs=1", "--augmentation=0.0")
    assert app.header[0].value == "cnn is starting."
    # The same click again, as by an impatient visitor, starts nothing.
    shows(button(app, "Start training cnn for 1 epoch").click().run())
    assert "exactly this training is running already" in app.error[0].value.lower().replace("\\", "")
    assert len(jobs.jobs(place / "mlruns" / "jobs")) == 1

    shows(button(app, "Stop cnn").click().run())
    psutil.wait_procs([psutil.Process(job.pid)] if psutil.pid_exists(job.pid) else [], timeout=60)
    shows(app.run())
    assert not [one for one in app.button if one.label.startswith("Stop")]
    assert app.header[0].value.startswith("No training is running")
    assert [one.label for one in app.expander if one.label.startswith("cnn")]
