"""Names, numbers and tables as people read them, the same in all reports. Names come from files of strangers."""

from __future__ import annotations

from collections.abc import Sequence


def short(text: str, width: int) -> str:
    """``text`` in ``width`` characters, all printable: both ends of a name of layers say which one it is."""
    # Line breaks, controls, and what turns the direction of writing cannot be seen, and would break a table.
    plain = "".join(character if character.isprintable() else " " for character in text)
    if len(plain) <= width:
        return plain
    front = (width - 1) // 2
    return f"{plain[:front]}…{plain[len(plain) - (width - 1 - front) :]}"


def layers_text(names: str) -> str:
    """The layer of a kernel; of several, joined by " + ", the first and the last and how many they are."""
    first, *rest = names.split(" + ")
    return short(first, 40) if not rest else f"{short(first, 30)} … {short(rest[-1], 30)} ({1 + len(rest)})"


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


def size_text(count: float) -> str:
    """Bytes in decimal units, as disks and downloads count them."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} GB"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns padded to their widest cell; the first ``left`` columns are aligned left, the others right."""
    widths = [max(len(row[index]) for row in [header, *rows]) for index in range(len(header))]
    lines = []
    for row in [header, *rows]:
        cells = [
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
