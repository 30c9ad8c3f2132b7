#!/usr/bin/env python3
"""Records what stock clients and the stock server say to each other: tests/zeo_dialogues/Z5.txt and M5.txt.

    tests/python/zeo_dialogues.py [FOLDER]

A proxy between the two writes down every frame. `tests/zeo_bytes.rs` replays them against the codec. A line is `= what
is done`, `> a frame of the client` or `< a frame of the server`, in hexadecimal; in it `xx*n` is a byte that comes n
times. Each connection stands by itself, in the order of its beginning.
"""
import os
import re
import socket
import struct
import sys
import tempfile
import threading
import time

from into_venv import into_venv

HERE = os.path.dirname(os.path.abspath(__file__))
FOLDER = os.path.join(os.path.dirname(HERE), 'zeo_dialogues')


class Recorder:
    """Accepts clients, connects each to the server, and keeps the frames."""

    def __init__(self, server):
        self.server = server
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.address = self.listener.getsockname()
        self.connections = []
        self.what = None
        self.lock = threading.Lock()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(self.server)
            frames = []
            self.connections.append(frames)
            for sign, source, sink in (('>', client, server), ('<', server, client)):
                sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self.pump, args=(frames, sign, source, sink), daemon=True).start()

    def pump(self, frames, sign, source, sink):
        said = None
        try:
            while True:
                head = read(source, 4)
                frame = read(source, struct.unpack('>I', head)[0])
                with self.lock:
                    # (Noted before it is passed on: an answer never stands before its question.)
                    if sign == '>' and self.what != said:
                        said = self.what
                        frames.append(('=', said))
                    frames.append((sign, frame))
                sink.sendall(head + frame)
        except OSError:
            pass
        for s in source, sink:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def doing(self, what):
        self.what = what


def read(source, size):
    data = b''
    while len(data) < size:
        more = source.recv(size - len(data))
        if not more:
            raise OSError('closed')
        data += more
    return data


def spelled(frame):
    """In hexadecimal, with runs of forty bytes and more as xx*n, set off by spaces."""
    parts, at = [], 0
    for run in re.finditer(rb'(.)\1{39,}', frame, re.DOTALL):
        parts += [frame[at:run.start()].hex(), '%02x*%d' % (frame[run.start()], run.end() - run.start())]
        at = run.end()
    parts.append(frame[at:].hex())
    return ' '.join(part for part in parts if part)


# The scenes of the dialogues.

