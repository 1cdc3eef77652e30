"""The network of a run: a namespace of its own, so that no other socket, firewall rule or port of
the machine is in the way, and so that TCP's congestion control is Linux's own default wherever the
suite is run. A host's choice is one more thing in which two machines differ, and it weighs: BBR
arms a timer for nearly every packet of a burst on the loopback."""

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
from pathlib import Path

DEFAULT = "cubic"               # CONFIG_DEFAULT_TCP_CONG of the kernel's own Kconfig
CONTROL = Path("/proc/sys/net/ipv4/tcp_congestion_control")
AVAILABLE = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")

# <sched.h>, <net/if.h>, <bits/ioctls.h>
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
IFF_UP, SIOCGIFFLAGS, SIOCSIFFLAGS = 0x1, 0x8913, 0x8914


class Network:
    """Where a run's sockets live. `own` is false where the kernel gave no namespace, or none was
    wanted; congestion control then is what the host has."""

    def __init__(self, wanted=True):
        self.own = wanted and works_in_a_child() and make()

    def can(self, name):
        return self.own and name in AVAILABLE.read_text().split()

    @contextlib.contextmanager
    def under(self, name):
        """Sockets made inside use this congestion control."""
        usual = control()
        if not set_control(name):
            raise ValueError(f"sockets cannot be given {name}")
        try:
            yield
        finally:
            set_control(usual)

    def words(self):
        where = "in a network namespace of its own" if self.own else "as the host has it"
        return f"{control()} for congestion control, {where}"


def works_in_a_child():
    """Tried where it does no harm: whoever has left the host's network cannot return to it, and a
    security module may give a namespace but no right to anything in it."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if make() else 1)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def make():
    if not (unshare(CLONE_NEWNET) or unshare_as_user()):
        return False
    raise_loopback()
    return set_control(DEFAULT)


def control():
    return CONTROL.read_text().strip()


def set_control(name):
    if name not in AVAILABLE.read_text().split():
        return False
    try:
        CONTROL.write_text(name)
    except OSError:
        return False
    return True


def unshare(flags):
    return ctypes.CDLL(None, use_errno=True).unshare(flags) == 0


def unshare_as_user():
    """A namespace without being root: inside a user namespace in which only this user exists."""
    user, group = os.geteuid(), os.getegid()
    if not unshare(CLONE_NEWUSER | CLONE_NEWNET):
        return False
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    return True


def raise_loopback():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14x", b"lo", 0)
        flags, = struct.unpack_from("H", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request), 16)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))
