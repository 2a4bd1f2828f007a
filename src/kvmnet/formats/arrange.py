"""From what the kernel has to an `Arrangement`: the commands, in an order that loses no packet.

A bridge that takes a NIC's place is made with the NIC's MAC, STP off and forward delay 0, and gets
addresses and neighbour entries before the NIC becomes its port. From then on frames come in by the
bridge, and still go out by the NIC: that works, since a port sends what it is given. So routes move
while the NIC is a port, in both directions: after it became one, before it ceases to be one.
Nothing is taken away before something else stands in for it.

What can not be helped: in `br_add_if` the kernel hands a NIC's frames to the bridge some 50 us
before the port forwards. A frame that comes in just then is lost.

What is computed is the difference to what is there. So the same target is reached from any point
between two arrangements, and asking again yields nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kvmnet.formats import arrange_bridges, arrange_ports, arrange_routes, ip_batch
from kvmnet.formats.arrange_commands import Command, Line, Setting, Settle
from kvmnet.model.arrangement import Arrangement, LinkTarget
from kvmnet.model.host import Address, Family, Link, Neighbour
from kvmnet.model.state import State
from kvmnet.model.values import Ip

ADDR_GEN_MODE = "addr_gen_mode"
"""How the kernel makes link-local addresses; written last, since writing it makes one."""
_OWN_FLAGS = frozenset({"home", "mngtmpaddr", "noprefixroute", "autojoin", "nodad"})
_NO_USE = frozenset({"FAILED", "INCOMPLETE", "NOARP", ""})
_LASTING = frozenset({"PERMANENT", "NOARP"})


def commands(now: State, target: Arrangement) -> tuple[Command, ...]:
    """What has to be done, in this order, to come from `now` to `target`.

    A NIC that is not there (any more) is passed over. Raises `InvalidInput` for a name that `ip`
    can not be given.
    """
    found: list[Command] = []
    there = [x for x in target.links if x.bridge is not None or now.link(x.name) is not None]
    target = msgspec.structs.replace(target, links=tuple(there))
    for stage in (
        _bridges, _settings, _up, _new_addresses, _neighbours, _listening, _lightened, _enslaved,
        _port_flags, _vlans_at_once, _carrier, _routes_and_rules, _released, _no_carrier,
        _old_addresses, _old_neighbours, _absent, _attributes, _vlans, _filtering, _finished,
        _listening_no_more, _link_local_mode,
    ):  # fmt: skip
        found += stage(now, target)
    return tuple(found)


def port_commands(now: State, target: Arrangement) -> tuple[Command, ...]:
    """The same for VLANs and flags alone, of ports that are some already."""
    target = arrange_ports.joined(now, target)
    return tuple(x for stage in (_port_flags, _vlans_at_once, _vlans) for x in stage(now, target))


def _routes_and_rules(now: State, target: Arrangement) -> Iterator[Line]:
    """Routes and rules, while every port is still one."""
    names = _names(target)
    aside = arrange_routes.rules_in_the_way(now, target, names)
    for rule in aside:
        text = ip_batch.delete_rule(rule)
        yield Line(text=text, link=arrange_routes.named(rule), family=rule.family)
    for link, text in arrange_routes.route_lines(now, target, names):
        yield Line(text=text, link=link)
    families: tuple[Family, ...] = (4, 6)
    left = msgspec.structs.replace(now, rules=tuple(x for x in now.rules if x not in aside))
    for family in families:
        for link, text in arrange_routes.rule_lines(left, target, names, family):
            yield Line(text=text, link=link, family=family)


def _names(target: Arrangement) -> set[str]:
    return {x.name for x in target.links} | set(target.absent)


def _bridges(now: State, target: Arrangement) -> Iterator[Line]:
    for link in target.links:
        if link.bridge is not None and now.link(link.name) is None:
            yield Line(
                text=arrange_bridges.new_bridge(link, link.bridge), link=link.name, essential=True
            )
            if any(x.name.startswith("net.ipv6.") for x in link.sysctls):
                # Else it would make a link-local address and test it for a second.
                text = ip_batch.line("link", "set", "dev", link.name, "addrgenmode", "none")
                yield Line(text=text, link=link.name)


def _settings(now: State, target: Arrangement) -> Iterator[Setting]:
    yield from (x for x in _all_settings(now, target) if not x.path.endswith(f"/{ADDR_GEN_MODE}"))


def _link_local_mode(now: State, target: Arrangement) -> Iterator[Setting]:
    yield from (x for x in _all_settings(now, target) if x.path.endswith(f"/{ADDR_GEN_MODE}"))


def _all_settings(now: State, target: Arrangement) -> Iterator[Setting]:
    have = {x.name: x.value for x in now.sysctls}
    for link in target.links:
        for wanted in link.sysctls:
            if have.get(wanted.name) == wanted.value:
                continue
            for family in ("ipv4", "ipv6"):
                prefix = f"net.{family}.conf.{link.name}."
                if wanted.name.startswith(prefix) and (key := wanted.name.removeprefix(prefix)):
                    path = f"net/{family}/conf/{link.name}/{key}"
                    yield Setting(path=path, value=wanted.value, link=link.name)


def _up(now: State, target: Arrangement) -> Iterator[Line]:
    for link in target.links:
        has = now.link(link.name)
        words = ["link", "set", "dev", link.name]
        if has is not None and link.mac is not None and has.mac != link.mac:
            yield Line(text=ip_batch.line(*words, "address", link.mac), link=link.name)
        if has is not None and link.mtu is not None and has.mtu != link.mtu:
            yield Line(text=ip_batch.line(*words, "mtu", str(link.mtu)), link=link.name)
        if link.up and (has is None or not has.up):
            yield Line(text=ip_batch.line(*words, "up"), link=link.name, essential=True)


def _key(address: Address) -> tuple[str, str, int, str | None, str | None]:
    """What makes an address of a link another one: these can't be changed afterwards."""
    return (address.link, address.ip, address.prefix_len, address.peer, address.label)


