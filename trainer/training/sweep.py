"""The story of a sweep: many trials of one study, by one or many workers, judged on validation alone.

Optuna chooses what to try, prunes what falls behind and keeps the study; a worker takes trials until there are enough.
"""

import contextlib
import dataclasses
import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from filelock import FileLock
from lightning_fabric import seed_everything
from optuna.exceptions import (
    DuplicatedStudyError,
    StorageInternalError,
    TrialPruned,
    UpdateFinishedTrialError,
)
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import create_engine, inspect
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from trainer.config import PLACES, Config, check
from trainer.contract import Tag
from trainer.data.splits import Splits
from trainer.search import Dimension, Value, applied, read_space, write_space
from trainer.store.location import SQLITE_PREFIX, Store, StoreError, open_store, with_driver
from trainer.store.sweeps import begin_sweep, begin_trial, end_lost, log_best, set_state
from trainer.training.allocator import keep_memory
from trainer.training.data import configured_splits
from trainer.training.environment import environment, make_fabric
from trainer.training.loop import CompilationError, Training, fit
from trainer.training.memory import telling_out_of_memory
from trainer.training.pretrained import make_classifier, settled
from trainer.training.records import epoch_metrics
from trainer.training.run import Progress

log = logging.getLogger(__name__)

STORAGE_VARIABLE = "MOODIFY_SWEEP_STORAGE"
MOST_RETRIES = 2
"""Of a trial whose worker died: what kills three workers kills the fourth."""
_BEGINNING_SECONDS = 20
_POLL_SECONDS = 1.0
_FACTS, _RUN_ID, _FAILED = "moodify", "run_id", "failed"
_SUFFICIENT = (TrialState.COMPLETE, TrialState.PRUNED)
_STORAGE_ERRORS = (SQLAlchemyError, StorageInternalError)
"""A database's own, and what Optuna makes of most of them."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a worker is asked for.

    trials: of the whole study. startup: trials that are trained in full before any is pruned. patience: seconds
    after which the trial of a silent worker is tried again.
    """

    study: str
    config: Config
    space: tuple[Dimension, ...]
    trials: int
    startup: int = 5
    patience: int = 120


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """What a study has come to; best_* are None where no trial was finished."""

    run_id: str
    trials: int
    pruned: int
    failed: int
    running: int
    best_number: int | None
    best_accuracy: float | None
    best_values: dict[str, Value]
    best_config: Config | None


class UntrainableError(Exception):
    """Values that do not go together."""


class _EnoughError(Exception):
    """Other workers have taken the trials that were left."""


def sweep(plan: Plan, progress: Progress) -> SweepResult:
    """Work on a study until it has its trials: begin it, or join it where it is there.

    Raises ValueError with one line where the storage cannot be used, or the study is one of other settings or data.
    By KeyboardInterrupt the trial at hand ends as KILLED, and its values are tried again when the study goes on.
    """
    check(plan.config)
    make_fabric(plan.config)  # a device that is not there is no trial's fault
    store = open_store()
    storage = open_storage(store, plan.patience)
    keep_memory()
    config = settled(plan.config)  # once: trials are compared, and vary what the recipe sets
    plan = dataclasses.replace(plan, config=config)
    progress.doing(f"Loading {config.dataset}")
    splits = configured_splits(config)
    try:
        study, parent = join(plan, store, storage, splits)
        worker = Worker(plan, store, study, parent, splits, progress)
        set_state(store, parent, "RUNNING")
        try:
            worker.work()
        except BaseException:
            try:
                _conclude(plan, store, study, parent)
            except _STORAGE_ERRORS as error:
                # What went wrong first is what the user needs to know.
                log.warning("How the sweep ended could not be logged: %s", _reason(error))
            raise
        return _conclude(plan, store, study, parent)
    except _STORAGE_ERRORS as error:
        raise StoreError(_reason(error)) from error


def _conclude(plan: Plan, store: Store, study: optuna.Study, parent: str) -> SweepResult:
    """End the parent run, unless other workers go on. What came of the trials is told also where that fails."""
    result = summary(plan, study, parent)
    if not result.running:
        try:
            set_state(store, parent, "FINISHED" if result.trials >= plan.trials else "KILLED")
        except StoreError as error:
            log.warning("How the sweep ended could not be logged: %s", error)
    return result


