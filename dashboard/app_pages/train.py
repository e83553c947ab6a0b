"""Train: start a training, watch it, stop it, go on with it, or train again with one parameter changed."""

import dataclasses
import math
import os
import shlex
from pathlib import Path
from typing import cast, get_args

import pandas as pd
import streamlit as st

from dashboard import cache, frame
from dashboard.address import SHORTEST_ID
from dashboard.selection import full_names
from dashboard.text import number, plain, several
from dashboard.trainings import (
    Going,
    changes,
    ending,
    in_words,
    is_forwarded,
    is_loopback,
    job_name,
    mistakes,
    opening,
    outcome,
    proposed,
    trials_here,
    vain_resume,
    what_goes_on,
)
from trainer import jobs
from trainer.config import ARCHITECTURES, Config, Recipe, listing
from trainer.contract import Tag
from trainer.data import DATASETS, name_mistake
from trainer.jobs import Job
from trainer.settings import flags, repeatable
from trainer.store.location import StoreError, open_store, store_uri
from trainer.store.snapshot import Snapshot

AGAIN = "again"
"""The run whose configuration fills the form, by the first digits of its id in the URL."""
KEPT = "again-kept"
SWITCH = "MOODIFY_ALLOW_TRAINING"
MOST_SHOWN = 5


def refusal() -> str | None:
    """Why nothing may be started from here; None where it may."""
    address = str(st.get_option("server.address") or "")
    if os.environ.get(SWITCH) == "1":
        return None
    if not is_loopback(address):
        return (
            f"the dashboard listens on {address or 'every address of its machine'}, where others reach it too"
        )
    if is_forwarded(st.context.headers):
        return "this page comes through a proxy, by which others reach it too"
    return None


def read() -> Snapshot | None:
    """None before the first training, which makes the store. Ends the page where the store does not answer."""
    try:
        again = (st.query_params.get(AGAIN), st.session_state.get(KEPT))
        return cache.snapshot([run_id for run_id in again if run_id and len(run_id) >= SHORTEST_ID])
    except StoreError as error:
        if frame.is_missing_store(store_uri()):
            return None
        frame.unreadable("Train", error)


def runs_of(snapshot: Snapshot | None) -> tuple[pd.DataFrame, dict[str, str]]:
    """All runs and their names; both empty where there are none."""
    if snapshot is None or snapshot.runs.empty:
        return pd.DataFrame(), {}
    return snapshot.runs, full_names(snapshot.runs)


def came_along(snapshot: Snapshot) -> list[str]:
    """The runs that nobody trained here: of the model that comes with the program."""
    found = {version.run_id for version in snapshot.versions if version.tags.get(Tag.BUNDLED) == "true"}
    return [run_id for run_id in snapshot.runs.index if run_id in found]


def started_here(snapshot: Snapshot | None) -> list[Job]:
    return [] if snapshot is None else jobs.jobs(job_folder())


def job_folder() -> Path:
    return cache.store().checkpoints.parent / "jobs"


def going_on(
    snapshot: Snapshot | None, runs: pd.DataFrame, names: dict[str, str], found: list[Job]
) -> list[Going]:
    """Trainings, and trials of sweeps that share this machine with them."""
    return what_goes_on(runs, names, found) + ([] if snapshot is None else trials_here(snapshot))


@st.fragment(run_every="2s")
def live(allowed: bool) -> None:
    """The answer, and every training that goes on; read again without a reload of the page."""
    snapshot = read()
    runs, names = runs_of(snapshot)
    found = started_here(snapshot)
    going = going_on(snapshot, runs, names, found)
    now = [len(runs), len(found), *(one.name for one in going)]
    if now != st.session_state.setdefault("going", now):
        st.session_state["going"] = now
        st.rerun()  # one began or ended: the rest of the page has to know
    if allowed:
        trained = runs if snapshot is None or runs.empty else runs.drop(index=came_along(snapshot))
        frame.answer("Train", opening(going, trained, names, found))
    for place, one in enumerate(going):
        with st.container(border=True, key=f"going-{place}"):
            card(one, allowed)