def _with_life(address: Address, now: State, names: set[str]) -> Address:
    """The address with the lifetime that it has by now, wherever in the arrangement it is."""
    if address.valid_s is None:
        return address
    twins = [
        x for x in now.addresses
        if x.link in names and (x.ip, x.prefix_len) == (address.ip, address.prefix_len)
    ]  # fmt: skip
    if not twins:
        return address
    longest = max(twins, key=lambda x: float("inf") if x.valid_s is None else x.valid_s)
    return msgspec.structs.replace(
        address, valid_s=longest.valid_s, preferred_s=longest.preferred_s
    )


def _new_addresses(now: State, target: Arrangement) -> Iterator[Line]:
    """In such an order that the kernel lists them as before: new IPv6 ones come first there."""
    have = {_key(x) for x in now.addresses}
    names = _names(target)
    for link in target.links:
        four = [x for x in link.addresses if x.family == 4]
        six = [x for x in link.addresses if x.family == 6]
        for address in (*four, *reversed(six)):
            if _key(address) not in have:
                text = ip_batch.add_address(_with_life(address, now, names))
                yield Line(text=text, link=link.name, essential=True)


def _old_addresses(now: State, target: Arrangement) -> Iterator[Line]:
    """In such an order that, cut off half-way, those that are left are those that came first.

    Taking an IPv4 address away takes also those that came after it in its prefix.
    """
    by_name = {x.name: x for x in target.links}
    wanted = {_key(x) for link in target.links for x in link.addresses}
    four = [x for x in now.addresses if x.family == 4]
    six = [x for x in now.addresses if x.family == 6]
    for address in (*six, *reversed(four)):
        link = by_name.get(address.link)
        if link is None and address.link not in target.absent:
            continue
        if link is not None and (_key(address) in wanted or _comes_by_itself(address, link)):
            continue
        yield Line(text=ip_batch.delete_address(address), link=address.link)


def _comes_by_itself(address: Address, link: LinkTarget) -> bool:
    """Whether the kernel or a router gave it: on a link that still speaks for itself it stays."""
    if address.family == 4 or link.master is not None or not link.up:
        return False
    return bool(link.addresses) and (address.scope == "link" or address.dynamic)


