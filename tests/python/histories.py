"""Random histories, driven side by side through a FileStorage and through a zrs server: whatever either is asked, both
say the same.

A history is made of symbols (the third transaction, the current revision of object 5), drawn from a seed, so that it
can be repeated, and still means something when parts of it are left out: what a difference needs is searched for, and
printed.

The server chooses the tids, and the FileStorage is given the same; some transactions bring tids of their own, as
copies from elsewhere do. Conflicts are not resolved on either side. Of several reasons for which one transaction must
fail, either side may name any.
"""
import base64
import collections
import io
import os
import random
import shutil
import tempfile
import time

import ZEO
from persistent import Persistent
from persistent.timestamp import TimeStamp
from ZEO.Exceptions import ServerException
from ZODB._compat import PersistentPickler
from ZODB.blob import Blob
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage, fspack
from ZODB.POSException import ConflictError, POSKeyError, ReadConflictError, UndoError
from ZODB.serialize import referencesf
from ZODB.utils import maxtid, p64, u64, z64

Commit = collections.namedtuple('Commit', 'key ops gap user description extension')
Pack = collections.namedtuple('Pack', 'key where')

OIDS = 12
PAST = TimeStamp(2021, 3, 4, 5, 6, 7.0).raw()


class Node(Persistent):
    """What the records say they are. They are read by the reference scanners only."""


class Ref:
    """A reference to another object, in one of the forms that ZODB writes."""

    def __init__(self, oid, form):
        self.oid = oid
        self.form = form

    def pickled(self):
        oid = p64(self.oid)
        return {'class': (oid, Node), 'bare': oid, 'weak': ['w', (oid,)], 'other': ['m', ('other', oid, Node)],
                'other bare': ['n', ('other', oid)]}[self.form]


def record(value, refs):
    out = io.BytesIO()
    pickler = PersistentPickler(lambda thing: thing.pickled() if isinstance(thing, Ref) else None, out, 3)
    pickler.dump(Node)
    pickler.dump(dict(value=value, refs=[Ref(*ref) for ref in refs]))
    return out.getvalue()


def blob_record():
    out = io.BytesIO()
    pickler = PersistentPickler(lambda thing: None, out, 3)
    pickler.dump(Blob)
    pickler.dump(None)
    return out.getvalue()


# The steps of a history, in symbols.

