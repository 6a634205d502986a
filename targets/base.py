"""What a compilation target is: the processor, how LLVM and the linker name it, and what its kernels are sized for."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class KernelSet:
    """Kernels for one kind of core, among several in one bundle.

    Attributes:
        name: what runtime/cpu/kernel_set.c chooses by: "in-order" is for machines all of whose cores are; others for any machine.
        mcpu, mattr, binary_macs_per_cycle: as in ``Target``.
    """

    name: str
    mcpu: str
    mattr: tuple[str, ...] = ()
    binary_macs_per_cycle: float | None = None


@dataclass(frozen=True)
class Gpu:
    """The NVIDIA GPU that a target's kernels run on.

    Attributes:
        sm: compute capability times ten, as in NVIDIA's names of architectures: 87 is 8.7, Jetson Orin.
    """

    sm: int

    @property
    def arch(self) -> str:
        """NVIDIA's name: "sm_87"."""
        return f"sm_{self.sm}"

    @property
    def compute_capability(self) -> str:
        """ "8.7" for 87."""
        return f"{self.sm // 10}.{self.sm % 10}"


@dataclass(frozen=True)
class Target:
    """One processor that bnn-deploy compiles for.

    Attributes:
        name: what the user types after ``--target``.
        description: one line for ``bnn-deploy targets``.
        architecture: ``"x86_64"`` or ``"arm64"``, of the processor.
        mcpu: LLVM's name of the core.
        mattr: LLVM features on top of (``+name``) or taken from (``-name``) that core's.
        required_cpu_flags: names in /proc/cpuinfo's ``flags`` (x86) or ``Features`` (arm64) line without which the code faults.
        vector_bits: width of one vector register that kernels should fill, in bits.
        binary_macs_per_cycle: the most that one core, or one multiprocessor of the GPU, can make of our kernels' instructions,
            were there no loads, stores or epilogues; None where it is unknown, or the target's cores differ too much.
        kernel_sets: kernels for several kinds of cores, all in each bundle, the set for any core first; empty if one does for
            all. The target's own ``mcpu``, ``mattr`` and ``binary_macs_per_cycle`` are those of the first.
        gpu: where the kernels run; None: on the processor. The other attributes describe the processor that starts them.
    """

    name: str
    description: str
    architecture: str
    mcpu: str
    mattr: tuple[str, ...] = ()
    required_cpu_flags: tuple[str, ...] = ()
    vector_bits: int = 128
    binary_macs_per_cycle: float | None = None
    kernel_sets: tuple[KernelSet, ...] = ()
    gpu: Gpu | None = None

    @property
    def variants(self) -> tuple[tuple[str, Target], ...]:
        """What kernels are made for: name and processor of every kernel set, or "" and this target."""
        if not self.kernel_sets:
            return (("", self),)
        return tuple(
            (
                kernels.name,
                replace(
                    self,
                    mcpu=kernels.mcpu,
                    mattr=kernels.mattr,
                    binary_macs_per_cycle=kernels.binary_macs_per_cycle,
                    kernel_sets=(),
                ),
            )
            for kernels in self.kernel_sets
        )

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
