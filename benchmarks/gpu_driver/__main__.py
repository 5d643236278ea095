"""Role gpu_driver on Debian 12 and 13 hosts without a GPU: all up to loading the module really happens.

``python -m benchmarks.gpu_driver`` writes ``RESULTS.md``. Packages come from the distribution, DKMS builds against the
headers of a kernel of the distribution, since the one that runs is of this machine. The GPUs (two A100), their
nvidia-smi and ``modprobe nvidia`` are FAKE (``tests/fakes/gpu.py``). A build takes minutes; 0.5 GB per host come over
the network. ``--keep`` leaves the hosts up.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import yaml

from benchmarks import results
from benchmarks.playing import Played, play
from tools.sandbox import engine, hosts, images
from tools.sandbox.layout import ROOT, STATE, Host
from tools.sandbox.steps import run

PLACE = STATE / "gpu_driver"
FAKE = "/opt/fake"
# Debian 13's own driver does not build for its kernels: there it is what the user insists on, and what is told.
DRIVER12 = Host("driver12", "172.30.77.61", "bookworm")
DRIVER13 = Host("driver13", "172.30.77.62", "trixie")
INSISTED = {"gpu_driver_packages": ["nvidia-open-kernel-dkms", "nvidia-smi", "libcuda1"]}
HEAD = """# Role gpu_driver on hosts without a GPU