def open_storage(store: Store, patience: int) -> RDBStorage:
    """Where studies are kept: `MOODIFY_SWEEP_STORAGE`, or `sweeps.db` beside the store.

    Raises StoreError, which never holds the address: a password may be in it.
    """
    address = os.environ.get(STORAGE_VARIABLE) or f"{SQLITE_PREFIX}{store.checkpoints.parent / 'sweeps.db'}"
    if not address.startswith((SQLITE_PREFIX, "postgresql://", "postgresql+psycopg2://")):
        raise StoreError(f"{STORAGE_VARIABLE} must be postgresql://… or sqlite:////absolute/path.db")
    address = with_driver(address)
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)  # it tells of every trial, and we do
    is_file = address.startswith(SQLITE_PREFIX)
    arguments: dict[str, Any] = {"connect_args": {"timeout": 60} if is_file else {"connect_timeout": 10}}
    try:
        # Two processes that make the tables at the same time hinder each other; on a server one begins.
        with warnings.catch_warnings(), _first_opening(store):
            warnings.simplefilter("ignore")  # what it calls experimental has been there since 2.9
            _keep_out_of_mlflow(address, arguments)
            return RDBStorage(
                address,
                arguments if is_file else {**arguments, "pool_pre_ping": True},
                heartbeat_interval=max(1, patience // 4),
                grace_period=patience,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(MOST_RETRIES),
            )
    except StoreError:
        raise
    except (*_STORAGE_ERRORS, RuntimeError, ValueError, ImportError) as error:
        raise StoreError(_reason(error)) from None  # the cause may hold the address


def _keep_out_of_mlflow(address: str, arguments: dict[str, Any]) -> None:
    """Raises StoreError for a database of MLflow's: both note the version of their tables in the same place."""
    engine = create_engine(address, **arguments)
    try:
        if inspect(engine).has_table("registered_models"):
            raise StoreError(f"{STORAGE_VARIABLE} holds MLflow's tables: make a database for sweeps alone")
    finally:
        engine.dispose()


def _first_opening(store: Store) -> FileLock:
    folder = store.checkpoints.parent
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / ".sweeps.lock")


def _reason(error: Exception) -> str:
    if isinstance(error, StorageInternalError) and isinstance(error.__cause__, SQLAlchemyError):
        error = error.__cause__
    said = str(error.orig).splitlines()[0] if isinstance(error, DBAPIError) else type(error).__name__
    return f"the storage of sweeps cannot be used (see {STORAGE_VARIABLE}): {said}"


