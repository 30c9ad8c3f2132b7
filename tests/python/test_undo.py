"""Undo and its log, as `ZODB.DB` and stock clients use them."""
import base64
import sys
import time
import types

import transaction
import ZODB.interfaces
from ZODB.POSException import MultipleUndoErrors, POSKeyError, UndoError
from ZODB.utils import z64

from cases import STOCK, OneServer, ThreeNodes, begin, both_encodings, wait_for, zrs_only
from objects import Cell, record

LATEST = b'\x7f' + b'\xff' * 7


@both_encodings
class Undo(OneServer):
    """What an application can take back."""

    def set(self, db, name, *values):
        for value in values:
            with db.transaction() as connection:
                connection.root()[name].value = value

    def value(self, db, name):
        with db.transaction() as connection:
            return connection.root()[name].value

    def undo(self, db, *numbers):
        """Undoes the transactions of these numbers in the log, the newest being 0."""
        log = db.undoLog(0, 100)
        db.undoMultiple([log[number]['id'] for number in numbers])
        transaction.commit()

    def test_the_client_is_told_that_there_is_undo(self):
        db = self.db()
        self.assertTrue(db.supportsUndo())
        for interface in ZODB.interfaces.IStorageUndoable, ZODB.interfaces.IExternalGC:
            self.assertTrue(interface.providedBy(db.storage), interface)

    def test_undo_and_redo(self):
        db, other = self.db(), self.db()
        name = self.cell(db, 1)
        self.set(db, name, 2)
        connection = self.open(other)
        self.assertEqual(connection.root()[name].value, 2)
        self.undo(db, 0)
        # The undoing client has no stale state in its cache, and others are told.
        self.assertEqual(self.value(db, name), 1)
        wait_for('the invalidation', lambda: self.value(other, name) == 1)
        self.undo(db, 0)
        self.assertEqual(self.value(db, name), 2)

    def test_a_creation_is_undone_and_redone(self):
        db = self.db()
        name = self.cell(db, 1)
        with db.transaction() as connection:
            oid = connection.root()[name]._p_oid
        self.undo(db, 0)
        with self.db().transaction() as connection:
            self.assertNotIn(name, connection.root())
            with self.assertRaises(POSKeyError):
                connection.get(oid)
        self.undo(db, 0)
        self.assertEqual(self.value(db, name), 1)

    def test_several_undos_see_each_others_results(self):
        db = self.db()
        name = self.cell(db, 1)
        self.set(db, name, 2, 3, 4)
        self.undo(db, 0, 1, 2)
        self.assertEqual(self.value(db, name), 1)

    def test_what_changed_since_is_told_by_object(self):
        db = self.db()
        names = [self.cell(db, 1) for _ in range(3)]
        with db.transaction() as connection:
            oids = [connection.root()[name]._p_oid for name in names]
            for name in names:
                connection.root()[name].value = 2
        self.set(db, names[0], 3)
        self.set(db, names[2], 3)
        log = db.undoLog(0, 10)
        storage = db.storage
        txn = begin(storage)
        storage.undo(log[2]['id'], txn)
        with self.assertRaises(UndoError) as caught:
            storage.tpc_vote(txn)
        storage.tpc_abort(txn)
        self.assertIsInstance(caught.exception, MultipleUndoErrors)
        if not STOCK:
            self.assertEqual([oid for oid, why in caught.exception._errs], [oids[0], oids[2]])
        self.assertEqual([self.value(db, name) for name in names], [3, 2, 3])

    def test_what_came_to_the_same_can_be_undone(self):
        db = self.db()
        name = self.cell(db, 1)
        self.set(db, name, 2, 3, 2)
        self.undo(db, 2)
        self.assertEqual(self.value(db, name), 1)

    @zrs_only
    def test_an_unknown_transaction_is_refused(self):
        # (The stock client can't rebuild what the stock server says.)
        storage = self.storage()
        for id in b'AAAAAAAAAAA=', b'nonsense', b'':
            txn = begin(storage)
            storage.undo(id, txn)
            with self.assertRaises(UndoError):
                storage.tpc_vote(txn)
            storage.tpc_abort(txn)
        self.assertIsNotNone(storage.lastTransaction())

    def test_a_deletion_is_undone(self):
        storage = self.storage()
        c = self.raw()
        oid = c.new_oid()
        tid = c.commit(oid, data=record(1))
        txn = begin(storage)
        storage.deleteObject(oid, tid, txn)
        storage.tpc_vote(txn)
        deleted = storage.tpc_finish(txn)
        self.assertEqual(c.error('loadBefore', oid, LATEST)[0], 'ZODB.POSException.POSKeyError')
        txn = begin(storage)
        storage.undo(storage.undoLog(0, 1)[0]['id'], txn)
        self.assertEqual(list(storage.tpc_vote(txn)), [oid])
        undone = storage.tpc_finish(txn)
        self.assertEqual(tuple(c.call('loadBefore', oid, LATEST)), (record(1), undone, None))
        # Iterators tell whose state it shows again.
        last = [[(r.oid, r.data, r.data_txn) for r in txn] for txn in storage.iterator(deleted)]
        self.assertEqual(last, [[(oid, None, None)], [(oid, record(1), tid)]])

    def test_deletions_are_judged_like_the_stock_servers(self):
        c = self.raw()
        oid = c.new_oid()

        def delete(oid, serial, id):
            c.begin(id)
            c.async_('deleteObject', oid, serial, id)
            return c.begin_call('vote', id)
        first = c.commit(oid)
        second = c.commit(oid, first, record(2))
        flag, (kind, data) = c.reply(delete(oid, first, 1))
        self.assertEqual((flag, kind), (2, 'ZODB.POSException.ConflictError'))
        self.assertEqual(tuple(data['serials']), (second, first))
        flag, (kind, _) = c.reply(delete(c.new_oid(), first, 2))
        self.assertEqual((flag, kind), (2, 'ZODB.POSException.POSKeyError'))
        # A deleted object may be deleted again, by its serial.
        serial = second
        for id in 3, 4:
            self.assertEqual(list(c.reply(delete(oid, serial, id))[1]), [])
            serial = c.call('tpc_finish', id)

    def test_a_large_transaction_is_undone(self):
        db = self.db()
        cells = [Cell(i) for i in range(5000)]
        with db.transaction() as connection:
            connection.root()[self.id()] = Cell(cells)
        with db.transaction() as connection:
            for cell in connection.root()[self.id()].value:
                cell.value = 'changed'
        self.undo(db, 0)
        with self.db().transaction() as connection:
            self.assertEqual([cell.value for cell in connection.root()[self.id()].value], list(range(5000)))


