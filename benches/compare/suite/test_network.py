"""The run's own network namespace: `python3 -m unittest discover -s benches/compare -p 'test_*.py'`."""

import os
import socket
import unittest

from suite.network import DEFAULT, Network, control


def inside(look):
    """What `look` says in a child that has made itself a network; a test's own must stay as it is."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, repr(look()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text


def loopback():
    network = Network()
    if not network.own:
        return None
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
    before = control()
    with network.under("reno"):
        inside = control()
    return before, inside, control()


def unknown():
    network, before = Network(), control()
    try:
        with network.under("no-such-control"):
            return "was taken"
    except ValueError:
        return network.can("no-such-control"), control() == before


class Own(unittest.TestCase):
    def test_it_has_a_loopback_and_other_controls_for_a_while(self):
        before = control()
        said = inside(loopback)
        if said == "None":
            self.skipTest("no network namespace may be made here")
        self.assertEqual(said, repr((DEFAULT, "reno", DEFAULT)))
        self.assertEqual(control(), before)

    def test_a_control_the_kernel_lacks_is_refused_and_nothing_changed(self):
        self.assertEqual(inside(unknown), repr((False, True)))

    def test_the_hosts_network_is_named_as_such(self):
        self.assertEqual(inside(lambda: Network(wanted=False).words()),
                         repr(f"{control()} for congestion control, as the host has it"))
