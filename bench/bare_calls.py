"""The calls that a picture of the host needs, one after the other, with nothing done about them."""

import subprocess

import libvirt

connection = libvirt.open("qemu:///system")
for network in connection.listAllNetworks():
    network.XMLDesc()
    network.XMLDesc(libvirt.VIR_NETWORK_XML_INACTIVE)
    network.autostart()
    if network.isActive():
        network.DHCPLeases()
for guest in connection.listAllDomains():
    guest.state()
    guest.autostart()
    guest.XMLDesc()
    guest.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
connection.close()
for command in (
    "ip -j -d link", "ip -j -d addr", "ip -j -4 route show table all",
    "ip -j -6 route show table all", "ip -j -4 rule", "ip -j -6 rule", "ip -j -s neigh",
    "bridge -j -s fdb", "nft -j list ruleset", "iptables-save", "ip6tables-save", "ss -H -lnptu",
):  # fmt: skip
    subprocess.run(command.split(), stdout=subprocess.DEVNULL, check=False)
