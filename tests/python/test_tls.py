"""TLS: stock clients with and without certificates, peers by mutual TLS, certificates that change, and those who come
to the wrong port. The certificates are in tests/data/tls; `make` there says what each is."""
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time

from ZEO.Exceptions import ClientDisconnected

from cases import Case, OneServer, ThreeNodes, wait_for
from certificates import context, node_options, pem
from raw import frame
from zrs_cluster import CHECKOUT, PATIENCE, Cluster, binaries

SOON = 1.5  # seconds that a client may try that will be refused


def clear(address, said):
    """What a server answers to those who speak plain: nothing."""
    with socket.create_connection(address, PATIENCE) as s:
        s.sendall(said)
        try:
            return s.recv(100)
        except ConnectionResetError:
            return b''


def knocks(address, own, number, other):
    """What node `other` answers to who has the certificate `own` and says that it is node `number`, about to form a
    cluster."""
    # (Versions, format, no cluster, from, incarnation, to, nothing known of it, nonce, purpose: `Hello` in
    # src/raft/hello.rs.)
    hello = b'P1' + bytes([1, 1, 2, 0, number, 0, other, 0, 0]) + bytes(16) + bytes([0])
    with context(own).wrap_socket(socket.create_connection(address, PATIENCE), server_hostname='127.0.0.1') as s:
        s.sendall(frame(hello))
        with s.makefile('rb') as answers:
            while True:
                answer = answers.read(int.from_bytes(answers.read(4), 'big'))
                if len(answer) != 2:  # not a greeting
                    return answer


class WithTls(OneServer):
    is_template = True
    zrs_only = True

    def serves(self, **how):
        """A whole round: a commit by one client that another one reads."""
        made = context(**how)
        db = self.db(ssl=made)
        name = self.cell(db, b'x' * (3 << 20))
        with self.db(ssl=made).transaction() as connection:
            self.assertEqual(len(connection.root()[name].value), 3 << 20)

    def refuses(self, **options):
        with self.assertRaises(ClientDisconnected):
            self.storage(wait_timeout=SOON, **options)

    def logs(self, *parts, timeout=15):
        """The log has, since the test began, a line with all of these."""
        def said():
            lines = self.server.log_text()[self.log_from:].splitlines()
            return [line for line in lines if all(part in line for part in parts)]
        return wait_for(lambda: f'{parts} in the log', said, timeout)

    def setUp(self):
        super().setUp()
        self.log_from = len(self.server.log_text())


