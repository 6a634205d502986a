"""What makes measured times worth less: a throttled, slowed, hot, busy or noisy board, or an emulator."""

from __future__ import annotations

from collections.abc import Iterator

from bnn_deploy.devices.base import DeviceProfile
from bnn_deploy.devices.system_state import HOT_CELSIUS, SET_GOVERNOR, SystemState, throttling_text
from bnn_deploy.profiling.model import Remark
from bnn_deploy.profiling.spread import Spread

EMULATION_WARNING = "These are times of the emulator and no latencies of any device; measure on the device itself."

# The interquartile range of a quiet machine is about 1% of the median; at 5% half of the repeats are off by 2.5%.
MOST_RANGE = 0.05
# Repeats of one run that get this much slower or faster: the clock, the caches or other programs changed in between.
MOST_DRIFT = 0.05
# Below this part of its limit a clock is lowered, not rounded.
LEAST_CLOCK = 0.95
# A rise this large within one profile ends in throttling when the network runs for longer.
WARMING_CELSIUS = 15.0


def remarks(times: DeviceProfile, latency: Spread, threads: int) -> tuple[Remark, ...]:
    """Everything to be said against ``times``; the states of emulated boards are not the emulator's and say nothing.

    Args:
        times: what a board measured.
        latency: of its runs.
        threads: per inference.
    """
    if times.emulated:
        return (Remark("emulated", EMULATION_WARNING),)
    found = [*_noise(latency)]
    if times.before is not None:
        found += [*_load(times.before, threads)]
    if times.after is not None:
        found += [
            *_throttling(times.before, times.after),
            *_clock(times.after),
            *_temperature(times.before, times.after),
        ]
    order = ("throttled", "clock", "governor", "temperature", "load", "noise")
    return tuple(sorted(found, key=lambda remark: order.index(remark.code)))


def _throttling(before: SystemState | None, after: SystemState) -> Iterator[Remark]:
    bits = after.throttled or 0
    if before is not None and before.throttled is not None:
        bits |= before.throttled
    if bits:
        yield Remark(
            "throttled",
            f"The board reports {throttling_text(bits)}; give it a stronger power supply or better cooling, restart it "
            "and measure again.",
        )


def _clock(after: SystemState) -> Iterator[Remark]:
    limits = [(cpu.khz, cpu.maximum_khz) for cpu in after.processors if cpu.khz and cpu.maximum_khz]
    if limits:
        # The CPU that ran is the one with the highest clock; idle ones clock down, and are no trouble.
        khz, maximum = max(limits, key=lambda pair: pair[0] / pair[1])
        if khz < LEAST_CLOCK * maximum:
            yield Remark(
                "clock",
                f"The fastest CPU ran at {khz / 1e3:.0f} of its {maximum / 1e3:.0f} MHz after the last repeat; set the "
                "governor to performance, and check power supply and cooling.",
            )
    governors = sorted({cpu.governor for cpu in after.processors if cpu.governor} - {"performance"})
    if governors:
        yield Remark(
            "governor",
            f"The frequency governor is {' and '.join(governors)}, so the clock depends on what ran before; set it to "
            f"performance while you measure: {SET_GOVERNOR}",
        )


def _temperature(before: SystemState | None, after: SystemState) -> Iterator[Remark]:
    zones = after.temperatures or {}
    earlier = (before.temperatures if before is not None else None) or {}
    if zones:
        zone, celsius = max(zones.items(), key=lambda item: item[1])
        if celsius >= HOT_CELSIUS:
            yield Remark("temperature", f"{zone} was at {celsius:.0f} C after the last repeat; improve the cooling.")
            return
    rises = {zone: celsius - earlier[zone] for zone, celsius in zones.items() if zone in earlier}
    zone = max(rises, key=lambda name: rises[name], default="")
    if zone and rises[zone] >= WARMING_CELSIUS:
        yield Remark(
            "temperature",
            f"{zone} rose from {earlier[zone]:.0f} to {zones[zone]:.0f} C; longer runs may be throttled, measure with more "
            "repeats.",
        )


def _load(before: SystemState, threads: int) -> Iterator[Remark]:
    cpus = len(before.processors)
    # From here on other programs and our threads want more CPUs than there are.
    if before.load_average is not None and cpus and before.load_average + threads > cpus + 0.5:
        yield Remark(
            "load",
            f"In the minute before, {before.load_average:.1f} processes wanted the board's {cpus} CPUs on average, and our "
            f"threads ({threads}) come on top; stop them and measure again.",
        )


def _noise(latency: Spread) -> Iterator[Remark]:
    if latency.relative_range > MOST_RANGE:
        yield Remark(
            "noise",
            f"Half of the repeats scatter over {100 * latency.relative_range:.0f}% of the median (expected at most "
            f"{100 * MOST_RANGE:.0f}%); stop other programs, and measure with more repeats.",
        )
    elif abs(latency.drift) > MOST_DRIFT:
        direction = "slower" if latency.drift > 0 else "faster"
        yield Remark(
            "noise",
            f"The later half of the repeats was {100 * abs(latency.drift):.0f}% {direction} than the earlier half (expected "
            f"at most {100 * MOST_DRIFT:.0f}%); measure with more warm-up runs.",
        )
