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
# NICs come and go while it runs. Their numbers are never used twice, their names are.
(while :; do
    for path in /sys/class/net/eth*; do
        index="$(cat "$path/ifindex" 2>/dev/null)"
        if [ -n "$index" ] && [ ! -e "/run/nic.$index" ]; then
            : > "/run/nic.$index"
            /etc/nic-watch.sh "${path##*/}" "$index" &
        fi
    done
    sleep 0.1
done) > /dev/null 2>&1 &

echo "Hello from the guest $name." > /www/index.html
httpd -p 80 -h /www
(dropbear -R -E -s -p 22 > /run/dropbear.log 2>&1) &
echo "guest $name is ready" > /dev/console
while :; do
    sleep 3600 &
    wait
done
