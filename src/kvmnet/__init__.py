"""kvmnet puts KVM/libvirt guests on the network, safely and provably."""

__version__ = "0.1.0"
