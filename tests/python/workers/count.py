"""Unchanged clients that count under whatever is done to the servers, and the check that nothing was lost.

    count.py setup NAMES ADDRESS...        the counters; NAMES are joined by commas
    count.py run NAME ADDRESS...           counts until its input ends; a line for each answer, a line of JSON at the
    end count.py check NAMES ADDRESS...        the values, and whether they agree with each other

Each transaction of a client adds one to its own counter, one to a counter that all share and whose conflicts are
resolved, and, each third time, one to a cell that all share and whose conflicts are not, so that the client must try
again; and to its own count of these. So whatever happens:

    acknowledged <= own <= acknowledged + unknown     for each client: no answered commit is lost, none is made up
    shared == sum of own, hot == sum of own hot       transactions are whole, and no update is lost
"""
import json
import logging
import os
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import transaction
import ZEO
import ZODB
from ZEO.Exceptions import ClientDisconnected

from objects import Cell, Counter


def database(addresses):
    read_only = addresses[0].startswith('ro:')
    pairs = [address.removeprefix('ro:').rsplit(':', 1) for address in addresses]
    return ZODB.DB(ZEO.client([(host, int(port)) for host, port in pairs], read_only=read_only, wait_timeout=30))


def in_a_transaction(db, work):
    """What `work` gives for the root; again after an election, as an application would."""
    deadline = time.monotonic() + 30
    while True:
        try:
            with db.transaction() as connection:
                return work(connection.root())
        except (transaction.interfaces.TransientError, ClientDisconnected):
            if time.monotonic() > deadline:
                raise
            time.sleep(.05)


def setup(names, *addresses):
    db = database(addresses)

    def make(root):
        root['shared'] = Counter()
        root['hot'] = Cell(0)
        for name in names.split(','):
            root[name] = Cell(0)
            root[name + '-hot'] = Cell(0)
    in_a_transaction(db, make)
    return {'last_tid': db.lastTransaction().hex()}


def run(name, *addresses):
    db = database(addresses)
    counted = dict(name=name, acknowledged=0, unknown=0, conflicts=0, disconnected=0, errors=[], longest=0)
    finish = db.storage.tpc_finish

    def tpc_finish(*args):
        try:
            return finish(*args)
        except ClientDisconnected:
            counted['unknown'] += 1  # it may have been committed or not
            print('unknown', flush=True)
            raise

    db.storage.tpc_finish = tpc_finish
    stopping = threading.Event()

    def wait_for_end():
        sys.stdin.read()
        stopping.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    turn = 0
    last = time.monotonic()
    while not stopping.is_set():
        turn += 1
        try:
            with db.transaction() as connection:
                root = connection.root()
                root[name].value += 1
                root['shared'].increment()
                if turn % 3 == 0:
                    root['hot'].value += 1
                    root[name + '-hot'].value += 1
            counted['acknowledged'] += 1
            now = time.monotonic()
            counted['longest'] = max(counted['longest'], now - last)
            print(f'ack {counted["acknowledged"]} {now - last:.3f}', flush=True)
            last = now
        except ClientDisconnected:
            counted['disconnected'] += 1
        except transaction.interfaces.TransientError:
            counted['conflicts'] += 1
        except Exception as e:
            counted['errors'].append(repr(e))
            time.sleep(.1)
        time.sleep(.005)
    return counted


def check(names, *addresses):
    db = database(addresses)

    def look(root):
        own = {name: root[name].value for name in names.split(',')}
        hot = {name: root[name + '-hot'].value for name in names.split(',')}
        return own, hot, root['shared'].value, root['hot'].value
    own, hot, shared, all_hot = in_a_transaction(db, look)
    return dict(own=own, shared=shared, hot=all_hot, own_hot=hot, last_tid=db.lastTransaction().hex(),
                whole=shared == sum(own.values()) and all_hot == sum(hot.values()))


if __name__ == '__main__':
    logging.disable(logging.CRITICAL)  # what happens is counted
    print(json.dumps({'setup': setup, 'run': run, 'check': check}[sys.argv[1]](*sys.argv[2:])), flush=True)
    os._exit(0)
