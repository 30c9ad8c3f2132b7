"""Blobs, by stock clients and over a plain socket: up, down, kept, forgotten."""
import os
import threading

import transaction
from ZEO.Exceptions import ClientDisconnected, ServerException
from ZODB.blob import Blob
from ZODB.POSException import POSKeyError
from ZODB.serialize import ObjectWriter
from ZODB.utils import maxtid, p64, z64

from cases import FAILOVER, OneServer, ThreeNodes, begin, both_encodings, wait_for, zrs_only
from objects import Counter, counter_record, record

CHUNK = 59000
MIB = 1 << 20
BLOB = ObjectWriter().serialize(Blob())


def staged(node):
    """How many pieces wait for their transaction at a node."""
    return sum(storage['staged'] for storage in node.status()['storages'])


class Blobs:
    """What the tests of one node and of three have in common."""

    def blob_db(self, address=None, **options):
        return self.db(address, blob_dir=self.temporary_folder(), **options)

    def put(self, db, name, content):
        with db.transaction() as connection:
            connection.root()[name] = Blob(content)

    def content(self, db, name):
        with db.transaction() as connection:
            with connection.root()[name].open('r') as f:
                return f.read()

    def send_blob(self, c, id, oid, content, serial=z64, end=True):
        """The calls of a blob, in the transaction that is open."""
        c.async_('storea', oid, serial, BLOB, id)
        c.async_('storeBlobStart')
        for at in range(0, len(content), CHUNK):
            c.async_('storeBlobChunk', content[at:at + CHUNK])
        if end:
            c.async_('storeBlobEnd', oid, serial, BLOB, id)

    def receive_blob(self, c, oid, serial):
        del c.pushed[:]
        self.assertIsNone(c.call('sendBlob', oid, serial))
        names = [name for name, args in c.pushed]
        self.assertEqual((names[0], names[-1]), ('receiveBlobStart', 'receiveBlobStop'))
        self.assertEqual(set(names[1:-1]) | {'receiveBlobChunk'}, {'receiveBlobChunk'})
        self.assertEqual({tuple(args[:2]) for name, args in c.pushed}, {(oid, serial)})
        chunks = [args[2] for name, args in c.pushed[1:-1]]
        self.assertEqual({len(chunk) for chunk in chunks[:-1]} | {CHUNK}, {CHUNK})
        return b''.join(chunks)


