"""State to JSON and back: exactly, for every State; nonsense is refused."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvmnet.errors import InvalidInput
from kvmnet.formats import state_json
from kvmnet.model import host, state, virt

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def build(kind: type) -> st.SearchStrategy[object]:
    """Any object of that Struct, made from its fields' types."""
    fields = {}
    for field in msgspec.inspect.type_info(kind).fields:  # type: ignore[union-attr]
        fields[field.name] = value(field.type)
    return st.fixed_dictionaries(fields).map(lambda x: kind(**x))


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
    raise NotImplementedError(kind)


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
        state_json.parse('{"format": "kvmnet.state", "version": 2, "state": {"new": true}}')


def test_unknown_fields_of_the_same_version_are_ignored() -> None:
    text = (
        '{"format": "kvmnet.state", "version": 1, "later": 1,'
        ' "state": {"taken_at": 1, "hostname": "h", "later": []}}'
    )
    assert state_json.parse(text).hostname == "h"
