"""NVIDIA's run-time compiler NVRTC of CUDA 12, from the wheel ``nvidia-cuda-nvrtc-cu12``.

Bound by ctypes: the nine functions needed have had the same signatures since CUDA 11.1, while the package cuda-bindings would
bring 10 MB of modules for the whole of CUDA, and versions that must match the wheel's.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from bnn_deploy.errors import CompileError, ToolError

WHEEL = "nvidia-cuda-nvrtc-cu12"


@dataclass(frozen=True)
class Nvrtc:
    """The compiler.

    Attributes:
        library: its functions.
        toolkit: its version of CUDA, such as "12.2".
        identity: all that the machine code depends on.
        sms: what it compiles for.
    """

    library: ctypes.CDLL
    toolkit: str
    identity: str
    sms: tuple[int, ...]

    def compile(self, source: str, sm: int, options: Sequence[str]) -> tuple[bytes, str]:
        """Cubin and PTX of a source.

        Raises:
            CompileError: NVRTC refuses the source, with its first error.
        """
        program = ctypes.c_void_p()
        self._call("nvrtcCreateProgram", ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None)
        try:
            arguments = [f"--gpu-architecture=sm_{sm}".encode(), *(option.encode() for option in options)]
            with _own_locale():
                status = self.library.nvrtcCompileProgram(
                    program, len(arguments), (ctypes.c_char_p * len(arguments))(*arguments)
                )
            if status != 0:
                raise compile_error(f"NVRTC {self.toolkit}", sm, self._content("ProgramLog", program).decode())
            return self._content("CUBIN", program), self._content("PTX", program).rstrip(b"\0").decode()
        finally:
            self.library.nvrtcDestroyProgram(ctypes.byref(program))

    def _content(self, what: str, program: ctypes.c_void_p) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        content = ctypes.create_string_buffer(size.value)
        self._call(f"nvrtcGet{what}", program, content)
        return content.raw

    def _call(self, function: str, *arguments: object) -> None:
        status = getattr(self.library, function)(*arguments)
        if status != 0:
            reason = self.library.nvrtcGetErrorString(status).decode()
            raise ToolError(f"{function} of {WHEEL} {self.toolkit} failed: {reason}; install it again with pip.")


@contextmanager
def _own_locale() -> Iterator[None]:
    """NVRTC leaves the thread in the C locale, in which Python would read and write files as ASCII from then on."""
    uselocale = ctypes.CDLL(None).uselocale
    uselocale.argtypes, uselocale.restype = [ctypes.c_void_p], ctypes.c_void_p
    before = uselocale(None)
    try:
        yield
    finally:
        uselocale(before)


def compile_error(compiler: str, sm: int, log: str) -> CompileError:
    """What to say of a source that a compiler refused, from its messages."""
    lines = [line.strip() for line in log.replace("\0", "").splitlines() if line.strip()]
    first = next((line for line in lines if "error" in line or "fatal" in line), lines[0] if lines else "no message")
    return CompileError(
        f"{compiler} refused the kernels for sm_{sm}: {first}; this is a defect of bnn-deploy, please report it."
    )


def find_nvrtc() -> Nvrtc | None:
    """NVRTC of the wheel; None if it is not installed.

    Raises:
        ToolError: it is there, but does not load.
    """
    path = _library()
    if path is None:
        return None
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise ToolError(f"NVRTC, {path}, does not load ({error}): install {WHEEL} again with pip.") from error
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    major, minor, count = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    library.nvrtcGetNumSupportedArchs(ctypes.byref(count))
    sms = (ctypes.c_int * count.value)()
    library.nvrtcGetSupportedArchs(sms)
    toolkit = f"{major.value}.{minor.value}"
    return Nvrtc(library, toolkit, f"NVRTC {_wheel_version() or toolkit}", tuple(sms))


def _library() -> Path | None:
    try:
        found = find_spec("nvidia.cuda_nvrtc")
    except ModuleNotFoundError:
        return None
    folders = (found.submodule_search_locations or []) if found else []
    return next((path for folder in folders if (path := Path(folder) / "lib" / "libnvrtc.so.12").exists()), None)


def _wheel_version() -> str | None:
    try:
        return version(WHEEL)
    except PackageNotFoundError:
        return None
