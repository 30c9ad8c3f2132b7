"""The command lines of operators, in the documents, the sample files and `--help`: each is run, as it is written."""
import os
import re
import shlex
import shutil
import subprocess
import sys

import ZEO
import ZODB
from ZODB.blob import Blob
from ZODB.FileStorage import FileStorage

import snippets
from cases import Case, Cluster, ThreeNodes, note, zrs_only
from certificates import context, pem
from objects import Cell
from stand_ins import Daemon, Host, Site, for_each, value
from zrs_cluster import CHECKOUT, PATIENCE, binaries, free_port, http_get, wait_for

ASKING = 'status', 'transfer', 'storage', 'member'
TASKS = *ASKING, 'import', 'export', 'adopt', 'recover', 'dump'
# What only a real host has.
HOSTS_OWN = 'useradd', 'systemctl'
# Settings of a unit that not every systemd knows (252 is Debian 12's).
NEWER = 'RestartSteps', 'RestartMaxDelaySec'


def lines(*programs):
    """The lines of this module's snippets that begin with one of these -> [(snippet, line)]"""
    def is_one(snippet, line):
        return ('cron' if snippet.kind == 'cron' else snippets.program(line)) in programs
    return [(snippet, line) for snippet in snippets.run_by(__name__) for line in snippet.lines if is_one(snippet, line)]


def run(*command, cwd=None):
    done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=PATIENCE)
    assert done.returncode == 0, f'{shlex.join(command)}: status {done.returncode}\n{done.stdout}'
    return done.stdout


def run_until_done(*command, cwd=None, before=lambda: True):
    """The same for what a busy cluster may refuse at first: a status that finds nothing wrong, a hand-over."""
    def done():
        before()
        try:
            return run(*command, cwd=cwd)
        except AssertionError as e:
            print(f'not yet: {e}', file=sys.stderr)
            return None
    return wait_for(shlex.join(command), done)


def in_a_shell(text, cwd):
    """(There is no user `zrs` here.)"""
    return run('sh', '-ec', text.replace('chown zrs ', f'chown {os.getuid()} '), cwd=cwd)


@zrs_only
class EveryLine(Case):
    is_template = False

    def test_is_run(self):
        run_here = lines('zrsd', 'zrsctl', 'curl', 'cron', 'openssl', 'install', *HOSTS_OWN)
        all_lines = [(snippet, line) for snippet in snippets.run_by(__name__) if snippet.kind != 'unit'
                     for line in snippet.lines]
        self.assertEqual([str(told) for told in all_lines if told not in run_here], [])
        self.assertGreaterEqual(len(all_lines), 35)


