# The distribution's packages that kvmnet and its lab use (sourced by ./demo and ./test).

# To run Python: the binding belongs to the libvirt library and is compiled by the distribution.
python_packages="python3 python3-venv python3-libvirt"

# The lab: libvirt's daemon and QEMU without their services, a DHCP and DNS server, a small userland,
# an SSH server without a service; passt, which the lab does without but tests use where libvirt
# takes it. What the lab itself asks for is in src/kvmnet/lab/requirements.py.
case $(dpkg --print-architecture 2>/dev/null) in
arm64) qemu_package=qemu-system-arm ;;
*) qemu_package=qemu-system-x86 ;;
esac
lab_packages="libvirt-daemon libvirt-daemon-driver-network? libvirt-daemon-driver-qemu libvirt-clients
$qemu_package dnsmasq-base busybox-static iptables nftables iproute2 kmod util-linux mount coreutils
libc-bin dpkg zstd procps openssh-client openssh-sftp-server dropbear-bin passt?"

# Whole machines for tests (tests/machines): Debian is installed into folders and started there in
# containers and virtual machines. What they ask for is in tests/machines/images.py.
machine_packages="mmdebstrap systemd-container e2fsprogs $qemu_package qemu-utils dnsmasq-base
busybox-static kmod iproute2 util-linux mount"
