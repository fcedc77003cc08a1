"""Machines on real network segments, without asking anybody: network namespaces of Linux, joined by bridges.

    with Lan() as lan:
        ann, bob = lan.machine("one"), lan.machine("one", "two")      # their segments, by name
        Program("ann", "--lan", before=ann.enter)

Everything ends with the Lan. Raises NoNamespaces where the system allows none; a test skips then, and says why.
"""

import ctypes
import os
import subprocess

LIBC = ctypes.CDLL(None, use_errno=True)


class NoNamespaces(Exception):
    """The text says why there are none."""


class Machine:
    """A network of its own: loopback, and eth0, eth1 ... on its segments, as 10.0.x.y."""

    def __init__(self, lan, process):
        self.lan, self.process = lan, process
        self.hosts = []  # its IPv4 addresses
        self.ports = []  # its plugs in the segments' bridges

    def ip(self, words):
        """`ip` of these words on this machine. Returns what it prints."""
        return self.lan.run(["nsenter", "-t", str(self.process), "-n", "ip", *words.split()])

    def enter(self):
        """Have this process, which has one thread, live on this machine from now on."""
        for kind in "user", "net":
            descriptor = os.open(f"/proc/{self.process}/ns/{kind}", os.O_RDONLY)
            if LIBC.setns(descriptor, 0):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            os.close(descriptor)


class Lan:
    """Segments, each a bridge in a namespace of its own, and machines on them."""

    def __init__(self):
        self.machines, self.segments = [], []
        try:
            self.shell = subprocess.Popen(["unshare", "-rn", "sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                          stderr=subprocess.STDOUT, text=True, bufsize=1)
        except OSError as error:
            raise NoNamespaces(str(error)) from None
        try:
            self.run(["ip", "link", "add", "probe", "type", "bridge"])
        except (AssertionError, OSError) as error:
            self.close()
            raise NoNamespaces(f"no network namespaces: {error}") from None

    def run(self, words):
        """A command in the namespace of the segments. Returns what it prints; fails if it does."""
        self.shell.stdin.write(" ".join(words) + " 2>&1 </dev/null; echo \"status $?\"\n")
        lines = []
        for line in self.shell.stdout:
            if line.startswith("status "):
                assert line == "status 0\n", f"{' '.join(words)}: {''.join(lines)}"
                return "".join(lines)
            lines.append(line)
        raise AssertionError(f"{' '.join(words)}: {''.join(lines)}")

    def machine(self, *segments, ipv4=True):
        """A new machine on these segments."""
        process = self.run(["unshare", "-n", "sleep", "1000", ">/dev/null", "&", "echo", "$!"]).strip()
        machine = Machine(self, int(process))
        self.machines.append(machine)
        own = os.readlink(f"/proc/{self.shell.pid}/ns/net")
        while os.readlink(f"/proc/{process}/ns/net") == own:
            pass  # unshare is at it
        self.run(["nsenter", "-t", process, "-n", "sh", "-c", "'echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad'"])
        machine.ip("link set lo up")  # and no second of waiting until an IPv6 address may be used
        for number, segment in enumerate(segments):
            self._plug(machine, f"eth{number}", segment, ipv4)
        return machine

    def _plug(self, machine, name, segment, ipv4):
        if segment not in self.segments:
            self.segments.append(segment)
            self.run(f"ip link add {segment} type bridge mcast_snooping 0".split())
            self.run(f"ip link set {segment} up".split())
        far, count = f"v{machine.process}{name}"[-15:], self.machines.index(machine) + 1
        self.run(f"ip link add {far} type veth peer name {name} netns {machine.process}".split())
        self.run(f"ip link set {far} master {segment} up".split())
        machine.ports.append(far)
        if ipv4:
            machine.hosts.append(f"10.0.{self.segments.index(segment) + 1}.{count}")
            machine.ip(f"addr add {machine.hosts[-1]}/24 dev {name}")
        machine.ip(f"link set {name} up")

    def close(self):
        for machine in self.machines:
            self.shell.stdin.write(f"kill {machine.process}\n")
        self.shell.communicate()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
