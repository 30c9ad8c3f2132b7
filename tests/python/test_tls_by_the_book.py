"""The section TLS of docs/operations.md from its first to its last snippet: certificates, settings, clients, a pack."""
import os
import re
import shlex
import shutil
import subprocess
import sys

from ZEO.Exceptions import ClientDisconnected

import snippets
from cases import Case, Cluster, zrs_only
from stand_ins import Site, value
from test_snippets import commit
from zrs_cluster import PATIENCE


def run(command, folder):
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=PATIENCE)
    assert done.returncode == 0, f'{command}: status {done.returncode}\n{done.stdout}'


@zrs_only
class Section(Case):
    is_template = False
    limit = 120

    def test_all_of_it_works(self):
        found = snippets.run_by(__name__)
        # (Another snippet in this section needs a place in this story.)
        self.assertEqual([snippet.kind for snippet in found], ['shell', 'shell', 'toml', 'zconfig', 'toml', 'cron'])
        authority, certificate, settings, section, readers, cron = (snippet.text for snippet in found)
        # One folder is the machine that makes certificates, another one makes those of the clients.
        ours, theirs, folder = self.temporary_folder(), self.temporary_folder(), self.temporary_folder()
        for place in ours, theirs:
            run(['sh', '-ec', authority], place)
        # (The nodes are at 127.0.0.1: by its number, as the text says.)
        run(['sh', '-ec', self.changed(certificate, 'DNS:db1', 'IP:127.0.0.1')], ours)
        for_clients = self.changed(certificate, ' subjectAltName=DNS:db1', '')
        for_clients = self.changed(for_clients, 'serverAuth,clientAuth', 'clientAuth')
        run(['sh', '-ec', for_clients.replace('db1', 'client')], theirs)

        cluster = Cluster(3)
        site = Site(folder, [node.port for node in cluster.nodes])
        for place, files in (('/etc/zrs/', {'db1.pem': ours, 'db1.key': ours, 'ca.pem': ours, 'clients.pem': theirs}),
                             ('/etc/zope/', {'client.pem': theirs, 'client.key': theirs, 'ca.pem': ours})):
            for name, source in files.items():
                shutil.copy(os.path.join(source, 'ca.pem' if name == 'clients.pem' else name), site.adapt(place + name))
        for node in cluster.nodes:
            path = os.path.join(folder, f'{node.number}.toml')
            with open(path, 'w') as f:
                # Any one node has the socket.
                f.write(site.adapt(settings + (readers if node.number == 2 else '')))
            node.options = ['--config', path]
        with cluster:
            cluster.wait_ready()
            client = re.search(r'<clientstorage>.*</clientstorage>', section, re.S)[0]
            storage = commit(self, site.adapt(client))
            self.assertEqual(storage._addr, cluster.addresses)
            words = shlex.split(site.adapt(cron))[5:]
            self.assertTrue(os.path.exists(value(words, '-u')))
            run([os.path.join(os.path.dirname(sys.executable), words[0]), *words[1:]], folder)
            # A client without a certificate is none.
            with self.assertRaises(ClientDisconnected):
                self.storage(cluster.addresses, wait_timeout=1)
            storage.close()

    def changed(self, text, old, new):
        self.assertIn(old, text)
        return text.replace(old, new)