def card(one: Going, allowed: bool) -> None:
    """Progress, curve and log of one training, and how it is stopped."""
    st.progress(one.share(), f"**{plain(one.name)}** {one.progress()}")
    curve = one.run["curve"] if one.run is not None else []
    lines = one.job.tail(4) if one.job else []
    left, right = st.columns([2, 3], gap="medium") if curve and lines else (st.container(), st.container())
    if curve:
        left.line_chart(
            pd.DataFrame({"validation accuracy": curve}, index=range(1, len(curve) + 1)),
            height=170, x_label="epoch", y_label="",
            alt=f"Validation accuracy so far, last {number(curve[-1])}",
        )  # fmt: skip
        left.caption(
            f"Validation accuracy: {number(curve[-1])} in the last epoch, {number(max(curve))} in the best"
        )
    if lines:
        right.code("\n".join(lines), language=None, wrap_lines=True)
    if one.job is None:
        st.caption("It was not started here: stop it where it was started, with Ctrl-C.")
        return
    if not allowed:
        return
    if st.button(
        "Stopping …" if one.job.stopping else f"Stop {plain(one.name)}",
        disabled=one.job.stopping,
        key=f"stop-{one.job.pid}",
        help="It keeps its best weights, and can go on later. Of epochs that take less than five seconds the last ones "
        "are then trained again.",
    ):
        try:
            jobs.stop(one.job)
        except (ValueError, OSError) as error:
            st.error(plain(str(error)))
            return
        st.rerun()


def choose_source(snapshot: Snapshot | None, names: dict[str, str]) -> tuple[str, Config | None]:
    """The finished run whose configuration fills the form: its id and configuration, or ("", None)."""
    runs, _ = runs_of(snapshot)
    finished = [] if snapshot is None or runs.empty else list(runs.index[runs["status"] == "finished"])
    wanted = st.query_params.get(AGAIN) or st.session_state.get(KEPT, "")
    run_id = next((run_id for run_id in finished if wanted and run_id.startswith(wanted)), "")
    st.session_state[AGAIN] = run_id
    if run_id:
        fill_from(run_id)
    st.selectbox(
        "Settings", ["", *finished], key=AGAIN, on_change=lambda: fill_from(st.session_state[AGAIN]),
        format_func=lambda option: f"as in {names[option]}" if option else "of a recipe",
        help="Those of a finished run, to train again with one parameter changed.",
    )  # fmt: skip
    if wanted and not run_id:
        st.caption(f"There is no finished run {plain(wanted)}; these are a recipe's settings.")
    if not run_id or snapshot is None:
        return "", None
    try:
        config = repeatable(snapshot.params.get(run_id, {}))
        listing(config.architecture)
        return run_id, dataclasses.replace(config, data_dir=runs.at[run_id, "data_dir"] or None)
    except ValueError as error:
        st.caption(f"{plain(names[run_id])} cannot be trained again from here: {plain(str(error))}.")
        return "", None


def fill_from(run_id: str) -> None:
    """Remember the choice in the URL and, as that is gone when the page changes, in the session."""
    st.session_state[KEPT] = run_id
    if run_id:
        st.query_params[AGAIN] = run_id[:8]
    else:
        st.query_params.pop(AGAIN, None)


def known_places(snapshot: Snapshot | None) -> dict[str, str]:
    """Dataset → where its last run found the images; the one worked on last comes first.

    What another program has logged is none: it says no place, and has no usual one.
    """
    runs, _ = runs_of(snapshot)
    places: dict[str, str] = {}
    for name, place in zip(runs["dataset"], runs["data_dir"], strict=True) if len(runs) else ():
        if not name_mistake(name, place or None):
            places.setdefault(name, place)
    return places


