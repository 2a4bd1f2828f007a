#!/bin/busybox sh
# A guest's NIC that was unplugged and plugged in again may be on another network: ask for a new
# lease. An ordinary distribution's network manager does the same.
nic="$1"
before=1
while sleep 0.2; do
    now="$(cat "/sys/class/net/$nic/carrier" 2>/dev/null || echo 0)"
    if [ "$before" = 0 ] && [ "$now" = 1 ]; then
        # Ending the client makes the loop around it start another, which begins with a discover.
        kill "$(cat "/run/udhcpc.$nic.pid")"
    fi
    before="$now"
done
