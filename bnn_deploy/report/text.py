"""Names and numbers as people read them, the same in all reports. Names come from files of strangers."""

from __future__ import annotations


def short(text: str, width: int) -> str:
    """``text`` in ``width`` characters, all printable: both ends of a name of layers say which one it is."""
    plain = printable(text)
    if len(plain) <= width:
        return plain
    front = (width - 1) // 2
    return f"{plain[:front]}…{plain[len(plain) - (width - 1 - front) :]}"


def printable(text: str) -> str:
    """``text`` with a space for what cannot be seen: line breaks, controls, what turns the direction of writing."""
    return "".join(character if character.isprintable() else " " for character in text)


def count_text(count: int) -> str:
    """Such as "2,143" or "10.2M": all digits as long as they are few."""
    if count < 100_000:
        return f"{count:,}"
    # 999,999 is 1M, not 1000k.
    unit, size = next(
        (unit, size) for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)) if float(f"{count / size:.3g}") >= 1
    )
    return f"{float(f'{count / size:.3g}'):g}{unit}"


def percent_text(part: float) -> str:
    """Such as "99.97%"; never "100%" of what is less, nor "0%" of what is more than nothing."""
    text = f"{100 * part:.2f}"
    # Nobody counts this many images: such a difference is an interval's own rounding.
    whole, nothing = part > 1 - 1e-9, part < 1e-9
    if not whole and text == "100.00":
        return "> 99.99%"
    if not nothing and text == "0.00":
        return "< 0.01%"
    return f"{text.rstrip('0').rstrip('.')}%"


def power_text(value: float) -> str:
    """Such as "1e-6"."""
    return f"{value:.2g}".replace("e-0", "e-").replace("e+0", "e")
