"""How a program of the tests or the bench comes to run with the Python of the tests' virtual environment.

A program calls `into_venv()` before it imports ZEO, and can then be started by its name, with any Python.
"""
import os
import sys

VENV = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'venv')


def into_venv():
    """Starts this program again in the virtual environment that `venv` makes, unless it runs there already."""
    program = os.path.abspath(sys.argv[0])
    # (The program's own name: a program that runs there may start another one, which has to get there, too.)
    if os.environ.get('ZRS_IN_VENV') != program:
        os.environ['ZRS_IN_VENV'] = program
        os.execv(VENV, ['venv', program, *sys.argv[1:]])