def form(run_id: str, source: Config | None, places: dict[str, str]) -> Config:
    """Every setting that is worth a field; the others stay as `source` or the recipe has them."""
    start = source or Config(dataset=next(iter(places), Config.dataset))

    def choice(label: str, options: list[str], value: str, key: str) -> str:
        index = options.index(value) if value in options else 0
        return st.selectbox(label, options, index, key=f"{key}:{run_id}", persist_state="session", width=150)

    def numeric(label: str, name: str, key: str, *, step: float = 1, hint: str | None = None) -> float:
        value = getattr(settings, name)
        given = st.number_input(
            label, value=value, step=type(value)(step), format="%d" if isinstance(value, int) else "%g",
            key=f"{name}:{run_id}:{key}", help=hint, placeholder=f"{value:g}", persist_state="session", width=150,
        )  # fmt: skip
        return value if given is None else given

    row = st.container(horizontal=True)
    more = st.container()
    with row:
        names = list(dict.fromkeys([*DATASETS, *places, start.dataset]))
        dataset = st.selectbox(
            "Dataset", names, names.index(start.dataset), key=f"dataset:{run_id}", accept_new_options=True,
            persist_state="session", width=150, help="A new name is for images of your own: say where they are.",
        )  # fmt: skip
        is_own = dataset not in DATASETS
        place = "" if is_own else ", data folder"
        fields = more.expander(f"Learning rate, batch size, augmentation, initial weights{place}").container(
            horizontal=True
        )
        architecture = choice("Architecture", list(ARCHITECTURES), start.architecture, "architecture")
        mode = choice("Mode", list(listing(architecture).modes), start.mode, f"mode:{architecture}")
        recipe = cast(Recipe, choice("Recipe", list(get_args(Recipe)), start.recipe, "recipe"))
    settings = proposed(source, recipe, architecture, mode)
    where = f"{recipe}:{architecture}:{mode}"
    with fields:
        weights = list(dict.fromkeys(["none", "auto", "imagenet", settings.pretrained]))
        pretrained = st.selectbox(
            "Pretrained", weights, weights.index(settings.pretrained), key=f"pretrained:{run_id}:{where}",
            accept_new_options=True, persist_state="session", width=150,
            help="auto takes ImageNet's weights where they can be had; or the path of a file with weights.",
        )  # fmt: skip
    settings = proposed(source, recipe, architecture, mode, pretrained)  # others follow the weights
    where = f"{where}:{pretrained}"
    with row:
        epochs = numeric("Epochs", "epochs", where)
        seed = numeric("Seed", "seed", "")
    with fields:
        rate = numeric(
            "Learning rate", "learning_rate", where, hint="The highest one.",
            step=10.0 ** math.floor(math.log10(settings.learning_rate)),
        )  # fmt: skip
        batch_size = numeric("Batch size", "batch_size", where, hint="Images per step.")
        augmentation = numeric(
            "Augmentation", "augmentation", where, step=0.25, hint="Strength: 0 for none, 1 for the recipe's."
        )
        smoothing = numeric(
            "Label smoothing",
            "label_smoothing",
            where,
            step=0.05,
            hint="Share of the target that is spread over all classes.",
        )
        mixup = numeric("Mixup", "mixup", where, step=0.1, hint="Alpha of mixup; 0 for none.")
    with row if is_own else fields:
        at_source = source is not None and dataset == source.dataset
        found = start.data_dir if at_source else places.get(dataset, "") if is_own else None
        data_dir = st.text_input(
            "Data dir", found or None, key=f"data_dir:{run_id}:{dataset}", persist_state="session", width=300,
            placeholder="folder or archive of your images" if is_own else "where the dataset usually is",
            help="On the dashboard's machine: a folder with train/CLASS/IMAGE and test/CLASS/IMAGE, or its archive.",
        )  # fmt: skip
    return dataclasses.replace(
        settings,
        dataset=dataset,
        epochs=int(epochs),
        seed=int(seed),
        pretrained=pretrained,
        learning_rate=float(rate),
        batch_size=int(batch_size),
        augmentation=float(augmentation),
        label_smoothing=float(smoothing),
        mixup=float(mixup),
        data_dir=data_dir or None,
    )


def start(config: Config) -> None:
    try:
        with st.spinner("Starting the training …"):
            open_store()  # the first training makes it, which takes seconds
            jobs.start(job_folder(), config)
    except (ValueError, OSError) as error:
        for line in str(error).splitlines():
            st.error(plain(in_words(line)))
        return
    cache.forget()
    st.rerun()