def history(seed, length=None):
    """-> [Commit or Pack]"""
    rnd = random.Random(seed)
    steps = []
    touched = {}  # key -> oids
    # To undo twice in one transaction, or what came after an object was gone for the first time, may leave a
    # FileStorage that cannot be asked to pack (see is_peculiar). Two of three histories do not; others pack no more
    # when they have.
    tame, wild = seed % 3, False
    created, gone = {}, {}  # oid -> key
    blobs = {OIDS + i for i in range(3)}
    from_elsewhere = rnd.random() < 0.5  # begins with transactions that have tids of their own

    def refs():
        """Mostly to what is there: a pack refuses to follow a reference to what is not."""
        forms = ['class'] * 6 + ['bare', 'weak', 'other', 'other bare']
        there = sorted(set().union(*touched.values(), used))
        if not there or rnd.random() < 0.01:
            there = range(OIDS + 3)
        return tuple((rnd.choice(there), rnd.choice(forms)) for _ in range(rnd.choice([0, 0, 1, 1, 2, 4])))

    for key in range(length or rnd.choice([5, 10, 20, 30])):
        if key > 2 and rnd.random() < 0.12 and not wild:
            where = rnd.choice(['at', 'after', 'after', 'after', 'before', 'future', 'past'])
            steps.append(Pack(rnd.choice(list(touched)), where))
            continue
        ops, used, undone_here = [], set(), set()
        gap = None
        if from_elsewhere and key < 12 or rnd.random() < 0.05:
            gap = rnd.choice([1e-6, 0.001, 1.0, 100.0, 86400.0])

        def fresh(choices):
            choices = [oid for oid in choices if oid not in used]
            oid = rnd.choice(choices) if choices else None
            used.add(oid)
            return oid

        def how():
            return 'stale' if rnd.random() < 0.04 else 'current'

        if key == 0:
            used |= set(range(5))
            ops += [('store', oid, (), 'current') for oid in range(1, 5)]
            ops.append(('store', 0, tuple((oid, 'class') for oid in range(1, 5)), 'current'))
        for _ in range(rnd.choice([1, 1, 1, 2, 2, 3, 5, 0 if rnd.random() < .2 else 1])):
            draw = rnd.random()
            if draw < 0.50:
                oid = fresh([0, 0] + list(range(1, OIDS)))
                if oid is not None:
                    ops.append(('store', oid, refs() if oid else refs() + refs() + refs(), how()))
            elif draw < 0.76 and touched:
                recent = list(touched)[-rnd.choice([1, 3, 30]):]
                undone = rnd.choice(recent) or 1  # (not the first, which makes the root)
                # Several undos of one transaction may meet in an object; an undo and a store don't.
                stored = {op[1] for op in ops if not op[0].startswith('undo')}
                objects = touched.get(undone, set())
                risky = objects & undone_here or any(gone.get(oid, key) < undone for oid in objects)
                if tame and risky:
                    continue
                if undone in touched and not touched[undone] & stored and ('undo', undone) not in ops:
                    ops.append(('undo', undone))
                    used |= touched[undone]
                    undone_here |= objects
                    wild = wild or bool(risky)
            elif draw < 0.78:
                ops.append(('undo unknown',))
            elif draw < 0.83:
                oid = fresh(range(1, OIDS))
                if oid is not None:
                    ops.append(('delete', oid, how()))
            elif draw < 0.88:
                oid = fresh(range(OIDS))
                if oid is not None:
                    ops.append(('check', oid, how()))
            elif draw < 0.94:
                oid = fresh(sorted(blobs))
                if oid is not None:
                    ops.append(('blob', oid, rnd.choice([0, 1, 59_000, 59_001, 200_000]), how()))
            elif gap is not None:
                oid = fresh(range(1, OIDS))
                if oid is not None:
                    data = rnd.choice([None, refs(), ('same', rnd.choice(list(touched)) if touched else 0)])
                    ops.append(('restore', oid, data))
        # (The server writes what a transaction undoes after what it stores.)
        ops.sort(key=lambda op: op[0].startswith('undo'))
        touched[key] = {oid for oid in used if oid is not None}
        for op in ops:
            if op[0] == 'undo':
                for oid in touched[op[1]]:
                    if created.get(oid) == op[1]:
                        gone.setdefault(oid, key)
            elif op[0] == 'delete' or op[0] == 'restore' and op[2] is None:
                gone.setdefault(op[1], key)
            elif op[0] in ('store', 'blob', 'restore'):
                created.setdefault(op[1], key)
        steps.append(Commit(
            key, tuple(ops), gap, rnd.choice(['', 'fred', 'fréd', '/a/b fred']), rnd.choice(['', 'what', 'wh\nat', 'w' * 300]),
            rnd.choice([{}, {}, {'a': 1}, {'nested': {'b': [1, None, 'x']}, 'size': 'mine'}])))
    return steps


def shown(steps):
    lines = []
    for step in steps:
        if isinstance(step, Pack):
            lines.append(f'  pack {step.where} T{step.key}' if step.where not in ('future', 'past') else f'  pack {step.where}')
        else:
            brings = '' if step.gap is None else f' (brings a tid, {step.gap} s later)'
            extension = f' {step.extension}' if step.extension else ''
            lines.append(f'  T{step.key}{brings}{extension}: ' + '; '.join(' '.join(map(str, op)) for op in step.ops))
    return '\n'.join(lines)


# The two sides.

def kind(error):
    """What an application can tell of an error: which except clause catches it."""
    for class_ in ReadConflictError, ConflictError, UndoError, POSKeyError:
        if isinstance(error, class_):
            return class_.__name__
    if isinstance(error, ServerException):
        return str(error.args[0])
    if isinstance(error, KeyError):
        return 'KeyError'
    return f'{type(error).__name__}: {error}'