def join(plan: Plan, store: Store, storage: RDBStorage, splits: Splits) -> tuple[optuna.Study, str]:
    """The study, begun by the first worker, and the id of its parent run.

    Raises ValueError where it is there already with other settings, or other data.
    """
    fingerprints = splits.fingerprints()
    mine = {
        "config": dataclasses.asdict(plan.config),
        "space": write_space(plan.space),
        "data": [fingerprints["train"], fingerprints["validation"]],
    }
    methods: dict[str, Any] = {
        "sampler": optuna.samplers.TPESampler(constant_liar=True),
        "pruner": optuna.pruners.MedianPruner(plan.startup, n_warmup_steps=plan.config.epochs // 4),
    }
    is_first = True
    try:  # the storage lets one worker alone make a name
        study = optuna.create_study(storage=storage, study_name=plan.study, direction="maximize", **methods)
    except DuplicatedStudyError:
        is_first = False
        study = optuna.load_study(storage=storage, study_name=plan.study, **methods)
    patience = time.monotonic() + _BEGINNING_SECONDS
    while not is_first and _FACTS not in study.user_attrs:
        if time.monotonic() > patience:  # whoever made it was stopped before it could say what it is
            break
        time.sleep(0.2)
    if _FACTS not in study.user_attrs:
        config = plan.config
        parent = begin_sweep(
            store,
            splits.dataset,
            plan.study,
            write_space(plan.space),
            {Tag.ARCHITECTURE: config.architecture, Tag.MODE: config.mode, Tag.RECIPE: config.recipe},
            dataclasses.asdict(config) | {f"search_{one.name}": str(one) for one in plan.space},
        )
        usual = {one.name: getattr(config, one.name) for one in plan.space}
        if all(one.holds(usual[one.name]) for one in plan.space):
            # The first trial is the recipe itself, which the others have to beat.
            study.enqueue_trial(usual, skip_if_exists=True)
        study.set_user_attr(_FACTS, mine | {"parent": parent})
        return study, parent
    known = study.user_attrs[_FACTS]
    differing = [
        name
        for name, value in json.loads(json.dumps(mine["config"])).items()
        if name not in PLACES and known["config"].get(name) != value
    ]
    if known["space"] != mine["space"]:
        differing.append(f"--search, there {' '.join(map(str, read_space(known['space'])))}")
    if differing:
        raise ValueError(
            f"the study '{plan.study}' was begun with other settings (they differ in: {', '.join(differing)}): "
            "give the same flags to join it, or another --study"
        )
    if known["data"] != mine["data"]:
        raise ValueError(f"the study '{plan.study}' was begun with other data: take another --study")
    return study, str(known["parent"])


class Worker:
    """Takes trials of a study, one at a time."""

    def __init__(
        self, plan: Plan, store: Store, study: optuna.Study, parent: str, splits: Splits, progress: Progress
    ):
        self.plan, self.store, self.study, self.parent = plan, store, study, parent
        self.splits, self.progress = splits, progress
        self._number: int | None = None
        self._failure: BaseException | None = None
        """How the trial at hand has ended, where it did not come to its end."""

    def work(self) -> None:
        """Until the study has its trials, those of other workers included."""
        is_waiting = False
        while True:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fail_stale_trials(self.study)
            trials = self.study.get_trials(deepcopy=False)
            done = sum(trial.state in _SUFFICIENT for trial in trials)
            if done >= self.plan.trials:
                return
            if done + sum(trial.state == TrialState.RUNNING for trial in trials) >= self.plan.trials:
                if not is_waiting:
                    self.progress.doing("Waiting for the trials of other workers")
                is_waiting = True
                time.sleep(_POLL_SECONDS)
                continue
            is_waiting = False
            self._take()

    def _take(self) -> None:
        """One trial."""
        self._number = self._failure = None
        try:
            self.study.optimize(self._objective, n_trials=1, catch=(_EnoughError,))
        except BaseException as error:
            failure, storage = self._failure, _storage_error(error)
            if isinstance(failure, UpdateFinishedTrialError):
                log.warning("This worker was silent for so long that another has taken over its trial.")
                return
            from_outside = (KeyboardInterrupt, StoreError, OSError, StorageInternalError)
            # Optuna has errors of its own where it cannot write down how a trial ended.
            cause = failure if isinstance(failure, from_outside) else storage or error
            # Else another worker has taken over the trial, and tries its values again.
            is_ours = cause is error or storage is not None
            if is_ours and isinstance(cause, from_outside):
                with contextlib.suppress(*_STORAGE_ERRORS):
                    self._give_back()
            raise cause from cause.__cause__

    def _give_back(self) -> None:
        """The values of the trial at hand are tried again."""
        taken = [t for t in self.study.get_trials(deepcopy=False) if t.number == self._number]
        for trial in taken:
            values = trial.params or trial.system_attrs.get("fixed_params")
            if trial.state == TrialState.FAIL and values:
                self.study.enqueue_trial(values)

    def _objective(self, trial: Trial) -> float:
        try:
            return self._train(trial)
        except BaseException as error:
            self._failure = error
            raise

    def _train(self, trial: Trial) -> float:
        """The best validation accuracy of a trial."""
        self._number = trial.number
        others = sum(
            other.state in _SUFFICIENT or (other.state == TrialState.RUNNING and other.number < trial.number)
            for other in self.study.get_trials(deepcopy=False)
        )
        if others >= self.plan.trials:
            raise _EnoughError
        if lost := trial.user_attrs.get(_RUN_ID):
            end_lost(self.store, lost, trial.number)
        values = suggest(trial, self.plan.space)
        config = applied(self.plan.config, values)
        tags = {Tag.ARCHITECTURE: config.architecture, Tag.MODE: config.mode, Tag.RECIPE: config.recipe}
        writer = begin_trial(self.store, self.splits.dataset, self.parent, trial.number, tags)
        trial.set_user_attr(_RUN_ID, writer.run_id)
        said = ", ".join(f"{name} {_short(value)}" for name, value in values.items())
        self.progress.doing(f"Trial {trial.number}: {said}")
        reported = 0
        try:
            with writer, telling_out_of_memory(config):
                training = self._begin(config, writer.log_params)
                self.progress.started(writer.run_id, config)
                classes = len(self.splits.class_names)
                is_pruned = False
                for epoch in fit(
                    training, self.splits.train, self.splits.validation, classes, self.progress.step
                ):
                    writer.log_metrics(epoch_metrics(epoch), step=epoch.number)
                    self.progress.epoch(epoch)
                    trial.report(epoch.validation_accuracy, epoch.number)
                    reported = epoch.number
                    if not training.finished and trial.should_prune():
                        is_pruned = True
                        break
                best = training.best_epoch
                assert best is not None
                writer.set_tags({Tag.BEST_EPOCH: best.number} | ({Tag.PRUNED: "true"} if is_pruned else {}))
        except (FloatingPointError, UntrainableError, MemoryError, CompilationError) as error:
            if isinstance(error, CompilationError) and "compile" not in values:
                raise  # no trial could be trained
            # A setting that cannot be trained is a bad one: the run has FAILED, and the search goes on.
            self.progress.doing(f"Trial {trial.number} failed: {str(error).splitlines()[0]}")
            trial.set_user_attr(_FAILED, True)
            if reported:  # the search takes the last value for what came of it
                trial.report(0.0, reported + 1)
            raise TrialPruned from error
        if is_pruned:
            self.progress.doing(f"Trial {trial.number} was pruned")
            raise TrialPruned
        so_far = [t.value for t in _complete(self.study) if t.value is not None]
        log_best(self.store, self.parent, max([*so_far, best.validation_accuracy]))
        return best.validation_accuracy

    def _begin(self, config: Config, log_params: Callable[[Mapping[str, object]], None]) -> Training:
        try:
            check(config)
        except ValueError as error:
            raise UntrainableError(str(error)) from error
        seed_everything(config.seed, verbose=False)
        mean, std = self.splits.train.brightness()
        classifier, config = make_classifier(config, len(self.splits.class_names), mean, std)
        training = Training(classifier, config, make_fabric(config))
        fingerprints = self.splits.fingerprints()
        log_params(
            dataclasses.asdict(config)
            | training.classifier.parameter_counts()
            | environment(training.fabric)
            | {f"{part}_fingerprint": fingerprints[part] for part in ("train", "validation")}
        )
        return training


def _storage_error(error: BaseException) -> StorageInternalError | None:
    """The failure of the storage that Optuna's own mistake hides: it stumbles where a trial's end cannot be written."""
    if isinstance(error, StorageInternalError):
        return error
    hidden = error.__context__ if isinstance(error, (UnboundLocalError, AssertionError)) else None
    return hidden if isinstance(hidden, StorageInternalError) else None


def suggest(trial: Trial, space: Sequence[Dimension]) -> dict[str, Value]:
    """The values that Optuna wants to try."""
    return {one.name: trial._suggest(one.name, one.distribution()) for one in space}


def summary(plan: Plan, study: optuna.Study, parent: str) -> SweepResult:
    """Read from the study, with what other workers have added."""
    trials = study.get_trials(deepcopy=False)
    complete = _complete(study)
    best = max(complete, key=lambda trial: trial.value or 0.0, default=None)
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED]
    values: Mapping[str, Value] = best.params if best else {}
    return SweepResult(
        run_id=parent,
        trials=len(complete) + len(pruned),
        pruned=sum(_FAILED not in trial.user_attrs for trial in pruned),
        failed=sum(_FAILED in trial.user_attrs for trial in pruned),
        running=sum(trial.state == TrialState.RUNNING for trial in trials),
        best_number=best.number if best else None,
        best_accuracy=best.value if best else None,
        best_values=dict(values),
        best_config=applied(plan.config, values) if best else None,
    )


def _complete(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _short(value: Value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
