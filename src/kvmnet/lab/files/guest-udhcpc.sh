#!/bin/busybox sh
# What the guest's DHCP client calls, with the lease in its environment.
case "$1" in
    bound | renew)
        # Whoever sees the address takes the guest for ready: what else it needs is not far from it.
        : > /run/resolv.conf.new
        [ -n "$domain" ] && echo "search $domain" >> /run/resolv.conf.new
        for server in $dns; do
            echo "nameserver $server" >> /run/resolv.conf.new
        done
        cp /run/resolv.conf.new /etc/resolv.conf
        [ -n "$mtu" ] && ip link set "$interface" mtu "$mtu"
        ip -4 address flush dev "$interface"
        ip -4 address add "$ip/$mask" broadcast + dev "$interface"
        for gateway in $router; do
            metric="$((100 + ${interface#eth}))"
            ip -4 route replace default via "$gateway" dev "$interface" metric "$metric"
        done
        ;;
    deconfig)
        ip -4 address flush dev "$interface"
        ip link set "$interface" up
        ;;
esac
exit 0
