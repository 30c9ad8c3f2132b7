"""Random histories through zrsd and through a FileStorage: both say the same, whatever they are asked (see
histories.py).

    tests/python/run.py -k histories                      the everyday seeds
    SEEDS=500 FROM=1000 tests/python/run.py -k histories  many others
    SEED=7 tests/python/run.py -k histories               one
"""
import collections
import os
import random
import sys

import histories
from cases import OneServer, ThreeNodes, note
from zrs_cluster import Cluster

# Storages of one server. Each history has one for itself; those that are left over are for searching what matters in
# one that failed.
STORAGES = 10
SPARE = 60
SEARCH = 20  # seconds
# Of the packs of a class, how many FileStorage may be unable to answer for.
LEFT_OUT = 0.25


class Packs:
    """Counts the packs of a class of tests, so that none passes as FileStorage could not be asked."""

    @classmethod
    def setUpClass(cls):
        cls.packs = collections.Counter()
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        compared, total = cls.packs['compared'], cls.packs.total()
        counts = ', '.join(f'{number} {what}' for what, number in sorted(cls.packs.items()))
        note(f'{total} packs: {counts}')
        # (A few may be left out anyhow: a seed on its own may have one.)
        if total - compared > max(LEFT_OUT * total, 2):
            raise AssertionError(f'too few packs were compared: {counts}')


class Histories(Packs, OneServer):
    """Ten seeds."""

    is_template = True
    zrs_only = True
    limit = 120
    gc = True

    def names(count):
        return [option for n in range(count) for option in ('--storage', f's{n}')]

    options = names(STORAGES)

    def check_seed(self, seed, number):
        steps = histories.history(seed)
        address = self.addresses()[0]
        try:
            self.packs.update(histories.run(steps, address, f's{number}', self.gc))
        except Exception as e:
            if not isinstance(e, histories.Difference):
                print(f'seed {seed}:\n{histories.shown(steps)}', file=sys.stderr)
                raise
            steps, error = self.search(steps, e)
            raise AssertionError(f'seed {seed}: {error}\nThe smallest history found:\n{histories.shown(steps)}') from None

    def search(self, steps, error):
        options = list(type(self).options[2 * STORAGES:]) + Histories.names(SPARE)
        numbers = iter(range(SPARE))
        with Cluster(1, options) as cluster:
            def fails(candidate):
                number = next(numbers, None)
                if number is None:
                    return None
                try:
                    histories.run(candidate, cluster.addresses[0], f's{number}', self.gc)
                except histories.Difference as e:
                    return e
            steps, found = histories.minimal(steps, fails, error.what, SEARCH)
        return steps, found or error


class NoCollection(Histories):
    """The same, packed without the garbage collection."""

    is_template = True
    gc = False
    options = Histories.options + ['--pack-gc', 'false']


def seeds():
    if os.environ.get('SEED'):
        return [int(os.environ['SEED'])]
    first = int(os.environ.get('FROM', 0))
    return list(range(first, first + int(os.environ.get('SEEDS', 40))))


class OverFailovers(Packs, ThreeNodes):
    """Three nodes, whose primary is killed or hands over now and then. In the end each node is asked for everything."""

    limit = 180
    options = Histories.names(4)

    def check_seed(self, number):
        seed = int(os.environ.get('SEED', int(os.environ.get('FROM', 0)) + number))
        chance = random.Random(seed)

        def between():
            if chance.random() > 0.12:
                return None
            primary = self.cluster.wait_primary()
            happened = 'kill' if chance.random() < 0.5 else 'hand-over'
            if happened == 'kill':
                primary.kill()
                self.cluster.wait_primary()
                primary.start()
            else:
                self.assertEqual(primary.terminate(), 0)
                primary.start()
                self.cluster.wait_primary()
            self.cluster.wait_ready()
            return happened

        steps = histories.history(seed, 20)
        try:
            self.packs.update(histories.run(steps, self.addresses(), f's{number}', between=between, nodes=self.addresses()))
        except BaseException:
            print(f'seed {seed}:\n{histories.shown(steps)}', file=sys.stderr)
            raise

    def test_one(self):
        self.check_seed(0)

    def test_two(self):
        self.check_seed(1)

    def test_three(self):
        self.check_seed(2)

    def test_four(self):
        self.check_seed(3)


def make_cases():
    """A class for each ten seeds; every fourth packs without the garbage collection."""
    groups = {}
    for seed in seeds():
        base = NoCollection if seed % 4 == 3 else Histories
        groups.setdefault(base, []).append(seed)
    for base, those in groups.items():
        for at in range(0, len(those), STORAGES):
            body = dict(__module__=__name__, is_template=False)
            for number, seed in enumerate(those[at:at + STORAGES]):
                def test(self, seed=seed, number=number):
                    self.check_seed(seed, number)
                body[f'test_seed_{seed}'] = test
            name = body['__qualname__'] = f'{base.__name__}_{those[at]}'
            globals()[name] = type(name, (base,), body)


make_cases()
