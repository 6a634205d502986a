"""CUDA C to machine code for a GPU, with no GPU at hand.

Which compiler: NVRTC of CUDA 12 from the wheel of the extra bnn-deploy[cuda], before a toolkit's nvcc. What it makes runs on
most devices: its cubins load into drivers of CUDA 12 (JetPack 6) and 13 (JetPack 7) alike, while those of CUDA 13 need a driver
of CUDA 13; it knows sm_53 to sm_72, while CUDA 13 starts at sm_75; and everybody who pins the wheel gets the same bytes. nvcc
is for those who have no wheel.
"""

from __future__ import annotations

import re
from functools import cache

from bnn_deploy.codegen.cuda_nvcc import Nvcc, find_nvcc
from bnn_deploy.codegen.cuda_nvrtc import Nvrtc, find_nvrtc
from bnn_deploy.codegen.device_code import DeviceCode
from bnn_deploy.codegen.object_cache import content_key
from bnn_deploy.errors import CompileError, ToolError
from bnn_deploy.targets.cuda.architectures import architecture

# Multiply and add become one fma where TIR says so and nowhere else, so that results are those of the other targets;
# division, square root and denormals are exact by default.
_OPTIONS = ("-fmad=false", "--std=c++17")
_INSTALL = "install the wheel with `pip install 'bnn-deploy[cuda]'`"


def compile_cuda(source: str, sm: int) -> DeviceCode:
    """The kernels of a source, as a cubin for ``sm`` and as PTX for drivers that cannot load it and for newer GPUs.

    Args:
        source: CUDA C that includes nothing; its kernels are ``extern "C"``.
        sm: compute capability times ten, one of ``targets/cuda/architectures.py``.

    Raises:
        ToolError: there is no compiler for this SM.
        CompileError: the compiler refuses the source.
    """
    oldest_ptx = architecture(sm).ptx_isa
    compiler = _compiler(sm)
    cubin, ptx = compiler.compile(source, sm, _OPTIONS)
    return DeviceCode(cubin, lower_ptx_version(ptx, oldest_ptx), sm, compiler.toolkit)


def cache_key(source: str, sm: int) -> str:
    """A digest of all that ``compile_cuda`` makes the code from, the compiler's version included.

    Raises:
        ToolError: there is no compiler for this SM.
    """
    return content_key(("cuda", source, f"sm_{sm}", architecture(sm).ptx_isa, *_OPTIONS, _compiler(sm).identity))


def lower_ptx_version(ptx: str, version: str) -> str:
    """PTX that says it is of an older version than its compiler wrote.

    A compiler writes the newest ``.version`` it knows, whatever the text needs, and drivers refuse text of a version that is
    newer than they are: PTX of CUDA 12.2 (8.2) would not reach JetPack 4 and 5 (CUDA 10.2 and 11.4). The text itself is no
    newer than its instructions, and the assembler checks each of these against ``.version``: so do the tests, for every SM.

    Args:
        ptx: with one ``.version`` line.
        version: such as "7.0"; text that is older stays as it is.

    Raises:
        CompileError: there is no ``.version`` line.
    """
    found = re.search(r"^\.version (\d+)\.(\d+)$", ptx, flags=re.MULTILINE)
    if found is None:
        raise CompileError("The compiler's PTX has no .version line; this is a defect of bnn-deploy, please report it.")
    if tuple(map(int, found.groups())) <= tuple(map(int, version.split("."))):
        return ptx
    return f"{ptx[: found.start()]}.version {version}{ptx[found.end() :]}"


@cache
def compilers() -> tuple[Nvrtc | Nvcc, ...]:
    """Those that were found, the preferred one first.

    Raises:
        ToolError: NVRTC is there, but does not load.
    """
    return tuple(compiler for compiler in (find_nvrtc(), find_nvcc()) if compiler is not None)


def _compiler(sm: int) -> Nvrtc | Nvcc:
    found = compilers()
    for compiler in found:
        if sm in compiler.sms:
            return compiler
    if not found:
        raise ToolError(f"No compiler for GPUs was found, neither the wheel of NVRTC nor nvcc: {_INSTALL}.")
    names = " and ".join(compiler.identity for compiler in found)
    raise ToolError(f"The compiler for GPUs that was found, {names}, does not know sm_{sm}: {_INSTALL}.")