def new_training(snapshot: Snapshot | None, names: dict[str, str], going: list[Going]) -> None:
    st.subheader("New training", anchor=False)
    run_id, source = choose_source(snapshot, names)
    config = form(run_id, source, known_places(snapshot))
    is_nowhere = config.dataset not in DATASETS and config.data_dir is None
    wrong = mistakes(dataclasses.replace(config, data_dir=".") if is_nowhere else config)
    if is_nowhere and not wrong:
        st.info(
            f"Where are the images of {plain(config.dataset)}? Name their folder or archive under Data dir."
        )
    for line in wrong:
        st.error(plain(line))
    if source is not None:
        changed = changes(config, source)
        st.markdown(
            f"Changed from {plain(names[run_id])}: **{plain(changed)}**." if changed else
            f"Nothing is changed yet: on one machine this would give the numbers of {plain(names[run_id])} again."
        )  # fmt: skip
    if config.start_from:
        st.caption(f"It begins with the weights of {plain(config.start_from)}.")
    if going:
        st.caption(
            "A training is running. Two on one machine slow each other down, on two cores more than tenfold."
        )
    mode = "" if config.mode == "full" else f", mode {config.mode},"
    is_ready = not wrong and not is_nowhere
    label = f"Start training {plain(config.architecture)}{mode} for {several(config.epochs, 'epoch')}"
    if st.button(label, type="primary", disabled=not is_ready, key="start") and is_ready:
        start(config)
    if is_ready:
        st.caption("The same at the command line:")
        command = shlex.join(["python", *jobs.COMMAND, *flags(config)])
        st.code(command, language="bash", wrap_lines=True)


def interrupted(runs: pd.DataFrame, names: dict[str, str], found: list[Job]) -> None:
    """Runs that can go on from a checkpoint on this machine."""
    if runs.empty:
        return
    busy = {job.run_id for job in found if job.alive}
    ended = runs[runs["status"].isin(["stopped", "failed", "stale"])]
    root = cache.store().checkpoints
    able = [run_id for run_id in ended.index if run_id not in busy and jobs.is_resumable(root, run_id)]
    if not able:
        return
    st.subheader("Interrupted", anchor=False)
    for run_id in able[:MOST_SHOWN]:
        run = runs.loc[run_id]
        why = vain_resume(run, found)
        again = f" It could not go on: {plain(why)}." if why else ""
        st.markdown(f"{plain(names[run_id])} {plain(ending(run))}.{again}")
        if st.button(f"Resume {plain(names[run_id])}", key=f"resume-{run_id[:8]}"):
            try:
                jobs.resume(job_folder(), run_id)
            except (ValueError, OSError) as error:
                st.error(plain(str(error)))
                continue
            cache.forget()
            st.rerun()


def ended_here(runs: pd.DataFrame, names: dict[str, str], found: list[Job], has_older: bool) -> None:
    """The last trainings that were started here, with their logs."""
    ended = [job for job in found if not job.alive][:MOST_SHOWN]
    if not ended:
        return
    st.subheader("Started here, ended", anchor=False)
    for job in ended:
        known = job.run_id in runs.index
        result = outcome(job, runs, has_older=has_older)
        when = f"{job.started:%d %b %H:%M} UTC"
        with st.expander(
            f"{plain(job_name(job, names))}, {when}: {plain(result[:200])}", key=f"ended-{job.log.stem}"
        ):
            st.code("\n".join(job.tail(25)), language=None, wrap_lines=True)
            if known and runs.at[job.run_id, "status"] == "finished":
                st.button(
                    "Train again with one parameter changed", key=f"again-{job.log.stem}",
                    on_click=fill_from, args=(job.run_id,),
                )  # fmt: skip


def explain(reason: str) -> None:
    """Why training is switched off, and how whoever runs the dashboard can switch it on."""
    frame.answer("Train", f"Training cannot be started from here: {plain(reason)}.")
    st.markdown(
        "Every visitor could keep this machine busy. Whoever runs the dashboard can allow it, and start it again:"
    )
    st.code(f"export {SWITCH}=1", language="bash")
    st.markdown(
        "Or open it on its own machine with `make dashboard`, which listens to that machine alone. "
        "At the command line training works in any case:"
    )
    st.code(f"{shlex.join(['python', *jobs.COMMAND])} --help", language="bash")


reason = refusal()
if reason is not None:
    explain(reason)
live(reason is None)
if reason is None:
    snapshot = read()
    runs, names = runs_of(snapshot)
    found = started_here(snapshot)
    left, right = st.columns([3, 2], gap="large")
    with left:
        new_training(snapshot, names, going_on(snapshot, runs, names, found))
    with right:
        interrupted(runs, names, found)
        ended_here(runs, names, found, snapshot is not None and snapshot.has_older)
