import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmnet.errors import InvalidInput
from kvmnet.model import values


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("52:54:00:AB:cd:01", "52:54:00:ab:cd:01"),
        ("52-54-00-ab-cd-01", "52:54:00:ab:cd:01"),
        ("  00:16:3e:00:00:00\n", "00:16:3e:00:00:00"),
    ],
)
def test_macs_become_canonical(text: str, canonical: str) -> None:
    assert values.parse_mac(text) == canonical


@pytest.mark.parametrize(
    "text",
    ["", "52:54:00", "52:54:00:00:00:0g", "52:54:00:00:00:00:00", "01:00:5e:00:00:01",
     "ff:ff:ff:ff:ff:ff", "525400000001", "٥٢:54:00:00:00:01", "52:54:00:00:00:01\x00"],
)  # fmt: skip
def test_what_no_nic_may_have_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        values.parse_mac(text)


@pytest.mark.parametrize(
    "text", ["01:00:5e", "5", "52:54:00:00:00:01", "53", "zz", "", ":", "52::"]
)
def test_bad_prefixes_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        values.parse_mac_prefix(text)


@pytest.mark.parametrize("text", ["52:54:00", "52", "52:54:00:11:22", "52-54-00", "52:54:00:"])
def test_good_prefixes_are_taken(text: str) -> None:
    assert "52:54:00:11:22".startswith(values.parse_mac_prefix(text))


@pytest.mark.parametrize("name", ["br0", "virbr10", "eth0.100", "en-lan", "br_0", "a" * 15])
def test_nic_names(name: str) -> None:
    assert values.parse_nic_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "a b", "a:b", "a" * 16, "brü0", "-x", "br0\n", "\x1b[2J", "--help"],
)
def test_names_the_kernel_refuses(name: str) -> None:
    with pytest.raises(InvalidInput):
        values.parse_nic_name(name)


@given(st.text(max_size=80))
def test_a_message_never_carries_raw_control_characters(text: str) -> None:
    for door in (
        values.parse_mac,
        values.parse_mac_prefix,
        values.parse_nic_name,
        values.parse_ip,
        values.parse_cidr,
        values.parse_domain_name,
        lambda t: values.parse_object_name(t, "network"),
    ):
        try:
            value = door(text)
        except InvalidInput as error:
            assert str(error).isprintable() and str(error).isascii()
        else:
            assert value.isprintable() and value.isascii()


@pytest.mark.parametrize(
    ("text", "canonical"),
    [("192.168.122.7/24", "192.168.122.0/24"), ("FD00::1/64", "fd00::/64"), ("10.0.0.0/8",) * 2],
)
def test_subnets_become_canonical(text: str, canonical: str) -> None:
    assert values.parse_cidr(text) == canonical


@pytest.mark.parametrize(
    "text", ["192.168.122.0", "192.168.122.0/33", "x/24", "", "1.2.3/24", "::/129"]
)
def test_what_is_no_subnet_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        values.parse_cidr(text)
