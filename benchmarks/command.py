"""The command line of benchmarks: which measures, on which of the sandbox's fleets, and the table of results."""

from __future__ import annotations

import argparse
import pathlib
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks import results, site
from tests.traffic import faults
from tests.traffic.fleet import REAL, Fleet, await_healthy

Measure = Callable[[site.Setting], list[results.Row]]


@dataclass(frozen=True)
class Benchmark:
    """Measures by name, which of them the fakes and real vLLM can be asked, the fakes, and where results stand.

    ``alone``: those that need no hosts; ``programs`` tells the versions of what they run instead.
    """

    name: str
    about: str
    measures: Mapping[str, Measure]
    on_fake: tuple[str, ...]
    on_real: tuple[str, ...]
    fake: Fleet
    file: pathlib.Path
    head: str
    real: Fleet = REAL
    alone: tuple[str, ...] = ()
    programs: Callable[[], str] = str

    def main(self) -> int:
        """Measure what the command line asks for; exit status 1 when something promised does not hold."""
        parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{self.name}", description=self.about)
        real = f"the demo's fleet, real vLLM: {', '.join(self.on_real)}"
        form = "of the engine; the role's own otherwise"
        parser.add_argument("measures", nargs="+", choices=[*self.measures, "all"])
        parser.add_argument("--real", action="store_true", help=real)
        parser.add_argument("--form", choices=["lua", "native"], default="", help=form)
        parser.add_argument("--keep", action="store_true", help="the fleet is up: change nothing about it")
        parser.add_argument(
            "--short", action="store_true", help="a fraction of the time, to try the measures themselves"
        )
        arguments = parser.parse_args()
        fleet = self.real if arguments.real else self.fake
        every = (*self.alone, *(self.on_real if arguments.real else self.on_fake))
        wanted = every if "all" in arguments.measures else arguments.measures
        if set(wanted) - set(every):
            parser.error(f"on {'real' if arguments.real else 'the fake'} vLLM can be measured: {', '.join(every)}")
        if not arguments.keep and set(wanted) - set(self.alone):
            site.bring_up(fleet, arguments.form, fresh=True)
        setting, bad = site.Setting(fleet, arguments.short), False
        for name in wanted:
            site.say(name)
            rows = self._measured(name, setting)
            for row in rows:
                site.say(f"{name}: {row.what}: {row.result}{'' if row.holds is None else f' ({row.holds})'}")
            if not arguments.short:
                title, versions = self._where(name, fleet)
                results.write(self.file, self.head, name, title, rows, versions)
            bad = bad or any(row.holds is False for row in rows)
        return int(bad)

    def _where(self, name: str, fleet: Fleet) -> tuple[str, str]:
        """On what a measure ran: fleet and form, and versions."""
        if name in self.alone:
            return "no hosts", self.programs()
        return f"{'fake' if fleet.fake else 'real'}, {site.form()}", site.versions()

    def _measured(self, name: str, setting: site.Setting) -> list[results.Row]:
        try:
            if name not in self.alone:
                await_healthy(setting.fleet, 180)
            return self.measures[name](setting)
        except Exception:  # noqa: BLE001 - the next measure says something, too
            traceback.print_exc()
            return [results.Row("the measure itself", "failed: see its output", holds=False)]
        finally:
            if name not in self.alone:
                faults.clear(setting.fleet)