@zrs_only
class Servers(Case):
    """The lines that start zrsd, on as many nodes as their lists have."""

    is_template = False
    limit = 120

    def test_all_form_a_cluster_that_commits(self):
        # The same line for each node of a list is one cluster.
        distinct = {re.sub(r' --node \d+', '', line): f'{snippet}: {line}' for snippet, line in lines('zrsd')}
        self.assertGreaterEqual(for_each(distinct.values(), lambda told: self.serve(told.partition(': ')[2])), 4)

    def test_the_sample_file_with_all_settings(self):
        # Whatever is commented out is a setting that may be uncommented.
        text = re.sub(r'^# ([a-z-]+ = )', r'\1', snippets.read('etc/zrsd.toml'), flags=re.M)
        self.assertGreater(text.count('\n'), 20)
        self.assertEqual(re.findall('^#.* = .*', text, re.M), [])
        self.serve('zrsd --config /etc/zrs/zrsd.toml', text)

    def serve(self, line, settings=None):
        settings = settings or snippets.read('etc/zrsd.toml')
        arguments = snippets.words(line)[1:]
        listed = value(arguments, '--peers') or ''
        if '--config' in arguments:
            listed = re.search('^peers = "(.*)"', settings, re.M)[1]
        ports = [free_port() for _ in listed.split(',')]
        daemons, paths, told = [], [], []
        for number in range(1, len(ports) + 1):
            host = Host(self.temporary_folder(), number, ports)
            words = [host.adapt(word) for word in arguments]
            if '--node' in words:
                words[words.index('--node') + 1] = str(number)
            if '--config' in words:
                self.install(host, settings)
                told.append(host.http)
                words += ['--node', str(number)]
            elif '--peers' not in words and '--listen' not in words:
                words += ['--listen', f'127.0.0.1:{ports[0]}']  # (The usual port may be taken here.)
            if value(words, '--data') == './data':
                words[words.index('./data')] = os.path.join(host.folder, 'data')
            paths += [path for path in [value(words, '--listen')] if path and '/' in path]
            daemons.append(Daemon(words, os.path.join(host.folder, 'log')))
        try:
            for daemon in daemons:
                daemon.start()
            tls = dict(ssl=context('client')) if '\ntls-cert' in settings and '--config' in arguments else {}
            db = ZODB.DB(ZEO.client(paths or [('127.0.0.1', port) for port in ports], wait_timeout=PATIENCE, **tls))
            with db.transaction() as connection:
                connection.root()['line'] = Cell(line)
            db.close()
            for port in told:
                # What docs/operations.md says of a node that was started by the sample file.
                wait_for('the node to be ready', lambda: http_get(port, '/readyz')[0] == 200)
                run_until_done(os.path.join(binaries(), 'zrsctl'), '--http', f'127.0.0.1:{port}', 'status')
            for daemon in daemons:
                self.assertEqual(daemon.terminate(), 0, daemon)
        except BaseException:
            for daemon in daemons:
                print(daemon.log_text(), file=sys.stderr)
            raise
        finally:
            for daemon in daemons:
                daemon.kill()

    def install(self, host, settings):
        """The sample file as /etc/zrs/zrsd.toml, and all files that it names."""
        text = host.adapt(settings)
        with open(host.adapt('/etc/zrs/zrsd.toml'), 'w') as f:
            f.write(text)
        for name, there in (('db1.pem', f'node{host.number}'), ('db1.key', f'node{host.number}_key'),
                            ('ca.pem', 'peers-ca'), ('clients.pem', 'clients-ca')):
            shutil.copy(pem(there), host.adapt(f'/etc/zrs/{name}'))
        if '\nsecret-file' in settings:
            # By the file's own comment; the same for all nodes.
            (command,) = (line for snippet, line in lines('openssl') if snippet.source == 'etc/zrsd.toml')
            if not hasattr(self, 'secret'):
                in_a_shell(host.adapt(command), host.folder)
                self.secret = host.adapt('/etc/zrs/secret')
                self.assertEqual(os.stat(self.secret).st_mode & 0o777, 0o600)
            else:
                shutil.copy(self.secret, host.adapt('/etc/zrs/secret'))


