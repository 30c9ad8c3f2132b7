"""A real Zope, and Plone's recipe for buildout, with the sample etc/zope.conf and the snippets that are for them."""
import configparser
import json
import os
import re
import shutil
import subprocess

import snippets
from cases import Case, Cluster, zrs_only
from certificates import node_options, pem
from into_venv import VENV
from stand_ins import Site
from zrs_cluster import HERE

REQUIREMENTS = os.path.join(HERE, 'requirements-zope.txt')
WORKER = os.path.join(HERE, 'workers', 'serve_zope.py')


def zope(*arguments):
    """What the worker found."""
    # (The first time, its environment is made, which takes the package index half a minute.)
    done = subprocess.run([VENV, '-r', REQUIREMENTS, WORKER, *arguments], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=300)
    if done.returncode:
        raise AssertionError(f'{arguments}: status {done.returncode}\n{done.stdout}\n{done.stderr}')
    return json.loads(done.stdout.splitlines()[-1])


def serve(folder, configuration):
    """Lets Zope serve a page by a zope.conf -> what the worker found"""
    path = os.path.join(folder, 'zope.conf')
    with open(path, 'w') as f:
        f.write(configuration)
    found = zope('serve', path)
    assert (found['status'], found['body']) == (200, 'a page of Zope'), found
    return found


@zrs_only
class Zope(Case):
    is_template = False
    limit = 400

    def setUp(self):
        self.folder = self.temporary_folder()

    def site(self, cluster):
        site = Site(self.folder, [node.port for node in cluster.nodes])
        for place in '/srv/zope/var/x', '/srv/plone/var/x', '/etc/zope/x':
            site.adapt(place)
        return site

    def uses(self, found, cluster):
        self.assertEqual([tuple(address) for address in found['addresses']], cluster.addresses)

    def test_every_snippet_for_it_is_known(self):
        self.assertEqual([(s.source, s.kind) for s in snippets.run_by(__name__)],
                         [('docs/operations.md', 'buildout'), ('etc/zope.conf', 'zconfig')])

    def test_the_sample_file(self):
        with Cluster(3) as cluster:
            found = serve(self.folder, self.site(cluster).adapt(snippets.read('etc/zope.conf')))
            self.uses(found, cluster)
            self.assertEqual((found['shared'], found['tls'], found['name']), (False, False, 'zeostorage'))

    def test_the_sample_file_with_all_that_is_commented_out(self):
        setting = r'^( +)# (?=</?ssl>|[a-z-]+ \S+$|    [a-z]+ /)'
        text, count = re.subn(setting, r'\1', snippets.read('etc/zope.conf'), flags=re.M)
        self.assertEqual(count, 7)
        options = node_options('node1', '--tls-peer-ca', pem('peers-ca'), '--tls-client-ca', pem('clients-ca'))
        with Cluster(3, options) as cluster:
            site = self.site(cluster)
            for name, there in (('client.pem', 'client'), ('client.key', 'client_key'), ('ca.pem', 'peers-ca')):
                shutil.copy(pem(there), site.adapt(f'/etc/zope/{name}'))
            found = serve(self.folder, site.adapt(text))
            self.uses(found, cluster)
            self.assertTrue(found['tls'])
            self.assertTrue(os.path.exists(site.adapt('/srv/zope/var/zeostorage.cache')))

    def test_the_part_of_a_buildout(self):
        (snippet,) = (s for s in snippets.run_by(__name__) if s.kind == 'buildout')
        with Cluster(3) as cluster:
            parts = configparser.ConfigParser(interpolation=None)
            parts.read_string(self.site(cluster).adapt(snippet.text))
            made = zope('buildout', self.folder, json.dumps(dict(parts['instance'])))
            with open(made['path']) as f:
                found = serve(self.folder, f.read())
            self.uses(found, cluster)
            self.assertEqual(found['blob_dir'], parts['instance']['blob-storage'])
            self.assertFalse(found['shared'])
