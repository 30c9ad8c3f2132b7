"""What is measured of each system: a row each.

A row's `measure(system, seconds)` gives its figures, or {} where the system can't do that. What is measured `once`
comes after all rounds of the others.
"""
import dataclasses
import itertools
import statistics
import subprocess
import threading
import time
from collections.abc import Callable

import transaction
import ZEO
import ZODB
from BTrees.OOBTree import OOBTree

from objects import Cell, Counter
from zrs_cluster import wait_for

# How many objects the systems hold, of 600 bytes, and how many of these are loaded.
STORED, LOADED = 100_000, 2_000
# Objects that are packed, each stored twice; each transaction stores so many.
PACKED, BATCH = 50_000, 500


@dataclasses.dataclass
class Row:
    title: str
    # The figure that systems are compared by; whether more of it is better.
    figure: str
    more: bool
    measure: Callable
    # Others that are shown, with their words.
    beside: dict = dataclasses.field(default_factory=dict)
    digits: int = 0
    once: bool = False


LATENCIES = {'p50_ms': 'p50 {:.2f} ms', 'p99_ms': 'p99 {:.2f} ms'}
COSTS = {'cpu_us': '{:,.1f} µs CPU'}


def loads(connections, pipeline=1):
    title = f'loads/s, {connections} connection' + 's' * (connections > 1)
    title += f' x {pipeline} pipelined' * (pipeline > 1)
    return Row(title, 'per_second', True, lambda system, seconds: system.load(
        'loads', connections=connections, pipeline=pipeline, seconds=seconds), LATENCIES | COSTS)


def commits(connections):
    title = f'commits/s, {connections} connection' + 's' * (connections > 1)
    return Row(title, 'per_second', True, lambda system, seconds: system.load(
        'commits', connections=connections, seconds=seconds), LATENCIES | COSTS | {'syncs': '{:.2f} fsyncs'})


def mixed(system, seconds):
    return system.load('mixed', connections=64, seconds=seconds)


def news(system, seconds):
    return system.load('news', connections=100, seconds=seconds)


def filling(system, seconds):
    found = system.load('commits', connections=1, writes=100, size=16_384, seconds=seconds)
    return {'mb_per_second': found['per_second'] * 100 * 16_384 / 1e6, **found} if 'per_second' in found else found


def memory(system, seconds):
    """After `prepare` and some loads."""
    system.load('loads', connections=8, seconds=1)
    return {'mb': system.memory() / 1e6}


def clients_of(system):
    """The addresses for a Python client, if the system serves any."""
    return None if system.kind == 'floor' else system.cluster.addresses if system.cluster else [system.address()]


def python_client(system, seconds):
    """One unchanged client that counts through ZODB."""
    addresses = clients_of(system)
    if addresses is None:
        return {}
    db = ZODB.DB(ZEO.client(addresses, wait_timeout=30))
    connection = db.open()
    connection.root()['counted'] = counter = Counter()
    transaction.commit()
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        counter.increment()
        transaction.commit()
        count += 1
    connection.close()
    db.close()
    return {'per_second': count / seconds}


def packing(system, seconds):
    """Packs objects of which each has an older revision, while eight clients commit."""
    addresses = clients_of(system)
    if addresses is None:
        return {}
    db = ZODB.DB(ZEO.client(addresses, wait_timeout=30), cache_size=2 * PACKED)
    connection = db.open()
    connection.root()['packed'] = tree = OOBTree()
    for turn in range(2):
        for first in range(0, PACKED, BATCH):
            for n in range(first, first + BATCH):
                if turn:
                    tree[n].value = 'again'
                else:
                    tree[n] = Cell('x' * 500)
            transaction.commit()
    command = [system.program, 'commits', '--address', '%s:%d' % system.address(), '--connections', '8', '--seconds', '600']
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as load:
        try:
            time.sleep(1)
            began = time.monotonic()
            db.storage.pack(time.time(), wait=True)
            took = time.monotonic() - began
        finally:
            load.kill()
    connection.close()
    db.close()
    return {'seconds': took}


def failover(system, kills):
    """How long an unchanged client that writes all the time is without an answer when the primary is killed."""
    if system.kind != 'three' or not kills:
        return {}
    cluster = system.cluster
    db = ZODB.DB(ZEO.client(cluster.addresses, wait_timeout=30))
    with db.transaction() as connection:
        connection.root()['bench'] = Counter()
    answered = [time.monotonic()]
    stopping = threading.Event()

    def write():
        while not stopping.is_set():
            try:
                with db.transaction() as connection:
                    connection.root()['bench'].increment()
                answered.append(time.monotonic())
            except transaction.interfaces.TransientError:
                pass

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    pauses = []
    for _ in range(kills):
        time.sleep(1)
        primary = cluster.wait_primary()
        seen = len(answered)
        primary.kill()
        # (One answer may have been on its way when the primary died.)
        wait_for('the client to go on', lambda: len(answered) >= seen + 2, 60)
        pauses.append(max(after - before for before, after in itertools.pairwise(answered[seen - 1:])))
        primary.start()
        cluster.wait_ready()
    stopping.set()
    writer.join(40)
    db.close()
    return {'median': statistics.median(pauses), 'most': max(pauses), 'kills': len(pauses), 'pauses': pauses}


ROWS = {
    'loads 1': loads(1),
    'loads 8': loads(8),
    'loads 64': loads(64),
    'loads 8x16': loads(8, 16),
    'commits 1': commits(1),
    'commits 8': commits(8),
    'commits 64': commits(64),
    'mixed': Row('mixed, 64 connections (8 commit): loads/s', 'per_second', True, mixed,
                 LATENCIES | {'commits_per_second': '{:,.0f} commits/s'}),
    'news': Row('news of a commit to 100 clients, p50 ms', 'p50_ms', False, news, {'p99_ms': 'p99 {:.2f} ms'}, 2),
    'fill': Row('fill (1.6 MB a transaction), MB/s', 'mb_per_second', True, filling, {}, 1),
    'python': Row('one Python client through ZODB: commits/s', 'per_second', True, python_client),
    'memory': Row(f'memory, {STORED:,} objects of 600 bytes, MB', 'mb', False, memory, once=True),
    'pack': Row(f'pack of {PACKED:,} objects under load, s', 'seconds', False, packing, {}, 1, once=True),
    'failover': Row('failover of a connected stock client, s', 'median', False, failover,
                    {'most': 'at most {:.2f}', 'kills': 'of {} kills'}, 2, once=True),
}


def prepare(system):
    """Stores the objects that are loaded, among many others."""
    system.load('fill', objects=STORED)