def outcome(function, *args):
    """-> what it gives, or ('raises', kind of error)"""
    try:
        return function(*args)
    except Exception as e:
        return 'raises', kind(e)


class Collector(fspack.GC):
    """FileStorage's, with two things that zrs does more: what only later records refer to stays as well, and what they
    refer to that is not there (as it is younger, perhaps) is passed over."""

    passes_over = False

    def findReachableFromFuture(self):
        self.passes_over = True
        at = self.packpos
        while at < self.eof:
            txn = self._read_txn_header(at)
            end = at + txn.tlen
            at += txn.headerlen()
            while at < end:
                self.findReachableAtPacktime(self.findrefs(at))
                at += self._read_data_header(at).recordlen()
            at = end + 8
        super().findReachableFromFuture()

    def findReachableAtPacktime(self, roots):
        if not self.passes_over:
            return super().findReachableAtPacktime(roots)
        todo = list(roots)
        while todo:
            oid = todo.pop()
            if oid not in self.reachable and oid in self.oid2curpos:
                self.reachable[oid] = self.oid2curpos[oid]
                todo += self.findrefs(self.oid2curpos[oid])


def packer(storage, references, stop, gc):
    packs = fspack.FileStoragePacker(storage, references, stop, gc)
    packs.gc = Collector(packs._file, packs.file_end, stop, gc, references)
    try:
        end = packs.pack()
        return None if end is None else (end, packs.index)
    finally:
        packs.close()


def is_lost(outcome):
    """The connection was, on the way: nobody knows what became of what was asked."""
    return isinstance(outcome, tuple) and outcome[:1] == ('raises',) and outcome[1].startswith('ClientDisconnected')


class Difference(AssertionError):
    """`what`: what was asked, in a word, and how many sides gave an error."""

    def __init__(self, what, text):
        super().__init__(f'{what}: {text}')
        self.what = what.split()[0], text.count('raises')


