"""The compiler for GPUs: what its machine code is made of on every architecture, and who can load it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from bnn_deploy.codegen import cuda_compiler, cuda_nvcc, cuda_nvrtc
from bnn_deploy.codegen.cuda_compiler import cache_key, compile_cuda, lower_ptx_version
from bnn_deploy.codegen.device_code import DeviceCode
from bnn_deploy.errors import CompileError, TargetError, ToolError
from bnn_deploy.targets.cuda.architectures import ARCHITECTURES, Architecture, architecture
from tests.cuda.disassembly import INSTRUCTIONS, assemble, assert_native, kernel_code, native_mma

STEPS = 4

# What a thread does with its operands a and b, by the name of the dot product, and the number of instructions in one step.
_SMALL = (
    'asm volatile("mma.sync.aligned.m8n8k128.row.col.s32.b1.b1.s32.xor.popc {%0,%1}, {%2}, {%3}, {%0,%1};"'
    ' : "+r"(c[0]), "+r"(c[1]) : "r"(a[0]), "r"(b[0]));'
)
_LARGE = (
    'asm volatile("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.OPERATION.popc '
    '{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"'
    ' : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])'
    ' : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));'
)
PRODUCTS = {
    "popc": ("for (int i = 0; i < 4; ++i) c[i] += __popc(a[i] ^ b[i & 1]);", 4),
    "xor_8x8x128": (_SMALL, 1),
    "xor_16x8x256": (_LARGE.replace("OPERATION", "xor"), 1),
    "and_16x8x256": (_LARGE.replace("OPERATION", "and"), 1),
}


def toy_kernel(dot_product: str) -> str:
    """A kernel "product" of ``STEPS`` products."""
    return f"""
extern "C" __global__ void product(int *out, const unsigned *x, const unsigned *w) {{
    int c[4] = {{0, 0, 0, 0}};
#pragma unroll
    for (int step = 0; step < {STEPS}; ++step) {{
        unsigned a[4], b[2];
        for (int i = 0; i < 4; ++i) a[i] = x[(step * 4 + i) * 32 + threadIdx.x];
        for (int i = 0; i < 2; ++i) b[i] = w[(step * 2 + i) * 32 + threadIdx.x];
        {PRODUCTS[dot_product][0]}
    }}
    for (int i = 0; i < 4; ++i) out[i * 32 + threadIdx.x] = c[i] + __shfl_xor_sync(0xffffffffu, c[i], 1);
}}
"""


@cache
def compiled(dot_product: str, sm: int) -> DeviceCode:
    """The toy kernel's code."""
    return compile_cuda(toy_kernel(dot_product), sm)


@pytest.fixture(autouse=True)
def compilers_found_anew() -> None:
    """No test sees the compilers that another one pretended to have."""
    cuda_compiler.compilers.cache_clear()


def one_row(row: Architecture) -> str:
    return row.name


@pytest.mark.parametrize("row", ARCHITECTURES, ids=one_row)
def test_native_instruction_of_every_architecture(row: Architecture) -> None:
    """Breaks if the table names an instruction that a GPU lacks, so that it is emulated, or machine code is misread."""
    code = compiled(row.dot_product, row.sm)
    kernels = kernel_code(code.cubin)
    assert list(kernels) == ["product"] and kernels["product"].calls == ()
    assert_native(kernels["product"], row.dot_product)
    wanted = STEPS * PRODUCTS[row.dot_product][1]
    assert kernels["product"].opcodes[INSTRUCTIONS[row.dot_product]] == wanted


@pytest.mark.parametrize("row", ARCHITECTURES, ids=one_row)
def test_old_drivers_can_read_the_ptx(row: Architecture) -> None:
    """Breaks if the PTX says it is older than its instructions are, or so new that the device's oldest driver refuses it."""
    code = compiled(row.dot_product, row.sm)
    assert re.findall(r"^\.version (.*)$", code.ptx, flags=re.MULTILINE) == [row.ptx_isa]
    assert re.findall(r"^\.target (.*)$", code.ptx, flags=re.MULTILINE) == [row.name]
    translated = kernel_code(assemble(code.ptx, row.sm))["product"]
    assert_native(translated, row.dot_product)
    # JetPack 4 has CUDA 10.2 (PTX 6.5), JetPack 5, the oldest one for Orin, 11.4 (PTX 7.4).
    if row.sm <= 72:
        assert code.ptx_isa <= (6, 5) and code.needs_cuda_ptx == "10.2"
    if row.sm == 87:
        assert code.needs_cuda_ptx == "11.4"


