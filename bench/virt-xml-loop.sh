#!/bin/sh
# What people write to move guests: virt-xml, guest by guest. The first argument says how many.
export LIBVIRT_DEFAULT_URI=qemu:///system
for guest in $(virsh list --all --name | head -n "$1"); do
    virt-xml "$guest" --edit --network type=network,source=default
done
