"""The calls that moving all guests needs: read each definition, define it changed; or back."""

import libvirt

HERE, THERE = "<source network='default'/>", "<source bridge='br0'/>"
FLAGS = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE

connection = libvirt.open("qemu:///system")
for guest in connection.listAllDomains():
    xml = guest.XMLDesc(FLAGS)
    there = THERE in xml
    old, new = (THERE, HERE) if there else (HERE, THERE)
    kinds = ("bridge", "network") if there else ("network", "bridge")
    xml = xml.replace(f"<interface type='{kinds[0]}'>", f"<interface type='{kinds[1]}'>")
    connection.defineXML(xml.replace(old, new))
connection.close()
