"""What makes a board slower than it could be: governor, clock, throttling, heat."""

from __future__ import annotations

from bnn_deploy.devices.system_state import HOT_CELSIUS, SET_GOVERNOR, SystemState, throttling_text
from bnn_deploy.doctor.check import Check, Status

# Clocks are set in steps of 12.5 to 100 MHz, and what is read back may be a little below the step.
CLOCK_TOLERANCE = 0.98
# Bits of ``vcgencmd get_throttled``: https://www.raspberrypi.com/documentation/computers/os.html#get_throttled
UNDER_VOLTAGE = 1 << 0 | 1 << 16
TOO_HOT = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 17 | 1 << 18 | 1 << 19


def check_governor(state: SystemState) -> Check:
    """Linux's frequency governor; all but "performance" change the clock while something is measured."""
    governors = sorted({processor.governor for processor in state.processors if processor.governor is not None})
    if not governors:
        return Check("governor", Status.OK, "unknown")
    found = ", ".join(governors)
    if governors != ["performance"]:
        advice = f"For steady times, run there until the next reboot: {SET_GOVERNOR}"
        return Check("governor", Status.WARNING, found, advice)
    return Check("governor", Status.OK, found)


def check_clock(state: SystemState) -> Check:
    """Present clock of the slowest core against its maximum."""
    known = [
        (processor.khz, processor.maximum_khz)
        for processor in state.processors
        if processor.khz is not None and processor.maximum_khz
    ]
    if not known:
        return Check("clock", Status.OK, "unknown")
    khz, maximum = min(known, key=lambda pair: pair[0] / pair[1])
    found = f"{khz / 1000:.0f} of {maximum / 1000:.0f} MHz"
    if khz >= CLOCK_TOLERANCE * maximum:
        return Check("clock", Status.OK, found)
    if any(processor.governor not in (None, "performance") for processor in state.processors):
        return Check("clock", Status.OK, f"{found}; the governor lowers it while the board is idle")
    advice = "Something holds the clock down: look at the rows on throttling, temperature and power."
    return Check("clock", Status.WARNING, found, advice)


def check_throttling(state: SystemState) -> Check | None:
    """The Raspberry Pi's own record of low voltage and heat; None for boards that keep none."""
    if state.throttled is None:
        if not (state.board or "").startswith("Raspberry Pi"):
            return None
        advice = "To see low voltage and throttling, install vcgencmd there, and add the user to the group video."
        return Check("throttling", Status.WARNING, "unknown: vcgencmd gives no answer", advice)
    if state.throttled == 0:
        return Check("throttling", Status.OK, "none since the board started")
    actions = []
    if state.throttled & UNDER_VOLTAGE:
        actions.append("use the power supply made for this board, with a short cable")
    if state.throttled & TOO_HOT:
        actions.append("cool the board (heat sink, fan)")
    advice = " and ".join(actions) or "look up these bits in the documentation of vcgencmd get_throttled"
    return Check("throttling", Status.WARNING, throttling_text(state.throttled), f"{advice[0].upper()}{advice[1:]}.")


def check_temperature(state: SystemState) -> Check:
    """The hottest thermal zone."""
    if not state.temperatures:
        return Check("temperature", Status.OK, "unknown")
    zone, celsius = max(state.temperatures.items(), key=lambda item: item[1])
    found = f"{celsius:.0f} °C ({zone})"
    if celsius >= HOT_CELSIUS:
        advice = f"Cool the board (heat sink, fan): boards slow down between {HOT_CELSIUS:.0f} and 100 °C."
        return Check("temperature", Status.WARNING, found, advice)
    return Check("temperature", Status.OK, found)