class Tools(ThreeNodes):
    """zrsctl, zeopack, curl and the rest, beside a cluster of three, and with the folder of a node that has stopped."""

    is_template = False

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        with Cluster(1) as alone:
            db = ZODB.DB(ZEO.client(alone.addresses, blob_dir=os.path.join(alone.folder, 'cache')))
            for n in range(32):
                with db.transaction() as connection:
                    connection.root()[n] = Cell(n)
                    connection.root()[n].blob = Blob(b'of a cell')
            cls.last = db.lastTransaction().hex()
            db.close()
            alone.nodes[0].terminate()
            cls.stopped = os.path.join(cls.cluster.folder, 'stopped')
            shutil.copytree(alone.nodes[0].data, cls.stopped)

    def setUp(self):
        super().setUp()
        # (The documents' node 4 is one that is to join.)
        self.site = Site(self.temporary_folder(), [node.port for node in self.cluster.nodes] + [free_port()],
                         [node.http for node in self.cluster.nodes])
        # The documents' node 1 is the primary.
        wait_for('node 1 to be primary', self.first_is_primary)

    def first_is_primary(self):
        primary = self.cluster.wait_primary()
        return primary.number == 1 or (http_get(primary.http, '/transfer?to=1', PATIENCE, 'POST'), None)[1]

    def test_zrsctl(self):
        before = None

        def in_turn(told):
            nonlocal before
            # An import goes on from the one before it in the same snippet; all else begins anew.
            here = (told[0], ' import ' in told[1])
            if here != before or not here[1]:
                self.site.folder = self.temporary_folder()
            before = here
            self.zrsctl(told[1])
        self.assertGreaterEqual(for_each([(str(snippet), line) for snippet, line in lines('zrsctl')], in_turn), 18)

    def zrsctl(self, line):
        folder = self.site.folder
        arguments = snippets.words(self.site.adapt(line))[1:]
        task = next(word for word in arguments if word in TASKS)
        data = value(arguments, '--data')
        if task == 'import':
            self.make_a_file_storage(os.path.join(folder, arguments[1]), value(arguments, '--blobs'))
        elif task in ('export', 'adopt', 'recover', 'dump'):
            os.makedirs(os.path.dirname(data), exist_ok=True)
            if not os.path.exists(data):
                shutil.copytree(self.stopped, data)
        if task in ASKING and '--http' not in arguments:
            arguments = ['--http', self.site.adapt('127.0.0.1:8180'), *arguments]  # (The usual port may be taken here.)
        if 'drop' in arguments:
            self.was_in_the_settings(arguments[-1])
        # (Restarts move the role.)
        def first():
            wait_for('node 1 to be primary', self.first_is_primary)
        first()
        if task in ('adopt', 'recover'):
            arguments.append('--yes')  # what the operator answers at the terminal
        if task == 'member':
            self.member(arguments)
            return
        if '--tid' in arguments:
            arguments[arguments.index('--tid') + 1] = self.last
        tool = os.path.join(binaries(), 'zrsctl')
        if task in ('status', 'transfer'):
            said = run_until_done(tool, *arguments, cwd=folder, before=first)
        else:
            said = run(tool, *arguments, cwd=folder)
        if task == 'status':
            for node in range(1, len(self.cluster.nodes) + 1):
                self.assertRegex(said, rf'(?m)^{node} ')
        elif task == 'transfer':
            after = self.cluster.wait_primary(other_than=self.cluster.nodes[0])
            if '--to' in arguments:
                self.assertEqual(after.number, int(value(arguments, '--to')))
        elif task == 'import':
            self.assertIn('imported 2 transactions', said)
        elif task == 'export':
            blobs = os.path.join(folder, value(arguments, '--blobs'))
            storage = FileStorage(os.path.join(folder, 'Data.fs'), blob_dir=blobs)
            self.assertEqual(storage.lastTransaction().hex(), self.last)
            storage.close()

    def member(self, arguments):
        """Lets a node in that waits with an empty folder, and out again."""
        tool = os.path.join(binaries(), 'zrsctl')
        if 'list' in arguments:
            self.assertIn('voter', run(tool, *arguments))
            return
        number, _, address = arguments[arguments.index('add') + 1].partition('=')
        peers = ','.join(f'{node.number}=127.0.0.1:{node.port}' for node in self.cluster.nodes)
        folder, http = self.temporary_folder(), free_port()
        new = Daemon(['--node', number, '--peers', f'{peers},{number}={address}', '--data', os.path.join(folder, 'data'),
                      '--http', f'127.0.0.1:{http}'], os.path.join(folder, 'log'))
        new.start()
        try:
            wait_for('the new node to answer', lambda: http_get(http, '/status')[0] == 200)
            said = run(tool, *arguments)
            self.assertIn('The members are as wanted.', said)
            wait_for('the new node to be ready', lambda: http_get(http, '/readyz')[0] == 200)
            asking = arguments[:arguments.index('member')]
            self.assertIn('The members are as wanted.', run(tool, *asking, 'member', 'remove', number, '--wait'))
        finally:
            new.kill()

    def was_in_the_settings(self, storage):
        """An empty storage that the nodes were once given by a typo."""
        for options, there in (['--storage', '1', '--storage', storage], {'1', storage}), ([], {'1', storage}):
            for node in self.cluster.nodes:
                node.terminate()
                node.options = options
            self.cluster.start()
            self.cluster.wait_ready()
            for node in self.cluster.nodes:
                wait_for(storage, lambda: {known['name'] for known in node.status()['storages']} == there)

    def make_a_file_storage(self, path, blobs):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.exists(path):
            return
        db = ZODB.DB(FileStorage(path, blob_dir=blobs and os.path.join(self.site.folder, blobs)))
        with db.transaction() as connection:
            connection.root()['moved'] = Cell('in')
            if blobs:
                connection.root()['moved'].blob = Blob(b'of the site')
        db.close()

    def test_a_folder_of_another_user_is_left_as_it_is(self):
        folder, ours = '/usr', os.getuid()
        if not ours:
            # (Only root can give folders away.)
            folder = os.path.join(self.site.folder, 'theirs')
            shutil.copytree(self.stopped, folder)
            run('chown', '-R', '65534', folder)
        source = os.path.join(self.site.folder, 'Data.fs')
        self.make_a_file_storage(source, None)
        for arguments in (('import', source, '--data', folder), ('adopt', '--yes', '--data', folder),
                          ('export', '--data', folder, os.path.join(self.site.folder, 'out.fs'), '--without-blobs')):
            command = [os.path.join(binaries(), 'zrsctl'), *arguments]
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
            self.assertEqual(done.returncode, 1, done)
            self.assertRegex(done.stderr, rf'data folder {folder} belongs to user .*sudo -u \S+ zrsctl')
        if not ours:
            found = {os.stat(os.path.join(where, name)).st_uid for where, _, names in os.walk(folder) for name in names}
            self.assertEqual(found, {65534})

    def test_cron(self):
        def pack(told):
            words = shlex.split(self.site.adapt(told.partition(': ')[2]))[5:]
            self.assertEqual(words[0], 'zeopack')
            run(os.path.join(os.path.dirname(sys.executable), words[0]), *words[1:])
        for_each([f'{snippet}: {line}' for snippet, line in lines('cron')], pack)

    def test_curl(self):
        def get(told):
            url = snippets.words(self.site.adapt(told.partition(': ')[2]))[1]
            host, path = re.fullmatch(r'http://(\S+?)(/\S*)', url).groups()
            self.assertEqual(http_get(int(host.split(':')[1]), path)[0], 200)
        for_each([f'{snippet}: {line}' for snippet, line in lines('curl')], get)

    def test_secrets_are_for_zrsd_alone(self):
        def make(told):
            in_a_shell(self.site.adapt(told.partition(': ')[2]), self.site.folder)
            path = self.site.adapt('/etc/zrs/secret')
            self.assertGreaterEqual(os.path.getsize(path), 16)
            self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        self.assertGreaterEqual(for_each([f'{snippet}: {line}' for snippet, line in lines('openssl')], make), 2)

    def test_the_unit(self):
        """Its comments, but for what only a real host has, and what systemd says of it."""
        for name in 'zrsd', 'zrsctl':
            shutil.copy(os.path.join(binaries(), name), self.site.folder)
        for name in os.listdir(os.path.join(CHECKOUT, 'etc')):
            if name.startswith('zrsd.'):
                shutil.copy(os.path.join(CHECKOUT, 'etc', name), self.site.folder)
        for place in '/etc/x', '/usr/local/bin/x':
            self.site.adapt(place)
        for_each([line for _, line in lines('install')],
                 lambda line: in_a_shell(self.site.adapt(line), self.site.folder))
        self.assertTrue(os.access(self.site.adapt('/usr/local/bin/zrsctl'), os.X_OK))
        self.assertTrue(os.path.exists(self.site.adapt('/etc/zrs/zrsd.toml')))
        self.assertEqual({snippets.program(line) for _, line in lines(*HOSTS_OWN)}, set(HOSTS_OWN))
        if not shutil.which('systemd-analyze'):
            note('there is no systemd-analyze here, so etc/zrsd.service was not verified')
            return
        unit = os.path.join(self.site.folder, 'zrsd.service')
        with open(unit, 'w') as f:
            text = snippets.read('etc/zrsd.service').replace('User=zrs', 'User=root').replace('Group=zrs', 'Group=root')
            f.write(text.replace('/usr/local/bin/', self.site.adapt('/usr/local/bin/')))
        changes = [snippet for snippet in snippets.run_by(__name__) if snippet.kind == 'unit']
        os.mkdir(unit + '.d')
        for n, snippet in enumerate(changes):
            with open(os.path.join(unit + '.d', f'{n}.conf'), 'w') as f:
                f.write(snippet.text)
        said = run('systemd-analyze', 'verify', unit)
        # (Settings of newer systemd are passed over by an older one, and named.)
        newer = re.compile(f"Unknown key (name )?'({'|'.join(NEWER)})'")
        self.assertEqual([line for line in said.splitlines() if unit in line and not newer.search(line)], [])


