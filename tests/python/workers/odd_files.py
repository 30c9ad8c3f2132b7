"""Data.fs files that are odd, byte by byte: how FileStorage opens and answers them, and a server that imported them.

    odd_files.py make FOLDER                  FOLDER/NAME.fs of every case, and how FileStorage opens it (a copy):
                                              {name: {opens, log}}
    odd_files.py change FOLDER COUNT SEED     FOLDER/N.fs, N from 0 on: a file with bytes of its headers changed, and
                                              what FileStorage loads of it, of every object as of every moment:
                                              [{opens, before: [[oid, before, tid, data]]}]
    odd_files.py compare FOLDER ADDRESS       how the server's storages NAME answer otherwise: {name: {kind: example}}

Prints one line of JSON.
"""
import contextlib
import json
import logging
import os
import random
import shutil
import signal
import struct
import sys

import ZEO
from ZODB.FileStorage import FileStorage
from ZODB.fsIndex import fsIndex
from ZODB.POSException import POSKeyError
from ZODB.TimeStamp import TimeStamp
from ZODB.utils import p64, u64

MAX = (1 << 63) - 1


class DataFs:
    """Writes a file as ZODB/FileStorage/format.py has it, with any mistake that one wants."""

    def __init__(self, magic=b'FS30'):
        self.bytes = bytearray(magic)
        self.last = {}  # oid: position of its last record
        self.placed = {}  # (oid, tid): the same
        self.begins = []

    def transaction(self, tid, records, status=b' ', texts=(b'', b'', b''), header=None, **fields):
        """records: (oid, data); (oid, None): absent; (oid, tid): the data of that transaction's record again; (oid,
        (position,)): a pointer. header: the header's id, if it is another. fields of the records: prev, tloc, vlen.
        """
        start = len(self.bytes)
        self.begins.append(start)
        body = bytearray()
        placed = {}
        for oid, content in records:
            here = start + 23 + len(b''.join(texts)) + len(body)
            if isinstance(content, bytes):
                length, data = len(content), content
            elif content is None:
                length, data = 0, bytes(8)
            else:
                position = content[0] if isinstance(content, tuple) else self.placed[oid, content]
                length, data = 0, p64(position)
            own = fields.get('tids', {}).get(oid, tid)
            body += p64(oid) + p64(own) + p64(fields.get('prev', self.last.get(oid, 0)))
            body += p64(fields.get('tloc', start)) + struct.pack('>H', fields.get('vlen', 0)) + p64(length) + data
            self.placed[oid, own] = placed[oid] = here
        self.last.update(placed)
        size = 23 + len(b''.join(texts)) + len(body)
        self.bytes += p64(tid if header is None else header) + p64(size) + status
        self.bytes += struct.pack('>HHH', *map(len, texts)) + b''.join(texts) + body + p64(size)
        return self

    def some(self, first, *numbers):
        """Ordinary transactions: each writes the root, and an object of its own."""
        for n in numbers:
            self.transaction(first + n, [(0, b'root %d.' % n), (1000 + n, b'object %d.' % n)])
        return self

    def add(self, tail):
        self.bytes += tail
        return self

    def poke(self, position, new):
        self.bytes[position:position + len(new)] = new
        return self


def tid_of(*moment):
    return u64(TimeStamp(*moment, *(1, 1, 0, 0, 0)[len(moment) - 1:]).raw())


T = tid_of(2020)


def reduction_apart():
    f = DataFs().some(T, 1, 5).transaction(T + 3, [(7, b'seven.')]).transaction(T + 2, [(8, b'eight.')])
    return f.some(T, 9).transaction(T + 10, [(7, T + 3)])


def reduction_of_one():
    # The revisions of one object in the file: 2, 9, 4, 6, 5, 12. Those that can be loaded: 2, 4, 5, 12.
    f = DataFs().some(T, 1)
    for n in 2, 9, 4, 6, 5, 12:
        f.transaction(T + n, [(7, b'seven %d.' % n), (1000 + n, b'object.')])
    return f


