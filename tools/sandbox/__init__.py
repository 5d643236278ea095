"""The sandbox: systemd hosts in containers on this machine, for ``make demo``, Molecule and benchmarks."""
