"""Writes values with the units that Grafana knows by these names, as far as our dashboards use them."""

from __future__ import annotations

import math

_SHORT = ((1e12, " T"), (1e9, " B"), (1e6, " M"), (1e3, " K"), (1, ""))
_TIME = ((86400, " days"), (3600, " hours"), (60, " min"), (1, " s"), (1e-3, " ms"), (1e-6, " µs"))
_BYTES = ((2**40, " TiB"), (2**30, " GiB"), (2**20, " MiB"), (2**10, " KiB"), (1, " B"))
_METRIC = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))
_FIXED = {"percentunit": (0.01, "%"), "celsius": (1, " °C"), "h": (1, " h"), "none": (1, "")}
_SUFFIX = {"reqps": " req/s", "Bps": "B/s", "hertz": "Hz", "watt": "W"}


def scale(unit: str, size: float) -> tuple[float, str]:
    """Return what to divide values of this size by, and what to write behind them."""
    if unit in _FIXED:
        return _FIXED[unit]
    steps = {"s": _TIME, "bytes": _BYTES, "Bps": _METRIC, "hertz": _METRIC, "watt": _METRIC}.get(unit, _SHORT)
    for divisor, suffix in steps:
        if size >= divisor:
            return divisor, _joined(unit, suffix)
    # smaller than the smallest; zero is written without a prefix
    return steps[-1] if unit == "s" and size > 0 else (1, _joined(unit, " s" if unit == "s" else ""))


def shown(unit: str, value: float, decimals: int | None = None) -> str:
    """Return a value with its unit: three digits that count, unless decimals are given."""
    if math.isnan(value):
        return "no data"
    divisor, suffix = scale(unit, abs(value))
    number = value / divisor
    if decimals is None:
        digits = 0 if number == 0 else max(0, 2 - math.floor(math.log10(abs(number))))
        text = f"{number:.{min(digits, 3)}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    else:
        text = f"{number:.{decimals}f}"
    return f"${text}{suffix}" if unit == "currencyUSD" else f"{text}{suffix}"


def ticks(unit: str, low: float, high: float, most: int) -> list[tuple[float, str]]:
    """Return places on an axis with what is written there: round numbers of the unit in which the highest is shown."""
    divisor, suffix = scale(unit, max(abs(low), abs(high)))
    low, high = low / divisor, high / divisor
    rough = (high - low) / max(1, most)
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    digits = next(count for count in range(12) if math.isclose(round(step, count), step))
    found, at = [], math.ceil(low / step - 1e-9) * step
    while at <= high + step * 1e-6:
        text = f"{at:.{digits}f}{suffix}"
        if abs(at) < step / 2:
            text = shown(unit, 0).lstrip("$")
        found.append((at * divisor, f"${text}" if unit == "currencyUSD" else text))
        at += step
    return found


def _joined(unit: str, prefix: str) -> str:
    if unit in ("Bps", "hertz", "watt"):
        return f" {prefix.strip()}{_SUFFIX[unit]}"
    return prefix + _SUFFIX.get(unit, "")
