"""The oracle of the simulator: what a network has to show its users, judged from outside.

Knows: who said what, who lives, who can reach whom; and what each screen has shown. Of a member's Network
it reads only what a user could: the lines, the notices, and whom :who lists. (check_bounds alone looks inside.)
Leaves out: how bytes travel (world.py), who takes part (nodes.py), and what happens to a network (faults.py).
"""

from collections import Counter

import message
import peers
from peers import LinkKind, Notice


class Violation(AssertionError):
    """The network broke one of its promises."""


def render(notice):
    """A Notice, as its user reads it."""
    return notice.words.format(*(part.decode("utf-8", "replace") if isinstance(part, bytes) else part for part in notice.parts))


class Oracle:
    """What holds in a World. Each line names the two lines that its author had read last: they must be shown before it."""

    def __init__(self):
        self.said, self.names = {}, set()
        self.parts = {}  # of what was said, as a C program sees it -> the whole
        self.tainted = False  # two members reach each other through C programs: no order is promised then
        self.strict, self.gaps = True, False  # whether only what was said is shown; whether a log was too small for some
        self.two_ways = False  # two members lead to one C program, and cables are cut: a C user's line has no identity
        self.forged = set()  # idents in whose name a liar spoke: what that covered is said again, perhaps twice
        self.carried = set()  # idents of members of whom C programs brought lines
        self.forgeries = set()  # (origin, sequence) under which a liar spoke
        self.repeats = None  # a Counter where a test counts what is shown again
        self.extra = []  # shown, not said by the oracle's authors
        self.stats = None

    # What screens show

    def shows(self, member, event, text):
        """A member's screen shows this text of a Show."""
        known = self.said.get(text) or self._of_parts(member, text)
        if self.strict and known is None and text not in self.parts:
            raise Violation(f"{member} shows what nobody said: {event.name!r}: {text[:60]!r}")
        if known is None:
            self.extra.append((member, text))
            return
        (author, number), refs, when = known
        if self.trace:
            self.trace(f"{member} shows {author}.{number}" + " (earlier)" * bool(event.earlier))
        if (author, number) in member.seen:
            by_two_ways = (self.two_ways or self.forged) and self.nodes[author].is_c
            if self.repeats is None and author not in self.forged and not by_two_ways:
                raise Violation(f"{member} shows {author}.{number} twice")
            if self.repeats is not None:
                self.repeats[member, author, number] += 1
            return
        member.seen.add((author, number))
        last = member.last.get(author, 0)
        # It fills a hole, or is said again: a log was too small, or a forgery covered what a gateway of C users said.
        is_late = self.gaps and event.earlier or self.forged and self.nodes[author].is_c
        if self.tainted or author in self.forged:
            member.last[author] = max(number, last)
            member.showed((author, number))
        elif number > last or not is_late:
            self._note_carried(member, author)
            if author not in self.carried:
                self._in_order(member, (author, number), refs, last)
            member.last[author] = max(number, last)
            member.showed((author, number))
            member.shown += 1
            if self.stats is not None:
                self.stats.showed(member, (author, number), when)

    def _note_carried(self, member, author):
        """C programs bring a member's line where the mesh cannot: it, and what is told of it, keeps no order with the rest."""
        came_later = member.source is None  # a member first waits whether the mesh brings it
        if author != member.ident and not self.nodes[author].is_c and (came_later or member.source.neighbour.kind is LinkKind.PLAIN):
            self.carried.add(author)

    def _of_parts(self, member, part):
        """What was said, once all parts of it are shown: a C program carries a long text in pieces."""
        whole = self.parts.get(part)
        if whole is None:
            return None
        shown = member.parts.setdefault(whole, set())
        shown.add(part)
        return self.said.get(whole) if shown.issuperset(message.plain_texts(whole)) else None

    def _in_order(self, member, ident, refs, last):
        author, number = ident
        writer = self.nodes[author]
        if number <= last:
            raise Violation(f"{member} shows {author}.{number} again or late: it had shown {last}")
        if self.gaps:
            return
        if number != last + 1 and not writer.is_c:
            raise Violation(f"{member} shows {author}.{number} after {author}.{last}: a gap")
        is_covered = writer.is_c and self.forged  # its gateway may have been forged, and said it again
        for other, ref in refs if writer.causal and not is_covered else ():
            if member.last.get(other, 0) < ref and other not in self.forged | self.carried:
                raise Violation(f"{member} shows {author}.{number} before {other}.{ref}, which it answers")

    def told(self, member, event):
        """A member's screen shows this Notice."""
        if self.trace:
            self.trace(f"{member} notice: {render(event)}")
        if member.notices and self.stats is None:  # not worth ending a long report
            when, words, parts = member.notices[-1]
            is_answer = "connect" in words and parts and member.asked[parts[0]] > 1 or "missing" in words  # asked twice; others are missing
            had_two_origins = parts and parts[0] in {self.nodes[ident].name for ident in self.forged}  # each of which may be lost
            if words == event.words and parts == event.parts and self.now - when < 5 and parts and not (is_answer or had_two_origins):
                raise Violation(f"{member} is told twice: {render(event)}")
        member.notices.append((self.now, event.words, event.parts))
        here = {"{} joined": True, "{} is back": True, "{} left": False}.get(event.words)
        if event.words.startswith("lost contact with {}; "):
            here = False
        if here is None and any(word in event.words for word in (" joined", " left", "back", "lost contact with")):
            member.presence.clear()  # of several, of whom not all are named
        if here is not None:
            label = event.parts[0]
            is_shared = sum(other.name == label for other in self.members) > 1  # who lost one of two namesakes calls the other by the name alone
            if member.presence.get(label) is here and self.strict and not is_shared:
                raise Violation(f"{member} is told twice that somebody came or went: {render(event)}")
            member.presence[label] = here

    def c_shows(self, peer, name, text):
        """A C program's screen shows this line."""
        if self.strict and (name not in self.names or text not in self.parts):
            raise Violation(f"{peer} got what nobody said: {name!r}: {text[:60]!r}")
        peer.lines.append((name, text))
        if self.trace:
            self.trace(f"{peer} (C) shows {name!r}: {text[:30]!r}")
        known = self.said.get(text)
        if known is None:
            return
        author, number = known[0]
        peer.last[author] = max(peer.last.get(author, 0), number)
        peer.showed(known[0])
        times = peer.shown_times[text] = peer.shown_times.get(text, 0) + 1
        # A C user's line has no identity: whoever tells it while cables are cut, and is heard later, may bring it again.
        if times > peer.most_times + 2 * (self.two_ways and self.nodes[known[0][0]].is_c) and self.strict:
            raise Violation(f"{peer} (C) shows {text[:30]!r} {times} times")

    # Who holds together

    def components(self, members=None):
        """Groups of living members that hold together by mesh links which both ends know."""
        members = self.members if members is None else members
        left = dict.fromkeys(members)
        groups = []
        while left:
            first = next(iter(left))
            del left[first]
            group, todo = [first], [first]
            while todo:
                for other in todo.pop().mesh():
                    if other in left:
                        del left[other]
                        group.append(other)
                        todo.append(other)
            groups.append(group)
        return sorted(groups, key=len, reverse=True)

    def is_one(self, members=None):
        """One component."""
        return len(self.components(members)) <= 1

    # What must hold, once it is quiet

    def check_complete(self, authors=None, readers=None):
        """Each reader has shown all that each author said. Order, causes and doubles were checked as they came."""
        authors = [member for member in self.members if not member.stopped] if authors is None else authors
        readers = authors if readers is None else readers
        for reader in readers:
            for author in authors:
                self._check_shown(reader, author)

    def _check_shown(self, reader, author):
        # A forgery that fell out of all logs, which were too small, before its author saw it.
        is_hidden = self.gaps and author.number and author.records[author.number][:2] in self.forgeries
        if reader.last.get(author.ident, 0) != author.number and not is_hidden:
            raise Violation(f"{reader} has shown {reader.last.get(author.ident, 0)} of {author}'s {author.number} messages")
        if (author.ident in self.forged or self.tainted) and reader is not author and not self.gaps:
            missing = set(range(1, author.number + 1)) - {number for ident, number in reader.seen if ident == author.ident}
            missing = {number for number in missing if not self._is_hidden(reader, author, number)}
            if missing:
                raise Violation(f"{reader} lacks {author}'s {sorted(missing)}")

    def _is_hidden(self, reader, author, number):
        """Whether the reader holds a liar's record for this one, and has no way to know (a limit: nothing is signed).

        A liar and the author used one number in two parts of the network. Version vectors count records and do not compare
        them. Only two who are linked compare what one of them wrote: all since they were linked before, else of a minute.
        """
        origin, sequence, when = author.records[number]
        links = [at for own in {origin, author.network.author.origin} for at in reader.network.met_at.get(own, ())]
        soon = any(when <= at <= when + peers.RESAY_SECONDS for at in links)
        again = min(links, default=when) < when and (max(links) >= when or author in reader.mesh())
        return (origin, sequence) in self.forgeries and not soon and not again

    def check_agreement(self, authors, readers):
        """What one of the readers has shown of these authors, who may be dead, all have."""
        for author in authors:
            last = {reader: reader.last.get(author.ident, 0) for reader in readers}
            if len(set(last.values())) > 1:
                raise Violation(f"they disagree on what {author} said: {last}")

    def check_who(self, members=None):
        """Each of these lists exactly the others of them. Of whom a liar invents nothing is said."""
        wrong = self.wrongly_listed(members)
        if wrong:
            raise Violation(wrong)

    def wrongly_listed(self, members=None):
        """One sentence on the first who lists others wrongly; None: nobody does."""
        members = self.members if members is None else members
        alive = {member.network.author.origin: member for member in members}
        for member in members:
            listed = {person.key for person in member.network.who() if person.is_member}
            for origin, other in alive.items():
                if other is not member and origin not in listed:
                    return f"{member} does not list {other}, who is here"
            for key in listed:
                if self.gaps and self.named(key) in members:
                    continue  # that this origin was given up no longer was in the log; the next roll call will tell
                if key not in alive and (self.strict or self.named(key) is not key):
                    return f"{member} lists {self.named(key)}, who is gone"
        return None

    def named(self, origin):
        """Which member has, or had, this origin."""
        return next((node for node in self.nodes.values()
                     if hasattr(node, "network") and node.network.author.is_ours(origin)), origin)

    def check_double_links(self):
        """Nobody is linked twice to one other."""
        for member in self.members:
            doubles = [node for node, count in Counter(member.mesh()).items() if count > 1]
            if doubles:
                raise Violation(f"{member} is linked twice to {doubles}")

    def check_bounds(self):
        """What a member keeps is bounded, whatever others do."""
        for member in self.members:
            network = member.network
            links = len({neighbour.origin for neighbour in network.neighbours if neighbour.kind is LinkKind.MESH and not neighbour.ending})
            sizes = {
                "mesh links": (links, peers.MAX_MESH_LINKS),
                "book": (len(network.overlay.book.heard), peers.MAX_BOOK),
                "friends": (len(network.overlay.book.friends), peers.MAX_FRIENDS),
                "sought": (len(network.overlay._sought), peers.MAX_BOOK),
                "tried": (len(network.overlay._tried), peers.MAX_FRIENDS + len(network.contacts)),
                "shunned": (len(network.overlay.book.shunned), peers.MAX_BOOK),
                "members": (len(network.presence.people), peers.MAX_MEMBERS),
                "suspects": (len(network.presence._suspects), peers.MAX_MEMBERS),
                "chat in the log": (network.log._chat, message.LOG_MESSAGES),
                "holes": (network.log.holes.count, message.MAX_HOLES),
                "words": (len(network.bridge._words._lines), peers.MAX_WORDS),
                "links of the harness": (len(member.ends), len(network.neighbours)),
                "dials": (len(network.overlay.attempts), peers.MAX_DIALS + len(network.contacts) + 1),
                "actions": (len(network.actions), 0),
            }
            for what, (count, most) in sizes.items():
                if count > most:
                    raise Violation(f"{member}: {count} {what}, {most} at most")


def said_notices(member):
    """The notices that a member's user has read."""
    return [render(Notice(words, parts)) for _, words, parts in member.notices]
