"""The user interfaces of MLflow and Prefect on a workspace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import click

from rlhf_core.errors import RlhfError
from rlhf_flows.server import configure
from rlhf_flows.workspace import Workspace


def serve_user_interfaces(workspace: Workspace, port: int) -> None:
    """Run both servers on localhost until Ctrl-C. Raises RlhfError where one of them stops by itself."""
    configure(workspace)
    environment = {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PREFECT_UI_API_URL": f"http://127.0.0.1:{port + 1}/api",
    }
    python = [sys.executable, "-m"]
    local = ["--host", "127.0.0.1", "--port"]
    store = workspace.mlflow_store
    commands = {"Prefect": [*python, "prefect", "server", "start", *local, str(port + 1)]}
    if not store.startswith("http"):
        mlflow = [*python, "mlflow", "server", "--workers", "1", *local, str(port), "--backend-store-uri", store]
        commands["MLflow"] = [
            *mlflow,
            "--artifacts-destination",
            workspace.mlflow_artifacts or str(workspace.artifacts / "mlflow"),
        ]
    logs = workspace.folder / "logs"
    logs.mkdir(exist_ok=True)
    processes = {}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the servers end with this process
    try:
        for name, command in commands.items():
            with (logs / f"{name.lower()}.log").open("wb") as log:
                processes[name] = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        click.echo(f"MLflow   {store if store.startswith('http') else f'http://127.0.0.1:{port}'}")
        click.echo(f"Prefect  http://127.0.0.1:{port + 1}")
        click.echo("Both need some seconds to start. Ctrl-C stops them.")
        while True:
            for name, process in processes.items():
                if process.poll() is not None:
                    raise RlhfError(
                        f"the {name} server stopped.",
                        where=str(logs / f"{name.lower()}.log"),
                        remedy="Read the log named above; a port in use? Choose another with --port.",
                    )
            time.sleep(0.5)
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.wait()
