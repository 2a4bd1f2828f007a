"""Fills the lab's host with N guests on a network and M neighbours, before measuring."""

from __future__ import annotations

import subprocess
import sys

import libvirt

GUEST = """<domain type='qemu'><name>guest{number:03}</name><memory unit='MiB'>16</memory>
<os><type arch='x86_64'>hvm</type></os><devices><interface type='network'>
<mac address='52:54:00:be:{high:02x}:{low:02x}'/><source network='default'/><model type='virtio'/>
</interface></devices></domain>"""

NETWORK = """<network><name>default</name><forward mode='nat'/><bridge name='virbr0'/>
<ip address='192.168.122.1' netmask='255.255.255.0'><dhcp>
<range start='192.168.122.2' end='192.168.122.254'/></dhcp></ip></network>"""


def main() -> None:
    guests, neighbours = int(sys.argv[1]), int(sys.argv[2])
    connection = libvirt.open("qemu:///system")
    if "default" not in connection.listDefinedNetworks() + connection.listNetworks():
        connection.networkDefineXML(NETWORK).create()
    for number in range(guests):
        high, low = divmod(number, 256)
        connection.defineXML(GUEST.format(number=number, high=high, low=low))
    lines = (
        f"neigh replace 192.168.{122 if n < 200 else 123 + n // 250}.{n % 250 + 2} "
        f"lladdr 52:54:00:aa:{n // 256:02x}:{n % 256:02x} dev virbr0 nud permanent\n"
        for n in range(neighbours)
    )
    subprocess.run(["ip", "-batch", "-"], input="".join(lines), text=True, check=True)


main()