class ServerCertificate(WithTls):
    """Clients need no certificate."""

    is_template = False
    options = node_options('node1')

    def test_a_client_that_believes_the_ca_is_served(self):
        self.serves()
        self.serves(version=ssl.TLSVersion.TLSv1_2)

    def test_a_client_that_believes_the_certificate_is_served(self):
        made = context(ca='node1')
        made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        self.cell(self.db(ssl=made), 1)

    def test_a_certificate_that_nobody_asks_for_does_no_harm(self):
        self.serves(own='stranger')

    def test_a_client_that_does_not_believe_the_server_is_named(self):
        self.refuses(ssl=context(ca='others-ca'))
        # (Not by an alert, which asyncio does not send.)
        self.logs('WARN', '127.0.0.1:', 'it closed the connection during the TLS handshake', 'does it trust')
        self.serves()

    def test_a_client_that_speaks_plain_is_known_by_its_silence(self):
        before = self.server.metrics().get('zrs_closed_total{why="no_tls"}', 0)
        with socket.create_connection(self.server.address, PATIENCE) as s:
            self.assertEqual(s.recv(100), b'')
        self.logs('WARN', 'peer=127.0.0.1:', 'A plain ZEO client waits like this', '<ssl> section')
        wait_for('it to be counted', lambda: self.server.metrics().get('zrs_closed_total{why="no_tls"}') == before + 1)

    def test_others_that_speak_plain_are_named_at_once(self):
        before = self.server.metrics().get('zrs_bad_frames_total{why="plain"}', 0)
        for said, line in ((frame(b'ruok'), 'a monitor (ruok) without TLS'),
                           (frame(b'P1' + bytes(40)), 'a node without TLS'),
                           (frame(b'Z5'), 'it does not speak TLS, and this port is for TLS'),
                           (b'GET / HTTP/1.1\r\n\r\n', 'HTTP is served at the address of --http')):
            began = time.monotonic()
            answer = clear(self.server.address, said)
            # (Nodes are told in their own language.)
            self.assertTrue(b'this port is for TLS' in answer if line == 'a node without TLS' else not answer)
            self.assertLess(time.monotonic() - began, 5)
            self.logs('WARN', 'peer=127.0.0.1:', line)
        wait_for('three to be counted', lambda: self.server.metrics().get('zrs_bad_frames_total{why="plain"}') == before + 3)
        self.serves()

    def test_half_a_handshake_is_not_waited_for(self):
        with socket.create_connection(self.server.address, PATIENCE) as s:
            s.sendall(b'\x16\x03\x01\x02\0\x01\0')
            s.settimeout(20)
            while s.recv(100):
                pass
        self.logs('WARN', 'its TLS handshake took too long')

    def test_monitors_speak_tls(self):
        with context().wrap_socket(socket.create_connection(self.server.address, PATIENCE),
                                   server_hostname='127.0.0.1') as s:
            s.sendall(frame(b'ruok'))
            answer = b''
            while chunk := s.recv(1 << 16):
                answer += chunk
        self.assertIn(b'"1"', answer)

    def test_a_client_that_reads_slowly_gets_all(self):
        db = self.db(ssl=context())
        names = [self.cell(db, os.urandom(2 << 20)) for _ in range(4)]
        storage = self.storage(ssl=context(), cache_size=0)
        with db.transaction() as connection:
            oids = [connection.root()[name]._p_oid for name in names]
        asked = [self.in_thread(storage.load, oid) for oid in oids * 3]
        sizes = [len(result()[0]) for result in asked]
        self.assertTrue(all(size > 2 << 20 for size in sizes), sizes)

    def test_a_stranger_proves_no_membership(self):
        before = self.server.metric('zrs_refused_peers_total')
        self.assertIn(b'by its certificate not node 1', knocks(self.server.address, 'stranger', 1, 1))
        wait_for('it to be counted', lambda: self.server.metric('zrs_refused_peers_total') == before + 1)
        self.logs('refused a peer', 'by its certificate not node 1')


class ClientCertificates(WithTls):
    """Clients need one of the CA, or one that is listed."""

    is_template = False

    @classmethod
    def prepare(cls, node):
        folder = os.path.join(node.cluster.folder, 'believed')
        os.mkdir(folder)
        shutil.copy(pem('clients-ca'), os.path.join(folder, 'ca.crt'))
        shutil.copy(pem('self'), os.path.join(folder, '0123abcd.0'))
        shutil.copy(pem('v1'), folder)
        node.options = node_options('node1', '--tls-client-ca', folder)

    def test_clients_of_the_ca_are_served_and_named(self):
        self.serves(own='client')
        self.logs('registered', '(client)')

    def test_clients_that_are_listed_are_served(self):
        for own in 'self', 'v1':
            self.serves(own=own)
            self.logs('registered', f'({own})')

    def test_others_are_refused_and_the_log_says_why(self):
        for own, why in ((None, 'it has no certificate'),
                         ('stranger', 'is not listed, and is signed by no listed CA'),
                         ('minted', 'is not listed'),
                         ('expired', 'its certificate has expired'),
                         ('future', 'its certificate is not valid yet')):
            self.refuses(ssl=context(own))
            self.logs('WARN', '127.0.0.1:', why)
        self.assertGreaterEqual(self.server.metrics()['zrs_closed_total{why="tls_handshake"}'], 5)

    def test_plain_clients_are_refused(self):
        self.refuses()