def scenes(recorder):
    import transaction
    import ZEO
    import ZODB
    from persistent.timestamp import TimeStamp
    from ZODB.blob import Blob
    from ZODB.Connection import TransactionMetaData
    from ZODB.FileStorage import FileStorage
    from ZODB.POSException import ConflictError, POSKeyError, ReadConflictError, UndoError
    from ZODB.utils import maxtid, p64, z64

    from objects import Cell, Counter, record
    from raw import Raw

    folder = tempfile.mkdtemp(dir=recorder.folder)
    do = recorder.doing

    def expect(errors, function, *args):
        try:
            function(*args)
        except errors:
            return
        raise AssertionError(f'{function} raised nothing')

    def client(**options):
        return ZEO.client(recorder.address, wait_timeout=20, blob_dir=tempfile.mkdtemp(dir=folder), **options)

    def commit(storage, *stores, **meta):
        txn = TransactionMetaData(**meta)
        storage.tpc_begin(txn)
        try:
            for store in stores:
                store(txn)
            storage.tpc_vote(txn)
        except Exception:
            storage.tpc_abort(txn)
            raise
        return storage.tpc_finish(txn)

    do('a client connects to an empty storage')
    one = client(client_label='one', cache=os.path.join(folder, 'cache'))
    do('what it may ask of an empty storage')
    assert one.lastTransaction() == z64
    one.ping()
    one._call('lastTransaction')
    one._call('getInvalidations', z64)
    one._call('get_info')
    one.server_status()
    expect(POSKeyError, one.load, p64(0))
    assert not one.undoLog()
    assert list(one.iterator()) == []
    do('a second client connects')
    two = client()

    do('commits')
    oids = [one.new_oid() for _ in range(5)]
    extension = {'a': 1, 'b': [1.5, None, True, (b'x', 'é')], 'nested': {'k': -1}}
    tid1 = commit(one, lambda txn: one.store(oids[0], z64, record('first'), '', txn), user='fréd', description='what',
                  extension=extension)
    tid2 = commit(one, lambda txn: one.store(oids[0], tid1, record('second'), '', txn),
                  lambda txn: one.store(oids[1], z64, record('x' * 70_000), '', txn))
    tid3 = commit(one, lambda txn: one.store(oids[2], z64, record(3), '', txn), user='/a/b fred', description='w' * 300)
    do('an abort')
    txn = TransactionMetaData()
    one.tpc_begin(txn)
    one.store(oids[3], z64, record(0), '', txn)
    one.tpc_abort(txn)
    do('loads')
    for storage in one, two:
        storage._cache.clear()
        storage.load(oids[0])
        storage.loadBefore(oids[0], tid2)
        assert storage.loadBefore(oids[0], tid1) is None
        storage.load(oids[1])
        storage.loadSerial(oids[0], tid1)
        expect(POSKeyError, storage.load, p64(999))
        expect(POSKeyError, storage._call, 'loadSerial', oids[0], p64(5))
        storage.getTid(oids[0])
        expect(POSKeyError, storage.getTid, p64(999))
    do('history')
    assert len(two.history(oids[0], 10)) == 2
    two.history(oids[2])
    expect(KeyError, two.history, p64(999))
    expect(TypeError, two.history, oids[0], None)
    do('invalidations since')
    two._call('getInvalidations', tid1)
    two._call('getInvalidations', tid3)
    two._call('lastTransaction')
    two.server_status()

    do('a conflict that nobody resolves')
    expect(ConflictError, commit, two, lambda txn: two.store(oids[0], tid1, record('late'), '', txn))
    do('a conflict that the client resolves')
    db, other = ZODB.DB(two), ZODB.DB(client())
    with db.transaction() as connection:
        connection.root()['counter'] = Counter()
    wait(lambda: 'counter' in fresh(other).root())
    a, b = db.open(transaction.TransactionManager()), fresh(other)
    a.root()['counter'].increment()
    b.root()['counter'].increment(5)
    a.transaction_manager.commit()
    b.transaction_manager.commit()
    do('an object that was read, and has changed')
    current = one.getTid(oids[0])
    commit(one, lambda txn: one.checkCurrentSerialInTransaction(oids[0], current, txn),
           lambda txn: one.store(oids[3], z64, record(0), '', txn))
    expect(ReadConflictError, commit, one, lambda txn: one.checkCurrentSerialInTransaction(oids[0], tid1, txn),
           lambda txn: one.store(oids[4], z64, record(0), '', txn))
    do('an object that was read, and is not there')
    expect(POSKeyError, commit, one, lambda txn: one.checkCurrentSerialInTransaction(p64(999), tid1, txn))

    do('undo')
    log = two.undoLog(0, 5)
    assert len(log) == 5
    two.undoLog(2, -3)
    two.undoInfo(0, -20, dict(user_name=b'/a/b fred'))
    two.undoInfo()
    [first] = [entry for entry in two.undoLog(0, 100) if entry.get('a') == 1]
    last = commit(one, lambda txn: one.store(oids[2], tid3, record(33), '', txn))
    newest = two.undoLog(0, 1)[0]
    commit(two, lambda txn: two.undo(newest['id'], txn), user='undoer')
    do('an undo that fails')
    expect(UndoError, commit, two, lambda txn: two.undo(first['id'], txn))
    do('an undo of nothing')
    try:
        commit(two, lambda txn: two.undo(b'AAAAAAAAAAA=', txn))
    except Exception as e:
        assert 'UndoError' in str(e), e

    do('blobs')
    blobs = ZODB.DB(one)
    for name, size in (('empty', 0), ('small', 3), ('two chunks', 59_001)):
        with blobs.transaction() as connection:
            connection.root()[name] = Cell(Blob(b'b' * size))
    wait(lambda: 'two chunks' in fresh(db).root())
    with db.transaction() as connection:
        for name in 'empty', 'small', 'two chunks':
            with connection.root()[name].value.open() as f:
                f.read()
    expect(POSKeyError, two._call, 'sendBlob', oids[0], tid1)

    do('iterators')
    for txn in two.iterator(tid1, last):
        for _ in txn:
            pass
    left = two.iterator()
    next(left)
    next(iter(next(left)))
    iid = left._iid
    two._iterator_gc()
    del left
    two._iterators.clear()
    two._iterator_gc(disconnected=False)
    two._async('iterator_gc', [iid])
    expect(KeyError, two._call, 'iterator_next', iid)
    expect(KeyError, two._call, 'iterator_record_next', 12345)

    do('every object')
    oid = None
    while True:
        oid, _, _, oid = two.record_iternext(oid)
        if oid is None:
            break

    do('deleting')
    commit(one, lambda txn: one.deleteObject(oids[4 - 1], one.getTid(oids[3]), txn))
    expect(POSKeyError, two._call, 'loadBefore', oids[3], maxtid)
    expect(POSKeyError, commit, one, lambda txn: one.deleteObject(p64(998), tid1, txn))
    expect(ConflictError, commit, one, lambda txn: one.deleteObject(oids[2], tid1, txn))

    do('a copy from elsewhere')
    source = FileStorage(os.path.join(folder, 'Source.fs'))
    for value in 1, 2:
        serial = z64 if value == 1 else source.lastTransaction()
        commit(source, lambda txn: source.store(p64(1 << 20), serial, record(value), '', txn))
    one.copyTransactionsFrom(source)
    later = TimeStamp(one.lastTransaction()).laterThan(TimeStamp(one.lastTransaction())).raw()
    txn = TransactionMetaData()
    one.tpc_begin(txn, later)
    one.restore(p64(1 << 20), later, None, '', None, txn)
    one.restore(p64(1 << 21), later, record('again'), '', tid1, txn)
    one.tpc_vote(txn)
    one.tpc_finish(txn)

    do('a pack')
    two.pack(time.time())
    one.ping()

    do('a client comes back with its cache')
    blobs.close()
    commit(two, lambda txn: two.store(oids[4], z64, record('meanwhile'), '', txn))
    client(cache=os.path.join(folder, 'cache')).close()
    do('a client that only reads')
    reader = client(read_only=True)
    expect(Exception, reader._call, 'new_oids')
    reader.load(z64)
    reader.close()

    class Careful(Raw):
        """Says False and True for 0 and 1, as the client does."""

        def speak(self, version):
            super().speak(version)
            encode = self.encode
            self.encode = lambda id, flag, name, args: encode(id, flag if id == -1 else bool(flag), name, args)

    do('what the client itself never says')
    raw = Careful(recorder.address, version=recorder.encoding)
    raw.send(raw.encode(-1, 0, '.reply', None))
    raw.error('vote', 42)
    raw.store(42, oids[0], z64, record(1))
    raw.error('vote', 43)
    assert raw.call('tpc_abort', 42) is None
    assert raw.call('tpc_finish', 42) is None
    raw.call('new_oids', 3)
    for id in 0, 127, 128, 255, 256, 65535, 65536, 2 ** 31 - 1, 2 ** 31, 2 ** 32, 2 ** 63 - 1, -2, -32, -33, -128, -129, -32769:
        raw.send(raw.encode(id, 0, 'ping', ()))
        assert raw.reply(id) == (0, None)
    raw.close()
    raw = Careful(recorder.address, version=recorder.encoding, register=False)
    raw.error('register', 'no such storage', False)
    raw.call('register', '1', True)
    raw.error('new_oids')
    raw.close()

    do('the end')
    for thing in db, other:
        thing.close()


