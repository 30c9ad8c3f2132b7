"""Zope, in one process with a client of its own, in the environment of requirements-zope.txt.

    serve_zope.py serve ZOPE.CONF          starts Zope as its WSGI server does, adds a page and asks for it
    serve_zope.py buildout PART OPTIONS    writes the zope.conf that plone.recipe.zope2instance makes of a part of a
                                           buildout (OPTIONS is JSON) below the folder PART, and tells its path

Prints a line of JSON about what it found. For tests/python/test_zope.py.
"""
import json
import os
import sys
import warnings


def serve(path):
    import transaction
    import Zope2
    from webtest import TestApp
    from ZODB.blob import Blob
    from Zope2.Startup.run import make_wsgi_app

    site = make_wsgi_app({}, path)
    root = Zope2.app()
    root.manage_addFolder('folder')
    root.folder.manage_addDTMLMethod('page', '', b'a page of Zope')
    storage = root._p_jar.db().storage
    if storage.blob_dir:
        root.folder._blob = Blob(b'a blob of Zope')
    transaction.commit()
    page = TestApp(site).get('/folder/page')
    return dict(status=page.status_int, body=page.text, addresses=storage._addr, blob_dir=storage.blob_dir,
                shared=storage.shared_blob_dir, tls=storage._server.client.ssl is not None, name=storage.__name__)


def buildout(part, options):
    from plone.recipe.zope2instance.recipe import Recipe

    # What zc.buildout would give the recipe; the recipe asks the package index about sessions, if it may.
    common = dict.fromkeys(('find-links', 'index'), '')
    common.update({f'{name}-directory': os.path.join(part, name) for name in ('parts', 'bin', 'eggs', 'develop-eggs')})
    common.update({'directory': part, 'executable': sys.executable, 'python': 'buildout', 'allow-hosts': '*'})
    options = {'zodb-temporary-storage': 'off', **json.loads(options)}
    recipe = Recipe({'buildout': common, 'versions': {}}, 'instance', options)
    os.makedirs(os.path.join(recipe.options['location'], 'etc'))
    recipe.build_zope_conf()
    return dict(path=os.path.join(recipe.options['location'], 'etc', 'zope.conf'))


if __name__ == '__main__':
    warnings.simplefilter('ignore')  # others' deprecations
    print(json.dumps({'serve': serve, 'buildout': buildout}[sys.argv[1]](*sys.argv[2:])), flush=True)
    os._exit(0)  # Zope's threads are not waited for
