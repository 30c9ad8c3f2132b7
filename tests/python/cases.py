"""What the test modules have in common: a test case with one server, one with a cluster of three, and their clients."""
import itertools
import os
import shutil
import sys
import tempfile
import threading
import traceback
import unittest

import transaction
import ZEO
import ZODB
from persistent import Persistent
from transaction import TransactionManager
from ZODB.Connection import TransactionMetaData

import zrs_cluster
from objects import Cell
from raw import Raw
from zrs_cluster import PATIENCE, Cluster, Failure, StockServer, usage, wait_for

# The tests that describe ZEO's own behaviour may be run against the stock server too, to see that they tell the truth.
STOCK = os.environ.get('ZRS_TEST_SERVER') == 'runzeo'
# How long a client that follows the primary may take on a machine that is busy with other tests.
FAILOVER = 10

_numbers = itertools.count(1)


def zrs_only(thing):
    """Marks a test (or a class of tests) about what the stock server does not do."""
    thing.zrs_only = True
    return thing


def both_encodings(case):
    """The class twice, with a server that announces Z5 (pickle) and with one that announces M5 (msgpack)."""
    module = sys.modules[case.__module__]
    for encoding, msgpack in (('Z5', False), ('M5', True)):
        name = f'{case.__name__}_{encoding}'
        body = dict(msgpack=msgpack, __module__=case.__module__, __qualname__=name, __doc__=case.__doc__)
        setattr(module, name, type(name, (case,), body))
    case.is_template = True
    return case


class Case(unittest.TestCase):
    """A test with clients that are closed after it."""

    is_template = True
    limit = 60  # seconds for one test

    def clean_up(self, close):
        def quietly():
            try:
                close()
            except Exception:
                traceback.print_exc()
        self.addCleanup(quietly)

    def storage(self, address=None, **options):
        options.setdefault('wait_timeout', PATIENCE)
        storage = ZEO.client(self.addresses() if address is None else address, **options)
        self.clean_up(storage.close)
        return storage

    def db(self, address=None, **options):
        db = ZODB.DB(self.storage(address, **options))
        self.clean_up(db.close)
        return db

    def open(self, db):
        """A connection with a transaction manager of its own, which sees all that was committed until now."""
        db.storage._call('ping')  # what sync() does for clients with server_sync
        connection = db.open(TransactionManager())
        self.clean_up(connection.close)
        self.clean_up(connection.transaction_manager.abort)
        return connection

    def raw(self, address=None, **options):
        raw = Raw(self.addresses()[0] if address is None else address, **options)
        self.clean_up(raw.close)
        return raw

    def cell(self, db, value=None):
        """A new cell (or the persistent object itself) in the root of the database -> its name there"""
        name = f'{self.id()}-{next(_numbers)}'
        with db.transaction() as connection:
            connection.root()[name] = value if isinstance(value, Persistent) else Cell(value)
        return name

    def temporary_folder(self):
        folder = tempfile.mkdtemp(prefix='zrs-test-client-')
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        return folder

    def in_thread(self, function, *args):
        """Starts it; its end is waited for, and its exception raised, by calling what this gives."""
        outcome = {}

        def run():
            try:
                outcome['result'] = function(*args)
            except BaseException as e:
                outcome['error'] = e

        thread = threading.Thread(target=run, daemon=True)
        thread.start()

        def result(timeout=30):
            thread.join(timeout)
            if thread.is_alive():
                raise Failure(f'{function.__name__} is not done after {timeout} s')
            if 'error' in outcome:
                raise outcome['error']
            return outcome['result']
        return result

    def explain(self):
        """Called when the test has failed: what its servers said."""

    def addresses(self):
        raise NotImplementedError


