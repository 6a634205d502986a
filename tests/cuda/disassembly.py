"""What GPU machine code consists of: SASS instructions by kernel, read from a cubin with nvdisasm, and ptxas for PTX."""

from __future__ import annotations

import re
import struct
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

# What a binary layer's kernel must consist of, by the name of its dot product in targets/cuda/architectures.py.
INSTRUCTIONS = {
    "popc": "POPC",
    "xor_8x8x128": "BMMA.88128.XOR.POPC",
    "xor_16x8x256": "BMMA.168256.XOR.POPC",
    "and_16x8x256": "BMMA.168256.AND.POPC",
}
# nvdisasm of CUDA 13 starts at sm_75. sm_70 and sm_72 have the same encoding. Before them, an instruction is 8 bytes whose top 16
# bits name it, and every fourth word is the scheduler's: https://github.com/NervanaSystems/maxas, MaxAsGrammar.pm.
_OLDEST_DISASSEMBLED = 75
_OLDEST_OF_ITS_ENCODING = 70
_MAXWELL_OPCODES = {0x5C08: "POPC", 0xE260: "CAL", 0xE220: "JCAL"}


@dataclass(frozen=True)
class KernelCode:
    """One kernel, with the functions that the compiler added to it.

    Attributes:
        opcodes: how many instructions of each name, such as "BMMA.168256.XOR.POPC". Before sm_70: of a few names only.
        calls: what its calls call, such as "$layer$__cuda_sm_9x_mma_bit_internal_xor_m16n8k256".
    """

    opcodes: Counter[str]
    calls: tuple[str, ...]


def kernel_code(cubin: bytes) -> dict[str, KernelCode]:
    """The instructions of every kernel of a cubin, by the kernel's name."""
    (flags,) = struct.unpack_from("<I", cubin, 48)
    # Cubins of CUDA 13 (ABI version 8, and for sm_75 and newer only) have the SM in another byte.
    sm = flags & 0xFF if cubin[8] < 8 else flags >> 8 & 0xFF
    if sm < _OLDEST_OF_ITS_ENCODING:
        return {name: _maxwell_code(text) for name, text in _text_sections(cubin)}
    if sm < _OLDEST_DISASSEMBLED:
        flags = flags & ~0xFF00FF | _OLDEST_DISASSEMBLED << 16 | _OLDEST_DISASSEMBLED
        cubin = cubin[:48] + struct.pack("<I", flags) + cubin[52:]
    with TemporaryDirectory() as folder:
        path = Path(folder, "kernels.cubin")
        path.write_bytes(cubin)
        listing = _run(_wheel_program("nvdisasm"), path)
    parts = re.split(r"^\t\.section\t\.text\.([^,\s]+),.*$", listing, flags=re.MULTILINE)
    return {name: _code(text.split("\n\t.section\t")[0]) for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def native_mma(code: KernelCode) -> Counter[str]:
    """The b1 mma instructions of a kernel by their form.

    Raises:
        AssertionError: an mma is emulated by calls of a function that the compiler added.
    """
    emulated = [call for call in code.calls if "mma" in call]
    assert not emulated, f"{len(emulated)} mma are emulated: {emulated[0]}"
    return Counter({name: count for name, count in code.opcodes.items() if name.startswith("BMMA")})


def assert_native(code: KernelCode, dot_product: str) -> None:
    """A binary layer's kernel is made of the instruction meant for its GPU, and of no other form of product."""
    wanted = INSTRUCTIONS[dot_product]
    found = native_mma(code)
    if dot_product == "popc":
        assert code.opcodes["POPC"] and not found, f"expected POPC and no mma, found {code.opcodes}"
        return
    assert set(found) == {wanted}, f"expected {wanted} only, found {dict(found)}"
    # The AND form counts the activations' bits, too; with XOR, a popcount would be a product beside those of the mma.
    if ".XOR." in wanted:
        assert not code.opcodes["POPC"], f"{code.opcodes['POPC']} POPC beside {wanted}"


def assemble(ptx: str, sm: int) -> bytes:
    """The cubin that ptxas of CUDA 12.2 makes of PTX: what a driver does with it, and with the same checks of ``.version``.

    Raises:
        AssertionError: ptxas refuses it.
    """
    with TemporaryDirectory() as folder:
        source, cubin = Path(folder, "kernels.ptx"), Path(folder, "kernels.cubin")
        source.write_text(ptx, encoding="utf-8")
        _run(_wheel_program("ptxas"), f"-arch=sm_{sm}", source, "-o", cubin)
        return cubin.read_bytes()


def _code(listing: str) -> KernelCode:
    found = re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)(.*)$", listing, flags=re.MULTILINE)
    calls = (re.search(r"`\((.+?)\)", operands) for name, operands in found if name.startswith("CALL"))
    return KernelCode(Counter(name for name, _ in found), tuple(call[1] if call else "a register" for call in calls))


def _maxwell_code(text: bytes) -> KernelCode:
    words = struct.unpack(f"<{len(text) // 8}Q", text)
    opcodes = (word >> 48 for place, word in enumerate(words) if place % 4)
    found = Counter(name for opcode in opcodes if (name := _MAXWELL_OPCODES.get(opcode & 0xFFF8)))
    return KernelCode(found, ("unknown",) * (found["CAL"] + found["JCAL"]))


def _text_sections(cubin: bytes) -> Iterator[tuple[str, bytes]]:
    (table,) = struct.unpack_from("<Q", cubin, 40)
    size, count, names = struct.unpack_from("<HHH", cubin, 58)
    headers = [struct.unpack_from("<IIQQQQ", cubin, table + size * number) for number in range(count)]
    for name, _, _, _, offset, length in headers:
        begin = headers[names][4] + name
        title = cubin[begin : cubin.index(0, begin)].decode()
        if title.startswith(".text."):
            yield title.removeprefix(".text."), cubin[offset : offset + length]


@cache
def _wheel_program(name: str) -> Path:
    """A program of a wheel of the extra "test"."""
    package = {"nvdisasm": "nvidia.cu13", "ptxas": "nvidia.cuda_nvcc"}[name]
    found = find_spec(package)
    assert found is not None and found.submodule_search_locations, f"no {name}: pip install -e '.[test]'"
    return Path(found.submodule_search_locations[0]) / "bin" / name


def _run(*command: object) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, f"{Path(str(command[0])).name}: {done.stdout}{done.stderr}"
    return done.stdout
