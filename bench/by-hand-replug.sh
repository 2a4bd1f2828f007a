#!/bin/sh
# Puts guest web's NIC on bridge br0 as people do it where a NIC can't be changed: it is unplugged, and
# one of the same address is plugged in.
set -eu
export LIBVIRT_DEFAULT_URI=qemu:///system
mac="$(virsh domiflist web | awk 'NR == 3 { print $5 }')"
virsh detach-interface web network --mac "$mac" --live --config
while virsh domiflist web | grep -q "$mac"; do sleep 0.05; done
virsh attach-interface web bridge br0 --mac "$mac" --model virtio --live --config
