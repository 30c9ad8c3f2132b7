"""FileStorages as test data, and how two of them differ.

    datafs.py make FOLDER                          FOLDER/Data.fs and FOLDER/blobs, with everything that such a file
    can have datafs.py compare DATA.FS BLOBS DATA.FS BLOBS  what differs, by FileStorage's own word; '' for no folder
    of blobs datafs.py copy DATA.FS NEW.FS                  copyTransactionsFrom, records only; how long it took
    datafs.py client DATA.FS BLOBS ADDRESS...      a stock client of a server that holds the same: current data and
    blobs are the
                                                   file's; then it writes, a blob too
    datafs.py pack ADDRESS...                      commits and packs through a stock client; statuses and undo log as
    it sees them datafs.py undoable DATA.FS                     the same, of a file datafs.py refused DATA.FS
    opens it for writing, so that a crash's remains are cut off

Prints one line of JSON.
"""
import json
import os
import sys
import tempfile
import time

import transaction
import ZEO
import ZODB
from persistent.mapping import PersistentMapping
from ZODB.blob import Blob, is_blob_record
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage
from ZODB.POSException import POSKeyError
from ZODB.serialize import referencesf
from ZODB.TimeStamp import TimeStamp
from ZODB.utils import load_current


def make(folder):
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, 'Data.fs')
    storage = FileStorage(path, blob_dir=os.path.join(folder, 'blobs'))
    db = ZODB.DB(storage)
    connection = db.open()
    root = connection.root()

    def commit(description, **extension):
        t = transaction.get()
        t.note(description)
        t.setUser('jim')
        for name, value in extension.items():
            t.setExtendedInfo(name, value)
        transaction.commit()
        return storage.lastTransaction()

    def undo(skip=0):
        db.undo(db.undoLog(skip, skip + 1)[0]['id'])
        return commit('undone')

    def direct(description, *steps, **how):
        t = TransactionMetaData('jim', description)
        storage.tpc_begin(t, **how)
        for step in steps:
            step(t)
        storage.tpc_vote(t)
        storage.tpc_finish(t)

    def later():
        last = TimeStamp(storage.lastTransaction())
        return last.laterThan(last).raw()

    for name in 'abcdef':
        root[name] = PersistentMapping(value=name)
    commit('first')
    root['blob'], root['empty'], root['large'] = Blob(b'one'), Blob(), Blob(os.urandom(3 << 20))
    with root['empty'].open('w'):
        pass
    commit('blobs', number=7, nested={'list': [1, 2, 3], 'text': 'f\xfcr'})
    for n in range(5):
        root['a']['value'] = n
        root['b']['value'] = 'x' * n * 1000
        commit('change %d \u2014 caf\xe9' % n)
    undo()
    undo()
    undo()
    with root['blob'].open('w') as f:
        f.write(b'two')
    commit('the blob changed')
    undo()
    with root['blob'].open('w') as f:
        f.write(b'three')
    commit('the blob changed again')
    # Objects that nothing refers to go in the pack, with their blobs.
    del root['f']
    del root['large']
    commit('garbage')
    time.sleep(.01)
    storage.pack(time.time(), referencesf)
    # A creation that is undone, and that undone.
    root['g'] = PersistentMapping(value='g')
    commit('created')
    undo()
    undo()
    undo()
    # Empty, and very large: in records, in one record, in blobs.
    direct('nothing')
    root['before'] = Blob(b'before')
    root['many'] = PersistentMapping()
    for n in range(3000):
        root['many'][n] = PersistentMapping(n=n, text='y' * 4000)
    root['one'] = PersistentMapping(text=os.urandom(5 << 20))
    root['large'] = Blob(os.urandom(5 << 20))
    root['after'] = Blob(b'after')
    commit('large')
    # An external collector's work.
    oid = root['c']._p_oid
    serial = storage.load(oid)[1]
    del root['c']
    commit('c is garbage')
    direct('collected', lambda t: storage.deleteObject(oid, serial, t))
    # A blob's record, changed and undone, and not packed.
    with root['blob'].open('w') as f:
        f.write(b'four')
    commit('the blob changed once more')
    undo()
    # A record twice in its transaction, as copies of a blob's have it.
    pickle, tid = storage.load(root['d']._p_oid)[0], later()
    direct('twice', *[lambda t: storage.restore(root['d']._p_oid, tid, pickle, '', None, t)] * 2, tid=tid, status='p')
    connection.close()
    db.close()
    return dict(last_tid=tid.hex(), size=os.path.getsize(path))


