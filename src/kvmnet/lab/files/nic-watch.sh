#!/bin/busybox sh
# One NIC of a guest, from when it is plugged in until it is unplugged: $1 is its name, $2 its number.
# A NIC whose cable was out may be on another network: then it asks for a new lease. An ordinary
# distribution's network manager does the same.
nic="$1"
index="$2"

is_there() {
    [ "$(cat "/sys/class/net/$nic/ifindex" 2>/dev/null)" = "$index" ]
}

# Ending the client makes the loop around it start another, which begins with a discover.
end_client() {
    kill "$(cat "/run/udhcpc.$index.pid")"
}

ip link set "$nic" up
(while is_there; do
    udhcpc -f -i "$nic" -p "/run/udhcpc.$index.pid" -s /etc/udhcpc.sh -x "hostname:$(hostname)" \
        -t 5 -T 1 -A 2
    sleep 0.1
done) > "/run/udhcpc.$nic.log" 2>&1 &

# The kernel counts how often the cable went out and in: looking late misses nothing.
seen=
while is_there; do
    if [ "$(cat "/sys/class/net/$nic/carrier" 2>/dev/null)" = 1 ]; then
        count="$(cat "/sys/class/net/$nic/carrier_changes")"
        if [ -n "$seen" ] && [ "$count" != "$seen" ]; then
            end_client
        fi
        seen="$count"
    fi
    sleep 0.2
done
end_client
