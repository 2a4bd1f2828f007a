#!/bin/busybox sh
# Process 1 of a lab's guest. The kernel's command line carries guest=NAME.
/bin/busybox mkdir -p /proc /sys /dev /run /tmp /var/run /var/log /root /www
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox mkdir -p /dev/pts
/bin/busybox mount -t devpts devpts /dev/pts
export PATH=/usr/bin:/usr/sbin:/bin:/sbin HOME=/root

for word in $(/bin/busybox cat /proc/cmdline); do
    case "$word" in
        guest=*) name="${word#guest=}" ;;
    esac
done
/bin/busybox hostname "$name"
while read -r module; do
    /bin/busybox insmod "/modules/$module"
done < /modules/order
/bin/busybox --install -s /bin

# The agent first: it answers while the network is still coming up.
for port in /sys/class/virtio-ports/*; do
    if [ "$(cat "$port/name" 2>/dev/null)" = org.qemu.guest_agent.0 ]; then
        qemu-ga --method=virtio-serial --path="/dev/${port##*/}" --statedir=/run \
            --pidfile=/run/qemu-ga.pid --logfile=/run/qemu-ga.log --daemonize
    fi
done

ip link set lo up
echo "127.0.0.1 localhost $name" > /etc/hosts
for path in /sys/class/net/eth*; do
    nic="${path##*/}"
    ip link set "$nic" up
    # Asks until it gets an answer; nic-watch ends it when the cable was out, and it starts anew.
    (while :; do
        udhcpc -f -i "$nic" -p "/run/udhcpc.$nic.pid" -s /etc/udhcpc.sh -x "hostname:$name" \
            -t 5 -T 1 -A 2
        sleep 0.1
    done) > "/run/udhcpc.$nic.log" 2>&1 &
    /etc/nic-watch.sh "$nic" > /dev/null 2>&1 &
done

echo "Hello from the guest $name." > /www/index.html
httpd -p 80 -h /www
(dropbear -R -E -s -p 22 > /run/dropbear.log 2>&1) &
echo "guest $name is ready" > /dev/console
while :; do
    sleep 3600 &
    wait
done
