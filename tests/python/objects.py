"""Persistent classes for the tests, and what they look like as records."""
from persistent import Persistent
from ZODB.serialize import ObjectWriter


class Cell(Persistent):
    """Holds a value; two changes of it conflict."""

    def __init__(self, value=None):
        self.value = value


class Counter(Persistent):
    """Counts; two increments are resolved into one more each."""

    value = 0

    def increment(self, by=1):
        self.value += by

    def _p_resolveConflict(self, old, committed, newer):
        committed['value'] = committed.get('value', 0) + newer.get('value', 0) - old.get('value', 0)
        return committed


def record(value):
    """The data of an object that holds `value`."""
    return ObjectWriter().serialize(Cell(value))


def counter_record(value):
    counter = Counter()
    counter.value = value
    return ObjectWriter().serialize(counter)