def reduction_to_a_pointer():
    f = DataFs().some(T, 1).transaction(T + 5, [(7, b'five.')]).transaction(T + 3, [(7, T + 5)])
    return f.transaction(T + 8, [(7, None)]).transaction(T + 7, [(7, T + 3)]).some(T, 9)


def reduction_at_the_end():
    return DataFs().some(T, 1, 5).transaction(T + 3, [(7, b'seven.')])


def one_id_twice():
    f = DataFs().some(T, 1).transaction(T + 3, [(7, b'a.'), (8, b'a.')])
    f.transaction(T + 3, [(8, b'b.'), (9, b'b.')]).transaction(T + 2, [(8, b'c.'), (10, b'c.')])
    return f.some(T, 5)


def recovered():
    """As fsrecover and copyTransactionsFrom leave ids that go back: new ones in headers, old ones in records."""
    f = DataFs().some(T, 1, 5).transaction(T + 3, [(7, b'seven.')], header=T + 6)
    return f.some(T, 8).transaction(T + 7, [(7, b'seven again.')], header=T + 9)


def strangers():
    return DataFs().some(T, 1).transaction(T + 3, [(7, b'a.'), (8, b'b.')], tids={8: T + 2}).some(T, 5)


def year_1900():
    f = DataFs().transaction(tid_of(1900, 1, 1, 0, 1), [(0, b'root.'), (7, b'seven.')])
    return f.transaction(tid_of(1900, 2, 3), [(7, b'seven again.')]).some(T, 1)


def id_zero():
    return DataFs().transaction(0, [(0, b'root.'), (7, b'seven.')]).some(T, 1)


def year_5000():
    return DataFs().some(T, 1).transaction(tid_of(5000), [(7, b'seven.')])


def largest_oids():
    f = DataFs().some(T, 1)
    return f.transaction(T + 2, [((1 << 64) - 1, b'last.'), (1 << 63, b'half.'), ((1 << 62) + 5, b'demo.')]).some(T, 3)


def zeros():
    return DataFs().some(T, 1, 2).add(bytes(5000))


def few_zeros():
    return DataFs().some(T, 1, 2).add(bytes(10))


def rubbish():
    return DataFs().some(T, 1, 2).add(b'rubbish at the end, ' * 20)


def cut():
    f = DataFs().some(T, 1, 2, 3)
    del f.bytes[-20:]
    return f


def voted():
    return DataFs().some(T, 1, 2).transaction(T + 3, [(0, b'root 3.')], status=b'c')


def voted_in_the_middle():
    return DataFs().some(T, 1).transaction(T + 2, [(0, b'root 2.')], status=b'c').some(T, 3, 4)


def too_long():
    """Without an index, FileStorage cuts all off from the wrong length on."""
    f = DataFs().some(T, 1, 2, 3, 4)
    return f.poke(f.begins[1] + 8, p64(1 << 40))


def status():
    return DataFs().some(T, 1).transaction(T + 2, [(0, b'root 2.')], status=b'x').some(T, 3)


def undone():
    f = DataFs().some(T, 1).transaction(T + 2, [(7, b'seven.')], status=b'u')
    return f.transaction(T + 3, [(7, T + 2)], prev=0).some(T, 4)


def undone_at_the_end():
    return DataFs().some(T, 1).transaction(T + 2, [(7, b'seven.')], status=b'u')


def previous():
    f = DataFs().some(T, 1, 2, 3).transaction(T + 4, [(0, b'root 4.')], prev=0).some(T, 5)
    return f.transaction(T + 6, [(1001, b'again.')], prev=99)


def foreign_pointer():
    f = DataFs().some(T, 1, 2)
    return f.transaction(T + 3, [(7, (f.last[1001],))]).some(T, 4)


def pointer_to_a_later_record():
    f = DataFs().some(T, 1).transaction(T + 2, [(7, (4 + 95,))])
    place = len(f.bytes)
    f.some(T, 3).transaction(T + 4, [(7, b'seven.')])
    assert place < f.placed[7, T + 4]
    return f.poke(f.placed[7, T + 2] + 42, p64(f.placed[7, T + 4]))


