"""Counters, gauges and histograms of one target, as the text that Prometheus scrapes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

Labels = tuple[tuple[str, str], ...]


class Bag:
    """Samples by name and labels. Counters may be fractions: they are what is expected on average."""

    def __init__(self) -> None:
        self.kinds: dict[str, str] = {}
        self.samples: dict[str, dict[Labels, float]] = {}

    def set(self, name: str, value: float, /, **labels: str) -> None:
        self._series(name, "gauge")[tuple(labels.items())] = float(value)

    def add(self, name: str, value: float, **labels: str) -> None:
        series, key = self._series(name, "counter"), tuple(labels.items())
        series[key] = series.get(key, 0.0) + value

    def observe(
        self, name: str, bounds: Sequence[str], count: float, median: float, spread: float, **labels: str
    ) -> None:
        """Add ``count`` observations that are spread log-normally around the median."""
        self.kinds.setdefault(name, "histogram")
        for bound in bounds:
            below = 1.0 if bound == "+Inf" else _share_below(float(bound), median, spread)
            self._grow(f"{name}_bucket", count * below, {**labels, "le": bound})
        self._grow(f"{name}_count", count, labels)
        self._grow(f"{name}_sum", count * median * math.exp(spread**2 / 2), labels)

    def text(self) -> str:
        lines: list[str] = []
        for name, kind in self.kinds.items():
            lines.append(f"# TYPE {name} {kind}")
            if kind == "histogram":
                lines += self._histogram(name)
            else:
                lines += [_line(name, labels, value) for labels, value in self.samples[name].items()]
        return "\n".join(lines) + "\n"

    def _histogram(self, name: str) -> Iterator[str]:
        """Yield the lines of a histogram; those of the same labels stand together, or none is a native one."""
        for below, value in self.samples[f"{name}_bucket"].items():
            yield _line(f"{name}_bucket", below, value)
            if below[-1] == ("le", "+Inf"):
                for part in ("sum", "count"):
                    yield _line(f"{name}_{part}", below[:-1], self.samples[f"{name}_{part}"][below[:-1]])

    def _series(self, name: str, kind: str) -> dict[Labels, float]:
        self.kinds.setdefault(name, kind)
        return self.samples.setdefault(name, {})

    def _grow(self, name: str, value: float, labels: dict[str, str]) -> None:
        series, key = self.samples.setdefault(name, {}), tuple(labels.items())
        series[key] = series.get(key, 0.0) + value


def _line(name: str, labels: Labels, value: float) -> str:
    pairs = ",".join(f'{label}="{text}"' for label, text in labels)
    return f"{name}{{{pairs}}} {value:.10g}"


def _share_below(bound: float, median: float, spread: float) -> float:
    if bound <= 0:
        return 0.0
    return 0.5 * (1 + math.erf(math.log(bound / median) / (spread * math.sqrt(2))))
