"""``python -m tools.sandbox up|hosts|down``: see ``make help``."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable

from . import engine, hosts, images
from .layout import HOSTS, MODELS, ROOT, STATE
from .steps import Report, SandboxError, warn


def prepare(report: Report, *, fresh: bool = False) -> None:
    """Bring the machine to the point where ``site.yml`` can run: engine, images, wheels, model, keys, bare hosts."""
    from .. import tiny_model
    from . import environment, pki, wheels

    STATE.mkdir(exist_ok=True)
    with report.step("system packages"):
        engine.install_packages()
    with report.step("container engine"):
        engine.start_engine()
    hosts.refuse_a_second_sandbox(take_over=bool(os.environ.get("LLMOPS_SANDBOX_TAKE_OVER")))

    def build_images() -> None:
        for release in images.RELEASES:
            with report.step(f"base image {release}"):
                images.ensure(release)

    def fetch_wheels() -> None:
        with report.step("wheels of vLLM (CPU build, 600 MB)"):
            wheels.ensure()

    side_by_side(build_images, fetch_wheels)
    with report.step("tiny model, certificates, keys"):
        tiny_model.ensure(MODELS)
        pki.ensure()
        environment.write()
    with report.step("bare hosts"):
        if fresh:
            hosts.remove()
        hosts.ensure()


def side_by_side(*lanes: Callable[[], None]) -> None:
    """Run the lanes in threads (one waits for the network while the other unpacks) and raise the first error."""
    errors: list[BaseException] = []

    def guard(lane: Callable[[], None]) -> None:
        try:
            lane()
        except BaseException as error:  # noqa: BLE001 - raised again below, in the thread that the user sees
            errors.append(error)

    threads = [threading.Thread(target=guard, args=(lane,)) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def play(name: str, *options: str) -> None:
    """Run a playbook of the collection against the sandbox, its output to the terminal."""
    from . import environment

    done = subprocess.run(["ansible-playbook", name, *options], env=environment.for_ansible(), cwd=ROOT, check=False)
    if done.returncode != 0:
        raise SandboxError(f"ansible-playbook {name} ended with {done.returncode}: its last red line says why")


def up() -> None:
    """Everything, up to a chat answer through a balancer."""
    from . import client

    report = Report()
    prepare(report)
    with report.step("ansible-playbook llmops.vllm.site"):
        play("llmops.vllm.site")
    with report.step("chat through a balancer"):
        question = "Who are you?"
        answer = client.chat(question)
    print(f"\n{report.table()}\n")
    print(f"{client.base_url()}/chat/completions")
    print(f"  {question!r} -> {answer['choices'][0]['message']['content']!r}  ({answer['model']}, tiny and random)\n")
    print("What is where:")
    for host in HOSTS:
        print(f"  {host.name:<8} {host.address:<14} docker exec -it {host.container} bash")
    print(f"\nTo use it:      source {os.path.relpath(STATE / 'env')}")
    print("To look at it:  ansible-playbook llmops.vllm.status")
    print("To remove it:   make demo-down")


def down(keep: bool) -> None:
    """Remove hosts, network, and, unless kept for the next time, images, wheels, engine and packages."""
    if engine.wake():
        hosts.remove()
        if not keep:
            hosts.remove_images()
    if keep:
        print("removed: hosts, network. Kept: packages, engine, images, .sandbox with wheels, .venv")
        return
    if STATE.exists():
        engine.stop_engine()
        engine.remove_packages()
        shutil.rmtree(STATE)
    shutil.rmtree(ROOT / ".venv", ignore_errors=True)
    print("removed: hosts, network, images, .sandbox, .venv, the engine and the packages that the demo had installed")


def main() -> int:
    """Parse the command line; errors of ours are one clear text and exit status 1."""
    parser = argparse.ArgumentParser(prog="python -m tools.sandbox", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("up", help="bare machine to chat answer")
    bare = verbs.add_parser("hosts", help="the hosts alone, nothing deployed")
    bare.add_argument("--fresh", action="store_true", help="replace hosts that are there")
    verbs.add_parser("down", help="remove everything").add_argument("--keep", action="store_true")
    arguments = parser.parse_args()
    try:
        if arguments.verb == "up":
            up()
        elif arguments.verb == "hosts":
            report = Report()
            prepare(report, fresh=arguments.fresh)
            print(report.table())
        else:
            down(arguments.keep)
    except SandboxError as error:
        warn(str(error))
        return 1
    except KeyboardInterrupt:
        warn("interrupted: run the same command again to go on, or `make demo-down` to remove what is there")
        return 130
    return 0


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
