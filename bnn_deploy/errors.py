"""The errors users see. Each carries one clear sentence: what, where, found, expected, what to do."""

from __future__ import annotations

from collections.abc import Sequence

_LISTED = 8


class BnnDeployError(Exception):
    """Base of every error caused by the user's input, files or tools rather than by a defect of bnn-deploy.

    Attributes:
        exit_code: what the command line ends with.
    """

    exit_code = 2


class ModelFileError(BnnDeployError):
    """An ONNX or checkpoint file cannot be read, or holds something that is not supported; names the node."""


class TargetError(BnnDeployError):
    """An unknown compilation target, or one that this machine cannot run."""


class CompileError(BnnDeployError):
    """Compilation failed; names the node and the pass."""


class BundleError(BnnDeployError):
    """A bundle is missing, truncated, altered, of a newer format, or for another processor."""


class InputError(BnnDeployError):
    """Data given to a model has the wrong shape, dtype, size or format."""


class DeviceError(BnnDeployError):
    """A device cannot be reached, refuses us, went away, or did not answer in time; names the device."""


class ToolError(BnnDeployError):
    """An outside program (qemu, the linker, the runner) is missing or failed."""


class Interrupted(BnnDeployError):
    """A run was stopped by Ctrl-C or SIGTERM, and can be gone on with; its ``exit_code`` is the shell's, 128 + signal."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def message_lines(error: Exception) -> list[str]:
    """The lines of another library's error, for quoting one in ours; its type's name when it says nothing."""
    return str(error).strip().splitlines() or [type(error).__name__]


def printable(name: str, longest: int = 80) -> str:
    """A name out of somebody's file, for a message: neither megabytes nor control characters of a terminal."""
    cut = name if len(name) <= longest else name[:longest] + "…"
    return cut if cut.isprintable() else repr(cut)


def listed(names: Sequence[str], longest: int = 80) -> str:
    """The first eight of such names, and how many more there are."""
    shown = ", ".join(printable(name, longest) for name in names[:_LISTED])
    return shown if len(names) <= _LISTED else f"{shown} and {len(names) - _LISTED} more"
