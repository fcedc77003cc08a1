"""Which rare branches of the network a run reached: peers.sometimes says each (as Antithesis's "sometimes assertions").

A random run that never fills a hole cannot find a fault in it. So the runs of the suite must reach every branch
together, and a hunt says which it has not.
"""

import re
from collections import Counter

import peers

with open(peers.__file__, encoding="utf-8") as _file:
    ALL = sorted(set(re.findall(r'"([^"]+)"', " ".join(re.findall(r"^ +sometimes\((.+)\)$", _file.read(), re.MULTILINE)))))

reached = Counter()


def watch():
    """Count from now on, in `reached`."""
    peers.sometimes = lambda branch: reached.update((branch,))


def missing():
    """The branches that nothing has reached."""
    return [branch for branch in ALL if not reached[branch]]
