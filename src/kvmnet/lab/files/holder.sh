#!/bin/sh
# Keeps the namespaces of one place of the lab open. Runs in new mount and UTS namespaces and in
# the place's network namespace; $1 is the place, and /run/lab/$1 holds its files for /etc.
set -e
mount -t sysfs sysfs /sys
hostname "$1"
for name in resolv.conf hosts hostname; do
    mount --bind "/run/lab/$1/$name" "/etc/$name"
done
# Only the host may see libvirt's sockets and the daemons' files.
if [ "$1" != host ]; then
    mount -t tmpfs -o mode=755 tmpfs /run
fi
echo ready
exec sleep infinity <&- >&-
