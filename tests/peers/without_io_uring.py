"""Runs a program in which io_uring is forbidden, as container profiles forbid it (EPERM)."""

import ctypes
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
IO_URING_SETUP = 425
ALLOW = 0x7FFF0000
EPERM = 0x00050000 | 1


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def step(code, yes, no, value):
    return struct.pack("HBBI", code, yes, no, value)


steps = [
    step(0x20, 0, 0, 0),  # load the number of the call
    step(0x15, 0, 1, IO_URING_SETUP),  # is it io_uring_setup?
    step(0x06, 0, 0, EPERM),
    step(0x06, 0, 0, ALLOW),
]
code = ctypes.create_string_buffer(b"".join(steps))
program = Program(len(steps), ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
zero = ctypes.c_ulong(0)
if libc.prctl(PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero) != 0:
    sys.exit("no_new_privs was refused")
if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), zero, zero) != 0:
    sys.exit("seccomp was refused")
os.execv(sys.argv[1], sys.argv[1:])
