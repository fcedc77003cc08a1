"""The tests import the program's modules from the directory above; and what more than one of them needs."""

import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.fixture
def members():
    """members("ann", "bob") starts whole programs, turned in this process; all are ended after the test."""
    from helpers import Member  # not before the path is set

    started = []

    def start(*names):
        started.extend(Member(name) for name in names)
        return started[-len(names):]

    yield start
    for member in started:
        member.kill()
