# The distribution's packages that kvmnet and its lab use (sourced by ./demo and ./test).

# To run Python: the binding belongs to the libvirt library and is compiled by the distribution.
python_packages="python3 python3-venv python3-libvirt"

# The lab: libvirt's daemon and QEMU without their services, a DHCP and DNS server, a small userland.
lab_packages="libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients qemu-system-x86 qemu-utils
dnsmasq-base busybox-static iptables nftables iproute2 iputils-ping kmod util-linux procps
openssh-client"