class OneServer(Case):
    """One server for all tests of a class: one node of zrsd, or the stock server."""

    is_template = True
    msgpack = False
    options = ()
    transaction_timeout = None

    @classmethod
    def setUpClass(cls):
        cls.failed = False
        if STOCK:
            cls.server = StockServer(msgpack=cls.msgpack, transaction_timeout=cls.transaction_timeout)
            cls.cluster = cls.server
        else:
            options = list(cls.options)
            if cls.msgpack:
                options.append('--msgpack')
            if cls.transaction_timeout:
                options += ['--transaction-timeout', str(cls.transaction_timeout)]
            cls.cluster = Cluster(1, options)
            cls.server = cls.cluster.nodes[0]
            cls.prepare(cls.server)
        try:
            cls.cluster.start()
        except BaseException:
            cls.cluster.close(keep=True)
            raise

    @classmethod
    def prepare(cls, node):
        """Before it is started."""

    @classmethod
    def tearDownClass(cls):
        finish(cls)

    def setUp(self):
        self.addCleanup(transaction.abort)
        self.cluster.check()
        if self.server.process is None:
            self.cluster.start()
        self.addCleanup(self.cluster.check)

    def explain(self):
        type(self).failed = True

    def addresses(self):
        return self.server.cluster.addresses if not STOCK else self.server.addresses

    def restart(self, kill=False):
        if kill:
            self.server.kill()
        else:
            self.assertEqual(self.server.terminate(), 0)
        self.cluster.start()


class ThreeNodes(Case):
    """A cluster for all tests of a class; each test finds it whole."""

    is_template = True
    zrs_only = True
    size = 3
    options = ()
    limit = 90

    @classmethod
    def setUpClass(cls):
        cls.failed = False
        cls.cluster = Cluster(cls.size, cls.options)
        for node in cls.cluster.nodes:
            cls.prepare(node)
        try:
            cls.cluster.start()
        except BaseException:
            cls.cluster.close(keep=True)
            raise

    @classmethod
    def prepare(cls, node):
        """Before it is started."""

    @classmethod
    def tearDownClass(cls):
        finish(cls)

    def setUp(self):
        self.addCleanup(transaction.abort)
        self.cluster.check()
        self.heal()
        # Registered first, done last: nodes that a test has paused are there again for the next one, and one that has
        # ended by itself is an error of this one.
        self.addCleanup(self.cluster.check)
        self.addCleanup(self.resume_all)

    def heal(self):
        """Starts what a test has killed or stopped."""
        self.resume_all()
        for node in self.cluster.nodes:
            if node.process is None:
                node.start()
        self.cluster.wait_primary()
        self.cluster.wait_ready()

    def resume_all(self):
        for node in self.cluster.running:
            node.resume()

    def explain(self):
        type(self).failed = True
        print(f'situation: {self.cluster.situation()}', file=sys.stderr)

    def addresses(self):
        return self.cluster.addresses

    def commit_somewhere(self, db, name, value):
        """Sets a cell's value as an application would: again after a lost connection or an election."""
        def commit():
            try:
                with db.transaction() as connection:
                    connection.root()[name].value = value
                return True
            except (transaction.interfaces.TransientError, ZEO.Exceptions.ClientDisconnected):
                return False
        wait_for('a commit', commit, FAILOVER + 10)

    def value(self, db, name):
        with db.transaction() as connection:
            return connection.root()[name].value

    def hand_over(self, ask):
        """Asks for the role to be handed over until that is done -> what was said then

        `ask()` -> (exit status, text). No hand-over begins to a node that was silent for a moment, and one that takes
        long is told as such: whoever asks has to ask again.
        """
        def asked():
            code, text = ask()
            if code == 0:
                return text
            print(f'not handed over yet: {text}', file=sys.stderr)
            return None
        return wait_for(lambda: f'a hand-over: {self.cluster.situation()}', asked)


def finish(case):
    """Ends the servers of a class of tests; an error, if one has ended by itself."""
    try:
        case.cluster.check()
    except Failure:
        case.failed = True
        raise
    finally:
        case.cluster.close(keep=case.failed)


def note(text):
    """The runner prints it, however the tests end."""
    print(f'note: {text}', file=sys.stderr, flush=True)


def begin(storage, **meta):
    """A transaction at the level of the storage -> its meta data, begun"""
    data = TransactionMetaData(**meta)
    storage.tpc_begin(data)
    return data


__all__ = ['Case', 'Cell', 'Cluster', 'FAILOVER', 'Failure', 'OneServer', 'STOCK', 'ThreeNodes', 'begin', 'both_encodings', 'note',
           'usage', 'wait_for', 'zrs_cluster', 'zrs_only']
