"""How each command of the documentation is proven: run right here, run on the sandbox's hosts, or taken from a test."""

from __future__ import annotations

from dataclasses import dataclass


class Proof:
    """One way in which a command is proven."""


@dataclass(frozen=True)
class Here(Proof):
    """Run by tests/repo/test_docs.py, in a directory that has what the steps before it made.

    ``more`` is added to the command where its whole effect needs hosts. What is left to be judged then is the command
    line, the inventory with its vault, the playbook, its tags, and the hosts that would be reached.
    """

    more: str = ""


@dataclass(frozen=True)
class OnHosts(Proof):
    """Run by molecule/default/tests/test_documented.py on the sandbox, whose hosts have the names of the pages."""


@dataclass(frozen=True)
class There(Proof):
    """Run by this file, or by what it tests; the words are those by which it can be found there."""

    file: str
    words: tuple[str, ...]

    def __init__(self, file: str, *words: str) -> None:
        object.__setattr__(self, "file", file)
        object.__setattr__(self, "words", words)


_TASKS, _HOSTS = Here("--list-tasks"), Here("--list-hosts")
_MOLECULE = "tests/scenarios/test_molecule.py"
_UPDATE = There("playbooks/balancer_update.yml", "update_plan", "update_ask", "update_host")
_CHAT = There("molecule/default/tests/conftest.py", "curl", "--cacert", "Authorization: Bearer", "/v1/chat/completions")
_BENCHMARK = There("tests/repo/test_benchmark.py", "benchmark", "llmops_benchmark_pools", "llmops_benchmark_target")
_ROLLOUT = There("molecule/rollout/tests/test_rollout.py", "under_load_play", "llmops_rollout_replicas")
_UNWAITED = There("tests/repo/test_drain.py", '"drain"', "llmops_target=gpu1", "llmops_wait=false")
_ENDPOINT = "/v1/chat/completions"
BROKEN = """grep -E '"status":200,"done":"OK","end":"(error)?",' /var/log/nginx/llm_access.log | tail -n 5"""
_QUESTION = '-d \'{"model": "%s", "messages": [{"role": "user", "content": "%s"}], "max_tokens": 24}\''
_CURL = 'curl --cacert %s -H "Authorization: Bearer $LLMOPS_API_KEY" -H "Content-Type: application/json" '

