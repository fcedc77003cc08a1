"""Whole programs on real networks: machines and segments of lan.py. Finding each other without a port number: test_discovery.py."""

from helpers import Program, until


def link_local(machine, name="eth0"):
    """Its link-local address there, as its own user would write it."""
    words = machine.ip(f"-6 addr show dev {name} scope link").split()
    return words[words.index("inet6") + 1].partition("/")[0] + "%" + name


def linked(program):
    """To how many others it has a mesh link."""
    before = len(program.err)
    program.type(":links", ":who")
    program.wait(lambda program: len(program.err) > before and " here" in program.err[-1])
    return sum(": mesh" in line for line in program.err[before:])


def hears(program, line):
    program.wait(lambda program: any(out.endswith(line) for out in program.out))


def test_members_who_joined_by_a_link_local_address_stay_together_when_that_one_dies(segments):
    """History: everybody kept one link, since the interface of a neighbour's address was lost, and then none."""
    machines = [segments.machine("left", ipv4=False) for _ in range(3)]
    with Program("ann", "--bind", link_local(machines[0]), before=machines[0].enter) as ann:
        ann.wait(lambda program: f"-- join: ./p2pchat NAME {link_local(machines[0])} {ann.port}" in program.err)
        where = link_local(machines[0]), ann.port
        with Program("bob", *where, before=machines[1].enter) as bob, Program("cy", before=machines[2].enter) as cy:
            cy.wait(lambda program: f"-- join: ./p2pchat NAME {link_local(machines[2])} {cy.port}" in program.err)  # though there is no IPv4
            cy.type(":connect {} {}".format(*where))
            until(lambda: linked(bob) == linked(cy) == 2, seen=lambda: (bob.err, cy.err))
            ann.kill()
            bob.type("still here?")
            hears(cy, "bob: still here?")
            cy.wait(lambda program: any("lost contact with ann" in line for line in program.err))


def test_a_member_joins_ipv4_only_and_ipv6_only_members_of_two_segments_with_small_packets(segments):
    old, hub, new = segments.machine("left"), segments.machine("left", "right"), segments.machine("right", ipv4=False)
    old.ip("link set eth0 mtu 576")
    with Program("hub", before=hub.enter) as program:
        with Program("old", hub.hosts[0], program.port, before=old.enter) as one:
            with Program("new", link_local(hub, "eth1").partition("%")[0] + "%eth0", program.port, before=new.enter) as other:
                text = " ".join(["long"] * 2000)
                one.type(text)
                hears(other, "old: " + text)
                other.type("me too")
                hears(one, "new: me too")


def test_a_new_address_of_our_own_is_noticed_at_the_next_ping(segments):
    """History: 40 to 45 seconds of silence, with no sign."""
    still, roams = segments.machine("left"), segments.machine("left")
    with Program("ann", before=still.enter) as ann, Program("bob", still.hosts[0], ann.port, before=roams.enter) as bob:
        until(lambda: linked(bob) == 1)
        roams.ip("addr flush dev eth0")
        roams.ip("addr add 10.0.1.77/24 dev eth0")
        bob.type("from elsewhere")
        hears(ann, ": from elsewhere")
        ann.type("heard")
        hears(bob, "ann: heard")
        bob.type(":links")
        bob.wait(lambda program: any(": mesh" in line for line in program.err[-3:]))
