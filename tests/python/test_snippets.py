"""Every snippet is run by some test; here, the configurations of clients, and the commands of developers."""
import os
import re
import shlex
import shutil
import subprocess
import sys

import ZODB.config
from ZEO.Exceptions import ServerException
from ZODB.blob import Blob
from ZODB.POSException import POSKeyError
from ZODB.utils import load_current

import snippets
from cases import Case, Cluster, OneServer, ThreeNodes, zrs_only
from objects import Cell
from stand_ins import Site, for_each
from zrs_cluster import CHECKOUT, PATIENCE, binaries

SECTION = re.compile(r'^<(zeoclient|clientstorage)>$.*?^</\1>$', re.S | re.M)


def commit(case, section):
    """Opens a section as ZODB does, and commits; a blob, too, where there is a folder for blobs -> its storage"""
    known = '%import ZEO\n' if '<clientstorage>' in section else ''
    db = ZODB.config.databaseFromString(f'{known}<zodb>\n{section}\n</zodb>\n')
    case.clean_up(db.close)
    with db.transaction() as connection:
        connection.root()['snippet'] = Cell(section)
        if 'blob-dir' in section:
            connection.root()['snippet'].blob = Blob(b'of a snippet')
    with db.transaction() as connection:
        assert connection.root()['snippet'].value == section
    return db.storage


def output(*command, env=None):
    """-> (exit status, all that it said), run in the clone"""
    done = subprocess.run(command, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=PATIENCE, env=dict(os.environ, **(env or {})))
    return done.returncode, done.stdout


def helps(program, *task):
    """The texts of `--help`, of the program and of all its tasks."""
    status, text = output(os.path.join(binaries(), program), *task, '--help')
    assert status == 0, text
    tasks = re.findall(r'^  ([a-z]+)', text.partition('\nCommands:\n')[2].partition('\n\n')[0], re.M)
    return text + ''.join(helps(program, *task, name) for name in tasks if name != 'help')


@zrs_only
class EverySnippet(Case):
    is_template = False

    def test_is_run_by_a_test(self):
        found = snippets.everywhere()
        unknown = [f'{snippet}:\n{snippet.text}' for snippet in found if not snippet.runner]
        self.assertFalse(unknown, 'no test runs these; snippets.py says which kinds there are:\n' + '\n'.join(unknown))
        here = os.path.dirname(os.path.abspath(__file__))
        for name in {snippet.runner for snippet in found} - {'nobody'}:
            self.assertTrue(os.path.exists(os.path.join(here, f'test_{name}.py')), name)

    def test_is_found(self):
        found = snippets.everywhere()
        self.assertEqual(snippets.overlooked(found), [])
        # (So many there were when this was written: a search that finds fewer has gone blind.)
        for kind, least in dict(zconfig=6, toml=2, cron=2, buildout=1, shell=35).items():
            self.assertGreaterEqual(sum(snippet.kind == kind for snippet in found), least, kind)
        sources = {'README.md', 'docs/operations.md', 'etc/zope.conf', 'etc/zrsd.toml', 'zrsd --help', 'zrsctl --help'}
        self.assertLessEqual(sources, {snippet.source for snippet in found})


class Configurations(ThreeNodes):
    """Those of ZODB; Zope's, and those with TLS, are opened by other modules."""

    is_template = False

    def test_all_open_and_commit(self):
        def open_it(snippet):
            sections = [found[0] for found in SECTION.finditer(snippet.text)]
            self.assertEqual(len(sections), len(re.findall('^<(?:zeoclient|clientstorage)>', snippet.text, re.M)))
            self.assertTrue(sections)
            for section in sections:
                site = Site(self.temporary_folder(), [node.port for node in self.cluster.nodes])
                section = site.adapt(section)
                sockets = re.findall(r'server (/\S+)', section)
                if sockets:
                    self.at_a_socket(section, *sockets)
                else:
                    self.assertEqual(commit(self, section)._addr, self.cluster.addresses)
        self.assertGreaterEqual(for_each([s for s in snippets.run_by(__name__) if s.kind == 'zconfig'], open_it), 4)

    def at_a_socket(self, section, path):
        cluster = Cluster(1)
        cluster.nodes[0].socket = path
        with cluster:
            commit(self, section).close()

    def test_all_addresses_in_one_line_are_one_address(self):
        # (The reason for a line for each: this is what the sample files once said.)
        addresses = ' '.join('127.0.0.1:%d' % node.port for node in self.cluster.nodes)
        config = ZODB.config.ZConfig.loadConfigFile(
            ZODB.config.getStorageSchema(), ZODB.config.StringIO(f'<zeoclient>\nserver {addresses}\n</zeoclient>\n'))[0]
        self.assertEqual(len(config.storage.config.server), 1)
        self.assertNotIn(config.storage.config.server[0].address, self.cluster.addresses)


