"""Runs one pass after another: reports it, dumps what it made, and turns a crash into an error that names the pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import onnx
import tvm

from bnn_deploy.errors import BnnDeployError, CompileError, message_lines

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@dataclass(frozen=True)
class PassRunner:
    """Runs passes, which are named like their functions.

    Attributes:
        dump_ir: existing folder that gets one numbered file per pass; None: nothing is dumped.
        progress: told the name of each pass as it starts.
        suffix: ends the names of passes that run once for every kernel set.
        numbers: of the files.
    """

    dump_ir: Path | None = None
    progress: Callable[[str], None] = lambda message: None
    suffix: str = ""
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def __call__(
        self, transform: Callable[Arguments, Result], *arguments: Arguments.args, **options: Arguments.kwargs
    ) -> Result:
        """What the pass makes of its arguments."""
        return self._run(transform.__name__, lambda: transform(*arguments, **options))

    def each(
        self,
        transform: Callable[Concatenate[tvm.IRModule, Arguments], Result],
        functions: Mapping[str, tvm.IRModule],
        *arguments: Arguments.args,
        **options: Arguments.kwargs,
    ) -> dict[str, Result]:
        """What the pass makes of each of the functions."""
        return self._run(
            transform.__name__,
            lambda: {name: transform(module, *arguments, **options) for name, module in functions.items()},
        )

    def _run(self, name: str, compute: Callable[[], Result]) -> Result:
        name = f"{name}{self.suffix}"
        self.progress(name)
        try:
            result = compute()
        except BnnDeployError:
            raise
        except Exception as error:
            reason = message_lines(error)[-1]
            raise CompileError(
                f"The pass '{name}' failed on this model: {reason} This is a defect of bnn-deploy; please report it with "
                "the ONNX file and the output of --debug."
            ) from error
        if self.dump_ir is not None:
            path = self.dump_ir / f"{next(self.numbers):02d}_{name}"
            if isinstance(result, onnx.ModelProto):
                path.with_suffix(".onnx").write_bytes(result.SerializeToString())
            else:
                path.with_suffix(".txt").write_text(_text(result))
        return result


def _text(result: Any) -> str:
    if isinstance(result, Mapping):
        return "\n\n".join(f"# {name}\n{part.script()}" for name, part in result.items())
    return str(result.script())
