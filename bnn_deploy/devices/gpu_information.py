"""The GPU that a network ran on, as its driver describes it: JSON of the bundle's C runtime (``bnn_device`` of bnn_model.h)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bnn_deploy.checked_fields import Fields, printable_text, whole


@dataclass(frozen=True)
class GpuInformation:
    """None: unknown.

    Attributes:
        name: such as "Orin".
        compute_capability: times ten: 87 is 8.7.
        multiprocessors: how many it has.
        khz: highest clock of the multiprocessors.
        memory_khz: highest clock of the memory.
        memory_bus_bits: width of the path to the memory.
        memory_bytes: size of the memory; on Jetsons it is the processor's.
        cuda_version: newest CUDA of the driver: 12020 is 12.2.
    """

    name: str | None
    compute_capability: int | None
    multiprocessors: int | None
    khz: int | None
    memory_khz: int | None
    memory_bus_bits: int | None
    memory_bytes: int | None
    cuda_version: int | None

    @classmethod
    def from_fields(cls, fields: Fields) -> GpuInformation:
        """What a runner or a profile tells; raises the error of the fields if it is something else."""
        names = [name for name in cls.__dataclass_fields__ if name != "name"]
        return cls(name=fields.find("name", printable_text()), **{name: fields.find(name, whole()) for name in names})

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)