@pytest.mark.parametrize(
    ("sm", "older", "reason"),
    [
        (53, "5.0", "'shfl.sync' requires PTX ISA .version 6.0"),
        (75, "6.5", "'.m8n8k128' requires PTX ISA .version 7.0"),
        (80, "6.5", "'.m16n8k256' requires PTX ISA .version 7.0"),
        (90, "7.7", "PTX .version 7.7 does not support .target sm_90"),
    ],
)
def test_older_versions_would_not_do(sm: int, older: str, reason: str) -> None:
    """Breaks if ptxas no longer checks what the PTX says, so that nothing here shows that older drivers can read it.

    It does not check when sm_72, 86, 87 and 89 came: their versions in the table are those of the PTX ISA's release notes.
    """
    code = compiled(architecture(sm).dot_product, sm)
    with pytest.raises(AssertionError, match=re.escape(reason)):
        assemble(lower_ptx_version(code.ptx, older), sm)


def test_newer_gpus_translate_the_ptx() -> None:
    """Breaks if the PTX is for one architecture alone, so that GPUs newer than the bundle cannot run it."""
    code = compiled("xor_16x8x256", 80)
    assert_native(kernel_code(assemble(code.ptx, 87))["product"], "xor_16x8x256")


def test_emulation_is_found() -> None:
    """Breaks if XOR on Hopper, which is calls of an emulation, passes for native."""
    emulated = kernel_code(compiled("xor_16x8x256", 90).cubin)["product"]
    assert len(emulated.calls) == STEPS and "mma_bit_internal_xor" in emulated.calls[0]
    for check in (native_mma, lambda code: assert_native(code, "xor_16x8x256")):
        with pytest.raises(AssertionError, match=rf"{STEPS} mma are emulated: .*xor_m16n8k256"):
            check(emulated)


def test_other_products_are_found() -> None:
    """Breaks if a kernel that counts bits one word at a time, or uses the other operation, passes for one of b1 mma."""
    popc = kernel_code(compiled("popc", 80).cubin)["product"]
    conjunction = kernel_code(compiled("and_16x8x256", 80).cubin)["product"]
    for code in (popc, conjunction):
        with pytest.raises(AssertionError, match=r"expected BMMA\.168256\.XOR\.POPC only"):
            assert_native(code, "xor_16x8x256")
    with pytest.raises(AssertionError, match="expected POPC and no mma"):
        assert_native(conjunction, "popc")


def test_multiply_and_add_stay_apart() -> None:
    """Breaks if a multiply and an add become one instruction, so that results differ from other targets' in the last bit."""
    source = """extern "C" __global__ void apart(float *x, const float *y) { *x = *x * y[0] + y[1]; }
    extern "C" __global__ void fused(float *x, const float *y) { *x = __fmaf_rn(*x, y[0], y[1]); }"""
    kernels = kernel_code(compile_cuda(source, 87).cubin)
    assert kernels["apart"].opcodes["FFMA"] == 0 and kernels["apart"].opcodes["FMUL"] == 1
    assert kernels["fused"].opcodes["FFMA"] == 1 and kernels["fused"].opcodes["FMUL"] == 0


def test_the_same_code_every_time() -> None:
    """Breaks if two compilations of one model differ, so that bundles cannot be compared by their hashes."""
    source = toy_kernel("xor_16x8x256")
    assert compile_cuda(source, 87) == compile_cuda(source, 87)


def test_cache_key() -> None:
    """Breaks if code for another architecture, source or compiler is taken from the cache."""
    keys = {cache_key("a", 80), cache_key("b", 80), cache_key("a", 86)}
    assert len(keys) == 3 and cache_key("a", 80) in keys


def test_cache_key_tells_compilers_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a newer compiler is not used because an older one's code is in the cache."""
    before = cache_key("a", 80)
    monkeypatch.setattr(cuda_nvrtc, "_wheel_version", lambda: "12.9.86")
    cuda_compiler.compilers.cache_clear()
    assert cache_key("a", 80) != before


def test_refused_source_is_our_defect() -> None:
    """Breaks if a source that does not compile is a traceback, or its first error is not quoted."""
    wanted = r"^NVRTC 12\.\d+ refused the kernels for sm_72: kernels\.cu\(1\): error: .*nonsense.*defect of bnn-deploy"
    with pytest.raises(CompileError, match=wanted):
        compile_cuda('extern "C" __global__ void product() { nonsense; }', 72)


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if somebody without the wheel and without nvcc is not told what to install."""
    monkeypatch.setattr(cuda_compiler, "find_nvrtc", lambda: None)
    monkeypatch.setattr(cuda_compiler, "find_nvcc", lambda: None)
    with pytest.raises(ToolError, match=r"^No compiler for GPUs was found.*pip install 'bnn-deploy\[cuda\]'`\.$"):
        compile_cuda(toy_kernel("popc"), 53)


def test_broken_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Breaks if a library that does not load is a traceback."""
    library = tmp_path / "libnvrtc.so.12"
    library.write_bytes(b"no library")
    monkeypatch.setattr(cuda_nvrtc, "_library", lambda: library)
    with pytest.raises(ToolError, match=r"libnvrtc\.so\.12, does not load .*install nvidia-cuda-nvrtc-cu12 again"):
        compile_cuda(toy_kernel("popc"), 53)


