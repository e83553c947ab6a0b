"""`server`: MLflow's tracking server for a team, on PostgreSQL and behind a login."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import tyro

ENV_FILE = ".server.env"


def main(arguments: list[str]) -> int:
    return tyro.cli(server, args=arguments, prog="python -m trainer server")


def server(*, env_file: Path = Path(ENV_FILE), check: bool = False) -> int:
    """Start MLflow's tracking server for a team: PostgreSQL, artifacts through the server, everyone logs in.

    Ctrl-C ends it. It is set up by an environment file, which docs/server/server.env.example explains line by line; a
    variable that is set already counts instead of the file's.

    Args:
        env_file: The environment file; readable by its owner alone.
        check: Only say whether the settings are whole and the database answers.
    """
    from trainer.store.server import check_database, read_settings, write_login

    settings = read_settings(env_file, os.environ)
    check_database(settings)
    host, port = settings["MLFLOW_HOST"], settings["MLFLOW_PORT"]
    if check:
        print(f"The settings are whole and the database answers; the server would listen on {host}:{port}.")
        return 0
    with tempfile.TemporaryDirectory(prefix="moodify-server-") as scratch:
        settings["MLFLOW_AUTH_CONFIG_PATH"] = str(write_login(Path(scratch), settings))
        # Everything else stands in the environment: an argument can be read by every user of the machine.
        arguments = ["server", "--app-name", "basic-auth", "--serve-artifacts"]
        with subprocess.Popen([sys.executable, "-m", "mlflow", *arguments], env=settings) as process:
            try:
                print(f"MLflow server: http://{host}:{port}  (Ctrl-C ends it)", flush=True)
                return process.wait()
            except KeyboardInterrupt:
                process.terminate()
                process.wait()
                return 0