def twice_in_one():
    f = DataFs().some(T, 1).transaction(T + 2, [(7, b'first.'), (7, b'second.'), (8, b'same.'), (8, b'same.')])
    first = f.placed[7, T + 2] - 42 - len(b'first.')
    return f.transaction(T + 3, [(7, (first,))]).transaction(T + 4, [(8, T + 2)])


def nothing():
    return DataFs(b'')


def only_the_magic():
    return DataFs()


def astray():
    return DataFs().some(T, 1).transaction(T + 2, [(7, b'seven.')], tloc=4).some(T, 3)


def version_length():
    return DataFs().some(T, 1).transaction(T + 2, [(7, b'seven.')], vlen=3).some(T, 3)


def texts():
    """Descriptions as Python 2 has written them, and what else there may be."""
    f = DataFs()
    extensions = [
        b'', b'\x80\x02}q\x01U\x04nameq\x02U\x05valueq\x03s.',
        # Any bytes, in protocols 2, 1 and 0.
        b'\x80\x02}q\x01U\x04nameq\x02U\x04caf\xe9q\x03s.',
        b'}q\x01(U\x04nameq\x02T\x04\x00\x00\x00caf\xe9q\x03U\x01nK\x07u.',
        b"(dp1\nS'name'\np2\nS'caf\\xe9'\np3\nsS'n'\nI7\nsS'yes'\nI01\nsS'long'\nL123456789012345678901234567890L\ns"
        b"S'float'\nF1.5\nsS'text'\nVcaf\xe9 \\u20ac\np4\nsS'list'\n(lp5\nI1\nag4\nasS'tuple'\n(I1\nI2\ntsS'none'\nNs.",
        # Keys with any bytes, unicode in protocol 2, and own names that win or lose.
        b'\x80\x02}(U\x04caf\xe9K\x01X\x05\x00\x00\x00caf\xc3\xa9K\x02U\x09user_nameU\x05otherU\x04sizeK\x03u.',
        b'\x80\x02}U\x04nestq\x01}U\x01aq\x02]q\x03(K\x01\x88\x89N)\x85ess.',
    ]
    for n, extension in enumerate(extensions):
        own = b'j\xfcrgen %d' % n, bytes(range(256)) if n == 2 else b'd\xe9crit', extension
        f.transaction(T + n, [(0, b'root %d.' % n)], texts=own)
    return f


def no_pickles():
    """Of an extension that is none, stock shows nothing in an undo log, and raises an error in a history."""
    f = DataFs()
    for n, extension in enumerate([b'\x80\x02}U\x04name', b'not a pickle', b'']):
        f.transaction(T + n, [(0, b'root %d.' % n)], texts=(b'jim', b'did', extension))
    return f


def objects():
    """An object of a class among plain values, which stock can show no client: nothing else is hidden."""
    extension = (b"(dS'before'\nI1\nsS'when'\ncdatetime\ndatetime\n(S'\\x07\\xd0\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00'\ntRs"
                 b"S'after'\nS'caf\\xe9'\ns.")
    return DataFs().transaction(T, [(0, b'root.')], texts=(b'jim', b'an object', extension))


CASES = [
    reduction_apart, reduction_of_one, reduction_to_a_pointer, reduction_at_the_end, one_id_twice, recovered, strangers,
    year_1900, id_zero, year_5000, largest_oids, zeros, few_zeros, rubbish, cut, voted, voted_in_the_middle, too_long,
    status, undone, undone_at_the_end, previous, foreign_pointer, pointer_to_a_later_record, twice_in_one, nothing,
    only_the_magic, astray, version_length, texts, no_pickles, objects,
]


# Opened by an index, which FileStorage has saved before the damage: at its end all is well.
def indexed_astray():
    return DataFs().some(T, 1, 2, 3, 4, 5, 6), lambda f: f.poke(f.placed[1002, T + 2] + 24, p64(4))


def indexed_length_at_the_end():
    return DataFs().some(T, 1, 2, 3, 4, 5, 6), lambda f: f.poke(f.begins[3] - 8, p64(7))


def indexed_too_long():
    return DataFs().some(T, 1, 2, 3, 4, 5, 6), lambda f: f.poke(f.begins[2] + 8, p64(1 << 40))