class Sides:
    """A FileStorage and a storage of a server, which begin empty."""

    def __init__(self, address, name='1', gc=True):
        self.folder = tempfile.mkdtemp(prefix='zrs-histories-')
        self.address, self.name, self.gc = address, name, gc
        self.file = FileStorage(os.path.join(self.folder, 'Data.fs'), blob_dir=os.path.join(self.folder, 'blobs'), packer=packer)
        # As the stock server does when clients resolve conflicts; here none does.
        self.file.tryToResolveConflict = self.not_resolved
        self.server = self.connect()
        self.tids = {}      # key -> tid
        self.oids = set()
        self.last = z64
        self.packed = False
        self.may_lose = False   # the connection, once: a primary was killed
        self.packs = collections.Counter()  # 'compared', and why others were not

    @staticmethod
    def not_resolved(oid, committed_serial, old_serial, new_pickle, committed_pickle=b''):
        raise ConflictError(oid=oid, serials=(committed_serial, old_serial), data=new_pickle)

    def connect(self, address=None, **options):
        client = ZEO.client(address or self.address, storage=self.name, wait_timeout=20,
                            blob_dir=tempfile.mkdtemp(dir=self.folder), **options)
        client.tryToResolveConflict = self.not_resolved
        return client

    def reconnect(self):
        self.server.close()
        self.server = self.connect()

    def close(self):
        self.server.close()
        self.file.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, what, function, *args, again=None):
        """The server's outcome. A lost connection is a difference, but the first after a kill: then it is asked
        `again`."""
        ours = outcome(function, *args)
        if is_lost(ours) and self.may_lose:
            self.may_lose = False
            ours = again() if again else outcome(function, *args)
        if is_lost(ours):
            raise Difference(what, f'the connection to the server was lost: {told(ours)}')
        return ours

    # what is done

    def do(self, step):
        if isinstance(step, Pack):
            self.pack(step)
            self.compare()
        else:
            self.commit(step)
            self.compare_briefly()

    def serial(self, oid, how):
        position = self.file._index.get(p64(oid), 0)
        current = self.file._read_data_header(position, p64(oid)).tid if position else z64
        if how == 'current':
            return current
        return p64(u64(current) - 1) if current != z64 else p64(5)

    def resolved(self, step):
        """The operations with what they stand for: methods' names and arguments."""
        calls = []
        for op, *args in step.ops:
            if op == 'undo':
                if args[0] in self.tids:
                    calls.append(('undo', base64.encodebytes(self.tids[args[0]]).rstrip()))
            elif op == 'undo unknown':
                calls.append(('undo', base64.encodebytes(p64(12345)).rstrip()))
            elif op == 'store':
                oid, refs, how = args
                calls.append(('store', p64(oid), self.serial(oid, how), record((step.key, oid), refs), ''))
            elif op == 'delete':
                calls.append(('deleteObject', p64(args[0]), self.serial(*args)))
            elif op == 'check' and not self.is_hollow(p64(args[0])):
                calls.append(('checkCurrentSerialInTransaction', p64(args[0]), self.serial(*args)))
            elif op == 'blob':
                oid, size, how = args
                calls.append(('storeBlob', p64(oid), self.serial(oid, how), blob_record(), size, ''))
            elif op == 'restore':
                oid, refs = args
                data, hint = None, None
                if refs is not None and refs[:1] == ('same',):
                    hint = self.tids.get(refs[1])
                    found = hint and outcome(self.file.loadSerial, p64(oid), hint)
                    data, hint = (found, hint) if isinstance(found, bytes) else (record(step.key, ()), None)
                elif refs is not None:
                    data = record((step.key, oid), refs)
                calls.append(('restore', p64(oid), data, '', hint))
        return calls

    def transact(self, storage, step, calls, tid):
        """-> (tid, oids that were undone). What changes nothing is voted on, and aborted: FileStorage would not write
        it."""
        txn = TransactionMetaData(step.user, step.description, step.extension)
        undone = set()
        try:
            if tid is None:
                storage.tpc_begin(txn)
            else:
                storage.tpc_begin(txn, tid)
            for name, *args in calls:
                if name == 'storeBlob':
                    oid, serial, data, size, version = args
                    fd, path = tempfile.mkstemp(dir=self.folder)
                    with os.fdopen(fd, 'wb') as f:
                        f.write(bytes([step.key % 256]) * size)
                    storage.storeBlob(oid, serial, data, path, version, txn)
                elif name == 'restore':
                    oid, data, version, hint = args
                    storage.restore(oid, tid, data, version, hint, txn)
                else:
                    result = getattr(storage, name)(*args, txn)
                    if name == 'undo' and result:
                        undone |= set(result[1])
            voted = storage.tpc_vote(txn)
            if storage is self.server:
                undone |= {oid for oid in voted or () if isinstance(oid, bytes)}
        except Exception:
            storage.tpc_abort(txn)
            raise
        if all(name == 'checkCurrentSerialInTransaction' for name, *_ in calls):
            storage.tpc_abort(txn)
            return None, undone
        storage.tpc_finish(txn, lambda committed: setattr(txn, 'tid', committed))
        return txn.tid, undone

    def commit(self, step):
        own = None
        if step.gap is not None:
            base = max(self.last, PAST)
            own = p64(max(u64(base) + 1, u64(later(base, step.gap))))
            if own > now():
                own = None
        calls = self.resolved(step)
        if own is None:
            calls = [call for call in calls if call[0] != 'restore']

        def again():
            # (No other client commits here.)
            self.reconnect()
            last = self.server.lastTransaction()
            return (last, None) if last != self.last else outcome(self.transact, self.server, step, calls, own)

        ours = self.ask(f'commit of T{step.key}', self.transact, self.server, step, calls, own, again=again)
        tid = own or (ours[0] if ours[0] not in ('raises', None) else p64(u64(self.last) + 1))
        theirs = outcome(self.transact, self.file, step, calls, tid)
        if ours == (tid, None):
            theirs = theirs[:1] + (None,) if theirs[0] == tid else theirs
        if ours != theirs and not ('raises' == ours[0] == theirs[0] and len(calls) > 1):
            raise Difference(f'commit of T{step.key}', f'the server {told(ours)}, FileStorage {told(theirs)}')
        if ours[0] not in ('raises', None):
            self.tids[step.key] = self.last = ours[0]
            self.oids |= {call[1] for call in calls if call[0] not in ('undo', 'checkCurrentSerialInTransaction')}
            if any(call[0] == 'restore' for call in calls):
                # A client does not note what it restores, and is told of others' changes only: its cache is old now.
                self.reconnect()

    def is_hollow(self, oid):
        """Has FileStorage a record that points back to nothing? (An undone creation that was done again, and undone
        again: to checks and to packs it is as if it were there.)"""
        position = self.file._index.get(oid, 0)
        return position and self.file._read_data_header(position, oid).back and outcome(
            self.file.loadBefore, oid, maxtid)[0] == 'raises'

    def is_peculiar(self):
        """Was any object hollow at any time? Or undone twice in one transaction, of which FileStorage keeps both?"""
        for txn in self.file.iterator():
            seen = set()
            for record in txn:
                if record.oid in seen:
                    return True
                seen.add(record.oid)
                if record.data is None and self.file._read_data_header(record.pos, record.oid).back:
                    return True
        return False

    def pack(self, step):
        if step.where == 'future':
            when = time.time() + 1000
        elif step.where == 'past':
            when = 1.5
        elif step.key in self.tids:
            when = TimeStamp(self.tids[step.key]).timeTime() + {'at': 0, 'after': 2e-6, 'before': -2e-6}[step.where]
        else:
            return
        if self.is_peculiar():
            self.packs['peculiar'] += 1
            return
        theirs = outcome(self.file.pack, when, referencesf, self.gc)
        if theirs and theirs[1].startswith(('AssertionError', 'PackError')):
            # A defect of its own: without garbage collection it forgets what later undos point to, and fails. All
            # stays as it was.
            self.packs['failed by FileStorage'] += 1
            return
        self.packs['compared'] += 1
        ours = self.ask(f'pack {step.where} T{step.key}', self.server.pack, when, referencesf, True)
        if ours != theirs:
            raise Difference(f'pack {step.where} T{step.key}', f'the server {told(ours)}, FileStorage {told(theirs)}')
        self.packed = True
        self.reconnect()  # a client is not told what a pack has removed

    # what is compared

    def same(self, what, ask, hidden=lambda ours: False):
        ours, theirs = self.ask(what, ask, self.asked), outcome(ask, self.file)
        if ours != theirs and not hidden(ours):
            raise Difference(what, f'the server {told(ours)}, FileStorage {told(theirs)}')

    def compare_briefly(self):
        """Through the client that commits, with its cache."""
        self.asked = self.server
        for oid in self.oids:
            self.same(f'load {u64(oid)}', lambda s: s.loadBefore(oid, maxtid))
        self.same('lastTransaction', lambda s: s.lastTransaction())

    def compare(self, *address, **options):
        """Through a client that knows nothing yet."""
        self.compare_briefly()
        self.asked = self.connect(*address, **options)
        try:
            self.compare_everything()
        finally:
            self.asked.close()

    def lost_by_file_storage(self, oid, tid):
        """Has it the record of a blob and not the file? (Its pack removes all files of what was garbage at that time,
        younger ones too.)"""
        record = outcome(self.file.loadSerial, oid, tid)
        return isinstance(record, bytes) and outcome(self.file.loadBlob, oid, tid) == ('raises', 'POSKeyError')

    def hidden_by_file_storage(self):
        """-> {(oid, tid)}: revisions before a pack's time that stay as a later undo points to them. FileStorage lists
        them in iterators, and finds them by no other way; zrs finds them."""
        return {(record.oid, record.tid) for txn in self.file.iterator() for record in txn
                if record.data is not None and outcome(self.file.loadSerial, record.oid, record.tid)[:1] == ('raises',)}

    def without_packed_sizes(self, history):
        """A revision that shows the data of another has the size 0. A pack may give it data of its own, on either
        side."""
        if not self.packed:
            return list(history)
        return [{k: v for k, v in entry.items() if k != 'size'} for entry in history]

    def compare_everything(self):
        hidden = self.hidden_by_file_storage()
        names = {tid: f'T{key}' for key, tid in self.tids.items()}
        moments = [z64] + sorted(self.tids.values())
        ids = sorted(self.oids) + [p64(999)]
        self.same('lastTransaction', lambda s: s.lastTransaction())
        self.same('len', len)
        for oid in ids:
            name = u64(oid)
            for tid in moments:
                at = names.get(tid, 'nothing')
                def found(ours):
                    return isinstance(ours, tuple) and (oid, ours[1]) in hidden
                self.same(f'loadBefore {name} {at}', lambda s: s.loadBefore(oid, tid), found)
                self.same(f'loadBefore {name} after {at}', lambda s: s.loadBefore(oid, p64(u64(tid) + 1)), found)
                self.same(f'loadSerial {name} {at}', lambda s: s.loadSerial(oid, tid), lambda _: (oid, tid) in hidden)
                if name >= OIDS and tid != z64 and not self.lost_by_file_storage(oid, tid):
                    # (FileStorage keeps the files of some aborted transactions.)
                    self.same(f'blob {name} {at}', lambda s: s.loadSerial(oid, tid) and blob(s, oid, tid))
            self.same(f'load {name}', lambda s: s.loadBefore(oid, maxtid))
            # (FileStorage has a tid for an object whose creation was undone more than once, but no data.)
            self.same(f'getTid {name}', lambda s: s.getTid(oid) if s is self.asked else s.loadBefore(oid, maxtid)[1])
            for size in 1, 2, 100:
                self.same(f'history {name} {size}', lambda s: self.without_packed_sizes(
                    entry for entry in s.history(oid, size) if (oid, entry['tid']) not in hidden),
                    lambda ours: size < 100 and any((oid, tid) in hidden for tid in moments))
        for first, last in (0, -20), (0, 1000), (2, -3), (1, 4):
            self.same(f'undoLog {first} {last}', lambda s: without_sizes(s.undoLog(first, last)))
        self.same('undoInfo', lambda s: without_sizes(s.undoInfo(0, -20, dict(user_name=b'fred'))))
        self.same('undoInfo', lambda s: without_sizes(s.undoInfo(0, -20, dict(description=b'what', a=1))))
        # (To undo a transaction in which an object was undone twice, FileStorage tries it twice, too, and takes the
        # later place.)
        in_order = not self.is_peculiar()
        self.same('iterator', lambda s: iterated(s, in_order=in_order))
        for tid in moments[1::3]:
            self.same(f'iterator to {names[tid]}', lambda s: iterated(s, None, tid, in_order))
            self.same(f'iterator from after {names[tid]}', lambda s: iterated(s, p64(u64(tid) + 1), maxtid, in_order))
        for oid in [None] + ids:
            at = 'start' if oid is None else u64(oid)
            self.same(f'record_iternext {at}', lambda s: next_record(s, oid))


