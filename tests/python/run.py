#!/usr/bin/env python3
"""Runs the stock-client tests; the last line says `N passed, N failed`.

    tests/python/run.py [-k TEXT]... [--jobs N] [--server zrsd|runzeo] [--list]

Each class of tests runs in a process of its own, so that a test that hangs or breaks its process fails alone. $ZRS_BIN
is the folder of the binaries (else the target folder of cargo). `--server runzeo` runs what describes ZEO's own
behaviour against the stock server.
"""
import argparse
import faulthandler
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from into_venv import into_venv

HERE = os.path.dirname(os.path.abspath(__file__))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('-k', action='append', default=[], metavar='TEXT', help='only tests whose name holds TEXT')
    parser.add_argument('--jobs', type=int, default=max(1, os.cpu_count() or 1), help='classes at a time')
    parser.add_argument('--server', choices=('zrsd', 'runzeo'), default='zrsd')
    parser.add_argument('--list', action='store_true', help='name the tests, run none')
    parser.add_argument('--child', help=argparse.SUPPRESS)
    parser.add_argument('--results', help=argparse.SUPPRESS)
    return parser.parse_args()


def each_test(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from each_test(test)
        else:
            yield test


def collect(args):
    """-> {class name: [tests]}, in the order of the files"""
    loader = unittest.TestLoader()
    found = {}
    for test in each_test(loader.discover(HERE)):
        if isinstance(test, unittest.loader._FailedTest):
            raise test._exception
        case = type(test)
        method = getattr(case, test._testMethodName)
        if case.__dict__.get('is_template'):
            continue
        if args.server == 'runzeo' and (getattr(case, 'zrs_only', False) or getattr(method, 'zrs_only', False)):
            continue
        if all(text in test.id() for text in args.k):
            found.setdefault(f'{case.__module__}.{case.__qualname__}', []).append(test)
    return found


class TimedOut(BaseException):
    pass


class Result(unittest.TestResult):
    """Writes a line of JSON for each test, and kills what takes too long."""

    def __init__(self, out):
        super().__init__()
        self.out = out

    def startTest(self, test):
        super().startTest(test)
        self.began = time.monotonic()
        limit = getattr(test, 'limit', 60)
        signal.alarm(limit)
        faulthandler.dump_traceback_later(limit + 20, exit=True)
        print(f'=== {test.id()}', file=sys.stderr, flush=True)

    def stopTest(self, test):
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
        super().stopTest(test)

    def tell(self, test, why=None):
        seconds = time.monotonic() - self.began if hasattr(self, 'began') else 0
        json.dump(dict(test=test.id(), why=why, seconds=seconds), self.out)
        self.out.write('\n')
        self.out.flush()

    def failure(self, test, error):
        self.tell(test, self._exc_info_to_string(error, test))
        explain = getattr(test, 'explain', None)
        if explain:
            explain()

    def addSuccess(self, test):
        self.tell(test)

    def addFailure(self, test, error):
        self.failure(test, error)

    def addError(self, test, error):
        if error[0] is KeyboardInterrupt:
            raise error[1]
        self.failure(test, error)

    def addSkip(self, test, reason):
        self.tell(test, f'skipped: {reason}')

    def addExpectedFailure(self, test, error):
        self.failure(test, error)

    def addUnexpectedSuccess(self, test):
        self.tell(test, 'was expected to fail')

    def addSubTest(self, test, subtest, error):
        if error is not None:
            self.failure(subtest, error)


def run_child(args):
    """Runs one class of tests in this process."""
    def too_long(*_):
        faulthandler.dump_traceback()
        raise TimedOut('the test took too long')

    signal.signal(signal.SIGALRM, too_long)
    import logging
    logging.basicConfig(level=logging.WARNING, format='%(asctime)s %(name)s %(levelname)s %(message)s')
    tests = collect(args)[args.child]
    with open(args.results, 'w') as out:
        unittest.TestSuite(tests).run(Result(out))
    sys.stderr.flush()
    os._exit(0)  # threads of clients may hang; nothing waits for them


class Child:
    """A process that runs one class of tests."""

    def __init__(self, args, name, tests):
        self.name = name
        self.tests = tests
        self.results = tempfile.NamedTemporaryFile('r', prefix='zrs-results-')
        self.output = tempfile.NamedTemporaryFile('r', prefix='zrs-output-', errors='replace')
        command = [sys.executable, os.path.abspath(__file__), '--server', args.server, '--child', name,
                   '--results', self.results.name]
        for text in args.k:
            command += ['-k', text]
        self.began = time.monotonic()
        with open(self.output.name, 'w') as output:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                            start_new_session=True)

    def ended(self):
        return self.process.poll() is not None

    def end(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)  # servers it left behind
        except ProcessLookupError:
            pass
        self.process.wait()

    def report(self):
        """Prints what it found -> (passed, failed)"""
        self.end()
        results = [json.loads(line) for line in self.results]
        failed = [r for r in results if r['why']]
        told = {r['test'] for r in results}
        for test in self.tests:
            if test.id() not in told and not any('setUpClass' in r['test'] for r in failed):
                failed.append(dict(test=test.id(), why=f'its process ended with status {self.process.returncode}'))
        passed = len([r for r in results if not r['why']])
        seconds = time.monotonic() - self.began
        print(f'{"FAILED" if failed else "ok":6} {self.name}: {passed} passed, {len(failed)} failed, {seconds:.1f} s')
        if os.environ.get('ZRS_TEST_TIMES'):
            for r in results:
                print(f'         {r["seconds"]:6.2f} s {r["test"]}')
        output = self.output.read()
        for line in output.splitlines():
            if line.startswith('note: '):
                print(f'         {line}')
        for r in failed:
            print(f'\n=== FAILED {r["test"]}\n{r["why"]}')
        if failed:
            print(f'--- output of {self.name}\n{output[-20000:]}\n')
        sys.stdout.flush()
        return passed, len(failed)


def run(args):
    waiting = list(collect(args).items())
    if args.list:
        for _, tests in waiting:
            for test in tests:
                print(test.id())
        return 0
    children, passed, failed = [], 0, 0
    try:
        while waiting or children:
            while waiting and len(children) < args.jobs:
                children.append(Child(args, *waiting.pop(0)))
            for child in [c for c in children if c.ended()]:
                children.remove(child)
                p, f = child.report()
                passed += p
                failed += f
            time.sleep(0.02)
    finally:
        for child in children:
            child.end()
    if not passed and not failed:
        print('no such test')
        failed = 1
    print(f'{passed} passed, {failed} failed')
    return 1 if failed else 0


if __name__ == '__main__':
    into_venv()
    args = arguments()
    if args.server == 'runzeo':
        os.environ['ZRS_TEST_SERVER'] = 'runzeo'
    if args.child:
        run_child(args)
    sys.exit(run(args))