def _neighbours(now: State, target: Arrangement) -> Iterator[Line]:
    """What is known of others, so that nobody has to be asked again; gateways first."""
    have = {(x.link, x.ip, x.proxy): x for x in now.neighbours if x.state not in _NO_USE or x.proxy}
    gateways = {x.gateway for x in target.routes}
    entries: dict[tuple[str, Ip, bool], Neighbour] = {}
    for entry in (*_moved(now, target), *target.neighbours):
        entries.setdefault((entry.link, entry.ip, entry.proxy), entry)
    for key, entry in sorted(entries.items(), key=lambda x: x[1].ip not in gateways):
        known = have.get(key)
        lasting = entry.state in _LASTING and known is not None and known.state != entry.state
        if known is None or lasting:
            yield Line(text=ip_batch.set_neighbour(entry), link=entry.link)


def _moved(now: State, target: Arrangement) -> Iterator[Neighbour]:
    """Entries of links whose addresses are to be on another one, as entries of that one."""
    heirs = _heirs(now, target)
    mine = {(x.link, x.ip): x for x in target.neighbours if x.state in _LASTING}
    for entry in now.neighbours:
        heir = heirs.get(entry.link)
        if heir is None or entry.proxy or entry.mac is None or entry.state in _NO_USE:
            continue
        if entry.state != "PERMANENT" or (heir, entry.ip) in mine:
            yield msgspec.structs.replace(entry, link=heir)


def _heirs(now: State, target: Arrangement) -> dict[str, str]:
    homes = {(x.ip, x.prefix_len): link.name for link in target.links for x in link.addresses}
    staying = {x.name for x in target.links if x.addresses}
    heirs = {}
    for address in now.addresses:
        home = homes.get((address.ip, address.prefix_len))
        if address.link in _names(target) - staying and home not in (None, address.link):
            heirs[address.link] = str(home)
    return heirs


def _old_neighbours(now: State, target: Arrangement) -> Iterator[Line]:
    """Only those that would stay for ever; the others are forgotten by themselves."""
    names = {x.name for x in target.links}
    wanted = {(x.link, x.ip, x.proxy) for x in target.neighbours}
    for entry in now.neighbours:
        lasting = entry.proxy or entry.state == "PERMANENT"
        if entry.link in names and lasting and (entry.link, entry.ip, entry.proxy) not in wanted:
            yield Line(text=ip_batch.delete_neighbour(entry), link=entry.link)


def _listening(now: State, target: Arrangement) -> Iterator[Line]:
    """A NIC that becomes a port, or ceases to be one, listens to everything beforehand.

    The kernel makes it so between taking its frames away and letting the port forward, and frames
    are dropped in between (net/bridge/br_if.c, br_add_if). For some NICs that is a slow command to
    the device: 25 ms for a virtio NIC in an emulated machine. If it is so already, it is a count.
    """
    for link, has in _present(now, target):
        if link.master != has.master:
            words = [] if has.promisc else ["promisc", "on"]
            words += [] if has.allmulti else ["allmulticast", "on"]
            if words:
                text = ip_batch.line("link", "set", "dev", link.name, *words)
                yield Line(text=text, link=link.name)


def _listening_no_more(now: State, target: Arrangement) -> Iterator[Line]:
    for link, has in _present(now, target):
        moves = link.master != has.master
        words = ["promisc", "off"] if not link.promisc and (has.promisc or moves) else []
        words += ["allmulticast", "off"] if not link.allmulti and (has.allmulti or moves) else []
        if words:
            text = ip_batch.line("link", "set", "dev", link.name, *words)
            yield Line(text=text, link=link.name)


def _lightened(now: State, target: Arrangement) -> Iterator[Line]:
    """A bridge that goes away gives its ports no VLAN beforehand.

    Else the kernel takes that VLAN off the NIC after the port has ceased to forward, and before its
    frames are the host's own again: another slow command to the device. A new bridge gives one only
    afterwards, for the same reason. While nothing is filtered by it, nobody looks at it.
    """
    for name in target.absent:
        link = now.link(name)
        has = link.bridge if link is not None else None
        if has is not None and not has.vlan_filtering and has.default_pvid:
            words = ("link", "set", "dev", name, "type", "bridge", "vlan_default_pvid", "0")
            yield Line(text=ip_batch.line(*words), link=name)


