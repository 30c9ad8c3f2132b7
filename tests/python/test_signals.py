"""Signals that the scripts around a ZEO server send, and the log under stock clients: `zeoctl reopen` and logrotate
send SIGUSR2, supervisors and terminals SIGHUP and SIGUSR1, and a log may be rotated by renaming or by cutting it short.
"""
import os
import shutil
import signal

from cases import OneServer, wait_for

HARMLESS = (signal.SIGUSR1, signal.SIGWINCH, signal.SIGPIPE, signal.SIGALRM)


class Log(OneServer):
    is_template = False
    zrs_only = True

    @classmethod
    def prepare(cls, node):
        cls.path = os.path.join(node.cluster.folder, 'zrsd.log')
        node.options = ['--log-file', cls.path]

    def text(self, path=None):
        try:
            with open(path or self.path, 'rb') as f:
                return f.read()
        except FileNotFoundError:
            return b''

    def logs_a_client(self):
        """A client that comes is logged to the file of that name."""
        before = self.text().count(b'registered')
        self.cell(self.db(), 1)
        wait_for(lambda: f'a client in the log: {self.text()}', lambda: self.text().count(b'registered') > before, 15)

    def test_none_ends_the_server(self):
        db = self.db()
        name = self.cell(db, 1)
        for number in (*HARMLESS, signal.SIGHUP, signal.SIGUSR2):
            self.server.signal(number)
        wait_for('the last of them', lambda: b'SIGUSR2: opened the log file again' in self.text(), 15)
        self.cluster.check()
        # The client did not notice.
        with db.transaction() as connection:
            connection.root()[name].value = 2
        self.assertTrue(db.storage.is_connected())

    def test_a_log_that_was_cut_short_goes_on(self):
        self.logs_a_client()
        shutil.copy(self.path, self.path + '.1')
        os.truncate(self.path, 0)
        self.logs_a_client()
        self.assertNotIn(b'\0', self.text())

    def test_a_log_that_was_renamed_goes_on_in_a_new_file(self):
        for n, number in enumerate((signal.SIGUSR2, signal.SIGHUP)):
            old = f'{self.path}.old{n}'
            self.logs_a_client()
            os.rename(self.path, old)
            # Until the signal comes, lines go on where they went.
            before = len(self.text(old))
            self.cell(self.db(), 1)
            wait_for('another line', lambda: len(self.text(old)) > before, 15)
            self.assertFalse(os.path.exists(self.path))
            self.server.signal(number)
            wait_for('a new file', lambda: b'opened the log file again' in self.text(), 15)
            whole = self.text(old)
            self.logs_a_client()
            self.assertEqual(self.text(old), whole)
