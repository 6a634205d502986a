"""Arm's cores by the two numbers in their MIDR register, and which of them run instructions in the order given.

Numbers: Linux' arch/arm64/include/asm/cputype.h, and "Main ID Register" in the cores' technical reference manuals.
"""

from __future__ import annotations

from dataclasses import dataclass

ARM, NVIDIA = 0x41, 0x4E


@dataclass(frozen=True)
class ArmCore:
    """A kind of core.

    Attributes:
        name: as its maker writes it; in lower case it is LLVM's name.
        in_order: it never runs a later instruction before an earlier one, so it wants code in an order made for it.
    """

    name: str
    in_order: bool = False


_CORES = {
    (ARM, 0xB76): ArmCore("ARM1176JZF-S", in_order=True),
    (ARM, 0xC05): ArmCore("Cortex-A5", in_order=True),
    (ARM, 0xC07): ArmCore("Cortex-A7", in_order=True),
    (ARM, 0xC08): ArmCore("Cortex-A8", in_order=True),
    (ARM, 0xC09): ArmCore("Cortex-A9"),
    (ARM, 0xC0E): ArmCore("Cortex-A17"),
    (ARM, 0xC0F): ArmCore("Cortex-A15"),
    (ARM, 0xD01): ArmCore("Cortex-A32", in_order=True),
    (ARM, 0xD02): ArmCore("Cortex-A34", in_order=True),
    (ARM, 0xD03): ArmCore("Cortex-A53", in_order=True),
    (ARM, 0xD04): ArmCore("Cortex-A35", in_order=True),
    (ARM, 0xD05): ArmCore("Cortex-A55", in_order=True),
    (ARM, 0xD06): ArmCore("Cortex-A65"),
    (ARM, 0xD07): ArmCore("Cortex-A57"),
    (ARM, 0xD08): ArmCore("Cortex-A72"),
    (ARM, 0xD09): ArmCore("Cortex-A73"),
    (ARM, 0xD0A): ArmCore("Cortex-A75"),
    (ARM, 0xD0B): ArmCore("Cortex-A76"),
    (ARM, 0xD0C): ArmCore("Neoverse-N1"),
    (ARM, 0xD0D): ArmCore("Cortex-A77"),
    (ARM, 0xD0E): ArmCore("Cortex-A76AE"),
    (ARM, 0xD40): ArmCore("Neoverse-V1"),
    (ARM, 0xD41): ArmCore("Cortex-A78"),
    (ARM, 0xD42): ArmCore("Cortex-A78AE"),
    (ARM, 0xD43): ArmCore("Cortex-A65AE"),
    (ARM, 0xD44): ArmCore("Cortex-X1"),
    (ARM, 0xD46): ArmCore("Cortex-A510", in_order=True),
    (ARM, 0xD47): ArmCore("Cortex-A710"),
    (ARM, 0xD48): ArmCore("Cortex-X2"),
    (ARM, 0xD49): ArmCore("Neoverse-N2"),
    (ARM, 0xD4B): ArmCore("Cortex-A78C"),
    (ARM, 0xD4C): ArmCore("Cortex-X1C"),
    (ARM, 0xD4D): ArmCore("Cortex-A715"),
    (ARM, 0xD4E): ArmCore("Cortex-X3"),
    (ARM, 0xD4F): ArmCore("Neoverse-V2"),
    (ARM, 0xD80): ArmCore("Cortex-A520", in_order=True),
    (ARM, 0xD81): ArmCore("Cortex-A720"),
    (ARM, 0xD82): ArmCore("Cortex-X4"),
    (ARM, 0xD88): ArmCore("Cortex-A520AE", in_order=True),
    (ARM, 0xD89): ArmCore("Cortex-A720AE"),
    (ARM, 0xD8F): ArmCore("Cortex-A320", in_order=True),
    # Denver translates Arm's instructions to its own and puts those in order itself.
    (NVIDIA, 0x000): ArmCore("Denver"),
    (NVIDIA, 0x003): ArmCore("Denver 2"),
    (NVIDIA, 0x004): ArmCore("Carmel"),
}


def arm_core(implementer: int | None, part: int | None) -> ArmCore | None:
    """The core of a ``Processor``'s numbers, None if they are unknown."""
    return None if implementer is None or part is None else _CORES.get((implementer, part))