def indexed_header():
    return DataFs().some(T, 1, 2, 3, 4, 5, 6), lambda f: f.poke(f.begins[2], b'\xff' * 23)


def indexed_record():
    # (The data of the first record, the header of the second.)
    return DataFs().some(T, 1, 2, 3, 4, 5, 6), lambda f: f.poke(f.placed[0, T + 3] + 45, b'\xee' * 40)


def indexed_pointer():
    f = DataFs().some(T, 1, 2).transaction(T + 3, [(7, b'seven.')]).transaction(T + 4, [(7, T + 3)]).some(T, 5, 6, 7, 8)
    return f, lambda f: f.poke(f.placed[7, T + 4] + 42, p64(11))


INDEXED = [
    indexed_astray, indexed_length_at_the_end, indexed_too_long, indexed_header, indexed_record, indexed_pointer,
]


class Lines(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def copied(folder, name):
    """A copy that FileStorage may cut off."""
    place = os.path.join(folder, 'opened', name)
    shutil.rmtree(place, ignore_errors=True)
    os.makedirs(place)
    path = os.path.join(place, 'Data.fs')
    for end in '', '.index':
        with contextlib.suppress(FileNotFoundError):
            shutil.copy(os.path.join(folder, name + '.fs' + end), path + end)
    return path


def make(folder):
    os.makedirs(folder)
    found = {}
    for case in CASES + INDEXED:
        name = case.__name__
        path = os.path.join(folder, name + '.fs')
        made = case()
        if case in INDEXED:
            made, damage = made
            with open(path, 'wb') as f:
                f.write(made.bytes)
            FileStorage(path).close()
            assert fsIndex.load(path + '.index')['pos'] == len(made.bytes)
            damage(made)
        with open(path, 'wb') as f:
            f.write(made.bytes)
        log = Lines()
        logging.getLogger().addHandler(log)
        try:
            storage = FileStorage(copied(folder, name))
            found[name] = dict(opens=True, log=log.lines)
            storage.close()
        except Exception as e:
            found[name] = dict(opens=False, log=log.lines, error=repr(e))
        logging.getLogger().removeHandler(log)
        for end in '.lock', '.tmp':
            with contextlib.suppress(FileNotFoundError):
                os.remove(path + end)
    return found


def varied():
    f = DataFs().some(T, 1, 2).transaction(T + 3, [(7, b'seven.'), (8, b'eight.')], texts=(b'jim', b'did', b''))
    f.transaction(T + 4, [(7, b'seven again.'), (8, None)]).transaction(T + 5, [(7, T + 3), (8, T + 3)])
    return f.some(T, 6).transaction(T + 7, [(7, T + 5), (9, b'twice.'), (9, b'twice.')]).some(T, 8)


def headers(f):
    """The places of all bytes that are no data."""
    places = []
    for begin in f.begins:
        end = begin + int.from_bytes(f.bytes[begin + 8:begin + 16], 'big')
        at = begin + 23 + sum(struct.unpack('>HHH', f.bytes[begin + 17:begin + 23]))
        places += range(begin, at)
        while at < end:
            length = int.from_bytes(f.bytes[at + 34:at + 42], 'big')
            places += range(at, at + 42 + (0 if length else 8))
            at += 42 + (length or 8)
        places += range(end, end + 8)
    return places


def said_before(storage, oid, moment):
    try:
        answer = storage.loadBefore(oid, moment)
    except POSKeyError:
        return 'error', ''
    return ('none', '') if answer is None else (answer[1].hex(), answer[0].decode('latin1'))


def stop(*_):
    raise RuntimeError('it takes too long')


def change(folder, count, seed):
    os.makedirs(folder)
    signal.signal(signal.SIGALRM, stop)
    chance = random.Random(int(seed))
    logging.disable()
    found = []
    for n in range(int(count)):
        f = varied()
        oids, tids = [p64(oid) for oid in (0, 7, 8, 9, *range(1001, 1009))], range(T, T + 10)
        for place in chance.sample(headers(f), chance.choice((1, 1, 1, 2, 3))):
            old = f.bytes[place]
            f.bytes[place] = chance.choice((0, 1, 255, old ^ 1, (old + 1) % 256, (old - 1) % 256, *b'cup ',
                                            chance.randrange(256)))
        with open(os.path.join(folder, '%d.fs' % n), 'wb') as file:
            file.write(f.bytes)
        try:
            path = copied(folder, '%d' % n)
            FileStorage(path).close()
            storage = FileStorage(path)
        except Exception:
            found.append(dict(opens=False, before=[]))
            continue
        before = []
        # (Wrong previous pointers can lead FileStorage in a circle.)
        signal.setitimer(signal.ITIMER_REAL, 3, 3)
        for oid in oids:
            for moment in {p64(MAX), *(p64(tid) for tid in tids)}:
                # (Where FileStorage itself does not know, there is nothing to compare.)
                with contextlib.suppress(Exception):
                    before.append([oid.hex(), moment.hex(), *said_before(storage, oid, moment)])
        signal.setitimer(signal.ITIMER_REAL, 0)
        storage.close()
        found.append(dict(opens=True, before=before))
    return found


def outcome(call, *arguments):
    try:
        return call(*arguments)
    except Exception:
        return 'error'


def transactions(storage):
    told = []
    for t in storage.iterator():
        records = sorted((r.oid.hex(), r.tid.hex(), r.data, r.data_txn and r.data_txn.hex()) for r in t)
        told.append((t.tid.hex(), t.status, t.user, t.description, outcome(lambda t=t: t.extension), records))
    return told


def describe(storage, oids, tids):
    moments = sorted({t + d for t in tids for d in (0, 1)} | {MAX})
    all_of = [(oid, p64(t)) for oid in oids for t in moments]
    return dict(
        load={oid: outcome(storage.load, oid) for oid in oids},
        before={at: outcome(lambda *a: (storage.loadBefore(*a) or (None, None))[:2], *at) for at in all_of},
        end={at: outcome(storage.loadBefore, *at) for at in all_of},
        serial={(oid, p64(t)): outcome(storage.loadSerial, oid, p64(t)) for oid in oids for t in tids},
        history={oid: outcome(storage.history, oid, 100) for oid in oids},
        undo=outcome(lambda: [dict(d) for d in storage.undoLog(0, 1000)]),
        iterator=outcome(transactions, storage),
        last=storage.lastTransaction(),
    )


def known(path):
    """Objects and ids that the file names, and an object that it does not."""
    with open(path, 'rb') as f:
        data = f.read()
    numbers = [0, 7, 8, 9, 10, *range(1000, 1016), (1 << 64) - 1, 1 << 63, (1 << 62) + 5]
    moments = [*range(T, T + 16), tid_of(1900, 1, 1, 0, 1), tid_of(1900, 2, 3), tid_of(5000)]
    oids = [p64(oid) for oid in numbers if p64(oid) in data]
    return [*oids, p64(77)], [tid for tid in moments if p64(tid) in data]


def client(address, storage):
    host, port = address.rsplit(':', 1)
    return ZEO.client((host, int(port)), storage=storage, wait_timeout=30)


def compare(folder, address):
    found = {}
    for case in CASES + INDEXED:
        name = case.__name__
        oids, tids = known(os.path.join(folder, name + '.fs'))
        try:
            # (FileStorage takes the id of what it cuts off for the last one, until it is opened again.)
            path = copied(folder, name)
            FileStorage(path).close()
            source = FileStorage(path)
        except Exception:
            continue
        truth = describe(source, oids, tids)
        source.close()
        storage = client(address, name)
        answers = describe(storage, oids, tids)
        storage.close()
        differences = {}
        for kind, expected in truth.items():
            got = answers[kind]
            if got == expected:
                continue
            if isinstance(expected, dict):
                keys = [key for key in expected if got[key] != expected[key]]
                example = '%d, %.100r: %.300r, expected %.300r' % (len(keys), keys[0], got[keys[0]], expected[keys[0]])
            else:
                example = '%.2000r, expected %.2000r' % (got, expected)
            differences[kind] = example
        found[name] = differences
    return found


if __name__ == '__main__':
    command, *arguments = sys.argv[1:]
    print(json.dumps(dict(make=make, change=change, compare=compare)[command](*arguments)))