def describe(path, blobs):
    """-> every transaction and record as FileStorage tells it, counts, and what is current."""
    storage = FileStorage(path, read_only=True, blob_dir=blobs or None)
    transactions, origin, oids = [], {}, set()
    counts = dict(transactions=0, records=0, blobs=0, pointers=0, absent=0, length=len(storage))
    for t in storage.iterator():
        counts['transactions'] += 1
        head = t.tid.hex(), t.status, repr(t.user), repr(t.description), repr(t.extension_bytes)
        records = []
        for r in t:
            counts['records'] += 1
            oids.add(r.oid)
            # (A pointer to a pointer counts as one to the data.)
            of = r.data_txn
            counts['pointers'] += of is not None and r.data is not None
            while of is not None and origin.get((r.oid, of)) is not None:
                of = origin[r.oid, of]
            if r.data is None:
                counts['absent'] += 1
                of = None
            origin[r.oid, r.tid] = of
            blob = None
            if blobs and is_blob_record(r.data):
                try:
                    with open(storage.loadBlob(r.oid, r.tid), 'rb') as f:
                        blob = f.read()
                    counts['blobs'] += 1
                except POSKeyError:
                    blob = 'missing'
            records.append((r.oid.hex(), r.tid.hex(), r.data, of and of.hex(), blob))
        transactions.append((head, records))
    current = {}
    for oid in oids:
        try:
            current[oid.hex()] = storage.load(oid)
        except POSKeyError:
            current[oid.hex()] = None
    undo = [(d['id'], d['time'], d['user_name'], d['description']) for d in storage.undoLog(0, 10 ** 6)]
    storage.close()
    return transactions, current, undo, counts


def compare(*sides):
    one, other = describe(*sides[:2]), describe(*sides[2:])
    differences = []
    for mine, theirs in zip(one[0], other[0], strict=False):
        if mine != theirs:
            differences.append('%s: %.200r / %.200r' % (mine[0], mine, theirs))
    if len(one[0]) != len(other[0]):
        differences.append('%d transactions / %d' % (len(one[0]), len(other[0])))
    for n, what in (1, 'current'), (2, 'undoLog'), (3, 'counts'):
        if one[n] != other[n]:
            differences.append('%s: %.300r / %.300r' % (what, one[n], other[n]))
    return dict(differences=differences[:5], counts=one[3])


class Records:
    """A storage whose blobs nobody finds."""

    def __init__(self, storage):
        self.iterator = storage.iterator

    def loadBlob(self, oid, serial):
        raise POSKeyError(oid)


def copy(path, new):
    source, destination = FileStorage(path, read_only=True), FileStorage(new)
    began = time.monotonic()
    destination.copyTransactionsFrom(Records(source))
    seconds = time.monotonic() - began
    destination.close()
    return dict(seconds=seconds, bytes=os.path.getsize(path))


def client(path, blobs, *addresses):
    source = FileStorage(path, read_only=True, blob_dir=blobs)
    pairs = [address.rsplit(':', 1) for address in addresses]
    differences, counts = [], dict(objects=0, blobs=0)
    with tempfile.TemporaryDirectory(prefix='zrs-datafs-') as folder:
        storage = ZEO.client([(host, int(port)) for host, port in pairs], blob_dir=folder, wait_timeout=30)
        seen = set()
        for t in source.iterator():
            for r in t:
                if is_blob_record(r.data):
                    counts['blobs'] += 1
                    files = source.loadBlob(r.oid, r.tid), storage.loadBlob(r.oid, r.tid)
                    if open(files[0], 'rb').read() != open(files[1], 'rb').read():
                        differences.append(f'blob {files!r}')
                seen.add(r.oid)
        for oid in seen:
            found = []
            for each in source, storage:
                try:
                    found.append(load_current(each, oid))
                except POSKeyError:
                    found.append(None)
            counts['objects'] += 1
            if found[0] != found[1]:
                differences.append('object %s: %.200r / %.200r' % (oid.hex(), *found))
        source.close()
        db = ZODB.DB(storage)
        with db.transaction() as connection:
            connection.root()['new'] = Blob(b'new')
        with db.transaction() as connection:
            with connection.root()['new'].open() as f:
                assert f.read() == b'new'
            assert int.from_bytes(connection.root()['new']._p_oid, 'big') > max(int.from_bytes(o, 'big') for o in seen)
        last = db.lastTransaction().hex()
        db.close()
    return dict(differences=differences[:5], counts=counts, last_tid=last)


def seen(storage):
    return dict(
        statuses=[[t.tid.hex(), t.status] for t in storage.iterator()],
        undo=[[d['id'].hex(), d['description'].decode()] for d in storage.undoLog(0, 10 ** 6)],
    )


def pack(*addresses):
    pairs = [address.rsplit(':', 1) for address in addresses]
    db = ZODB.DB(ZEO.client([(host, int(port)) for host, port in pairs], wait_timeout=30))
    for n in range(6):
        with db.transaction('change %d' % n) as connection:
            connection.root()['%d' % n] = PersistentMapping(n=n)
        if n == 3:
            time.sleep(.01)
            db.pack(time.time())
    found = seen(db.storage)
    db.close()
    return found


def undoable(path):
    storage = FileStorage(path)
    found = seen(storage)
    storage.close()
    return found


def refused(path):
    storage = FileStorage(path)
    last = storage.lastTransaction().hex()
    storage.close()
    return dict(last_tid=last, size=os.path.getsize(path))


if __name__ == '__main__':
    command, *arguments = sys.argv[1:]
    print(json.dumps(dict(make=make, compare=compare, copy=copy, client=client, pack=pack, undoable=undoable,
                          refused=refused)[command](*arguments)))