@both_encodings
class Votes(OneServer):
    """Undo beside stores and other clients, message by message."""

    transaction_timeout = 5  # (between vote and finish, of any test here on a busy machine)

    def revisions(self, c, *values):
        """A new object with these revisions -> its oid, their tids"""
        oid, tids = c.new_oid(), [z64]
        for value in values:
            tids.append(c.commit(oid, tids[-1], record(value)))
        return oid, tids[1:]

    def id_of(self, c, tid):
        return next(entry['id'] for entry in c.call('undoLog', 0, 20) if entry['id'] == undo_id(tid))

    def undo(self, c, id, *tids):
        c.begin(id)
        for tid in tids:
            c.async_('undoa', undo_id(tid), id)

    def load(self, c, oid):
        return c.call('loadBefore', oid, LATEST)[0]

    def test_the_vote_tells_the_undone_objects_and_others_are_told(self):
        a, b = self.raw(), self.raw()
        oid, tids = self.revisions(a, 1, 2)
        self.assertEqual(self.id_of(a, tids[1]), undo_id(tids[1]))
        self.undo(a, 1, tids[1])
        self.assertEqual(a.vote(1), [oid])
        tid = a.call('tpc_finish', 1)
        b.call('ping')
        self.assertIn((tid, [oid]), b.invalidations())

    def test_stores_and_undos_in_one_transaction(self):
        c = self.raw()
        oid, tids = self.revisions(c, 1, 2)
        other = c.new_oid()
        # A store of another object, and one of the same that comes after the undo.
        self.undo(c, 1, tids[1])
        c.async_('storea', other, z64, record('other'), 1)
        c.async_('storea', oid, tids[1], record('after'), 1)
        self.assertEqual(c.vote(1), [oid])
        last = c.call('tpc_finish', 1)
        self.assertEqual([self.load(c, o) for o in (oid, other)], [record('after'), record('other')])
        # A store before the undo is what the undo finds: another state can't be undone, the same can.
        c.begin(2)
        c.async_('storea', oid, last, record('mine'), 2)
        c.async_('undoa', undo_id(tids[1]), 2)
        kind, data = c.error('vote', 2)
        self.assertEqual(kind, 'ZODB.POSException.MultipleUndoErrors')
        c.begin(3)
        c.async_('storea', oid, last, record(2), 3)
        c.async_('undoa', undo_id(tids[1]), 3)
        self.assertEqual(c.vote(3), [oid])
        c.call('tpc_finish', 3)
        self.assertEqual(self.load(c, oid), record(1))

    def test_a_conflict_is_resolved_beside_an_undo(self):
        a, b = self.raw(), self.raw()
        undone, tids = self.revisions(a, 1, 2)
        oid, (first,) = self.revisions(a, 1)
        second = b.commit(oid, first, record('theirs'))
        self.undo(a, 1, tids[1])
        a.async_('storea', oid, first, record('mine'), 1)
        conflict, = a.vote(1)
        self.assertEqual(conflict['oid'], oid)
        a.async_('storea', oid, second, record('resolved'), 1)
        self.assertEqual(set(a.vote(1)), {undone})
        a.call('tpc_finish', 1)
        self.assertEqual([self.load(b, o) for o in (undone, oid)], [record(1), record('resolved')])

    @zrs_only
    def test_an_undo_waits_for_who_holds_its_objects_and_goes_by_what_they_left(self):
        a, b = self.raw(), self.raw()
        oid, tids = self.revisions(a, 1, 2)
        a.store(1, oid, tids[1], record(3))
        self.assertEqual(a.vote(1), [])
        self.undo(b, 1, tids[1])
        waiting = b.begin_call('vote', 1)
        self.assertFalse(b.is_answered(waiting, 0.3))
        a.call('tpc_finish', 1)
        flag, (kind, data) = b.reply(waiting)
        self.assertEqual((flag, kind), (2, 'ZODB.POSException.MultipleUndoErrors'))
        # The failed transaction is over, and holds no locks.
        self.assertEqual(self.load(b, oid), record(3))
        a.commit(oid, a.call('getTid', oid), record(4))

    @zrs_only
    def test_a_voted_undo_keeps_others_out_until_it_ends(self):
        for end in 'abort', 'disconnect', 'timeout':
            with self.subTest(end):
                a, b = self.raw(), self.raw()
                oid, tids = self.revisions(a, 1, 2)
                self.undo(a, 1, tids[1])
                self.assertEqual(a.vote(1), [oid])
                b.store(1, oid, tids[1], record(3))
                waiting = b.begin_call('vote', 1)
                self.assertFalse(b.is_answered(waiting, 0.3))
                if end == 'abort':
                    a.call('tpc_abort', 1)
                elif end == 'disconnect':
                    a.close()
                else:
                    self.assertTrue(a.is_closed())
                flag, answer = b.reply(waiting)
                self.assertEqual((flag, list(answer)), (0, []))
                b.call('tpc_finish', 1)

    def test_an_abort_while_the_vote_is_under_way_is_no_harm(self):
        c = self.raw()
        oid, tids = self.revisions(c, 1, 2)
        for id in range(1, 20):
            self.undo(c, id, tids[1])
            if STOCK:
                self.assertEqual(c.vote(id), [oid])
            else:
                c.send(c.encode(9000 + id, 0, 'vote', (id,)))
            c.number += 1
            c.send(c.encode(c.number, 0, 'tpc_abort', (id,)))
            while True:
                msgid, flag, name, args = c.decode(c.receive())
                if msgid == c.number:
                    break
        c.commit(oid, tids[1], record(3))


