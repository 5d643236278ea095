"""``ansible-test`` on a plain checkout: ``python -m tools.ansible_test sanity|units|integration [ARGUMENTS]``.

It insists on a real directory ``.../ansible_collections/llmops/vllm``, so the tracked files are copied, as they are in
the working tree, and tested there. All that it keeps lies below ``.cache/ansible-test``.
"""

from __future__ import annotations

import ast
import os
import pathlib
import shutil
import subprocess
import sys
import types

from .one_at_a_time import one_at_a_time

ROOT = pathlib.Path(__file__).resolve().parent.parent
STATE = ROOT / ".cache" / "ansible-test"
COPY = STATE / "ansible_collections" / "llmops" / "vllm"
HOME = STATE / "home"
RESULTS = COPY / "tests" / "output"
CONTROLLER_PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
OLDEST_TARGET_PYTHON = "3.9"
MODULE_UTILS = "ansible_collections.llmops.vllm.plugins.module_utils"

# ansible-test makes its environments without pip and then downloads a script that brings it, from a server that a
# machine behind a mirror of the package registries cannot reach. Python has pip on board; any version will do.
GET_PIP = """\
import subprocess
import sys

sys.exit(subprocess.run([sys.executable, "-m", "ensurepip", "--default-pip"], stdout=subprocess.DEVNULL).returncode)
"""


def copy_working_tree() -> None:
    """Make the copy equal to the tracked files of the working tree; results and environments of earlier runs stay."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    COPY.mkdir(parents=True, exist_ok=True)
    repository = COPY / ".git"
    if not repository.exists():  # or ansible-test asks the one around it, for which the copy is an ignored folder
        subprocess.run(["git", "init", "-q", str(COPY)], check=True)
    for entry in [*COPY.iterdir(), *(COPY / "tests").glob("*")]:
        if entry.is_dir() and not entry.is_symlink():
            if entry not in (repository, RESULTS, RESULTS.parent):
                shutil.rmtree(entry)
        else:
            entry.unlink()
    for name in listed.split("\0"):
        source = ROOT / name
        if name and source.exists():  # what was deleted but not yet committed is still listed
            (COPY / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, COPY / name, follow_symlinks=False)


def is_of_targets(test: pathlib.Path) -> bool:
    """Whether the test imports code that runs on targets, and nothing that only a controller has, or that is a fake."""
    imported = set()
    for node in ast.walk(ast.parse(test.read_text())):
        if isinstance(node, ast.Import):
            imported |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
    ours = {name for name in imported if name.startswith(f"{MODULE_UTILS}")}
    others = {name for name in imported - ours if name.partition(".")[0] not in sys.stdlib_module_names}
    return bool(ours) and others <= {"pytest", "yaml", "tools"}


def show_tests_of_targets() -> str:
    """Copy tests of code for targets to where ansible-test looks for them; return the folder's name in the copy.

    Only what lies there, and is no link, does it run with a Python that is too old for a controller.
    """
    folder = COPY / "tests" / "unit" / "plugins" / "module_utils"
    folder.mkdir(parents=True)
    for test in (COPY / "tests" / "unit").glob("test_*.py"):
        if is_of_targets(test):
            # the way to the root of the collection is two steps longer from there
            (folder / test.name).write_text(test.read_text().replace("resolve().parents[2]", "resolve().parents[4]"))
    return f"{folder.relative_to(COPY)}/"


def prepare_home() -> None:
    """Lay into the home what ansible-test would download, and what it would call a program for and never use."""
    from ansible_test._internal.python_requirements import get_venv_packages

    cache = HOME / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    for version in (CONTROLLER_PYTHON, OLDEST_TARGET_PYTHON):
        pip = get_venv_packages(types.SimpleNamespace(version=version))["pip"]
        (cache / f"get_pip_{pip.replace('.', '_')}.py").write_text(GET_PIP)
    for name in ("id_rsa", "id_rsa.pub"):  # ssh-keygen need not be there, and no host is reached by SSH
        (cache.parent / name).write_text("no key\n")


def oldest_python() -> pathlib.Path | None:
    """Return the interpreter of the oldest supported version on this machine, None if there is none that runs."""
    name = f"python{OLDEST_TARGET_PYTHON}"
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv"))
    found: list[str | pathlib.Path | None] = [
        shutil.which(name),
        *sorted(pyenv.glob(f"versions/{OLDEST_TARGET_PYTHON}*/bin/{name}")),
    ]
    for path in (candidate for candidate in found if candidate):
        # a shim of pyenv is on the path whether or not it leads to anything
        asked = subprocess.run(
            [path, "-c", "import sys, venv; print(sys.executable)"], capture_output=True, text=True, check=False
        )
        if asked.returncode == 0:
            return pathlib.Path(asked.stdout.strip())
    return None


def environment() -> dict[str, str]:
    """Return the environment: this checkout's Python first, and a home in the state folder.

    ansible-test keeps caches and environments in the home, whatever ``ANSIBLE_HOME`` says.
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PYTEST_"))}
    oldest = oldest_python()
    path = [str(pathlib.Path(sys.executable).parent), *([str(oldest.parent)] if oldest else []), os.environ["PATH"]]
    env |= {"PATH": os.pathsep.join(path), "HOME": str(HOME), "ANSIBLE_HOME": str(HOME / ".ansible")}
    # pip's own configuration, with the mirrors that it names, stays what it is for this user
    env.setdefault("XDG_CONFIG_HOME", str(pathlib.Path.home() / ".config"))
    return env


def command(verb: str, arguments: list[str]) -> list[str]:
    """Return the command line: versions named, because ansible-test would try what is not usable.

    Code for targets runs with the oldest supported Python, where this machine has it.
    """
    target = OLDEST_TARGET_PYTHON if oldest_python() else CONTROLLER_PYTHON
    named = {"--python", "--target-python", "--controller", "--target", "--venv", "--local"} & set(arguments)
    python = {
        "sanity": ["--python", CONTROLLER_PYTHON],
        "units": ["--target-python", f"venv/{target}"],
        "integration": [f"--controller=origin:python={CONTROLLER_PYTHON}", f"--target=controller:python={target}"],
    }[verb]
    arguments = arguments if named else [*python, *arguments]
    ansible_test = str(pathlib.Path(sys.executable).parent / "ansible-test")
    return [sys.executable, ansible_test, verb, *arguments]


def run(verb: str, *arguments: str, capture: bool = False) -> subprocess.CompletedProcess[str]:
    """Run ansible-test on a fresh copy; with ``capture``, stdout and stderr come back together as ``stdout``."""
    with one_at_a_time(STATE):
        copy_working_tree()
        prepare_home()
        words = list(arguments)
        if verb == "units":
            tests = show_tests_of_targets()
            words += [] if any(word.startswith("tests/") for word in words) else [tests]
        output, errors = (subprocess.PIPE, subprocess.STDOUT) if capture else (None, None)
        return subprocess.run(
            command(verb, words), cwd=COPY, env=environment(), text=True, check=False, stdout=output, stderr=errors
        )


def main() -> int:
    """Run the verb with the arguments of the command line."""
    if len(sys.argv) < 2 or sys.argv[1] not in ("sanity", "units", "integration"):
        print(__doc__, file=sys.stderr)
        return 2
    return run(*sys.argv[1:]).returncode


if __name__ == "__main__":
    sys.exit(main())
