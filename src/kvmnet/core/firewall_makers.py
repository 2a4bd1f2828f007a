"""Who made a chain or a rule: told by the names that programs give to theirs.

Facts: the names are those in the programs' own sources (Docker's libnetwork, ufw's
`before.rules`, firewalld's nftables and iptables backends, libvirt's network and nwfilter drivers,
fail2ban's actions, kube-proxy and the network plug-ins). The tables of iptables are shared: there
the rule tells more than the chain it stands in.
"""

from __future__ import annotations

import re

from kvmnet.model.host import FirewallChain, FirewallRule

DOCKER, UFW, FIREWALLD, LIBVIRT, KVMNET = "Docker", "ufw", "firewalld", "libvirt", "kvmnet"
NWFILTER = "libvirt's nwfilter"
BY_HAND = frozenset({"nft", "iptables"})
"""What `maker` answers for that which no known program makes: the administrator's own rules."""

# Patterns are compiled when one is looked for: most hosts' commands never do.
_TABLES = (
    (r"firewalld(_.*)?", FIREWALLD),
    (r"libvirt_nwfilter_.*", NWFILTER),
    (r"libvirt_.*", LIBVIRT),
    (r"docker-bridges", DOCKER),
    (r"kvmnet.*", KVMNET),
    (r"f2b-table", "fail2ban"),
    (r"kube-proxy", "Kubernetes"),
    (r"netavark", "Podman"),
    (r"(cni|hostport).*", "CNI"),
    (r"(calico|cali).*", "Calico"),
    (r"flannel.*", "Flannel"),
    (r"incus", "Incus"),
    (r"lxd", "LXD"),
)
_CHAINS = (
    (r"ufw6?-.*", UFW),
    (r"DOCKER(-.*)?", DOCKER),
    (r"LIBVIRT_(FW[IOX]|INP|OUT|PRT)", LIBVIRT),
    (r"libvirt-.*|(FI|FO|HI|FJ|HJ)-(vnet|macvtap|tap).*", NWFILTER),
    (r"[JPIO]-(vnet|macvtap|tap).*", NWFILTER),
    (r"(f2b|fail2ban)-.*", "fail2ban"),
    (r"KUBE-.*", "Kubernetes"),
    (r"(CNI|NETAVARK)-.*|NETAVARK_.*", "CNI"),
    (r"cali-.*", "Calico"),
    (r"CILIUM_.*|OLD_CILIUM_.*", "Cilium"),
    (r"FLANNEL-.*", "Flannel"),
    (r"WEAVE(-.*)?", "Weave Net"),
    (r"ts-(input|forward|postrouting)", "Tailscale"),
    (
        r"((IN|FWDI|FWDO|FWD|PRE|POST)_\w[\w-]*|(INPUT|FORWARD|FORWARD_IN|FORWARD_OUT|OUTPUT|"
        r"PREROUTING|POSTROUTING)_(ZONES|direct|POLICIES_pre|POLICIES_post)(_SOURCE)?)",
        FIREWALLD,
    ),
)
_DOCKER_LINK = r'(?<![\w.-])"?(docker0|docker_gwbridge|br-[0-9a-f]{12})"?(?![\w.-])'
_VIRT_LINK = r'(?<![\w.-])"?virbr\d+"?(?![\w.-])'


def maker(chain: FirewallChain, rule: FirewallRule | None = None) -> str:
    """The program that made a rule; without a rule: that made the chain, or set its policy.

    `nft` or `iptables` for what no known program makes (`BY_HAND`).
    """
    if rule is not None:
        text = " ".join(filter(None, (rule.text, rule.target)))
        return maker_of(chain.family, chain.table, chain.name, text, rule.comment)
    own = maker_of(chain.family, chain.table, chain.name)
    if own not in BY_HAND or chain.hook is None:
        return own
    # A shared base chain: the policy was set by the program whose chains it jumps to. ufw sets
    # both INPUT's and FORWARD's, Docker sets FORWARD's only, and again when it starts after ufw.
    jumped = {_by_chain(x.target) for x in chain.rules if x.target is not None}
    if DOCKER in jumped and chain.name == "FORWARD":
        return DOCKER
    if UFW in jumped:
        return UFW
    return own


def maker_of(
    family: str, table: str, chain: str, text: str = "", comment: str | None = None
) -> str:
    """The same by names only, as `nft monitor trace` tells them; `text` is a rule as printed."""
    if (comment or "").startswith("kvmnet:") or "kvmnet:" in text:
        return KVMNET
    for pattern, name in _TABLES:
        if re.fullmatch(pattern, table):
            return name
    own = _by_chain(chain)
    if own is not None:
        return own
    for word in re.findall(r"[\w.:-]+", text):
        if (by := _by_chain(word)) is not None:
            return by
    if re.search(_DOCKER_LINK, text):
        return DOCKER
    if re.search(_VIRT_LINK, text) and chain in _BUILT_IN:
        return LIBVIRT  # before its 5.1 libvirt had no chains of its own
    return "iptables" if chain in _BUILT_IN or text.startswith("-A ") else "nft"


_BUILT_IN = frozenset({"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"})


def _by_chain(name: str) -> str | None:
    return next((who for pattern, who in _CHAINS if re.fullmatch(pattern, name)), None)