def told(outcome):
    text = repr(outcome)
    return ('says ' if outcome[:1] != ('raises',) else '') + text if isinstance(outcome, tuple) and len(
        text) < 2000 else 'says ' + text[:2000]


def later(tid, seconds):
    stamp = TimeStamp(tid)
    moment = stamp.timeTime() + seconds
    return TimeStamp(*time.gmtime(moment)[:5] + (moment % 60,)).raw()


def now():
    return later(TimeStamp(*time.gmtime()[:5] + (0.0,)).raw(), 0)


def blob(storage, oid, tid):
    """The first byte and the size."""
    with open(storage.loadBlob(oid, tid), 'rb') as f:
        data = f.read()
    assert data == data[:1] * len(data)
    return data[:1], len(data)


def next_record(storage, oid):
    """As zrs has it: objects that are absent are skipped. (FileStorage raises at them, and something else after the
    last.)"""
    def at_least(oid):
        while True:
            try:
                return storage.record_iternext(oid)
            except POSKeyError:
                oid = p64(u64(oid or storage._index.minKey()) + 1) if isinstance(storage, FileStorage) else None
                if oid is None:
                    raise

    found = outcome(at_least, oid)
    if found[0] == 'raises':
        return 'raises'
    if isinstance(storage, FileStorage) and found[3] is not None:
        following = outcome(at_least, found[3])
        found = found[:3] + (None if following[0] == 'raises' else following[0],)
    return found


