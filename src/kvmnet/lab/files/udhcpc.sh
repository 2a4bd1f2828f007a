#!/bin/sh
# What busybox's DHCP client calls in the lab's host and peer, with the lease in its environment.
# The address gets the lease's lifetime, as every DHCP client of a distribution does it.
case "$1" in
    bound | renew)
        ip -4 address replace "$ip/$mask" broadcast + dev "$interface" \
            valid_lft "$lease" preferred_lft "$lease"
        for gateway in $router; do
            ip -4 route replace default via "$gateway" dev "$interface" proto dhcp src "$ip" metric 100
        done
        ;;
    deconfig)
        ip -4 address flush dev "$interface"
        ip link set "$interface" up
        ;;
esac
