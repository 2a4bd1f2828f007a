"""What the lab looks like: its places, names and addresses. Constants only.

    internet ── wan0 router lan0 ─┬─ eth1 host (libvirtd, guests)
    203.0.113.80      (the LAN)   └─ eth0 peer

The prefixes are those set aside for documentation (RFC 5737, RFC 3849) and one private IPv4
subnet that is not libvirt's 192.168.122.0/24.
"""

from __future__ import annotations

HOST = "host"
ROUTER = "router"
PEER = "peer"
INTERNET = "internet"
PLACES = (HOST, ROUTER, PEER, INTERNET)

PLACE_MEANINGS = {
    HOST: "the host: libvirtd, QEMU and your guests live here",
    ROUTER: "the home router: DHCP, DNS, NAT to the internet",
    PEER: "another computer on the LAN",
    INTERNET: "a web server far away",
}

LAN_SUBNET = "192.168.77.0/24"
LAN_PREFIX_LEN = 24
LAN_SUBNET6 = "2001:db8:77::/64"
LAN_DOMAIN = "lan.example"
LAN_BRIDGE = "lan0"

ROUTER_IP = "192.168.77.1"
ROUTER_IP6 = "2001:db8:77::1"
HOST_IP = "192.168.77.10"
PEER_IP = "192.168.77.20"
LAN_DHCP_RANGE = ("192.168.77.100", "192.168.77.199")

HOST_NIC = "eth1"
PEER_NIC = "eth0"
HOST_MAC = "02:4c:41:42:00:0a"
PEER_MAC = "02:4c:41:42:00:14"
ROUTER_MAC = "02:4c:41:42:00:01"

WAN_ROUTER_IP = "198.51.100.2"
WAN_INTERNET_IP = "198.51.100.1"
WAN_PREFIX_LEN = 30
WAN_ROUTER_IP6 = "2001:db8:ffff::2"
WAN_INTERNET_IP6 = "2001:db8:ffff::1"

WEB_NAME = "www.example.org"
WEB_IP = "203.0.113.80"
WEB_IP6 = "2001:db8:80::80"
WEB_PAGE = "Hello from the internet: this is www.example.org."

USER = "alice"
"""An ordinary user of the lab's host, for ssh and scp from guests."""
USER_ID = 64990
USER_HOME = "/run/home/alice"
HOME = "/run/home/root"
"""HOME of what runs in the lab: the machine's own /root stays out of it."""