@both_encodings
class OneNode(Blobs, OneServer):

    def nothing_staged(self):
        wait_for('the pieces to be gone', lambda: staged(self.server) == 0)

    def test_up_and_down(self):
        c = self.raw()
        for size in (0, 1, CHUNK, CHUNK + 1, MIB - 1, MIB, MIB + 1, 3 * MIB + 12345):
            content, oid = os.urandom(size), c.new_oid()
            c.begin(size)
            self.send_blob(c, size, oid, content)
            self.assertEqual(c.vote(size), [])
            tid = c.call('tpc_finish', size)
            self.assertEqual(self.receive_blob(c, oid, tid), content)
            self.assertEqual(c.call('loadBefore', oid, maxtid)[0], BLOB)

    @zrs_only
    def test_nothing_is_left_in_the_staging_area(self):
        self.test_up_and_down()
        self.nothing_staged()

    def test_stock_clients_share_blobs(self):
        one, two = self.blob_db(), self.blob_db()
        content = os.urandom(2 * MIB)
        self.put(one, 'shared', content)
        two.storage._call('ping')
        self.assertEqual(self.content(two, 'shared'), content)
        self.put(two, 'shared', b'another')
        one.storage._call('ping')
        self.assertEqual(self.content(one, 'shared'), b'another')

    def test_old_revisions_keep_their_blobs(self):
        db = self.blob_db()
        with db.transaction() as connection:
            blob = connection.root()['old'] = Blob(b'first')
        oid, first = blob._p_oid, db.lastTransaction()
        with db.transaction() as connection:
            with connection.root()['old'].open('w') as f:
                f.write(b'second')
        second = db.lastTransaction()
        c = self.raw()
        self.assertEqual(self.receive_blob(c, oid, first), b'first')
        self.assertEqual(self.receive_blob(c, oid, second), b'second')

    def test_a_blob_that_is_undone(self):
        db = self.blob_db()
        self.put(db, 'undone', b'before')
        with db.transaction() as connection:
            with connection.root()['undone'].open('w') as f:
                f.write(b'after')
        self.assertEqual(self.content(db, 'undone'), b'after')
        db.undo(db.undoLog(0, 1)[0]['id'])
        transaction.commit()
        db.storage._call('ping')
        self.assertEqual(self.content(db, 'undone'), b'before')
        self.assertEqual(self.content(self.blob_db(), 'undone'), b'before')

    def test_a_missing_blob_is_a_key_error_and_no_more(self):
        c = self.raw()
        oid = c.new_oid()
        tid = c.commit(oid)
        del c.pushed[:]
        for asked, serial in ((oid, tid), (oid, p64(1)), (p64(1 << 50), tid), (oid, b'\x7f' + 7 * b'\xff')):
            kind, args = c.error('sendBlob', asked, serial)
            self.assertEqual(kind, 'ZODB.POSException.POSKeyError')
        self.assertEqual(c.pushed, [])
        self.assertRaises(POSKeyError, self.blob_db().storage.loadBlob, oid, tid)

    def test_kept_while_another_object_is_resolved(self):
        c, other = self.raw(), self.raw()
        counter, blob = c.new_oid(), c.new_oid()
        first = c.commit(counter, data=counter_record(0))
        content = os.urandom(MIB + 5)
        c.begin(7)
        c.async_('storea', counter, first, counter_record(1), 7)
        self.send_blob(c, 7, blob, content)
        second = other.commit(counter, first, counter_record(1))
        conflict, = c.vote(7)
        self.assertEqual(conflict['oid'], counter)
        c.async_('storea', counter, second, counter_record(2), 7)
        self.assertEqual(c.vote(7), [])
        tid = c.call('tpc_finish', 7)
        self.assertEqual(self.receive_blob(c, blob, tid), content)

    def test_a_stock_client_resolves_beside_a_blob(self):
        one, two = self.blob_db(), self.blob_db()
        name = self.cell(one, Counter())
        two.storage._call('ping')
        a, b = self.open(one), self.open(two)
        a.root()[name].increment()
        a.root()['beside'] = Blob(b'x' * 100000)
        b.root()[name].increment()
        b.transaction_manager.commit()
        a.transaction_manager.commit()
        two.storage._call('ping')
        self.assertEqual(self.content(two, 'beside'), b'x' * 100000)
        with two.transaction() as connection:
            self.assertEqual(connection.root()[name].value, 2)

    @zrs_only
    def test_aborted_in_the_middle(self):
        c = self.raw()
        oid = c.new_oid()
        for end in (False, True):
            c.begin(1)
            self.send_blob(c, 1, oid, os.urandom(3 * MIB), end=end)
            self.assertIsNone(c.call('tpc_abort', 1))
            self.nothing_staged()
        # Late chunks of a blob whose transaction was aborted are dropped, and the next blob begins anew.
        c.async_('storeBlobChunk', b'left over')
        c.begin(2)
        c.async_('storeBlobStart')
        c.async_('storeBlobChunk', b'partial')
        self.send_blob(c, 2, oid, b'whole')
        self.assertEqual(c.vote(2), [])
        self.assertEqual(self.receive_blob(c, oid, c.call('tpc_finish', 2)), b'whole')
        # A blob that was never ended belongs to no object.
        c.begin(3)
        c.async_('storea', p64(1 << 40), z64, record(1), 3)
        c.async_('storeBlobStart')
        c.async_('storeBlobChunk', b'x' * 2 * MIB)
        self.assertEqual(c.vote(3), [])
        tid = c.call('tpc_finish', 3)
        self.assertEqual(c.error('sendBlob', p64(1 << 40), tid)[0], 'ZODB.POSException.POSKeyError')
        self.nothing_staged()

    @zrs_only
    def test_stored_twice_in_one_transaction(self):
        c = self.raw()
        oid = c.new_oid()
        c.begin(1)
        self.send_blob(c, 1, oid, os.urandom(2 * MIB))
        self.send_blob(c, 1, oid, b'the later one')
        self.assertEqual(c.vote(1), [])
        self.assertEqual(self.receive_blob(c, oid, c.call('tpc_finish', 1)), b'the later one')
        self.nothing_staged()

    @zrs_only
    def test_restored(self):
        # ZEO's client has no restoreBlob; these are the calls that one would make.
        c = self.raw()
        oid, tid = c.new_oid(), p64(int.from_bytes(c.commit(c.new_oid()), 'big') + 1000)
        c.begin(1, tid=tid)
        c.async_('restorea', oid, tid, BLOB, None, 1)
        c.async_('storeBlobStart')
        c.async_('storeBlobChunk', b'copied')
        c.async_('storeBlobEnd', oid, tid, BLOB, 1)
        self.assertEqual(c.vote(1), [])
        self.assertEqual(c.call('tpc_finish', 1), tid)
        self.assertEqual(self.receive_blob(c, oid, tid), b'copied')

    def test_several_at_once_and_other_calls_between(self):
        c = self.raw()
        contents = {}
        for n in range(8):
            oid, content = c.new_oid(), os.urandom(MIB * n + n)
            c.begin(n)
            self.send_blob(c, n, oid, content)
            c.vote(n)
            contents[oid] = c.call('tpc_finish', n), content
        del c.pushed[:]
        numbers = [c.begin_call('sendBlob', oid, tid) for oid, (tid, content) in contents.items()]
        load = c.begin_call('loadBefore', oid, maxtid)
        got, answered = {}, []
        while len(answered) < len(numbers) + 1:
            msgid, flag, name, args = c.decode(c.receive())
            if name == '.reply':
                answered.append(msgid)
            elif name == 'receiveBlobChunk':
                got[args[0]] = got.get(args[0], b'') + args[2]
            elif name == 'receiveBlobStart':
                self.assertEqual(got.setdefault(args[0], b''), b'')
        self.assertEqual(got, {oid: content for oid, (tid, content) in contents.items()})
        self.assertEqual(set(answered), {load, *numbers})

    @zrs_only
    def test_a_shared_blob_directory_is_refused_and_says_why(self):
        storage = self.storage(blob_dir=self.temporary_folder(), shared_blob_dir=True)
        path = os.path.join(self.temporary_folder(), 'blob')
        with open(path, 'wb') as f:
            f.write(b'content')
        t = begin(storage)
        storage.storeBlob(storage.new_oid(), z64, BLOB, path, '', t)
        with self.assertRaises(ServerException) as caught:
            storage.tpc_vote(t)
        self.assertIn('shared-blob-dir off', str(caught.exception))
        storage.tpc_abort(t)

    @zrs_only
    def test_a_client_that_dies_leaves_nothing(self):
        c = self.raw()
        c.begin(1)
        self.send_blob(c, 1, c.new_oid(), os.urandom(4 * MIB))
        wait_for('the pieces', lambda: staged(self.server) > 0)
        c.close()
        self.nothing_staged()

    @zrs_only
    def test_kept_over_a_restart(self):
        db = self.blob_db()
        content = os.urandom(5 * MIB)
        self.put(db, 'kept', content)
        self.restart(kill=True)
        self.assertEqual(self.content(self.blob_db(), 'kept'), content)


