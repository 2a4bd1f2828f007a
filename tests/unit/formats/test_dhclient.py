from kvmnet.formats import dhclient
from kvmnet.formats.dhclient import Lease

TEXT = """\
default-duid "\\000\\001\\000\\0012\\227";
lease {
  interface "eth0";
  fixed-address 192.0.2.9;
  option dhcp-lease-time 60;
}
lease {
  interface "eth0";
  fixed-address 192.0.2.10;
  filename "eth0";
  option subnet-mask 255.255.255.128;
  option dhcp-lease-time 3600;
  renew 2 2026/11/24 03:01:37;
}
lease6 {
  interface "eth0.7";
}
"""


def test_a_lease_changes_its_link_and_nothing_else() -> None:
    renamed = dhclient.rename_link(TEXT, "eth0", "br0")
    assert renamed.count('interface "br0";') == 2
    assert renamed.replace('interface "br0";', 'interface "eth0";') == TEXT
    assert 'interface "eth0.7";' in renamed and 'filename "eth0";' in renamed


def test_the_newest_lease_counts() -> None:
    assert dhclient.last_lease(TEXT) == Lease(address="192.0.2.10", prefix_len=25, seconds=3600)


def test_there_may_be_none() -> None:
    assert dhclient.last_lease("") is None
    assert dhclient.last_lease("lease {\n  bootp;\n}\n") is None
