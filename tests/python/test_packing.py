"""Packs beside readers and writers, and what they say when they can't. (What they remove is `test_histories.py`'s
matter, and the Plone site's in tests/cluster/site.rs.)"""
import os
import shutil
import time

import transaction
from ZEO.Exceptions import ClientDisconnected, ServerException
from ZODB.POSException import ConflictError, POSKeyError
from ZODB.utils import p64, z64

from cases import OneServer, ThreeNodes, both_encodings, usage, wait_for, zrs_only
from objects import Cell, record

MB = 1 << 20
GARBAGE = b'\x80\x03N.\x80\x03NQ.'  # a persistent id that is none


class Beside:
    """Writers link, unlink, and change objects while packs follow each other."""

    ROUNDS = 40

    def write(self, address, number):
        """Each round makes a cell, links it in place of the one before, and brings an old one back now and then."""
        db = self.db(address)
        for n in range(self.ROUNDS):
            for _ in range(100):
                try:
                    with db.transaction() as connection:
                        mine = connection.root()[f'beside {number}']
                        old, mine.value = mine.value, Cell(n)
                        mine.value.value = (n, old if n % 3 else None)
                    break
                except (ConflictError, ClientDisconnected):  # (an election, where there are three)
                    pass
            else:
                raise AssertionError('it never got through')
        return n

    def check_packs_beside_writers(self, addresses):
        db = self.db(addresses[0])
        with db.transaction() as connection:
            for number in range(3):
                connection.root()[f'beside {number}'] = Cell(Cell(None))
        writers = [self.in_thread(self.write, addresses[n % len(addresses)], n) for n in range(3)]
        packer = self.storage(addresses[-1], read_only=True)
        for _ in range(8):
            packer.pack(time.time())
        for writer in writers:
            writer(60)
        packer.pack(time.time())
        # Nothing that is linked has gone.
        with self.db(addresses[0]).transaction() as connection:
            for number in range(3):
                cell, seen = connection.root()[f'beside {number}'].value, 0
                while cell is not None and cell.value is not None:
                    cell = cell.value[1]
                    seen += 1
                self.assertGreater(seen, 0)


@both_encodings
@zrs_only
class Packing(Beside, OneServer):
    """One node."""

    limit = 120

    def test_packs_beside_writers(self):
        self.check_packs_beside_writers(self.addresses())

    def test_history_goes_and_readers_are_told_the_size(self):
        db, storage = self.db(), self.storage()
        name = self.cell(db, 1)
        for value in range(5):
            with db.transaction() as connection:
                connection.root()[name].value = value
                oid = connection.root()[name]._p_oid
        self.assertEqual(len(storage.history(oid, 100)), 6)
        # A commit tells the new size to the committing client alone.
        self.assertLess(storage.getSize(), db.storage.getSize())
        db.storage.pack(time.time())
        self.assertEqual(len(storage.history(oid, 100)), 1)
        wait_for('the size', lambda: storage.getSize() == db.storage.getSize())

    def test_what_nobody_refers_to_goes(self):
        db = self.db()
        name = self.cell(db, Cell(Cell('inner')))
        with db.transaction() as connection:
            inner = connection.root()[name].value._p_oid
        with db.transaction() as connection:
            connection.root()[name].value = None
        db.pack()
        with self.assertRaises(POSKeyError):
            self.storage().load(inner)