class Cluster(Blobs, ThreeNodes):
    is_template = False

    def test_a_secondary_serves_them(self):
        db = self.blob_db()
        content = os.urandom(3 * MIB + 7)
        self.put(db, 'everywhere', content)
        for node in self.cluster.nodes:
            reader = self.blob_db(node.address, read_only=True)
            self.assertEqual(self.content(reader, 'everywhere'), content)

    def test_the_primary_dies_in_the_middle_of_one(self):
        db = self.blob_db(wait_timeout=30)
        storage = db.storage
        path = os.path.join(self.temporary_folder(), 'blob')
        with open(path, 'wb') as f:
            f.write(os.urandom(64 * MIB))
        t, oid = begin(storage), storage.new_oid()
        primary = self.cluster.wait_primary()
        killed = threading.Event()

        def kill():
            wait_for('some pieces', lambda: staged(primary) > 2)
            primary.signal(9)
            killed.set()
        killing = self.in_thread(kill)
        with self.assertRaises(ClientDisconnected):
            storage.storeBlob(oid, z64, BLOB, path, '', t)
            storage.tpc_vote(t)
        killing()
        storage.tpc_abort(t)
        primary.process.wait()
        primary.process = None
        primary = self.cluster.wait_primary()
        wait_for('the new primary to discard', lambda: staged(primary) == 0)

        def again():
            try:
                self.put(db, 'again', b'y' * 3 * MIB)
                return True
            except (transaction.interfaces.TransientError, ClientDisconnected):
                transaction.abort()
                return False
        wait_for('the next try', again, FAILOVER + 10)
        self.assertEqual(self.content(self.blob_db(), 'again'), b'y' * 3 * MIB)
        self.heal()
        self.cluster.wait_same()
        wait_for('the pieces to be gone', lambda: all(staged(node) == 0 for node in self.cluster.nodes))

    def test_a_dead_client_leaves_nothing_anywhere(self):
        c = self.raw(self.cluster.secondaries()[0].address)  # through a relay
        c.begin(1)
        self.send_blob(c, 1, c.new_oid(), os.urandom(6 * MIB))
        wait_for('the pieces everywhere', lambda: all(staged(node) > 2 for node in self.cluster.nodes))
        c.close()
        wait_for('them to be gone everywhere', lambda: all(staged(node) == 0 for node in self.cluster.nodes))
