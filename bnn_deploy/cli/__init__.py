"""The ``bnn-deploy`` command: results to stdout, progress and errors to stderr.

It exits with 0 when all is fine, 1 when the model failed the check or got slower, 2 for an error of usage, input or tools.
Each command is a file of this folder that only parses and prints; torch, tvm, onnx and onnxruntime are imported by the
functions they call, so that ``--help`` answers at once.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import traceback
import warnings
from importlib import import_module
from keyword import iskeyword
from typing import Any, NoReturn

import click

from bnn_deploy.errors import BnnDeployError
from bnn_deploy.version import __version__

__all__ = ["command_line", "main"]

# In the order of use. The command `name` is the function `name_command` of the file `name.py`, or `name_.py` where Python
# reserves the word.
COMMANDS = (
    "train",
    "export",
    "import",
    "compile",
    "run",
    "golden",
    "validate",
    "profile",
    "compare",
    "inspect",
    "targets",
    "doctor",
)

EXIT_FAILED_CHECK = 1
EXIT_ERROR = BnnDeployError.exit_code
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE


class CommandLine(click.Group):
    """A group that imports a command's file when it is asked for, and turns every exception into one sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        file = f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name
        command = getattr(import_module(f"bnn_deploy.cli.{file}"), f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        return command

    def main(self, *arguments: Any, **options: Any) -> NoReturn:
        options["standalone_mode"] = False
        options.setdefault("prog_name", "bnn-deploy")
        try:
            result = super().main(*arguments, **options)
        except click.ClickException as error:
            _complain(" ".join(error.format_message().split()))
            if isinstance(error, click.UsageError) and error.ctx is not None:
                click.echo(f"Try '{error.ctx.command_path} --help'.", err=True)
            sys.exit(EXIT_ERROR)
        except click.Abort:
            sys.exit(EXIT_INTERRUPTED)
        # Outside standalone mode click returns the code given to Context.exit.
        sys.exit(result if isinstance(result, int) else 0)

    def invoke(self, ctx: click.Context) -> None:
        debug = ctx.params["debug"]
        try:
            with warnings.catch_warnings():
                if not debug:
                    warnings.simplefilter("ignore")
                super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except BrokenPipeError:
            _discard_stdout()
            ctx.exit(EXIT_BROKEN_PIPE)
        except Exception as error:
            if debug:
                traceback.print_exc()
            _complain(_sentence(error))
            ctx.exit(error.exit_code if isinstance(error, BnnDeployError) else EXIT_ERROR)


def _sentence(error: Exception) -> str:
    if isinstance(error, BnnDeployError):
        return str(error)
    if isinstance(error, MemoryError):
        return "Memory ran out; close other programs, or use a smaller batch."
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        advice = "free some disk space" if error.errno == errno.ENOSPC else "check the path and its permissions"
        return f"{error.strerror}{where}; {advice}."
    return (
        f"This is a defect of bnn-deploy ({type(error).__name__}: {error}); "
        "run it again as 'bnn-deploy --debug …' and report the traceback."
    )


def _complain(message: str) -> None:
    click.echo(f"error: {message}", err=True)


def _discard_stdout() -> None:
    # The reader of our pipe has gone. Without this Python would complain once more when it flushes at exit.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(
    cls=CommandLine,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="bnn-deploy %(version)s")
@click.option("--debug", is_flag=True, help="Show Python tracebacks and warnings.")
def command_line(debug: bool) -> None:
    """Take a binary neural network from PyTorch or ONNX to an x86-64 or arm64 machine or an NVIDIA GPU, and check that
    it computes the same there."""


def main() -> NoReturn:
    """Entry point of the ``bnn-deploy`` script."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character of ours shows "?" rather than an error.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    command_line.main()
