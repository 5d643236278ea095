"""Debian's own Prometheus on loopback, with a past that never was: for measures that need no hosts."""

from __future__ import annotations

import contextlib
import functools
import json
import pathlib
import subprocess
from collections.abc import Iterable, Iterator, Mapping

from tests.debian_programs import answers, serving
from tests.ports import free_port
from tools import promtool

CLASSIC, NATIVE = "2.42", "3"  # versions; the first is what the role installs by default
READY_SECONDS = 120
# Before 3.9 native histograms need it.
_FLAGS = {CLASSIC: (), NATIVE: ("--enable-feature=native-histograms",)}

Labels = Mapping[str, str]
Samples = Iterable[tuple[float, float]]  # time and value


@contextlib.contextmanager
def prometheus(version: str, config: pathlib.Path, data: pathlib.Path, port: int | None = None) -> Iterator[str]:
    """Run a Prometheus on its data until the block ends, and give its address."""
    port = port or free_port()
    command = [promtool.ensure(version, "prometheus"), f"--config.file={config}", f"--storage.tsdb.path={data}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--storage.tsdb.retention.time=40d", *_FLAGS[version]]
    url = f"http://127.0.0.1:{port}"
    with serving(command, lambda: answers(f"{url}/-/ready"), config.with_suffix(".log"), READY_SECONDS):
        yield url


def backfill(data: pathlib.Path, series: Iterable[tuple[str, Labels, Samples]]) -> None:
    """Add samples to the data of a Prometheus that does not run; series of one name stand together."""
    text = data.with_suffix(".om")
    with text.open("w") as lines:
        before = ""
        for name, labels, samples in series:
            if name != before:
                kind = "counter" if name.endswith("_total") else "gauge"
                lines.write(f"# TYPE {name.removesuffix('_total')} {kind}\n")
            before = name
            written = ",".join(f"{label}={json.dumps(value)}" for label, value in labels.items())
            lines.writelines(f"{name}{{{written}}} {value:.10g} {at:.3f}\n" for at, value in samples)
        lines.write("# EOF\n")
    _promtool("openmetrics", "--max-block-duration=768h", str(text), str(data))
    text.unlink()


def record(data: pathlib.Path, url: str, rules: pathlib.Path, start: float, end: float) -> None:
    """Let the Prometheus at an address evaluate recording rules over the past, for the next one on the same data."""
    span = [f"--start={start:.0f}", f"--end={end:.0f}", f"--output-dir={data}"]
    _promtool("rules", f"--url={url}", *span, str(rules))


def _promtool(*words: str) -> None:
    command = [promtool.ensure(CLASSIC), "tsdb", "create-blocks-from", *words]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"promtool {words[0]}: {done.stdout[-1000:]}")


@functools.cache
def versions() -> str:
    """Return the versions of the programs."""
    told = [
        subprocess.run(
            [promtool.ensure(version, "prometheus"), "--version"], check=True, capture_output=True, text=True
        )
        for version in (CLASSIC, NATIVE)
    ]
    return "prometheus " + ", ".join(one.stdout.split()[2].partition("+")[0] for one in told)
