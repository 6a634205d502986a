"""What a compilation target is: the processor, how LLVM and the linker name it, and what its kernels are sized for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """One processor that bnn-deploy compiles for.

    Attributes:
        name: what the user types after ``--target``.
        description: one line for ``bnn-deploy targets``.
        architecture: ``"x86_64"`` or ``"arm64"``.
        mcpu: LLVM's name of the core.
        mattr: LLVM features on top of (``+name``) or taken from (``-name``) that core's.
        required_cpu_flags: names in /proc/cpuinfo's ``flags`` (x86) or ``Features`` (arm64) line without which the code faults.
        vector_bits: width of one vector register that kernels should fill, in bits.
    """

    name: str
    description: str
    architecture: str
    mcpu: str
    mattr: tuple[str, ...] = ()
    required_cpu_flags: tuple[str, ...] = ()
    vector_bits: int = 128

    @property
    def llvm(self) -> dict[str, object]:
        """TVM's description of this target (the JSON form of ``tvm.target.Target``)."""
        return {
            "kind": "llvm",
            "mtriple": {"x86_64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[self.architecture],
            "mcpu": self.mcpu,
            "mattr": list(self.mattr),
        }

    @property
    def float_lanes(self) -> int:
        """float32 (or uint32) elements in one vector register."""
        return self.vector_bits // 32