NVCC = r"""#!/bin/sh
case "$1" in
--version) echo "Cuda compilation tools, release 13.0, V13.0.88";;
--list-gpu-code) printf 'sm_75\nsm_87\n';;
*)
    grep -q broken kernels.cu && { echo "kernels.cu(1): error: broken" >&2; exit 1; }
    [ "$2" = -cubin ] && echo "$*" > kernels.cubin
    [ "$2" = -ptx ] && printf '.version 9.0\n.target %s\n' "${1#-arch=}" > kernels.ptx
    exit 0;;
esac
"""


@pytest.fixture
def only_nvcc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without the wheel, and with an nvcc of CUDA 13 (a script that answers as it does)."""
    program = tmp_path / "nvcc"
    program.write_text(NVCC)
    program.chmod(0o755)
    monkeypatch.setattr(cuda_compiler, "find_nvrtc", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


@pytest.mark.usefixtures("only_nvcc")
def test_nvcc_takes_its_place() -> None:
    """Breaks if somebody with a toolkit, but no wheel, cannot compile, or the bundle claims that older drivers load its cubin."""
    code = compile_cuda("any", 87)
    assert code.cubin == b"-arch=sm_87 -cubin -fmad=false --std=c++17 -o kernels.cubin kernels.cu\n"
    assert code == DeviceCode(code.cubin, ".version 7.4\n.target sm_87\n", 87, "13.0")
    assert code.needs_cuda == "13.0"


@pytest.mark.usefixtures("only_nvcc")
def test_nvcc_that_is_too_new_or_refuses() -> None:
    """Breaks if CUDA 13 is asked for a Jetson Nano's code, or its messages are lost."""
    with pytest.raises(ToolError, match=r"nvcc V13\.0\.88, does not know sm_53: install the wheel"):
        compile_cuda("any", 53)
    with pytest.raises(
        CompileError, match=r"^nvcc 13\.0 refused the kernels for sm_87: kernels\.cu\(1\): error: broken;"
    ):
        compile_cuda("broken", 87)


def test_real_nvcc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if what the nvcc of this machine makes is not what NVRTC makes, or its PTX cannot be lowered."""
    if cuda_nvcc.find_nvcc() is None:
        pytest.skip("no nvcc here; the wheel does all that is needed")
    monkeypatch.setattr(cuda_compiler, "find_nvrtc", lambda: None)
    code = compile_cuda(toy_kernel("and_16x8x256"), 90)
    assert_native(kernel_code(code.cubin)["product"], "and_16x8x256")
    assert_native(kernel_code(assemble(code.ptx, 90))["product"], "and_16x8x256")


def test_lowering_keeps_older_versions() -> None:
    """Breaks if PTX is called newer than its compiler says, or anything but its version is changed."""
    assert (
        lower_ptx_version("// head\n.version 8.2\n.target sm_80\n", "7.0") == "// head\n.version 7.0\n.target sm_80\n"
    )
    assert lower_ptx_version(".version 6.0\n", "7.0") == ".version 6.0\n"
    # 7.10 would be newer than 7.8.
    assert lower_ptx_version(".version 7.10\n", "7.8") == ".version 7.8\n"
    with pytest.raises(CompileError, match=r"no \.version line"):
        lower_ptx_version("", "7.0")


def test_unknown_architecture_is_refused_before_compiling() -> None:
    """Breaks if the compiler is asked for a GPU that there are no kernels for."""
    with pytest.raises(TargetError, match="There are no kernels for sm_120"):
        compile_cuda("", 120)


def test_table_needs_no_newer_compiler() -> None:
    """Breaks if the pinned wheel does not know an architecture of the table."""
    nvrtc = cuda_nvrtc.find_nvrtc()
    assert nvrtc is not None and set(nvrtc.sms) >= {row.sm for row in ARCHITECTURES}
    assert architecture(87).name == "sm_87"


def test_the_locale_stays() -> None:
    """Breaks if a program that compiled for a GPU reads and writes text as ASCII afterwards: NVRTC changes the thread's locale."""
    script = """
import locale
from bnn_deploy.codegen.cuda_compiler import compile_cuda
before = locale.nl_langinfo(locale.CODESET)
compile_cuda('extern "C" __global__ void kernel(float *x) { x[0] = 1.0f; }', 87)
print(before, locale.nl_langinfo(locale.CODESET))
"""
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.stdout == "UTF-8 UTF-8\n", done.stdout + done.stderr
