"""Which commands in interfaces(5) speak of the NIC itself, and which of the host's own traffic.

Once a NIC is a bridge's port, addresses, routes and firewall rules belong to the bridge; offloads,
queues and the link's speed stay the NIC's.
"""

from __future__ import annotations

import re

HOOKS = frozenset({"pre-up", "up", "post-up", "pre-down", "down", "post-down"})

_NIC_OPTIONS = (
    "bond-", "driver-message-level", "ethernet-", "hardware-", "hwaddress", "link-duplex",
    "link-speed", "media", "offload-", "vlan-id", "vlan-raw-device", "wireless-", "wpa-",
)  # fmt: skip
"""Options of ethtool(8), ifenslave, vlan, wpasupplicant and wireless-tools, and the NIC's MAC."""

_NIC_PROGRAMS = frozenset(
    {"ethtool", "iw", "iwconfig", "mii-tool", "tc", "bridge", "wpa_cli", "wpa_supplicant"}
)
_SEPARATOR = re.compile(r"(&&|\|\||[;|])")
_IP_OBJECT = re.compile(r"\bip\s+(?:-\S+\s+)*(l|li|lin|link)\s")
_NAMES_A_LINK = (
    r"(?:^|(?<=[\s\"'(=]))"
    r"(?:dev|oif|iif|oifname|iifname|-[ioI]|--(?:in-|out-)?interface)[\s=]+[\"']?"
)


def is_nic_option(option: str, value: str) -> bool:
    """Whether a stanza's option (with dashes) stays with the NIC when a bridge takes its place."""
    if option in HOOKS:
        return _program(value) in {"ethtool", "iw", "iwconfig", "mii-tool"} and "$" in value
    return option.startswith(_NIC_OPTIONS)


def rewire(command: str, old: str, new: str) -> tuple[str, bool]:
    """A hook's line with `new` where it names `old` as the host's place on the LAN.

    Returns also whether that is all clear: a name that is left over could mean anything.
    """
    parts = _SEPARATOR.split(command)
    clear = True
    for index in range(0, len(parts), 2):
        if not _is_about_the_nic(parts[index]):
            parts[index] = _rewire(parts[index], old, new)
            clear = clear and not names(parts[index], old)
    return "".join(parts), clear


def names(text: str, link: str) -> bool:
    """Whether the link stands in the text as a word of its own (`eth0.100` does not name eth0)."""
    return re.search(rf"(?<![\w.:/-]){re.escape(link)}(?![\w:-]|\.\w)", text) is not None


def _rewire(part: str, old: str, new: str) -> str:
    link = re.escape(old)
    part = re.sub(rf"({_NAMES_A_LINK}){link}(?![\w:-]|\.\w)", lambda m: m[1] + new, part)
    return re.sub(rf"((?:conf|neigh)[./]){link}(?=[./])", lambda m: m[1] + new, part)


def _is_about_the_nic(part: str) -> bool:
    return _program(part) in _NIC_PROGRAMS or _IP_OBJECT.search(part + " ") is not None


def _program(command: str) -> str:
    words = command.split()
    words = words[1:] if words and words[0] in HOOKS else words
    while words and (words[0] in {"!", "{", "(", "if", "then", "exec", "sudo"} or "=" in words[0]):
        words = words[1:]
    return words[0].rsplit("/", 1)[-1] if words else ""