class NewCertificates(WithTls):
    """SIGHUP reads the files again."""

    is_template = False

    @classmethod
    def prepare(cls, node):
        cls.cert, cls.key, cls.ca = (os.path.join(node.cluster.folder, name) for name in ('cert', 'key', 'ca'))
        cls.put('node1', 'clients-ca')
        node.options = ['--tls-cert', cls.cert, '--tls-key', cls.key, '--tls-client-ca', cls.ca]

    @classmethod
    def put(cls, name, ca):
        shutil.copy(pem(name), cls.cert)
        shutil.copy(pem(name + '_key'), cls.key)
        shutil.copy(pem(ca), cls.ca)

    def reload(self, line):
        self.log_from = len(self.server.log_text())
        self.server.signal(signal.SIGHUP)
        self.logs('SIGHUP', line)

    def test_the_new_ones_count_for_new_connections(self):
        self.put('node1', 'clients-ca')
        self.reload('read the files of TLS again')
        old = self.db(ssl=context('client'))
        name = self.cell(old, 1)
        self.put('stranger', 'self')
        self.reload('read the files of TLS again')
        self.refuses(ssl=context('client', 'others-ca'))
        self.refuses(ssl=context('self', 'peers-ca'))
        new = self.db(ssl=context('self', 'others-ca'))
        with new.transaction() as connection:
            connection.root()[name].value = 2
        # The client that was connected before stays.
        wait_for('the invalidation', lambda: old.lastTransaction() >= new.lastTransaction())
        with old.transaction() as connection:
            connection.root()[name].value += 1
        self.assertTrue(old.storage.is_connected())

    def test_bad_ones_change_nothing(self):
        self.put('node1', 'clients-ca')
        self.reload('read the files of TLS again')
        shutil.copy(pem('node2_key'), self.key)
        self.reload('stay as they were: --tls-key')
        os.remove(self.cert)
        self.reload('stay as they were: --tls-cert')
        self.serves(own='client')


