"""The command line: parse, call one function, print."""

from __future__ import annotations

import sys

import typer

from pewb.cli.assets import fetch, list_
from pewb.cli.boards import compare, leaderboard
from pewb.cli.data import data
from pewb.cli.doctor import doctor
from pewb.cli.evidence import evidence_app
from pewb.cli.planning import choose, plan
from pewb.cli.runs import check, run
from pewb.errors import InputError, PewbError
from pewb.quiet import quieten_remarks
from pewb.screen import err

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Which fine-tuning strategy for your backbone, your task and your GPU budget? **pewb** trains, measures, compares.\n\n"
    "Start with `pewb run recipes/lora_sst2.toml`; then read `leaderboard.md`.",
)

# In the order of `pewb --help`.
app.command()(run)
app.command()(plan)
app.command()(choose)
app.command()(check)
app.command()(data)
app.command("list")(list_)
app.command()(fetch)
app.command()(leaderboard)
app.command()(compare)
app.command()(doctor)
app.add_typer(evidence_app, name="evidence")


def main() -> None:
    """Run the command line; errors that the user can mend become one message and exit status 2."""
    quieten_remarks()
    try:
        app(standalone_mode=True)
    except InputError as error:
        err.print(f"[red]error[/] {'' if len(str(error).splitlines()) == 1 else chr(10)}", end="")
        err.print(str(error), markup=False, soft_wrap=True)
        sys.exit(2)
    except PewbError as error:
        err.print(str(error), markup=False, soft_wrap=True)
        sys.exit(1)
    except OSError as error:
        err.print(str(error), markup=False, soft_wrap=True)
        sys.exit(1)
    except SystemExit as end:
        if end.code == 130:  # typer's, after an interrupt
            err.print("interrupted; what was done is recorded")
        raise
