"""The table of all faults."""

from __future__ import annotations

from kvmnet.lab.faults import (
    bridges,
    docker,
    firewalls,
    front_ends,
    guests,
    host_settings,
    lan,
    multicast,
    networks,
    routing,
)
from kvmnet.lab.faults.fault import Fault

FAULTS: tuple[Fault, ...] = (
    *host_settings.FAULTS,  # first: they need a NIC that is in no bridge yet
    *docker.FAULTS,
    *firewalls.FAULTS,
    *front_ends.FAULTS,
    *networks.FAULTS,
    *bridges.FAULTS,
    *guests.FAULTS,
    *lan.FAULTS,
    *routing.FAULTS,
    *multicast.FAULTS,  # last: its guest stays on the bridge
)

NOT_MADE = {
    "wireless-uplink": "it takes a wireless NIC; the virtual-machine tests make one",
    "bridge-helper-acl": "it is about guests of ordinary users; a lab's libvirtd is the system's",
    "lro-on-port": "it takes a NIC that merges what it receives; the lab's can not",
}
"""Problems that no lab has, and why."""
