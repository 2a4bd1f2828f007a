#!/bin/sh
# Puts guest web's NIC on bridge br0 as people do it by hand: virsh update-device, then the cable out
# and in, or the guest keeps the address that it had.
set -eu
export LIBVIRT_DEFAULT_URI=qemu:///system
mac="$(virsh domiflist web | awk 'NR == 3 { print $5 }')"
nic=/run/by-hand.xml
virsh dumpxml web | sed -n '/<interface/,/<\/interface>/p' |
    sed -e "s/type='network'/type='bridge'/" -e "s|<source [^>]*/>|<source bridge='br0'/>|" > "$nic"
virsh update-device web "$nic" --live --config
virsh domif-setlink web "$mac" down
sleep 0.5
virsh domif-setlink web "$mac" up