class SharedBlobs(OneServer):
    """What docs/operations.md says of clients that shared the blobs of their ZEO server."""

    is_template = False
    zrs_only = True

    def section(self, folder, shared):
        host, port = self.addresses()[0]
        return (f'<zeoclient>\nserver {host}:{port}\nblob-dir {folder}\nshared-blob-dir {shared}\n</zeoclient>\n')

    def test_a_client_that_still_shares_them_starts_and_then_fails(self):
        folder = self.temporary_folder()
        shared = self.section(folder, 'on')
        served = commit(self, self.section(self.temporary_folder(), 'off'))
        with ZODB.config.databaseFromString(f'<zodb>\n{shared}</zodb>\n').transaction() as connection:
            blob = connection.root()['snippet'].blob
            with self.assertRaisesRegex(POSKeyError, 'No blob file'):
                blob.open()
            # An old one, which the ZEO server has left in the folder.
            storage = connection.db().storage
            revision = blob._p_oid, load_current(served, blob._p_oid)[1]
            storage.fshelper.getPathForOID(blob._p_oid, create=True)
            shutil.copy(served.loadBlob(*revision), storage.fshelper.getBlobFilename(*revision))
            with blob.open() as f:
                self.assertEqual(f.read(), b'of a snippet')
            self.clean_up(connection.db().close)
        with self.assertRaisesRegex(ServerException, 'shared-blob-dir off'):
            commit(self, shared)
        # The folder has the marker of a server's layout now, as that of a ZEO server has.
        with open(os.path.join(folder, '.layout'), 'w') as f:
            f.write('bushy')
        with self.assertRaisesRegex(ValueError, 'marker found for layout'):
            commit(self, self.section(folder, 'off'))
        commit(self, self.section(os.path.join(folder, 'own'), 'off'))


@zrs_only
class Schemas(Case):
    is_template = False

    def test_the_keys_that_only_one_of_the_two_sections_has_are_named(self):
        schema = ZODB.config.getDbSchema()
        ZODB.config.databaseFromString('%import ZEO\n<zodb>\n<mappingstorage>\n</mappingstorage>\n</zodb>\n').close()
        storage = schema.gettype('ZODB.storage')
        keys = {}
        for name in 'zeoclient', 'clientstorage':
            keys[name] = {key for key, _ in storage.getsubtype(name)} - {None}
        text = snippets.read('docs/operations.md').partition('## TLS')[2].partition('\n## ')[0]
        for key in keys['zeoclient'] - keys['clientstorage']:
            self.assertIn(f'`{key}`', text)
        self.assertLessEqual({'wait-timeout', 'cache-path'}, keys['clientstorage'] - keys['zeoclient'])


@zrs_only
class Commands(Case):
    """Those of people who build, test and change zrs: what they name is there."""

    is_template = False
    limit = 180

    def test_of_developers(self):
        lines = [f'{snippet}: {line}' for snippet in snippets.run_by(__name__) if snippet.kind == 'shell'
                 for line in snippet.lines]
        self.assertGreaterEqual(for_each(lines, lambda told: self.check(told.partition(': ')[2])), 20)

    def test_in_prose(self):
        quoted = {text for path in snippets.documents() for text in snippets.inline(snippets.read(path))}
        ours = re.compile(r'(make|cargo|zrsd|zrsctl|tests/python/run\.py) \w|(zrsd|zrsctl) -')
        commands = [text for text in quoted if ours.match(text)]
        self.assertGreaterEqual(for_each(commands, lambda text: self.check(re.sub(r'\[.*\]|…', '', text))), 30)

    def test_flags_in_prose(self):
        # (Documents about the scripts of the tests have their flags, too.)
        theirs = {'docs/testing.md', 'tests/python/conformance/README.md', 'fuzz/README.md'}
        known = set(re.findall(r'--[a-z][a-z-]*', helps('zrsd') + helps('zrsctl')))
        known.add('--ulimit')  # of programs that run containers
        named = [f'{path}: {text}' for path in snippets.documents() if path not in theirs
                 for text in snippets.inline(snippets.read(path)) if text.startswith('--')]
        for_each(named, lambda told: self.assertLessEqual(set(re.findall(r'--[a-z][a-z-]*', told)), known))
        self.assertGreaterEqual(len(named), 60)

    def check(self, line):
        env = dict(word.split('=', 1) for word in shlex.split(line, comments=True) if re.match('[A-Z_]+=', word))
        for part in line.split('#')[0].split('&&'):
            words = snippets.words(part)
            name, arguments = words[0], words[1:]
            if name in ('zrsd', 'zrsctl'):
                # All before `--help` is looked at before the help is printed.
                status, said = output(os.path.join(binaries(), name), *arguments, '--help')
            elif name == 'make':
                status, said = output('make', '-n', *arguments, env=env)
            elif name == 'cargo':
                status, said = self.cargo(arguments)
            elif name in ('tests/python/run.py', 'tests/python/conformance/run.py'):
                status, said = output(sys.executable, name, *arguments, '--list')
                self.assertGreater(len(said.splitlines()), 1, said)
            elif name == 'apt-get':
                status, said = self.apt_get(arguments)
            elif name.startswith(('etc/', 'tests/')):
                status, said = 0 if os.access(os.path.join(CHECKOUT, name), os.X_OK) else 1, f'no {name}'
            elif name == 'export':
                status, said = output('sh', '-ec', part)
            else:
                self.fail(f'no way to check {name}')
            self.assertEqual(status, 0, said)

    def cargo(self, arguments):
        self.assertIn(arguments[0], ('build', 'check', 'install', 'test'))
        manifest = snippets.read('Cargo.toml')
        for at, word in enumerate(arguments):
            if word == '--test' and f'name = "{arguments[at + 1]}"' not in manifest:
                return 1, f'Cargo.toml has no test {arguments[at + 1]}'
        return 0, ''

    def apt_get(self, arguments):
        """The packages are those that etc/setup installs or names."""
        setup = snippets.read('etc/setup').replace('${version:-14}', '14')
        missing = [word for word in arguments[1:] if not word.startswith('-') and word not in setup]
        return len(missing), f'etc/setup knows nothing of {missing}'