class Plain(WithTls):
    """A server without TLS."""

    is_template = False

    def test_a_client_that_speaks_tls_is_named(self):
        before = self.server.metrics().get('zrs_bad_frames_total{why="tls"}', 0)
        self.refuses(ssl=context())
        self.logs('WARN', 'peer=127.0.0.1:', 'it speaks TLS, and this port is plain', '--tls-cert')
        self.assertGreater(self.server.metrics()['zrs_bad_frames_total{why="tls"}'], before)
        self.cell(self.db(), 1)

    def test_sighup_does_no_harm(self):
        self.server.signal(signal.SIGHUP)
        self.logs('SIGHUP', 'without --tls-cert')
        self.cell(self.db(), 1)

    def test_settings_that_can_not_be_are_refused_at_the_start(self):
        folder = self.temporary_folder()
        for options, why in (((), '--tls-cert'), (node_options('node1'), 'encrypted'),
                             (node_options('node1')[:2] + ('--tls-key', pem('node2_key')), 'not the key of'),
                             (node_options('node1', '--tls-client-ca', '/nowhere'), '--tls-client-ca /nowhere: No such file')):
            if not options:
                options = ('--tls-key', pem('node1_key'))
            elif why == 'encrypted':
                options = options[:2] + ('--tls-key', pem('encrypted_key'))
            ended = subprocess.run([os.path.join(binaries(), 'zrsd'), '--data', os.path.join(folder, 'data'), *options],
                                   stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
            self.assertEqual(ended.returncode, 2, ended.stderr)
            self.assertIn(why, ended.stderr)
        self.assertEqual(os.listdir(folder), [], 'nothing was written')


class TlsCluster(ThreeNodes):
    """Each node has a certificate of its own, and clients need one too."""

    is_template = False
    options = ('--tls-peer-ca', pem('peers-ca'), '--tls-client-ca', pem('clients-ca'), '--relay-grace', '200')

    @classmethod
    def prepare(cls, node):
        node.options = node_options(f'node{node.number}')

    def client(self, address=None):
        return self.db(address, ssl=context('client'))

    def test_a_failover(self):
        db = self.client()
        name = self.cell(db, 1)
        for round in range(3):
            primary = self.cluster.wait_primary()
            wait_for('its witness', primary.witness)
            others = self.cluster.secondaries()
            told = sum(node.log_text().count('its witness says') for node in others)
            primary.kill()
            self.commit_somewhere(db, name, round)
            # (Witnesses have the certificates of their nodes.)
            wait_for('the others to be told', lambda: sum(node.log_text().count('its witness says') for node in others) > told)
            primary.start()
            self.cluster.wait_ready()
        self.assertEqual(self.value(self.client(), name), 2)
        self.cluster.wait_same()

    def test_a_relay(self):
        primary, secondary = self.cluster.wait_primary(), self.cluster.secondaries()[0]
        before = len(primary.log_text())
        db = self.client(secondary.address)
        name = self.cell(db, b'x' * (3 << 20))
        wait_for('one relay', lambda: secondary.metric('zrs_relays') == 1)
        self.assertEqual(len(self.value(self.client(primary.address), name)), 3 << 20)
        # The primary knows the name of the relayed client.
        wait_for('its name', lambda: '(client)' in primary.log_text()[before:])
        tid = db.lastTransaction()
        other = self.client(secondary.address)
        self.commit_somewhere(other, name, os.urandom(2 << 20))
        wait_for('the invalidation', lambda: db.lastTransaction() > tid)
        self.assertEqual(len(self.value(db, name)), 2 << 20)

    def test_an_obituary_of_nobody_changes_nothing(self):
        # (Well-formed: without a secret the key is public. It is of another cluster, and no member's.)
        with open(os.path.join(CHECKOUT, 'tests', 'data', 'obituary-1.txt')) as f:
            known = dict(line.strip().split(': ') for line in f)
        node = self.cluster.wait_primary()
        reign = node.status()['reign']
        for name in ('obituary', 'obituary without a secret'):
            with context('client').wrap_socket(socket.create_connection(node.address, PATIENCE),
                                               server_hostname='127.0.0.1') as s:
                s.sendall(frame(bytes.fromhex(known[name])))
                while s.recv(100):
                    pass  # the greeting
        wait_for('one to be refused', lambda: 'an obituary that no member has signed' in node.log_text())
        self.assertEqual(node.status()['reign'], reign)

    def test_a_client_is_no_peer_and_a_peer_is_no_client(self):
        node = self.cluster.nodes[0]
        refused = node.metric('zrs_refused_peers_total')
        self.assertIn(b'by its certificate not node 2', knocks(node.address, 'client', 2, 1))
        wait_for('it to be counted', lambda: node.metric('zrs_refused_peers_total') == refused + 1)
        # (The way to knock is right: this is a challenge.)
        self.assertEqual(knocks(node.address, 'node2', 2, 1)[:1], b'\0')
        with self.assertRaises(ClientDisconnected):
            self.storage(ssl=context('node2'), wait_timeout=SOON)
        wait_for('the log', lambda: any('by --tls-client-ca it is none' in n.log_text() for n in self.cluster.nodes))

    def test_a_node_that_is_not_who_it_says_stays_out(self):
        node = self.cluster.secondaries()[0]
        others = [n for n in self.cluster.nodes if n is not node]
        for own, theirs, ours in (('elsewhere', f'by its certificate not node {node.number}: its certificate is for another host', 'another host'),
                                  ('client', f'by its certificate not node {node.number}: its certificate is not listed', 'by its certificate'),
                                  ('stranger', 'is not listed, and is signed by no listed CA', 'refused our certificate')):
            node.terminate()
            marks = {n: len(n.log_text()) for n in self.cluster.nodes}
            said = lambda n: n.log_text()[marks[n]:]
            node.options = node_options(own)
            node.start()
            wait_for('the others to say so', lambda: any(theirs in said(n) for n in others), 15)
            wait_for('it to say so itself', lambda: ours in said(node), 15)
            self.assertFalse(node.is_ready())
            node.terminate()
            node.options = node_options(f'node{node.number}')
            node.start()
            self.cluster.wait_ready()


class PlainCluster(ThreeNodes):
    """A running cluster without TLS."""

    is_template = False

    def test_a_node_that_comes_back_with_tls_is_named_by_all(self):
        node = self.cluster.secondaries()[0]
        others = [n for n in self.cluster.nodes if n is not node]
        node.terminate()
        marks = {n: len(n.log_text()) for n in self.cluster.nodes}
        node.options = node_options('node1')
        node.start()
        try:
            for end, said in ((node, 'it does not speak TLS, and this node does'), (others[0], 'refused: this port is for TLS'),
                              (others[1], 'refused: this port is for TLS')):
                wait_for(lambda: f'{said} in the log of {end}', lambda: said in end.log_text()[marks[end]:], 15)
        finally:
            node.terminate()
            node.options = []
        node.start()
        self.cluster.wait_ready()


class OneCertificateForAll(ThreeNodes):
    """Without --tls-peer-ca."""

    is_template = False
    options = node_options('node1', '--relay-grace', '200')

    def test_peers_are_those_who_have_it(self):
        db = self.db(self.cluster.secondaries()[0].address, ssl=context())
        name = self.cell(db, 1)
        node = self.cluster.secondaries()[0]
        node.terminate()
        node.options = []
        node.cluster.options = list(node_options('node2', '--relay-grace', '200'))
        try:
            node.start()
        finally:
            node.cluster.options = list(self.options)
        others = [n for n in self.cluster.nodes if n is not node]
        line = f'node {node.number} at 127.0.0.1:{node.port}: its certificate is not the one of this node'
        wait_for('the log', lambda: any(line in n.log_text() for n in others), 15)
        self.assertFalse(node.is_ready())
        self.commit_somewhere(self.db(ssl=context()), name, 2)
        node.terminate()
        node.start()
        self.cluster.wait_ready()


class NodesThatDiffer(Case):
    """Settings of TLS that are not the same on all nodes: both ends say what is wrong, and what to do."""

    is_template = False
    zrs_only = True

    def nodes(self, *options):
        """Nodes with these options, which can't form a cluster."""
        cluster = Cluster(len(options), start=False)
        self.addCleanup(cluster.close)
        for node, own in zip(cluster.nodes, options, strict=True):
            node.options = list(own)
            node.start()
        return cluster.nodes

    def says(self, node, *parts):
        def said():
            return [line for line in node.log_text().splitlines() if all(part in line for part in parts)]
        wait_for(lambda: f'{parts} in {node.log_text()}', said, 15)

    def test_a_certificate_for_each_node_without_their_ca(self):
        nodes = self.nodes(node_options('node1'), node_options('node2'))
        for node, other in (nodes, reversed(nodes)):
            self.says(node, f'waiting for node {other.number} at 127.0.0.1:{other.port}: its certificate is not the one of this node',
                      'if each has its own, give all of them --tls-peer-ca')

    def test_tls_on_one_node_only(self):
        secure, plain = self.nodes(node_options('node1'), ())
        self.says(secure, f'waiting for node 2 at 127.0.0.1:{plain.port}: it does not speak TLS', 'give all nodes --tls-cert, or none')
        self.says(secure, 'WARN', 'it is a node without TLS', 'give all nodes --tls-cert, or none')
        self.says(plain, f'waiting for node 1 at 127.0.0.1:{secure.port}: refused: this port is for TLS',
                  'give all nodes --tls-cert, or none')
        self.says(plain, 'WARN', 'it speaks TLS, and this port is plain', 'all nodes have it, or none has')
