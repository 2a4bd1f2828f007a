"""The words of one rule of iptables-save: matches with their options, then the target.

Facts: iptables-extensions(8). A match or option that is not understood makes the rule `opaque`.
"""

from __future__ import annotations

from collections.abc import Iterator

from kvmnet.model.firewall import FirewallMatch

_FINAL = {"ACCEPT", "DROP", "REJECT", "RETURN"}
_FIELDS = {"-i": "iif", "-o": "oif", "-p": "protocol", "-s": "source", "-d": "destination"}
_PLAIN = {"tcp", "udp", "comment", "conntrack", "state", "multiport", "icmp", "icmp6", "ipv6-icmp",
          "physdev", "addrtype", "pkttype", "set", "iprange", "mac", "rpfilter", "sctp",
          "dccp"}  # fmt: skip
"""Matches that say nothing themselves, only by their options."""
_LISTS = {
    "--dport": "dport", "--dports": "dport", "--destination-port": "dport",
    "--sport": "sport", "--sports": "sport", "--source-port": "sport", "--ports": "port",
    "--ctstate": "ct_state", "--state": "ct_state", "--ctstatus": "ct_status",
    "--icmp-type": "icmp_type", "--icmpv6-type": "icmp_type",
    "--physdev-in": "physin", "--physdev-out": "physout",
    "--dst-type": "dst_type", "--src-type": "src_type", "--pkt-type": "pkttype",
    "--src-range": "source", "--dst-range": "destination", "--mac-source": "mac",
}  # fmt: skip
_LOWER = {"ct_state", "ct_status", "dst_type", "src_type", "pkttype"}
_NAT_STATES = {"dnat", "snat"}
_NO_VALUE = {"--physdev-is-bridged", "--physdev-is-in", "--physdev-is-out", "--invert", "--loose",
             "--validmark", "--accept-local", "--syn", "--return-nomatch"}  # fmt: skip
_SET_KEYS = {"src": "source", "dst": "destination"}


class RuleWords:
    """One rule while its words are read, one after the other."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.dports: tuple[str, ...] = ()
        self.ct_states: tuple[str, ...] = ()
        self.more: list[FirewallMatch] = []
        self.verdict = "continue"
        self.target: str | None = None
        self.to: str | None = None
        self.comment: str | None = None
        self.opaque = False

    def read(self, words: Iterator[str], chains: frozenset[str]) -> None:
        """Read the words behind `-A CHAIN`; `chains` are those of the same table."""
        negated = False
        for word in words:
            if word == "!":
                negated = True
                continue
            if word in {"-j", "-g"}:
                self._jump(word, next(words, ""), chains)
                options = list(words)  # the target's own
                if "--to-destination" in options[:-1]:
                    self.to = options[options.index("--to-destination") + 1]
                return
            self._condition(word, words, negated)
            negated = False

    def _jump(self, word: str, target: str, chains: frozenset[str]) -> None:
        if word == "-g":
            self.verdict, self.target = "goto", target
        elif target in _FINAL or target not in chains:
            self.verdict = target.lower()
        else:
            self.verdict, self.target = "jump", target

    def _condition(self, word: str, words: Iterator[str], negated: bool) -> None:
        if word == "-m":
            self._module(next(words, ""))
        elif word == "--comment":
            self.comment = next(words, "")
        elif word in _FIELDS:
            self._field(_FIELDS[word], next(words, ""), negated)
        elif word in _LISTS:
            self._list(_LISTS[word], next(words, ""), negated)
        elif word in _NO_VALUE:
            self._flag(word, negated)
        elif word == "--tcp-flags":
            value = f"{next(words, '')}/{next(words, '')}".lower()
            self._add("tcp_flags", (value,), negated)
        elif word == "--match-set":
            self._set(next(words, ""), next(words, ""), negated)
        elif word.startswith("-"):
            self.opaque = True

    def _module(self, name: str) -> None:
        if name == "rpfilter":
            self._add("reverse_path", ("exists",), False)
        self.opaque |= name not in _PLAIN

    def _field(self, key: str, value: str, negated: bool) -> None:
        if key == "protocol" and negated:
            self._add(key, (value,), True)
        else:
            self.fields[key] = f"!{value}" if negated else value

    def _list(self, key: str, text: str, negated: bool) -> None:
        values = tuple(text.split(",")) if key not in {"mac", "source", "destination"} else (text,)
        if key in {"dport", "sport", "port"}:
            values = tuple(x.replace(":", "-") for x in values)
        if key in _LOWER:
            values = tuple(x.lower() for x in values)
        if key == "ct_state" and set(values) & _NAT_STATES:
            # iptables calls these states; the kernel keeps them as marks of the connection.
            key = "ct_status"
            self.opaque |= not set(values) <= _NAT_STATES
        if key == "dport" and not negated and not self.dports:
            self.dports = values
        elif key == "ct_state" and not negated and not self.ct_states:
            self.ct_states = values
        else:
            self._add(key, values, negated)

    def _flag(self, word: str, negated: bool) -> None:
        if word == "--syn":
            self._add("tcp_flags", ("fin,syn,rst,ack/syn",), negated)
        elif word == "--physdev-is-bridged":
            self._add("bridged", ("yes",), negated)
        elif word == "--physdev-is-in":
            self._add("physin", ("*",), negated)
        elif word == "--physdev-is-out":
            self._add("physout", ("*",), negated)
        elif word == "--invert":
            self.more = [
                x if x.keys != ("reverse_path",) else
                FirewallMatch(keys=x.keys, values=("missing",))
                for x in self.more
            ]  # fmt: skip
        # The others only say more about a match that was read before them.

    def _set(self, name: str, directions: str, negated: bool) -> None:
        keys = tuple(_SET_KEYS.get(x, "?") for x in directions.split(","))
        if "?" in keys or len(keys) != 1:
            self.opaque = True  # of several dimensions, of which only the set's type tells which
        else:
            self.more.append(FirewallMatch(keys=keys, set_name=name, negated=negated))

    def _add(self, key: str, values: tuple[str, ...], negated: bool) -> None:
        self.more.append(FirewallMatch(keys=(key,), values=values, negated=negated))
