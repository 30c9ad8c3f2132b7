"""The certificates of tests/data/tls (`make` there says what each is), as servers and stock clients take them."""
import os
import ssl

from zrs_cluster import CHECKOUT

CERTIFICATES = os.path.join(CHECKOUT, 'tests', 'data', 'tls')


def pem(name):
    return os.path.join(CERTIFICATES, name + '.pem')


def node_options(name, *more):
    return ('--tls-cert', pem(name), '--tls-key', pem(name + '_key')) + more


def context(own=None, ca='peers-ca', version=None):
    """What a client's <ssl> section makes: strict, with the host compared."""
    made = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=pem(ca))
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    if own:
        made.load_cert_chain(pem(own), pem(own + '_key'))
    if version:
        made.minimum_version = made.maximum_version = version
    return made