def without_sizes(log):
    """A transaction's size is how many bytes it takes in Data.fs; an extension may say something else, as in
    undoLog."""
    return [{k: v for k, v in entry.items() if k != 'size' or v == 'mine'} for entry in log]


def iterated(storage, start=None, stop=None, in_order=True):
    """-> [(tid, status, user, description, extension, [(oid, tid, data, data_txn)])]; records sorted by oid if not
    `in_order`"""
    found = []
    transactions = storage.iterator(start, stop)
    try:
        for txn in transactions:
            records = [(r.oid, r.tid, r.data, r.data_txn) for r in txn]
            # (Undone twice in one transaction, an object is there twice in a FileStorage; the last counts.)
            records = list({record[0]: record for record in records}.values())
            if not in_order:
                records.sort(key=lambda record: record[0])
            status = txn.status if isinstance(txn.status, str) else txn.status.decode()
            found.append((txn.tid, status, txn.user, txn.description, txn.extension, records))
    finally:
        if hasattr(transactions, 'close'):
            transactions.close()
    return found


# A history from its beginning to its end, and what of it matters.

def run(steps, address, name='1', gc=True, between=None, nodes=()):
    """Raises Difference. `between` is called after each step, and gives 'kill' or 'hand-over' if that is what the
    primary did since: then the client connects again. In the end each of the `nodes` is asked for everything. ->
    Counter of its packs: 'compared', 'peculiar', 'failed by FileStorage'; the latter were left out."""
    sides = Sides(address, name, gc)
    try:
        for step in steps:
            sides.do(step)
            happened = between and between()
            if happened:
                sides.may_lose = happened == 'kill'
                sides.reconnect()
        sides.compare()
        for node in nodes:
            sides.compare(node, read_only=True)
        return sides.packs
    finally:
        sides.close()


