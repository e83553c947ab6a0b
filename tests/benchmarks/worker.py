"""A child process that runs one call at a time and sleeps in between.

glibc's allocator settings and OpenMP's belong to a process, so pipelines that differ in them need one each.
A worker stays alive between its rounds: its OpenMP threads stop spinning some milliseconds after a call
(libgomp's default), and what CPU time it takes while it waits is measured.
"""

import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from types import TracebackType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class WorkerError(RuntimeError):
    """A call failed in the worker; the message is its traceback."""


class Worker:
    """A context manager around one child process; `environment` is added to what it inherits."""

    def __init__(self, environment: Mapping[str, str] | None = None):
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,))
        with environment_variables(environment or {}):
            self._process.start()
        theirs.close()
        self.idle_seconds = 0.0
        self.idle_cpu_seconds = 0.0

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()  # the worker reads the end of the pipe, and leaves
        if error is not None:
            self._process.terminate()  # it may be in the middle of a call that nobody waits for any more
        self._process.join()

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The answer of a module-level `function`, run in the worker. Raises WorkerError where it raises."""
        self._connection.send((function, args, kwargs))
        try:
            answer, error, idle_seconds, idle_cpu_seconds = self._connection.recv()
        except EOFError as end:
            self._process.join()
            raise WorkerError(f"the worker ended with exit code {self._process.exitcode}") from end
        self.idle_seconds += idle_seconds
        self.idle_cpu_seconds += idle_cpu_seconds
        if error:
            raise WorkerError(error)
        return answer


def _serve(connection: Connection) -> None:
    """Answer (function, args, kwargs) by (answer, traceback, idle seconds, idle CPU seconds) until the pipe ends."""
    # A spawned process would spawn its own children too; a DataLoader's are to start as they would for a user.
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)
    while True:
        clock, cpu = time.perf_counter(), time.process_time()
        try:
            connection.poll(None)
            idle = time.perf_counter() - clock, time.process_time() - cpu
            function, args, kwargs = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            answer, error = function(*args, **kwargs), ""
        except Exception:  # whatever it is, the parent is told and decides
            answer, error = None, traceback.format_exc()
        connection.send((answer, error, *idle))


@contextmanager
def environment_variables(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
