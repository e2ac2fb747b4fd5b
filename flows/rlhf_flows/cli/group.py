"""A click group that knows its commands by name and imports them only when they are called."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

DEBUG_VARIABLE = "RLHF_DEBUG"
"""Environment variable: set it to see tracebacks."""
STOPPED = 130
"""Exit code after Ctrl-C, as shells expect it."""
CRASHED = 1
"""Exit code after an error that nobody foresaw."""


class LazyGroup(click.Group):
    """A group whose commands are `name: (module:attribute, short help)`."""

    def __init__(self, *, commands_at: Mapping[str, tuple[str, str]], **settings: Any) -> None:
        super().__init__(**settings)
        self.commands_at = commands_at
        self.params.append(_version_option())

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table, which is the order of work."""
        return list(self.commands_at)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command."""
        if cmd_name not in self.commands_at:
            return None
        module, _, attribute = self.commands_at[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with a suggestion."""
        if args and args[0] not in self.commands_at and not args[0].startswith("-"):
            import difflib

            close = difflib.get_close_matches(args[0], self.commands_at, n=1)
            hint = f" Did you mean `rlhf {close[0]}`?" if close else " `rlhf --help` lists the commands."
            raise click.UsageError(f"there is no command `{args[0]}`.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """From the table; nothing is imported."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, help_text) in self.commands_at.items()])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run, and turn errors that a person can act on into one paragraph and an exit code."""
        if not standalone_mode:
            return super().main(args, prog_name or "rlhf", complete_var, False, windows_expand_args, **extra)
        try:
            code = super().main(args, prog_name or "rlhf", complete_var, False, windows_expand_args, **extra)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except click.Abort:
            click.echo("stopped; the same command goes on", err=True)
            sys.exit(STOPPED)
        except BrokenPipeError:
            # The reader (`| head`) has seen enough. Python would complain once more while flushing at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        except Exception as error:
            from rlhf_core.errors import RlhfError

            if os.environ.get(DEBUG_VARIABLE):
                raise
            if not isinstance(error, RlhfError):
                click.echo(_unexpected(error), err=True)
                sys.exit(CRASHED)
            click.echo(str(error), err=True)
            sys.exit(error.exit_code)
        sys.exit(code if isinstance(code, int) else 0)


def _unexpected(error: Exception) -> str:
    """One paragraph about an error that nobody foresaw, with the file that its traceback is in."""
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="rlhf-", suffix=".txt", delete=False, encoding="utf-8") as file:
        file.writelines(traceback.format_exception(error))
    what = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    return (
        f"{file.name}  an error that was not foreseen: {what}\n"
        f"The traceback is in the file named above; the same command goes on from the last finished stage. "
        f"{DEBUG_VARIABLE}=1 prints it here instead."
    )


def _version_option() -> click.Option:
    def show(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value:
            from importlib.metadata import version

            click.echo(version("rlhf-pipeline"))
            ctx.exit()

    return click.Option(
        ["--version"], is_flag=True, expose_value=False, is_eager=True, callback=show, help="Show the version."
    )