@both_encodings
class Log(OneServer):
    """What `undoLog` and `undoInfo` tell."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.made = False

    def log(self):
        """A client, and the tids of ten transactions."""
        c = self.raw()
        if not type(self).made:
            type(self).made = []
            for n in range(10):
                id, extension = n + 1, {'n': n, 'list': [n, {'deep': (n,)}]}
                if n == 7:
                    extension['description'] = 'mine'
                c.async_('tpc_begin', id, b'/acl_users jim' if n % 2 else b'/site/acl_users eve',
                         b'number %d' % n, extension, None, ' ')
                c.async_('storea', c.new_oid(), z64, record(n), id)
                c.vote(id)
                type(self).made.append(c.call('tpc_finish', id))
        return c, type(self).made

    def numbers(self, entries):
        return [entry['n'] for entry in entries]

    def test_entries(self):
        c, tids = self.log()
        entry = c.call('undoLog', 0, 1)[0]
        self.assertEqual(entry['id'], undo_id(tids[9]))
        self.assertEqual(entry['user_name'], b'/acl_users jim')
        self.assertEqual(entry['description'], b'number 9')
        self.assertEqual(entry['n'], 9)
        self.assertLess(abs(entry['time'] - time.time()), 60)
        # As long as the transaction is in a Data.fs (with its extension).
        least = 23 + len(b'/acl_users jim' b'number 9') + 42 + len(record(9))
        self.assertTrue(least < entry['size'] < least + 100, (least, entry))
        # The extension overrides.
        self.assertEqual(c.call('undoLog', 2, 3)[0]['description'], 'mine')

    def test_slices(self):
        c, _ = self.log()
        for first, last, wanted in [(0, 100, 10), (0, -20, 10), (0, 3, 3), (0, -3, 3), (9, 12, 1), (10, 12, 0),
                                    (4, 2, 0), (0, 0, 0), (-3, 2, 2), (2, -3, 3)]:
            start = max(first, 0)
            wanted = list(range(9, -1, -1))[start:start + wanted]
            self.assertEqual(self.numbers(c.call('undoLog', first, last)), wanted, (first, last))
            self.assertEqual(self.numbers(c.call('undoInfo', first, last, None)), wanted, (first, last))
            self.assertEqual(self.numbers(c.call('undoInfo', first, last, {})), wanted, (first, last))

    def test_specifications(self):
        c, tids = self.log()

        def find(specification, first=0, last=20):
            return self.numbers(c.call('undoInfo', first, last, specification))
        self.assertEqual(find({'user_name': b'/acl_users jim'}), [9, 7, 5, 3, 1])
        self.assertEqual(find({'user_name': b'/acl_users jim'}, 1, 3), [7, 5])
        self.assertEqual(find({'n': 4}), [4])
        self.assertEqual(find({'n': 4.0, 'description': b'number 4'}), [4])
        self.assertEqual(find({'n': 4, 'description': b'number 5'}), [])
        self.assertEqual(find({'list': c.call('undoLog', 3, 4)[0]['list']}), [6])
        self.assertEqual(find({'id': undo_id(tids[2])}), [2])
        self.assertEqual(find({'description': 'mine'}), [7])
        self.assertEqual(find({'nothing': None}), list(range(9, -1, -1)))
        self.assertEqual(find({'nothing': 1}), [])

    @zrs_only
    def test_a_prefix_of_a_users_path(self):
        # The filter of Zope for a user who may undo what others of the same folder did. (The stock server compares the
        # prefix with text, and has bytes.)
        if self.msgpack:
            return  # which has no such objects
        self.log()
        with prefix_class() as Prefix:
            storage = self.storage()
            self.assertEqual(self.numbers(storage.undoInfo(0, 20, {'user_name': Prefix('/site')})), [8, 6, 4, 2, 0])
            self.assertEqual(self.numbers(storage.undoInfo(0, 20, {'user_name': Prefix('/site/acl_users')})),
                             [8, 6, 4, 2, 0])
            self.assertEqual(self.numbers(storage.undoInfo(0, 20, {'user_name': Prefix('/si')})), [])

    def test_other_calls_go_on_while_the_log_is_searched(self):
        c, _ = self.log()
        numbers = [c.begin_call('undoInfo', 0, 20, {'nothing': n}) for n in range(50)]
        last = c.begin_call('lastTransaction')
        seen = set()
        while len(seen) < 51:
            msgid, flag, name, args = c.decode(c.receive())
            self.assertFalse(flag)
            seen.add(msgid)
        self.assertEqual(seen, set(numbers) | {last})


class OnSecondaries(ThreeNodes):
    """Undo by whichever node."""

    def test_the_log_is_the_same_everywhere_and_undo_is_relayed(self):
        name = self.cell(self.db(), 1)
        for address in self.addresses():
            db = self.db([address])
            with db.transaction() as connection:
                connection.root()[name].value = str(address)
            log = db.undoLog(0, 20)
            db.undo(log[0]['id'])
            transaction.commit()
            with db.transaction() as connection:
                self.assertEqual(connection.root()[name].value, 1)
        for address in self.addresses():
            reader = self.storage([address], read_only=True)
            wait_for('the same log', lambda: reader.undoLog(0, 20) == db.storage.undoLog(0, 20))


def undo_id(tid):
    return base64.encodebytes(tid).rstrip()


class prefix_class:
    """`ZopeUndo.Prefix.Prefix`, as far as pickling it goes."""

    def __enter__(self):
        class Prefix:
            def __init__(self, path):
                self.path = path.split('/')
                self.length = len(self.path)
        Prefix.__module__, Prefix.__qualname__ = 'ZopeUndo.Prefix', 'Prefix'
        package, module = types.ModuleType('ZopeUndo'), types.ModuleType('ZopeUndo.Prefix')
        package.Prefix, module.Prefix = module, Prefix
        sys.modules.update({'ZopeUndo': package, 'ZopeUndo.Prefix': module})
        return Prefix

    def __exit__(self, *_):
        del sys.modules['ZopeUndo'], sys.modules['ZopeUndo.Prefix']
