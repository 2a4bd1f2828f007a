"""State to JSON and back: exactly, for every State; nonsense is refused."""

from __future__ import annotations

import typing

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvmnet.errors import InvalidInput
from kvmnet.formats import state_json
from kvmnet.model import host, state, virt
from kvmnet.model.values import Cidr, Ip, Mac

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


IPS = st.ip_addresses().map(str)
CIDRS = st.ip_addresses().map(lambda x: f"{x}/{x.max_prefixlen}")
MACS = st.binary(min_size=6, max_size=6).map(lambda x: x.hex(":"))


def build(kind: type) -> st.SearchStrategy[object]:
    """Any object of that Struct, made from its fields' types."""
    fields = {}
    hints = typing.get_type_hints(kind)
    for field in msgspec.inspect.type_info(kind).fields:
        special = special_text(hints[field.name])
        if field.name == "prefix_len":
            fields[field.name] = st.integers(0, 32)
        elif special is not None:
            is_tuple = isinstance(field.type, msgspec.inspect.VarTupleType)
            fields[field.name] = st.lists(special, max_size=2).map(tuple) if is_tuple else special
        else:
            fields[field.name] = value(field.type)
    return st.fixed_dictionaries(fields).map(lambda x: kind(**x))


def special_text(hint: object) -> st.SearchStrategy[str] | None:
    """How text of the address types looks, which the Struct's own types do not tell."""
    inner = {hint, *typing.get_args(hint)}
    for kind, made in ((Ip, IPS), (Cidr, CIDRS), (Mac, MACS)):
        if kind in inner:
            return made
    return None


def value(kind: msgspec.inspect.Type) -> st.SearchStrategy[object]:
    match kind:
        case msgspec.inspect.StructType():
            return build(kind.cls)
        case msgspec.inspect.VarTupleType():
            return st.lists(value(kind.item_type), max_size=2).map(tuple)
        case msgspec.inspect.UnionType():
            return st.one_of(*map(value, kind.types))
        case msgspec.inspect.LiteralType():
            return st.sampled_from(kind.values)
        case msgspec.inspect.StrType():
            return TEXT
        case msgspec.inspect.IntType():
            return st.integers(-(2**53), 2**53)
        case msgspec.inspect.FloatType():
            return st.floats(allow_nan=False, allow_infinity=False)
        case msgspec.inspect.BoolType():
            return st.booleans()
        case msgspec.inspect.NoneType():
            return st.none()
    raise AssertionError(f"no objects are made yet for fields of type {kind}")


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(build(state.State).map(lambda x: msgspec.structs.replace(x, version=1)))
def test_round_trip(before: state.State) -> None:
    assert state_json.parse(state_json.render(before)) == before


def test_small_state() -> None:
    before = state.State(
        taken_at=1,
        hostname="h",
        links=(host.Link(index=1, name="br0.1", kind="bridge"),),
        guests=(virt.Guest(connection="c", name="é\u202e\n", uuid="u", state="running"),),
    )
    assert state_json.parse(state_json.render(before)) == before


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"format": "kvmnet.mac", "version": 1}',
        '{"format": "kvmnet.state", "version": 1}',
        '{"format": "kvmnet.state", "version": 1, "state": {"taken_at": "x", "hostname": "h"}}',
        '{"format": "kvmnet.state", "version": 1, "state": {"hostname": "h", "taken_at": 1,'
        ' "links": [{}]}}',
        '{"format": "kvmnet.state\\u001b[2J", "version": 1}',
        "\ud800",
        "[" * 100_000,
        '{"a":' * 100_000,
    ],
    ids=range(12),
)
def test_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        state_json.parse(text)


def test_newer_version_is_told() -> None:
    with pytest.raises(InvalidInput, match="newer kvmnet"):
        state_json.parse('{"format": "kvmnet.state", "version": 3, "state": {"new": true}}')


def test_unknown_fields_of_the_same_version_are_ignored() -> None:
    text = (
        '{"format": "kvmnet.state", "version": 1, "later": 1,'
        ' "state": {"taken_at": 1, "hostname": "h", "later": []}}'
    )
    assert state_json.parse(text).hostname == "h"


HOSTILE = {
    "an address": ("addresses", {"link": "a", "ip": "nonsense", "prefix_len": 24, "family": 4}),
    "a length": ("addresses", {"link": "a", "ip": "10.0.0.1", "prefix_len": 999, "family": 4}),
    "a route": ("routes", {"family": 4, "destination": "10.0.0.0"}),
    "a gateway": ("routes", {"family": 4, "destination": "10.0.0.0/8", "gateway": "x"}),
    "a MAC": ("links", {"index": 1, "name": "a", "kind": "veth", "mac": "; rm -rf /"}),
    "Docker": ("docker_networks", {"name": "a", "subnets": ["10.0.0.0/8", "10/x"]}),
    "a range deep inside": (
        "networks",
        {"connection": "c", "name": "n", "uuid": "u", "active": True, "persistent": True,
         "autostart": True, "live": {"mode": "nat", "ips": [
             {"family": 4, "address": "10.0.0.1", "prefix_len": 24,
              "ranges": [{"start": "10.0.0.2", "end": ""}]}]}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_values_are_checked(case: str) -> None:
    field, content = HOSTILE[case]
    document = {
        "format": "kvmnet.state",
        "version": 1,
        "state": {"taken_at": 1, "hostname": "h", field: [content]},
    }
    with pytest.raises(InvalidInput):
        state_json.parse(msgspec.json.encode(document).decode())
