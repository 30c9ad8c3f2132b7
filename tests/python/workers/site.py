"""A real Plone site as test data: its records copied into a server by stock ZODB, and read back.

    site.py unpack ARCHIVE FOLDER          FOLDER/plone-site/Data.fs
    site.py load DATA.FS ADDRESS...        copyTransactionsFrom, records only: stock ZEO cannot restore blobs
    site.py pack ADDRESS...                packs to this moment, and waits for it
    site.py pack-begin ADDRESS...          begins to
    site.py digest DATA.FS ADDRESS...      the digests of plone-site.truth.json, and what differs from the file

An ADDRESS is HOST:PORT; `ro:` before the first makes the client read-only. Prints one line of JSON.
"""
import hashlib
import json
import os
import sys
import tarfile
import time

import ZEO
from ZEO.Exceptions import ClientDisconnected
from ZODB.FileStorage import FileStorage
from ZODB.POSException import POSKeyError

ROOT = b'\0' * 8


class Records:
    """A storage whose blobs nobody finds, so that `copyTransactionsFrom` copies the records alone."""

    def __init__(self, storage):
        self.iterator = storage.iterator

    def loadBlob(self, oid, serial):
        raise POSKeyError(oid)


def client(addresses):
    read_only = addresses[0].startswith('ro:')
    pairs = [address.removeprefix('ro:').rsplit(':', 1) for address in addresses]
    return ZEO.client([(host, int(port)) for host, port in pairs], read_only=read_only, wait_timeout=30)


def unpack(archive, folder):
    with tarfile.open(archive) as tar:
        wanted = [m for m in tar.getmembers() if os.path.basename(m.name) == 'Data.fs' and m.isfile()]
        tar.extractall(folder, wanted, filter='data') if hasattr(tarfile, 'data_filter') else tar.extractall(folder, wanted)
    return {'unpacked': [m.name for m in wanted]}


def load(path, *addresses):
    source = FileStorage(path, read_only=True)
    storage = client(addresses)
    began = time.monotonic()
    storage.copyTransactionsFrom(Records(source))
    return {'seconds': round(time.monotonic() - began, 2), 'last_tid': storage.lastTransaction().hex()}


def pack(*addresses):
    storage = client(addresses)
    began = time.monotonic()
    storage.pack(time.time())
    return {'seconds': round(time.monotonic() - began, 2), 'length': len(storage), 'size': storage.getSize()}


def pack_begin(*addresses):
    """Returns when some of it has gone; a primary that is lost meanwhile is looked for again."""
    storage = client(addresses)
    before = len(storage.history(ROOT, 1000))
    storage.pack(time.time(), wait=False)
    deadline, left = time.monotonic() + 30, before
    while left == before and time.monotonic() < deadline:
        try:
            left = len(storage.history(ROOT, 1000))
        except ClientDisconnected:
            time.sleep(0.05)
    return {'began': left < before}


def digest(path, *addresses):
    """What truth.py works out of a file, out of a server."""
    source = FileStorage(path, read_only=True)
    storage = client(addresses)
    history, current = hashlib.sha256(), hashlib.sha256()
    counts = dict(transactions=0, records=0, record_bytes=0, loadable=0)
    oids, differences = set(), []
    expected = source.iterator()
    for transaction in storage.iterator():
        counts['transactions'] += 1
        history.update(transaction.tid)
        other = next(expected, None)
        for name in 'tid', 'status', 'user', 'description', 'extension':
            here, there = getattr(transaction, name), getattr(other, name, None)
            if here != there and len(differences) < 5:
                differences.append(f'{name} of {transaction.tid.hex()} is {here!r}, should be {there!r}')
        for record in transaction:
            counts['records'] += 1
            oids.add(record.oid)
            history.update(record.oid)
            history.update(record.data or b'')
            counts['record_bytes'] += len(record.data or b'')
            if record.tid != transaction.tid and len(differences) < 5:
                differences.append(f'a record of {transaction.tid.hex()} says {record.tid.hex()}')
    for oid in sorted(oids):
        try:
            data, serial = storage.load(oid)
        except POSKeyError:
            continue
        counts['loadable'] += 1
        current.update(oid + serial + data)
    return dict(counts, objects=len(oids), last_tid=storage.lastTransaction().hex(), history_sha256=history.hexdigest(),
                current_sha256=current.hexdigest(), differences=differences)


if __name__ == '__main__':
    print(json.dumps({'unpack': unpack, 'load': load, 'pack': pack, 'pack-begin': pack_begin, 'digest': digest}[sys.argv[1]](*sys.argv[2:])), flush=True)
    os._exit(0)