Made by `python -m benchmarks.gpu_driver`. Packages, DKMS and files are real; the GPUs, `nvidia-smi` and the loading of
the module are fake.
"""

# Loading the module: from here on nvidia-smi answers, in the version of the libraries that are there.
MODPROBE = f"""#!/bin/sh
[ "$1" = nvidia ] || exec /sbin/modprobe "$@"
version=$(ls /usr/lib/*-linux-gnu/nvidia/current/libnvidia-ml.so.* /usr/lib/*-linux-gnu/libnvidia-ml.so.* 2>/dev/null |
  sed -n 's/.*[.]so[.]\\([0-9]\\{{3\\}}[.].*\\)/\\1/p' | head -n 1)
exec python3 {FAKE}/gpu.py {FAKE}/gpu set "{{\\"fails\\": \\"\\", \\"driver\\": \\"$version\\"}}"
"""


@dataclass(frozen=True)
class Bench:
    """One host and how it is asked: the CUDA of the build, the driver that the decision must take, the kernel."""

    host: Host
    cuda: str
    driver: str
    wishes: Mapping[str, object]
    kernel: str = ""

    def sh(self, command: str) -> str:
        """Run a command on the host."""
        return run(["docker", "exec", self.host.container, "sh", "-c", command])

    def fake(self, **state: object) -> None:
        """Change what nvidia-smi says."""
        self.sh(f"python3 {FAKE}/gpu.py {FAKE}/gpu set {shlex.quote(json.dumps(state))}")

    def play(self, *options: str, expected: int = 0) -> Played:
        """Play the role."""
        extra = {
            "__gpu_driver_pci": f"{FAKE}/gpu/devices",
            "gpu_driver_cuda": self.cuda,
            "gpu_driver_kernel": self.kernel,
            "vllm_gpus": 2,
            **self.wishes,
        }
        where = ["-i", str(PLACE / "inventory.yml"), "--limit", self.host.name, "-e", json.dumps(extra)]
        return play(str(PLACE / "play.yml"), *where, *options, expected=expected)


def prepare(benches: Sequence[Bench]) -> list[Bench]:
    """Bring the hosts up, fresh, with fake GPUs; a play and an inventory for them."""
    engine.install_packages()
    engine.start_engine()
    all_hosts = tuple(bench.host for bench in benches)
    for host in all_hosts:
        images.ensure(host.release)
        run(["docker", "rm", "-f", "-v", host.container])
    hosts.ensure(all_hosts)
    PLACE.mkdir(parents=True, exist_ok=True)
    variables = {
        "ansible_connection": "community.docker.docker",
        "ansible_host": "llmops-{{ inventory_hostname }}",
        "ansible_user": "root",
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    inventory = {"all": {"vars": variables, "hosts": {host.name: {} for host in all_hosts}}}
    (PLACE / "inventory.yml").write_text(yaml.safe_dump(inventory))
    roles = [{"role": "llmops.vllm.gpu_driver"}]
    (PLACE / "play.yml").write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "roles": roles}]))
    return [_laid_out(bench) for bench in benches]


def _laid_out(bench: Bench) -> Bench:
    """Lay the fakes out, and find the newest kernel whose headers the distribution has."""
    modprobe, container = PLACE / "modprobe", bench.host.container
    modprobe.write_text(MODPROBE)
    modprobe.chmod(0o755)
    bench.sh(f"mkdir -p {FAKE}")
    run(["docker", "cp", str(ROOT / "tests/fakes/gpu.py"), f"{container}:{FAKE}/gpu.py"])
    run(["docker", "cp", str(modprobe), f"{container}:/usr/local/sbin/modprobe"])
    bench.sh(f"python3 {FAKE}/gpu.py {FAKE}/gpu lay_out a100 a100 && ln -s {FAKE}/gpu/nvidia-smi /usr/local/bin/")
    bench.fake(fails="not_loaded", cuda=bench.cuda)
    found = bench.sh("apt-get update -qq && apt-cache depends linux-headers-amd64")
    bench.sh("rm -rf /var/lib/apt/lists/*")  # as bare as before
    newest = re.search(r"Depends: linux-headers-(\S+-amd64)", found)
    assert newest is not None, found
    return replace(bench, kernel=newest[1])


# --- measures ----------------------------------------------------------------------------------------------------


def dry(bench: Bench) -> Iterator[results.Row]:
    """--check --diff on a bare host."""
    before = bench.sh("dpkg -l | md5sum; ls -R /etc | md5sum")
    played = bench.play("--check", "--diff")
    same = before == bench.sh("dpkg -l | md5sum; ls -R /etc | md5sum")
    took = bench.driver.replace(" ", ", ") + " module, from distribution"
    said = f"branch {took}" in " ".join(played.output.split())
    yield results.Row(
        "--check --diff on a bare host",
        f"{played.changed[bench.host.name]} tasks would change, {played.wall:.0f} s",
        f"ends well, takes {bench.driver}, changes nothing",
        same and said and played.changed[bench.host.name] > 0,
    )


def unbuildable(bench: Bench) -> Iterator[results.Row]:
    """A driver that does not build for the kernel: the run says why, the next one refuses, absent takes it away."""
    played = bench.play(expected=2)
    told = re.search(r"which does not build for this kernel \(.*?error: (.*?)\)", " ".join(played.output.split()))
    plain = str.maketrans("\u2018\u2019", "''")  # of the compiler
    text = f"{bench.kernel}, {played.wall:.0f} s: {told[1].translate(plain)}" if told else "not said"
    yield results.Row("a module that does not build", text, "the run fails and says why", bool(told))
    again = bench.play(expected=2)
    half = "a driver is half there" in " ".join(again.output.split())
    yield results.Row("a run after it", "refused" if half else "not refused", "refused, with the mend", half)


def first(bench: Bench) -> Iterator[results.Row]:
    """The first run: packages, module, files, proof."""
    played = bench.play()
    status = bench.sh("dkms status").strip()
    module = bench.sh(f"ls /lib/modules/{bench.kernel}/updates/dkms | tr '\\n' ' '").strip()
    held = bench.sh("apt-mark showhold").split()
    yield results.Row(
        "first run",
        f"{played.wall:.0f} s; {status}; {module}",
        "DKMS builds the module for the kernel whose headers are there; each GPU is seen",
        f"{bench.kernel}, x86_64: installed" in status and bool(module),
    )
    yield results.Row("packages held", str(len(held)), "the driver's own", "nvidia-kernel-dkms" in held)


def second(bench: Bench) -> Iterator[results.Row]:
    """The second run, and a dry one after it."""
    for words, options in (("second run", ()), ("--check after it", ("--check",))):
        played = bench.play(*options)
        changed = played.changed[bench.host.name]
        yield results.Row(words, f"changed={changed}, {played.wall:.0f} s", "changed=0", changed == 0)


def broken(bench: Bench) -> Iterator[results.Row]:
    """What the proof refuses."""
    one = [{"kind": "a100", "address": "0000:3b:00.0"}]
    state = json.loads(bench.sh(f"cat {FAKE}/gpu/nvidia-smi.json"))
    for words, change, expected in (
        ("module and libraries of two versions", {"fails": "mismatch"}, "Driver/library version mismatch"),
        ("a GPU that the driver does not see", {"gpus": one}, "Not seen: 0000:3c:00.0"),
        ("nvidia-smi hangs", {"fails": "hang"}, "not done within 5 s"),
    ):
        bench.fake(**change)
        played = bench.play("-e", "gpu_driver_timeout=5", expected=2)
        bench.fake(**state)
        told = expected in " ".join(played.output.split())
        yield results.Row(words, "the run fails and says so" if told else "not said", expected, told)


def refused(bench: Bench) -> Iterator[results.Row]:
    """What is refused before anything is changed."""
    before = bench.sh("dpkg -l | md5sum")
    bench.sh("sed -i '/^Package: nvidia-smi$/,/^$/s/^Status: .*/Status: hold ok unpacked/' /var/lib/dpkg/status")
    half = bench.play(expected=2)
    bench.sh("dpkg --configure -a")
    whole = bench.sh("dpkg -l | md5sum") == before
    told = "package nvidia-smi is in state hU of dpkg" in " ".join(half.output.split())
    yield results.Row("a package that is half there", "refused" if told else "not said", "refused, with the mend", told)
    yield results.Row("after dpkg --configure -a", "as before" if whole else "differs", "as before", whole)


def absent(bench: Bench) -> Iterator[results.Row]:
    """gpu_driver_state: absent, twice."""
    bench.play("-e", "gpu_driver_state=absent")
    packages = "dpkg -l | grep -cE '^.[^n].* (lib)?nvidia-'"
    files = "ls /etc/apt/sources.list.d /etc/modprobe.d /etc/modules-load.d /etc/systemd/system | grep -c llmops"
    left = bench.sh(f"{packages}; {files}; true")
    again = bench.play("-e", "gpu_driver_state=absent").changed[bench.host.name]
    yield results.Row(
        "absent", f"left of packages and files: {' '.join(left.split())}", "0 0", left.split() == ["0", "0"]
    )
    yield results.Row("absent again", f"changed={again}", "changed=0", again == 0)


Measure = Callable[[Bench], Iterator[results.Row]]
MEASURES: tuple[tuple[Bench, tuple[Measure, ...]], ...] = (
    (Bench(DRIVER12, "12.2", "535 proprietary", {}), (dry, first, second, broken, refused, absent)),
    (Bench(DRIVER13, "13.0", "", INSISTED), (unbuildable, absent)),
)


def main() -> int:
    """Measure on each host; exit status 1 when something promised does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the hosts up")
    keep, bad = parser.parse_args().keep, False
    benches = prepare([bench for bench, _measures in MEASURES])
    for bench, (_before, measures) in zip(benches, MEASURES):
        for measure in measures:
            rows = [*measure(bench)]
            for row in rows:
                print(f"{bench.host.name}: {row.what}: {row.result} ({row.holds})", file=sys.stderr, flush=True)
            where = f"{bench.host.release}, no GPU"
            file = pathlib.Path(__file__).with_name("RESULTS.md")
            results.write(file, HEAD, measure.__name__, where, rows, f"kernel headers {bench.kernel}")
            bad = bad or any(row.holds is False for row in rows)
    for bench in [] if keep else benches:
        run(["docker", "rm", "-f", "-v", bench.host.container])
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