def smaller(steps):
    """What may be tried instead of a history: it without some of it."""
    size = len(steps) // 2
    while size:
        for at in range(0, len(steps), size):
            yield steps[:at] + steps[at + size:]
        size //= 2
    for at, step in enumerate(steps):
        if isinstance(step, Commit):
            for n in range(len(step.ops)):
                yield steps[:at] + [step._replace(ops=step.ops[:n] + step.ops[n + 1:])] + steps[at + 1:]
            for n, op in enumerate(step.ops):
                if op[0] == 'store' and op[2]:
                    simpler = op[:2] + (op[2][1:],) + op[3:]
                    yield steps[:at] + [step._replace(ops=step.ops[:n] + (simpler,) + step.ops[n + 1:])] + steps[at + 1:]
            if step.gap is not None:
                yield steps[:at] + [step._replace(gap=None)] + steps[at + 1:]
            if step.extension or step.user or step.description:
                yield steps[:at] + [step._replace(extension={}, user='', description='')] + steps[at + 1:]


def minimal(steps, fails, what, seconds):
    """The smallest history found within that time for which `fails` gives a Difference in the same -> it, and that"""
    deadline = time.monotonic() + seconds
    found = None
    progress = True
    while progress:
        progress = False
        for candidate in smaller(steps):
            if time.monotonic() > deadline:
                return steps, found
            failure = fails(candidate)
            if failure and failure.what == what:
                steps, found, progress = candidate, failure, True
                break
    return steps, found


__all__ = ['Difference', 'history', 'minimal', 'run', 'shown']