def fresh(db):
    """A connection that has seen everything."""
    import transaction
    connection = db.open(transaction.TransactionManager())
    connection.sync()
    return connection


def wait(condition):
    from zrs_cluster import wait_for
    wait_for('the other client', condition)


def record_dialogues(encoding):
    import logging
    import shutil

    from zrs_cluster import StockServer
    logging.disable(logging.CRITICAL)
    folder = tempfile.mkdtemp(prefix='zrs-dialogues-')
    try:
        with StockServer(msgpack=encoding == 'M5', transaction_timeout=60) as server:
            recorder = Recorder(server.addresses[0])
            recorder.folder, recorder.encoding = folder, encoding.encode()
            scenes(recorder)
            time.sleep(0.2)  # what is on its way
            return list(recorder.connections)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main():
    folder = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    os.makedirs(folder, exist_ok=True)
    for encoding in 'Z5', 'M5':
        path = os.path.join(folder, encoding + '.txt')
        with open(path, 'w') as f:
            for n, frames in enumerate(record_dialogues(encoding), 1):
                f.write(f'connection {n}\n')
                for sign, frame in frames:
                    f.write(f'{sign} {frame if sign == "=" else spelled(frame)}\n')
        print(path)


if __name__ == '__main__':
    into_venv()
    main()
