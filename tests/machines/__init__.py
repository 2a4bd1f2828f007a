"""Whole machines for tests: real Debian with systemd and a real host network manager.

Two kinds with one interface (`machine.Machine`): containers, which start in a second but share this
machine's kernel and have no udev (`container.py`), and virtual machines with Debian's own kernel
(`vm.py`). Each stands in a LAN of its own (`lan.py`), invisible from outside.
"""
