"""`rlhf doctor`: is this machine ready?"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from rlhf_flows.cli.options import json_option, workspace_option

MARKS = {"ok": "✔", "warning": "!", "broken": "✗"}


@click.command()
@workspace_option
@json_option
def doctor(workspace: Path, as_json: bool) -> None:
    """Check versions, workspace, hardware and servers; exit code 1 where something is broken."""
    from rlhf_flows.doctor import examine

    found = examine(workspace)
    broken = any(symptom.state == "broken" for symptom in found)
    if as_json:
        click.echo(json.dumps({"ok": not broken, "checks": [symptom._asdict() for symptom in found]}))
    else:
        for symptom in found:
            click.echo(f"{MARKS[symptom.state]} {symptom.name:<16} {symptom.what}")
            if symptom.remedy:
                click.echo(f"  {'':<16} {symptom.remedy}")
    sys.exit(1 if broken else 0)
