"""Stock clients over a unix socket, and what becomes of its file."""
import os
import signal
import socket
import stat
import subprocess

from cases import OneServer, wait_for
from certificates import node_options, pem
from zrs_cluster import PATIENCE, binaries


class UnixSocket(OneServer):
    is_template = False
    zrs_only = True

    @classmethod
    def prepare(cls, node):
        node.socket = os.path.join(node.cluster.folder, 'zeo.sock')

    def test_a_client_is_served(self):
        path = self.server.socket
        self.assertTrue(stat.S_ISSOCK(os.stat(path).st_mode))
        db = self.db(path)
        name = self.cell(db, b'x' * (3 << 20))
        with self.db(path).transaction() as connection:
            self.assertEqual(len(connection.root()[name].value), 3 << 20)
        wait_for('its process in the log', lambda: f'unix:{os.getpid()}' in self.server.log_text())

    def test_the_file_goes_with_the_server_and_one_that_was_left_is_replaced(self):
        path = self.server.socket
        name = self.cell(self.db(path), 'kept')
        self.assertEqual(self.server.terminate(), 0)
        self.assertFalse(os.path.exists(path))
        self.cluster.start()
        self.restart(kill=True)
        with self.db(path).transaction() as connection:
            self.assertEqual(connection.root()[name].value, 'kept')

    def start_another(self, path):
        command = [os.path.join(binaries(), 'zrsd'), '--data', os.path.join(self.temporary_folder(), 'data'), '--listen', path]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)

    def test_the_place_of_another_is_not_taken(self):
        refused = self.start_another(self.server.socket)
        self.assertEqual(refused.returncode, 1)
        self.assertIn('another server listens there', refused.stderr)
        self.cell(self.db(self.server.socket), 1)

        precious = os.path.join(self.temporary_folder(), 'precious')
        with open(precious, 'w') as f:
            f.write('kept')
        refused = self.start_another(precious)
        self.assertEqual(refused.returncode, 1)
        self.assertIn('no socket', refused.stderr)
        with open(precious) as f:
            self.assertEqual(f.read(), 'kept')

    def test_readers_of_a_node(self):
        # A second server, as this one's address for readers would be the class's.
        folder = self.temporary_folder()
        path, data = os.path.join(folder, 'readers'), os.path.join(folder, 'data')
        command = [os.path.join(binaries(), 'zrsd'), '--data', data, '--listen', '127.0.0.1:0', '--read-listen', path]
        # With TLS elsewhere; it is plain.
        command += node_options('node1', '--tls-client-ca', pem('clients-ca'))
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as server:
            try:
                wait_for('its socket', lambda: os.path.exists(path))
                self.assertIsNotNone(self.storage(path, read_only=True).lastTransaction())
            finally:
                server.send_signal(signal.SIGTERM)
                self.assertEqual(server.wait(PATIENCE), 0)
        self.assertFalse(os.path.exists(path))
        with self.assertRaises(OSError), socket.socket(socket.AF_UNIX) as s:
            s.connect(path)
