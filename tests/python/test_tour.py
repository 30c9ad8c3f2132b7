"""The README's tour, word by word: each command of "Five minutes", and what `etc/local-cluster` prints to copy."""
import os
import re
import signal
import subprocess
import sys

import ZEO
import ZODB
from ZODB.FileStorage import FileStorage

import snippets
from cases import Case, zrs_only
from test_zope import serve
from zrs_cluster import CHECKOUT, PATIENCE, Process, binaries, free_port, give_back, http_get, wait_for

COUNTED = re.compile(r'^ *(\d+) +(?:([\d.]+) ms|was committed)', re.M)


class Terminal(Process):
    """A command in a terminal of its own, in a folder, that runs until it is ended."""

    def __init__(self, command, folder, log):
        self.line = command
        self.folder = folder
        self.log = log

    def __str__(self):
        return self.line

    def command(self):
        return ['bash', '-c', f'cd "$0" && exec {self.line}', self.folder]


@zrs_only
class Tour(Case):
    is_template = False
    limit = 400  # (The first time, Zope is installed.)

    def setUp(self):
        self.folder = self.temporary_folder()
        self.clone = os.path.join(self.folder, 'clone')
        os.mkdir(self.clone)
        for name in 'etc', 'tests':
            os.symlink(os.path.join(CHECKOUT, name), os.path.join(self.clone, name))
        self.port, self.http = free_port(3), free_port(3)
        ports = [*range(self.port, self.port + 3), *range(self.http, self.http + 3)]
        self.addCleanup(give_back, ports)
        self.terminals = []
        self.addCleanup(lambda: [terminal.kill() for terminal in self.terminals])

    def adapt(self, text):
        """With the ports and the programs that are there."""
        text = re.sub(r'(\$HOME|~)/\.cache/zrs/target/debug/', lambda _: binaries() + '/', text)
        text = re.sub(r':810(\d)', lambda found: f':{self.port + int(found[1])}', text)
        return re.sub(r':818(\d)', lambda found: f':{self.http + int(found[1])}', text)

    def terminal(self, command):
        terminal = Terminal(command, self.clone, os.path.join(self.folder, f'terminal{len(self.terminals)}'))
        self.terminals.append(terminal)
        return terminal.start()

    def type(self, *lines):
        """Types the lines in a terminal -> what they print; an error, if one of them fails"""
        script = '\n'.join(['set -e', 'shopt -s expand_aliases', *map(self.adapt, lines), ''])
        done = subprocess.run(['bash'], input=script, cwd=self.clone, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=PATIENCE)
        self.assertEqual(done.returncode, 0, f'{script}\n{done.stdout}')
        return done.stdout

    def type_until_done(self, *lines):
        """The same for what a busy cluster may refuse at first: a status that finds nothing wrong, a hand-over."""
        def done():
            try:
                return self.type(*lines)
            except AssertionError as e:
                print(f'not yet: {e}', file=sys.stderr)
                return None
        return wait_for(lines[-1], done)

    def explain(self):
        for terminal in self.terminals:
            print(f'--- {terminal}\n{terminal.log_text()[-4000:]}', file=sys.stderr)

    def test_word_by_word(self):
        start, client, look, hand_over = (snippet.lines for snippet in snippets.run_by(__name__))

        # "Start a cluster, and leave it running."
        self.assertEqual(start, ['make cluster'])
        # (These tests may be run by a make; one below it tells of its folders, too.)
        makes = subprocess.check_output(['make', '-n', '--no-print-directory', 'cluster'], cwd=CHECKOUT, text=True)
        self.assertEqual(makes.splitlines()[-1], 'exec etc/local-cluster')
        cluster = self.local_cluster()
        wait_for('the cluster', lambda: 'Stop everything' in cluster.log_text() and self.primary())
        # "It prints a snippet for zope.conf, too."
        self.printed(cluster.log_text())

        # "In a second terminal, run an ordinary ZEO client"
        self.assertEqual(client, ['tests/python/venv etc/tour.py'])
        addresses = ' '.join(f'127.0.0.1:{port}' for port in range(self.port, self.port + 3))
        tour = self.terminal(f'{client[0]} {addresses}')
        self.counts(tour, 5)

        # "In a third one, see who is primary, and kill it the hard way"
        alias, status, kill = look
        self.assertTrue(alias.startswith('alias zrsctl='))
        told = re.search(r'(?m)^node (\d) .*primary', self.type_until_done(alias, status))
        self.assertTrue(told)
        primary = int(told[1])
        wait_for('it to be the primary', lambda: self.primary() == primary)
        self.assertIn('node1.pid', kill)
        self.type(kill.replace('node1.pid', f'node{primary}.pid'))

        # "The counter goes on at the next primary, with a pause that is hardly seen, and misses nothing."
        wait_for('a new primary', lambda: '<- a new primary' in tour.log_text())
        self.counts(tour, 5)
        # (The role can be handed over while the node is dead, too: zrsctl asks the ones that live.)
        self.handed_over(alias, *hand_over)
        # "Five seconds later `make cluster` starts the dead node again, and it catches up."
        wait_for('the dead node', lambda: all(http_get(self.http + n, '/readyz')[0] == 200 for n in range(3)))
        self.assertIn(f'node {primary} ended with status 137', cluster.log_text())

        # "Hand the primary's role over without killing anybody"
        self.counts(tour, 5)
        self.handed_over(alias, *hand_over)
        self.counts(tour, 5)
        self.assertIsNone(tour.process.poll())
        tour.kill()
        self.misses_nothing(tour.log_text())
        cluster.signal(signal.SIGINT)
        self.assertEqual(cluster.wait_end(), 0)
        self.assertIn('stopped; the data is in var', cluster.log_text())

    def test_a_cluster_that_begins_with_a_file(self):
        blobs = os.path.join(self.folder, 'blobs')
        db = ZODB.DB(FileStorage(os.path.join(self.clone, 'Data.fs'), blob_dir=blobs))
        with db.transaction() as connection:
            connection.root()['moved'] = 'in'
        db.close()
        # (The documents leave out --blobs; there may be none.)
        quoted = snippets.inline(snippets.read('docs/operations.md'))
        self.assertIn('etc/local-cluster --import Data.fs', quoted)
        cluster = self.local_cluster('--import Data.fs')
        wait_for('the cluster', lambda: cluster.check() or 'Stop everything' in cluster.log_text())
        db = ZODB.DB(ZEO.client(('127.0.0.1', self.port), wait_timeout=PATIENCE))
        with db.transaction() as connection:
            self.assertEqual(connection.root()['moved'], 'in')
        db.close()
        cluster.signal(signal.SIGTERM)
        self.assertEqual(cluster.wait_end(), 0)

    def local_cluster(self, arguments=''):
        settings = f'ZRS_BIN={binaries()} ZRS_PORT={self.port} ZRS_HTTP_PORT={self.http}'
        return self.terminal(f'env {settings} etc/local-cluster {arguments}')

    def primary(self):
        """The number of the primary, or None."""
        found = [n + 1 for n in range(3) if http_get(self.http + n, '/primary')[0] == 200]
        return found[0] if found else None

    def handed_over(self, alias, line):
        wait_for('a primary', self.primary)
        told = re.search(r'Node (\d) is the primary now', self.type_until_done(alias, line))
        self.assertTrue(told)
        wait_for('it to be the primary', lambda: self.primary() == int(told[1]))

    def counts(self, tour, more):
        """Waits until it has counted on by so many."""
        counted = lambda: len(COUNTED.findall(tour.log_text()))
        before = counted()
        wait_for('the counter', lambda: tour.check() or counted() >= before + more)

    def misses_nothing(self, text):
        numbers = [int(number) for number, _ in COUNTED.findall(text)]
        self.assertEqual(numbers, list(range(1, len(numbers) + 1)), text)
        self.assertLess(max(float(took or 0) for _, took in COUNTED.findall(text)), 20_000)
        db = ZODB.DB(ZEO.client([('127.0.0.1', self.port + n) for n in range(3)], wait_timeout=PATIENCE))
        with db.transaction() as connection:
            # (It was killed: the answer to its last commit may not have been printed.)
            self.assertIn(connection.root()['counter'], (numbers[-1], numbers[-1] + 1))
        db.close()

    def printed(self, text):
        """Everything that it prints for people to copy."""
        zope, python = snippets.of_output('etc/local-cluster', text)
        self.assertEqual((zope.runner, zope.kind, python.runner, python.kind), ('tour', 'zconfig', 'tour', 'python'))
        found = serve(self.folder, f'instancehome {self.folder}\n{zope.text}')
        addresses = [('127.0.0.1', self.port + n) for n in range(3)]
        self.assertEqual([tuple(address) for address in found['addresses']], addresses)
        commits = "with db.transaction() as connection:\n    connection.root()['printed'] = 1\ndb.close()\n"
        subprocess.run([sys.executable, '-c', python.text + commits], check=True, timeout=PATIENCE)
        self.assertIn('primary', self.type_until_done(re.search(r'^At a glance: +(.+)', text, re.M)[1]))
        kill = re.search(r'^Kill the primary: +(.+?)  +\(', text, re.M)[1]
        self.assertEqual(self.type(f'echo {kill}').split()[:2], ['kill', '-9'])
