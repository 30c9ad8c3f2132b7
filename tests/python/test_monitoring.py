"""The stock tools of operators, as they are: zeo-nagios, which asks `ruok`, and zeopack."""
import json
import os
import subprocess
import sys
import time

from ZODB.utils import p64, z64

from cases import STOCK, OneServer, ThreeNodes, begin, both_encodings, wait_for
from certificates import context, node_options, pem
from objects import record
from raw import Closed, Raw
from zrs_cluster import Cluster

# The keys of each value of `ruok`, and no more.
KEYS = {'aborts', 'active_txns', 'commits', 'conflicts', 'conflicts_resolved', 'connections', 'last-transaction', 'loads',
        'lock_time', 'start', 'stores', 'timeout-thread-is-alive', 'waiting'}


def script(name, *arguments):
    """-> (exit status, what it printed)"""
    path = os.path.join(os.path.dirname(sys.executable), name)
    done = subprocess.run([path, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=50)
    return done.returncode, done.stdout


def shown(address):
    return '{}:{}'.format(*address)


def ruok(address):
    raw = Raw(address, greet=False)
    try:
        raw.send(b'ruok')
        greeting = raw.receive()
        answer = json.loads(raw.receive())
        assert raw.is_closed(), 'it must be closed after the answer'
        return greeting, answer
    finally:
        raw.close()


@both_encodings
class Monitoring(OneServer):
    """One node with two storages."""

    @classmethod
    def setUpClass(cls):
        cls.options = ['--storage', '1', '--storage', 'main two']
        super().setUpClass()

    zrs_only = True  # (the stock server of these tests has one storage)

    def test_ruok_counts(self):
        address = self.addresses()[0]
        # (Clients of tests before may be about to go.)
        before = wait_for('nobody else', lambda: next(
            (told for told in [ruok(address)[1]] if not told['1']['connections']), None))
        raw = self.raw()
        oid = raw.new_oid()
        tid = raw.commit(oid)
        raw.call('loadBefore', oid, p64(2 ** 63 - 1))
        raw.store(7, oid, z64, record(1))
        self.assertEqual(len(raw.vote(7)), 1)
        raw.call('tpc_abort', 7)
        greeting, after = ruok(address)
        self.assertEqual(greeting, b'M5' if self.msgpack else b'Z5')
        self.assertEqual(set(after), {'1', 'main two'})
        for status in after.values():
            self.assertEqual(set(status), KEYS)
        grown = {key: after['1'][key] - before['1'][key] for key in ('commits', 'stores', 'loads', 'conflicts', 'connections')}
        self.assertEqual(grown, dict(commits=1, stores=2, loads=1, conflicts=1, connections=1))
        self.assertEqual(after['1']['last-transaction'], tid.hex())
        time.strptime(after['1']['start'])  # the form of time.ctime()

    def test_nagios_metrics(self):
        address = shown(self.addresses()[0])
        for storage in '1', 'main two':
            raw = self.raw(storage=storage)
            raw.commit(raw.new_oid())
        file = os.path.join(self.temporary_folder(), 'status')
        status, output = script('zeo-nagios', '--output-metrics', '--status-path', file, address)
        self.assertEqual(status, 0, output)
        first = output.splitlines()
        self.assertEqual(first[0], 'OK|active_txns=0')
        self.assertIn(" 'main two:waiting'=0", first)
        with open(file) as f:
            self.assertEqual(set(json.load(f)), {'1', 'main two'})
        # The second time there are rates, too: three commits since.
        raw = self.raw()
        for _ in range(3):
            raw.commit(raw.new_oid())
        status, output = script('zeo-nagios', '-m', '-s', file, '-u', 'seconds', address)
        self.assertEqual(status, 0, output)
        rates = dict(line.strip(' |').split('=') for line in output.splitlines() if not line.startswith('OK'))
        self.assertGreater(float(rates['commits']), 0)
        self.assertEqual(float(rates["'main two:commits'"]), 0)

    def test_nagios_of_nobody(self):
        status, output = script('zeo-nagios', '127.0.0.1:1')
        self.assertEqual(status, 2)
        self.assertIn("Can't connect", output)


class Nagios(OneServer):

    def test_of_an_empty_storage(self):
        address = shown(self.addresses()[0])
        self.assertEqual(ruok(self.addresses()[0])[1]['1']['last-transaction'], '0' * 16)
        self.assertEqual(script('zeo-nagios', address), (1, "Empty storage '1'\n"))
        self.raw().commit(p64(0))
        self.assertEqual(script('zeo-nagios', address), (0, 'OK\n'))


class Packing(OneServer):

    def test_zeopack(self):
        storage = self.storage()
        serial = z64
        for value in range(5):
            txn = begin(storage)
            storage.store(p64(0), serial, record(value), '', txn)
            storage.tpc_vote(txn)
            serial = storage.tpc_finish(txn)
        self.assertEqual(len(storage.history(p64(0), 100)), 5)
        # Revisions of the last day stay.
        self.assertEqual(script('zeopack', '-d', '1', shown(self.addresses()[0]))[0], 0)
        self.assertEqual(len(storage.history(p64(0), 100)), 5)
        self.assertEqual(script('zeopack', shown(self.addresses()[0]) + ':1')[0], 0)
        self.assertEqual([entry['tid'] for entry in storage.history(p64(0), 100)], [serial])

    def test_zeopack_of_no_such_storage(self):
        raw = Raw(self.addresses()[0], register=False)
        try:
            name, data = raw.error('register', 'nowhere', True)[:2]
            self.assertEqual(name, 'builtins.ValueError')
            self.assertTrue(str(data[0]).startswith('unknown storage: nowhere'), data)
            if not STOCK:
                self.assertEqual(data[0], 'unknown storage: nowhere (there are: 1)')
                wait_for('a warning', lambda: any(
                    'WARN' in line and 'no storage named "nowhere"; there are: 1' in line
                    for line in self.server.log_text().splitlines()))
        except Closed:
            self.fail('an unknown storage is an error, not a closed connection')
        finally:
            raw.close()


class PackingAnywhere(ThreeNodes):

    def test_every_node_takes_a_pack(self):
        storage = self.storage()
        serial = z64
        for node in self.cluster.nodes:
            for value in range(3):
                txn = begin(storage)
                storage.store(p64(0), serial, record(value), '', txn)
                storage.tpc_vote(txn)
                serial = storage.tpc_finish(txn)
            status, output = script('zeopack', shown(node.address))
            self.assertEqual(status, 0, output)
            self.assertEqual([entry['tid'] for entry in storage.history(p64(0), 100)], [serial], node)
            self.assertEqual(storage.undoLog(0, 100), [], node)
        self.cluster.wait_same()

    def test_a_pack_where_tls_is_spoken(self):
        # zeopack speaks no TLS: it goes through a node's unix socket for readers.
        folder = self.temporary_folder()
        options = node_options('node1', '--tls-peer-ca', pem('peers-ca'), '--tls-client-ca', pem('clients-ca'))
        with Cluster(3, options) as cluster:
            for node in cluster.nodes:
                path = os.path.join(folder, str(node.number))
                node.terminate()
                node.options = ['--read-listen', path]
                node.start()
            cluster.wait_ready()
            storage = self.storage(cluster.wait_primary().address, ssl=context('client'))
            serial = z64
            for node in cluster.nodes:
                for value in range(3):
                    txn = begin(storage)
                    storage.store(p64(0), serial, record(value), '', txn)
                    storage.tpc_vote(txn)
                    serial = storage.tpc_finish(txn)
                status, output = script('zeopack', '-u', os.path.join(folder, str(node.number)))
                self.assertEqual(status, 0, output)
                self.assertEqual([entry['tid'] for entry in storage.history(p64(0), 100)], [serial], node)
            storage.close()

    def test_every_node_answers_nagios(self):
        storage = self.storage()
        txn = begin(storage)
        storage.store(storage.new_oid(), z64, record(1), '', txn)
        storage.tpc_vote(txn)
        storage.tpc_finish(txn)
        self.cluster.wait_same()
        for node in self.cluster.nodes:
            self.assertEqual(script('zeo-nagios', shown(node.address)), (0, 'OK\n'))