def _enslaved(now: State, target: Arrangement) -> Iterator[Line]:
    for link, has in _present(now, target):
        if link.master is not None and has.master != link.master:
            text = ip_batch.line("link", "set", "dev", link.name, "master", link.master)
            yield Line(text=text, link=link.name, essential=True)


def _port_flags(now: State, target: Arrangement) -> Iterator[Line]:
    for link, text in arrange_ports.flags(now, target):
        yield Line(text=text, link=link)


def _vlans_at_once(now: State, target: Arrangement) -> Iterator[Line]:
    for link, text in arrange_ports.vlans(now, target, filtering=True):
        yield Line(text=text, link=link, program="bridge")


def _vlans(now: State, target: Arrangement) -> Iterator[Line]:
    for link, text in arrange_ports.vlans(now, target, filtering=False):
        yield Line(text=text, link=link, program="bridge")


def _released(now: State, target: Arrangement) -> Iterator[Line]:
    for link, has in _present(now, target):
        if link.master is None and has.master is not None:
            text = ip_batch.line("link", "set", "dev", link.name, "nomaster")
            yield Line(text=text, link=link.name, essential=True)


def _carrier(now: State, target: Arrangement) -> Iterator[Settle]:
    for name in sorted({x.text.split()[-1] for x in _enslaved(now, target)}):
        has = now.link(name)
        if has is None or not has.carrier:
            yield Settle(link=name, carries=True)


def _no_carrier(now: State, target: Arrangement) -> Iterator[Settle]:
    freed = {x.link for x in _released(now, target)}
    for name in sorted({x.master for x in now.links if x.name in freed and x.master is not None}):
        has = now.link(name)
        left = [x for x in now.ports(name) if x.name not in freed and x.carrier]
        if has is not None and has.carrier and not left:
            yield Settle(link=name, carries=False)


def _present(now: State, target: Arrangement) -> Iterator[tuple[LinkTarget, Link]]:
    for link in target.links:
        has = now.link(link.name)
        if has is not None:
            yield link, has


def _absent(now: State, target: Arrangement) -> Iterator[Line]:
    for name in target.absent:
        has = now.link(name)
        if has is not None and has.kind == "bridge":
            text = ip_batch.line("link", "delete", "dev", name, "type", "bridge")
            yield Line(text=text, link=name, essential=True)


def _attributes(now: State, target: Arrangement) -> Iterator[Line]:
    """What cuts nobody off any more: spanning tree, the default VLAN."""
    for link in target.links:
        for text in arrange_bridges.attributes(now.link(link.name), link):
            yield Line(text=text, link=link.name)


def _filtering(now: State, target: Arrangement) -> Iterator[Line]:
    for link in target.links:
        for text in arrange_bridges.filtering(now.link(link.name), link):
            yield Line(text=text, link=link.name)


def _finished(now: State, target: Arrangement) -> Iterator[Line]:
    """The same: flags of addresses, links that were down."""
    have = {_key(x): x for x in now.addresses}
    names = _names(target)
    for link in target.links:
        for address in link.addresses:
            if _differs(address, have.get(_key(address))):
                text = ip_batch.change_address(_with_life(address, now, names))
                yield Line(text=text, link=link.name)
    for link, has in _present(now, target):
        if has.up and not link.up:
            yield Line(text=ip_batch.line("link", "set", "dev", link.name, "down"), link=link.name)


def _differs(wanted: Address, has: Address | None) -> bool:
    if has is None:  # it was made without duplicate detection, which is not to stay so for ever
        return wanted.family == 6 and "nodad" not in wanted.flags
    if _OWN_FLAGS & set(wanted.flags) != _OWN_FLAGS & set(has.flags):
        return True
    return wanted.valid_s is None and has.valid_s is not None