@zrs_only
class Damage(OneServer):
    """What a pack says of a database that is not whole; it has removed nothing then."""

    options = [word for name in ('missing', 'unreadable', 'younger', 'rootless') for word in ('--storage', name)]

    def stored(self, name, oid, data):
        storage = self.storage(storage=name)
        for _ in range(2):
            self.store(storage, oid, data)
        return storage

    def store(self, storage, oid, data):
        with transaction.manager:
            txn = transaction.get()
            storage.tpc_begin(txn)
            try:
                serial = storage.getTid(oid)
            except POSKeyError:
                serial = z64
            storage.store(oid, serial, data, '', txn)
            storage.tpc_vote(txn)
            storage.tpc_finish(txn)

    def assert_fails(self, storage, oid, error, text):
        with self.assertRaises(error) as caught:
            storage.pack(time.time())
        self.assertIn(text, str(caught.exception))
        self.assertEqual(len(storage.history(oid, 10)), 2)
        # The pack is over, and undo does not stop at its time.
        self.assertEqual(len(storage.undoLog(0, 10)), 2)

    def test_a_missing_object(self):
        data = b'\x80\x03N.\x80\x03C\x08' + p64(77) + b'Q.'
        self.assert_fails(self.stored('missing', z64, data), z64, KeyError, p64(77).hex())

    def test_an_unreadable_record(self):
        self.assert_fails(self.stored('unreadable', z64, GARBAGE), z64, ServerException, z64.hex())

    def test_an_unreadable_record_younger_than_the_pack_time(self):
        storage = self.stored('younger', z64, record(1))
        upto = time.time()
        time.sleep(0.01)
        self.store(storage, p64(5), GARBAGE)
        with self.assertRaises(ServerException) as caught:
            storage.pack(upto)
        self.assertIn(p64(5).hex(), str(caught.exception))
        self.assertEqual(len(storage.history(z64, 10)), 2)

    def test_a_missing_root(self):
        self.assert_fails(self.stored('rootless', p64(5), record(1)), p64(5), KeyError, z64.hex())


class PackingThree(Beside, ThreeNodes):
    """Packs that are asked for at a secondary, while others write."""

    options = ('--election-timeout', '1000')  # (who packs has to ask again after an election)

    def test_packs_beside_writers(self):
        primary = self.cluster.wait_primary()
        secondary = next(node for node in self.cluster.nodes if node is not primary)
        others = [node.address for node in self.cluster.nodes if node is not secondary]
        self.check_packs_beside_writers(others + [secondary.address])
        self.cluster.wait_same()

    @zrs_only
    def test_every_disk_gets_its_space_back(self):
        name = self.cell(db := self.db(), b'')
        for _ in range(16):
            with db.transaction() as connection:
                connection.root()[name].value = os.urandom(8 * MB)
        stores = [os.path.join(node.data, 'store') for node in self.cluster.nodes]
        # (A store writes its files later: what is in the log can be applied again.)
        wait_for('the records', lambda: all(usage(store) > 80 * MB for store in stores), 30)
        # (A file of the store has a few of them: the one with the last stays whole.)
        db.pack()
        wait_for('the space', lambda: all(usage(store) < 50 * MB for store in stores), 60)


class PackingWhileOneFetches(ThreeNodes):
    """A node that lost its disk fetches the database, slowly, and the cluster packs meanwhile."""

    options = ('--log-keep', '0', '--log-size', '1', '--snapshot-rate', '3')

    def test_a_pack_while_a_node_fetches_the_database(self):
        name = self.cell(db := self.db(), b'')
        for _ in range(12):
            with db.transaction() as connection:
                connection.root()[name].value = os.urandom(2 * MB)
        primary = self.cluster.wait_primary()
        node = next(node for node in self.cluster.nodes if node is not primary)
        node.kill()
        shutil.rmtree(node.data)
        node.start()

        def fetching():
            return (node.status() or {}).get('fetching')
        wait_for('the node to fetch', lambda: (fetching() or {}).get('done'), 60)
        db.pack()
        with db.transaction() as connection:
            connection.root()[name].value = b'after the pack'
        self.assertIsNotNone(fetching(), 'the pack was over before the database was fetched')

        def votes():
            parts = {member['node']: member['part'] for member in (node.status() or {}).get('members', ())}
            return parts.get(node.number) == 'voter'
        wait_for(lambda: f'the node to vote: {self.cluster.situation()}', votes, 60)
        self.cluster.wait_same()
        kept = ['last_transaction', 'objects', 'bytes', 'transactions']
        stores = [{key: node.status()['storages'][0][key] for key in kept} for node in self.cluster.nodes]
        self.assertEqual(stores[0], stores[1])
        self.assertEqual(stores[0], stores[2])
        # What the node has fetched is enough to go on with.
        primary.kill()
        with self.db().transaction() as connection:
            self.assertEqual(connection.root()[name].value, b'after the pack')
