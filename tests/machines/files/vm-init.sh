#!/bin/busybox sh
# The initramfs of a virtual machine: mounts its disk, puts its configuration there the first time,
# and starts its systemd.
export PATH=/bin
busybox mkdir -p /proc /sys /dev /root
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
while read -r module; do busybox insmod "/modules/$module"; done </modules/order
tries=0
while [ ! -b /dev/vda ] && [ $tries -lt 200 ]; do
    busybox sleep 0.05
    tries=$((tries + 1))
done
busybox mount -t ext4 /dev/vda /root
if [ ! -e /root/etc/.configured ]; then
    (cd /config && busybox tar cf - .) | (cd /root && busybox tar xf -)
    : >/root/etc/.configured
fi
busybox umount /proc /sys
exec busybox switch_root /root /sbin/init