PROOFS: dict[str, tuple[Proof, ...]] = {
    # make
    "make demo": (There("Makefile", "tools.sandbox up"), There("benchmarks/demo/RESULTS.md", "time make demo")),
    "make demo-down": (There("tools/sandbox/__main__.py", "def down(", "hosts.remove()"),),
    "make test": (There(".ci/run", "exec make test"),),
    "make test-quick": (There("Makefile", "test-quick:"),),
    # a checkout
    "git clone https://github.com/llmops/vllm": (There("galaxy.yml", "repository: https://github.com/llmops/vllm"),),
    "cd vllm": (There("galaxy.yml", "github.com/llmops/vllm"),),
    "source .venv/bin/activate": (There("tools/bootstrap", "-m venv .venv"),),
    "export ANSIBLE_COLLECTIONS_PATH=$(python -m tools.checkout)": (There("tools/checkout.py", "__main__"),),
    "python -m pytest -p no:cacheprovider tests/unit/test_fleet.py": (There("tools/tests.py", "-m", "pytest"),),
    "python -m tools.role_readme": (There("tests/repo/test_roles.py", "python -m tools.role_readme"),),
    "python -m tools.docs_pages": (There("tests/repo/test_docs_pages.py", "python -m tools.docs_pages"),),
    "python -m tools.dashboards": (There("tests/unit/test_dashboards.py", "python -m tools.dashboards"),),
    "python -m tools.dashboards.live --wait 6m": (
        There("tests/unit/test_dashboards_live.py", "live.main()", "PROMETHEUS_URL", "--wait"),
    ),
    "python -m tools.dashboards.preview --out previews --range 30m": (
        There("tests/unit/test_dashboards_live.py", "preview.main()", "PROMETHEUS_URL", "--out"),
        There("tools/dashboards/preview/__main__.py", "--range"),
    ),
    "source .sandbox/env": (There("tools/sandbox/environment.py", 'STATE / "env"', "export "),),
    "ansible-playbook llmops.vllm.site": (There("tools/sandbox/__main__.py", 'play("llmops.vllm.site")'),),
    "ansible-playbook llmops.vllm.status": (There("molecule/default/tests/test_documented.py", "for_ansible"),),
    # packages
    "pip install ansible": (There("requirements/dev.in", "ansible=="),),
    "ansible-galaxy collection build": (There("tests/gates/conftest.py", '"collection", "build"'),),
    "ansible-galaxy collection install llmops-vllm-0.1.0.tar.gz": (
        There("tests/gates/test_package.py", '"collection", "install"'),
        There("galaxy.yml", "version: 0.1.0"),
    ),
    "ansible-galaxy collection install llmops-vllm-0.1.0.tar.gz --force": (
        There("tests/gates/test_package.py", '"collection", "install"'),
        There("galaxy.yml", "version: 0.1.0"),
    ),
    "pip download --require-hashes -r requirements-0.32.0.txt -d wheels": (
        There("tools/sandbox/wheels.py", '"download"', "--require-hashes"),
        There("roles/vllm/files/requirements-0.32.0.txt", "--hash=sha256:"),
    ),
    "pip download --require-hashes -r requirements-uv.txt -d wheels": (
        There("tools/sandbox/wheels.py", '"download"', "--require-hashes"),
        There("roles/vllm/files/requirements-uv.txt", "--hash=sha256:"),
    ),
    "echo vllm==0.33.0 | uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate "
    "--only-binary :all: -o requirements-0.33.0.txt -": (
        There("tools/lock.py", "pip", "compile", "--generate-hashes", "--no-header"),
    ),
    # an inventory: these run one after the other, in this order
    "cp -r inventories/example my-fleet": (Here(),),
    "mkdir files": (Here(),),
    "openssl rand -hex 32": (Here(),),
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 90 -subj /CN=llm.example.com "
    "-addext subjectAltName=DNS:llm.example.com -keyout files/llm.example.com.key -out files/llm.example.com.crt": (
        Here(),
    ),
    "openssl x509 -enddate -noout -in files/llm.example.com.crt": (Here(),),
    "ansible-vault encrypt my-fleet/group_vars/all/vault.yml": (Here(),),
    "ansible-doc -l llmops.vllm": (Here(),),
    "ansible-playbook -i my-fleet llmops.vllm.check": (Here(),),
    "ansible-playbook -i my-fleet llmops.vllm.check -e llmops_check_file=check.json": (Here(),),
    "ansible-playbook llmops.vllm.plan -e @plan.yml": (
        There("tests/repo/test_plan.py", "llmops.vllm.plan", "@plan.yml", "as_printed"),
    ),
    "ansible-playbook -i my-fleet llmops.vllm.cost_report"
    " -e llmops_report_from=2026-10-01 -e llmops_report_to=2026-11-01": (
        _TASKS,
        There("tests/repo/test_cost_report.py", "llmops.vllm.cost_report", "llmops_report_from", "llmops_report_to"),
    ),
    "ansible-playbook -i my-fleet llmops.vllm.benchmark -e llmops_benchmark_pools=chat-h100 --check": (
        _TASKS,
        _BENCHMARK,
    ),
    "ansible-playbook -i my-fleet llmops.vllm.benchmark -e llmops_benchmark_pools=chat-h100": (_TASKS, _BENCHMARK),
    "ansible-playbook -i my-fleet llmops.vllm.benchmark -e llmops_benchmark_pools=chat-h100"
    " -e llmops_benchmark_target=replica": (_TASKS, _BENCHMARK),
    "ansible-playbook -i inventory.yml llmops.vllm.check": (
        Here(f"-e vault_backend_key={'b' * 32} -e vault_team_a_key={'a' * 32}"),
    ),
    "ansible-playbook -i inventory.yml llmops.vllm.site --check --diff": (_TASKS, There(_MOLECULE, '"check"')),
    "ansible-playbook -i inventory.yml llmops.vllm.site": (_TASKS, There(_MOLECULE, '"converge"')),
    "ansible-playbook -i my-fleet llmops.vllm.site --check --diff": (_TASKS, There(_MOLECULE, '"check"')),
    "ansible-playbook -i my-fleet llmops.vllm.site --check": (_TASKS, There(_MOLECULE, '"check"')),
    "ansible-playbook -i my-fleet llmops.vllm.site": (
        _TASKS,
        There(_MOLECULE, '"converge", "idempotence"'),
        There("molecule/default/tests/test_teardown.py", "vllm_state: absent"),
    ),
    "ansible-playbook -i my-fleet llmops.vllm.site --limit gpu3": (
        _TASKS,
        There("molecule/default/tests/test_bad_hosts.py", '"llmops.vllm.site", "--limit"'),
    ),
    "ansible-playbook -i my-fleet llmops.vllm.site --limit gpu1 --tags stage": (_TASKS, OnHosts()),
    "ansible-playbook -i my-fleet llmops.vllm.site --tags balancers": (_TASKS, OnHosts()),
    "ansible-playbook -i my-fleet llmops.vllm.monitoring": (
        _TASKS,
        There("tests/gates/test_core_matrix.py", "PLAYBOOKS", "--check", "--diff"),
    ),
    "ansible-playbook -i my-fleet llmops.vllm.status": (_TASKS, OnHosts()),
    "ansible-playbook -i my-fleet llmops.vllm.status -e llmops_status_file=status.json": (_TASKS, OnHosts()),
    'ansible-playbook -i my-fleet llmops.vllm.drain -e llmops_target=gpu1/r0 -e llmops_reason="maintenance"': (
        _TASKS,
        There("tests/repo/test_drain.py", "llmops_target=gpu1/r0", '"drain"', "llmops_reason="),
    ),
    "ansible-playbook -i my-fleet llmops.vllm.undrain -e llmops_target=gpu1/r0": (
        _TASKS,
        There("tests/repo/test_drain.py", "llmops_target=gpu1/r0", '"undrain"'),
    ),
    "ansible-playbook -i my-fleet llmops.vllm.drain -e llmops_target=gpu1": (
        _TASKS,
        There("tests/repo/test_drain.py", '"drain"', "llmops_target=gpu1"),
    ),
    "ansible-playbook -i my-fleet llmops.vllm.drain -e llmops_target=gpu1 -e llmops_wait=false": (_TASKS, _UNWAITED),
    'ansible-playbook -i my-fleet llmops.vllm.drain -e llmops_target=gpu1/r0 -e llmops_reason="maintenance"'
    " -e llmops_wait=false": (_TASKS, _UNWAITED),
    "ansible-playbook -i my-fleet llmops.vllm.undrain -e llmops_target=gpu1": (
        _TASKS,
        There("tests/repo/test_drain.py", '"undrain"', "llmops_target=gpu1"),
    ),
    # on a balancer
    "llm-balancer status": (There("tests/unit/agent/test_cli.py", 'command("status")'),),
    "llm-balancer explain gpu1/r0": (There("tests/unit/agent/test_cli.py", 'command("explain", "g1")'),),
    "llm-balancer drain gpu1/r0 --wait": (There("tests/unit/agent/test_cli.py", '"drain", "g1", "--wait"'),),
    "llm-balancer drain gpu1/r0": (There("tests/unit/agent/test_cli.py", 'command("drain", "g1/r0")'),),
    "llm-balancer undrain gpu1/r0": (There("tests/unit/agent/test_cli.py", 'command("undrain"'),),
    "llm-balancer present": (There("tests/unit/agent/test_cli.py", 'command("present")'),),
    BROKEN: (There("tests/unit/test_log_exporter.py", "documented_commands.BROKEN"),),
    # rollouts
    "ansible-playbook -i my-fleet llmops.vllm.rollout --check": (
        _TASKS,
        There("molecule/rollout/tests/test_rollout.py", '"--check"', "max-num-seqs: 16 -> 12"),
    ),
    "ansible-playbook -i my-fleet llmops.vllm.rollout": (_TASKS, _ROLLOUT),
    "ansible-playbook -i my-fleet llmops.vllm.rollout -e llmops_rollout_pools=chat-h100": (
        _TASKS,
        There("molecule/rollout_broken/tests/test_broken.py", "llmops_rollout_pools"),
    ),
    "ansible-playbook -i my-fleet llmops.vllm.rollout -e llmops_rollout_replicas=gpu1/r0": (_TASKS, _ROLLOUT),
    "ansible-playbook -i my-fleet llmops.vllm.rollout -e llmops_rollout_replicas=gpu1": (_TASKS, _ROLLOUT),
    "ansible-playbook -i my-fleet llmops.vllm.rollout -e llmops_rollout_retry=true": (
        _TASKS,
        There("tests/unit/test_rollout_plan.py", 'retry="true"'),
    ),
    "ansible-playbook -i my-fleet llmops.vllm.rollback -e llmops_rollout_pools=chat-h100": (
        _TASKS,
        There("molecule/rollout/tests/test_rollout.py", 'action="rollback"'),
    ),
    "ansible-playbook -i my-fleet llmops.vllm.restart -e llmops_rollout_replicas=gpu1/r0": (
        _TASKS,
        There("molecule/rollout/tests/test_rollout.py", 'action="restart"', "llmops_rollout_replicas"),
    ),
    "ansible-playbook -i my-fleet llmops.vllm.restart -e llmops_rollout_pools=chat-h100": (
        _TASKS,
        There("tests/repo/test_rollout.py", '"restart", "--check", llmops_rollout_pools='),
    ),
    "ansible-playbook -i my-fleet llmops.vllm.restart -e llmops_rollout_replicas=gpu1/r0"
    " -e llmops_rollout_drain_timeout=30 -e llmops_rollout_drain_action=cut": (
        _TASKS,
        There("tests/repo/test_rollout.py", '"llmops_rollout_drain_timeout=30", "llmops_rollout_drain_action=cut"'),
        There("tests/integration/targets/vllm_drain/tasks/inflight.yml", "fail_on_timeout: false"),
    ),
    "ansible-playbook -i my-fleet llmops.vllm.gpu_driver": (
        _TASKS,
        There("playbooks/tasks/rollout/change_reboot.yml", "llmops.vllm.gpu_driver", "__rollout_change"),
    ),
    "ansible-playbook -i my-fleet llmops.vllm.reboot -e llmops_rollout_replicas=gpu1": (
        _TASKS,
        There("tests/unit/test_rollout_plan.py", 'plan("reboot"'),
    ),
    # balancers
    "ansible-playbook -i my-fleet llmops.vllm.balancer_update": (_TASKS, _UPDATE),
    "ansible-playbook -i my-fleet llmops.vllm.balancer_update --check": (_TASKS, _UPDATE),
    "ansible-playbook -i my-fleet llmops.vllm.balancer_update -e llmops_update_yes=true -e llmops_update_reboot=true": (
        _TASKS,
        _UPDATE,
    ),
    "ansible llm_balancers -i my-fleet --become -m ansible.builtin.command "
    '-a "ip -oneline address show to 192.0.2.10"': (
        _HOSTS,
        OnHosts(),
    ),
    "ansible lb1 -i my-fleet --become -m ansible.builtin.command "
    '-a "tar --extract --file /var/backups/llm-balancer/20261125T060000Z.tar --directory / --exclude var"': (
        _HOSTS,
        There(
            "roles/llm_balancer/tasks/update_restore.yml", "tar, --extract, --file", "--directory, /, --exclude, var"
        ),
    ),
    "ansible lb1 -i my-fleet --become -m ansible.builtin.systemd_service "
    '-a "name=nginx.service state=reloaded daemon_reload=true"': (
        _HOSTS,
        There("roles/llm_balancer/tasks/update_restore.yml", "daemon_reload: true", "'state': 'reloaded'"),
    ),
    # looks at a host
    'ansible llm_servers -i my-fleet --become -m ansible.builtin.command -a "nft list table inet vllm"': (
        _HOSTS,
        OnHosts(),
    ),
    'ansible gpu1 -i my-fleet --become -m ansible.builtin.command -a "journalctl -u vllm@r0 -n 30 --no-pager"': (
        _HOSTS,
        OnHosts(),
    ),
    'ansible llm_balancers -i my-fleet --become -m ansible.builtin.command -a "tail -n 30 /var/log/nginx/error.log"': (
        _HOSTS,
        OnHosts(),
    ),
    'ansible gpu1 -i my-fleet --become -m ansible.builtin.command -a "nvidia-smi"': (_HOSTS,),
    'ansible gpu1 -i my-fleet --become -m ansible.builtin.reboot -a "reboot_timeout=1200"': (
        _HOSTS,
        There("playbooks/tasks/rollout/change_reboot.yml", "ansible.builtin.reboot:", "reboot_timeout:", "1200"),
    ),
    'ansible gpu1 -i my-fleet --become -m ansible.builtin.command -a "journalctl -k -n 50 --no-pager"': (_HOSTS,),
    'ansible gpu1 -i my-fleet --become -m ansible.builtin.command -a "df -h"': (_HOSTS, OnHosts()),
    'ansible gpu1 -i my-fleet --become -m ansible.builtin.command -a "timedatectl"': (_HOSTS, OnHosts()),
    "journalctl -u llm-agent -o cat -n 20": (There("tests/traffic/seen.py", "journalctl -u llm-agent -o cat"),),
    # a request
    _CURL % '"$LLMOPS_CA"' + _QUESTION % ("tiny", "Who are you?") + ' "$LLMOPS_URL/chat/completions"': (
        _CHAT,
        OnHosts(),
    ),
    _CURL % "files/llm.example.com.crt" + _QUESTION % ("llama-70b", "Hello") + f" https://llm.example.com{_ENDPOINT}": (
        _CHAT,
    ),
}
