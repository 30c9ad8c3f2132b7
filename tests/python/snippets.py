"""What an operator copies: every snippet of the documents, the sample files, `--help` and `etc/local-cluster`.

A snippet has a kind, by its text alone. The tests run all snippets of all kinds but `text` and `rust`, and a text that
is of no kind is an error: so a snippet of a new kind needs a test before it can be written down.
"""
import dataclasses
import os
import re
import shlex
import subprocess
import textwrap

from zrs_cluster import CHECKOUT, binaries

# What a line of shell may begin with.
COMMANDS = {'alias', 'apt-get', 'cargo', 'curl', 'export', 'install', 'kill', 'make', 'openssl', 'printf', 'systemctl',
            'useradd', 'zrsctl', 'zrsd'}
# Those of an operator; the others are for people who build and change zrs.
OPERATORS = {'curl', 'install', 'openssl', 'systemctl', 'useradd', 'zrsctl', 'zrsd'}
OUR_SCRIPTS = re.compile(r'(etc|tests/python|bench|fuzz)/')
CRON = re.compile(r'([\d*/,-]+\s+){5}\S')
# Files whose comments have commands, indented by three spaces or more.
COMMENTED = 'etc/zrsd.toml', 'etc/zrsd.service'
# Of a line of text that shows what may be copied: it has to be in some snippet.
TELLTALE = re.compile(r'\s*<(zeoclient|clientstorage|zodb|zodb_db \w+)>'
                      r'|(\s{4,}|#\s{3,})(zrsd|zrsctl|zeopack|openssl|curl|make|cargo) ')


@dataclasses.dataclass
class Snippet:
    """A text to copy, the file or program that shows it, the number of its first line there, and the heading above."""
    source: str
    line: int
    heading: str
    language: str
    text: str

    def __str__(self):
        return f'{self.source}:{self.line}'

    @property
    def runner(self):
        """The test module that runs it, without `test_` and `.py`; "nobody" for what nobody copies; else None."""
        kind = self.kind
        programs = {program(line) for line in self.lines} if kind == 'shell' else set()
        if kind in ('text', 'rust'):
            return 'nobody'
        if (self.source, self.heading) == ('README.md', 'Five minutes') or self.source == 'etc/local-cluster':
            return 'tour'
        if (self.source, self.heading) == ('docs/operations.md', 'TLS'):
            return 'tls_by_the_book'
        if kind == 'buildout' or '<zodb_db' in self.text:
            return 'zope'
        if kind == 'zconfig':
            return 'snippets'
        if kind in ('cron', 'unit') or programs & OPERATORS:
            return 'command_lines'
        return 'snippets' if kind == 'shell' else None

    @property
    def lines(self):
        """The lines that are no comments, with those that a backslash or a pipe continues joined."""
        if self.text.startswith('$ '):
            # What somebody types, and what is answered.
            return [line[2:] for line in self.text.splitlines() if line.startswith('$ ')]
        text = re.sub(r'\\\n\s*', ' ', self.text)
        text = re.sub(r'\|\n\s*', '| ', text)
        return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith('#')]

    @property
    def kind(self):
        """zconfig, toml, buildout, unit, cron, shell or python; text or rust, which nobody copies; or None."""
        if self.language in ('text', 'rust'):
            return self.language
        lines = self.lines
        if not lines:
            return None
        if all(line.startswith(('import ', 'db = ')) for line in lines):
            return 'python'
        if any(re.match(r'\s*</?\w+', line) for line in lines):
            return 'zconfig'
        if lines[0] == '[instance]':
            return 'buildout'
        if re.fullmatch(r'\[(Unit|Service|Install)\]', lines[0]):
            return 'unit'
        if all(re.match(r'[a-z-]+ = ', line) for line in lines):
            return 'toml'
        if all(CRON.match(line) for line in lines):
            return 'cron'
        if all(program(line) in COMMANDS or OUR_SCRIPTS.match(program(line)) for line in lines):
            return 'shell'
        return None


def words(line):
    """The words of a line of shell, without assignments in front, without `sudo`, and without a comment."""
    found = shlex.split(line, comments=True)
    while found and (re.match(r'[A-Z_]+=', found[0]) or found[0] == 'sudo'):
        found.pop(0)
    return found


def program(line):
    try:
        return (words(line) or [''])[0]
    except ValueError:  # quotation marks that are none of a shell
        return ''


def read(path):
    with open(os.path.join(CHECKOUT, path)) as f:
        return f.read()


def documents():
    """The paths of all documents (*.md) in the clone."""
    found = []
    for folder, folders, files in os.walk(CHECKOUT):
        folders[:] = [name for name in folders if not name.startswith('.') and name not in ('target', 'var')]
        found += [os.path.relpath(os.path.join(folder, name), CHECKOUT) for name in files if name.endswith('.md')]
    return sorted(found)


def of_document(path, text):
    """The blocks of a document in Markdown, fenced and indented ones."""
    found, heading, lines, n = [], '', text.split('\n'), 0
    while n < len(lines):
        begin, line = n, lines[n]
        n += 1
        fence = re.match(r'\s*```\s*(\w*)', line)
        if fence:
            while not lines[n].strip().startswith('```'):
                n += 1
            found.append((begin + 2, heading, fence[1], lines[begin + 1:n]))
            n += 1
        elif line.startswith('    ') and (begin == 0 or not lines[begin - 1].strip()):
            while n < len(lines) and (lines[n].startswith('    ') or not lines[n].strip()):
                n += 1
            found.append((begin + 1, heading, '', lines[begin:n]))
        elif line.startswith('#'):
            heading = line.strip('# ')
    return [Snippet(path, at, heading, language, textwrap.dedent('\n'.join(block)).strip('\n') + '\n')
            for at, heading, language, block in found]


def of_help(name):
    """The examples at the end of `--help` of zrsd or zrsctl: what is indented more than the sentences between."""
    said = subprocess.run([os.path.join(binaries(), name), '--help'], capture_output=True, text=True, check=True).stdout
    lines = said.split('\n')
    at = lines.index('Examples:') + 1
    found, block = [], []
    for n, line in enumerate([*lines[at:], ''], at + 1):
        if re.match(r' {4,}\S| +(zrsd|zrsctl) ', line):
            block.append(line)
        elif block:
            text = textwrap.dedent('\n'.join(block)) + '\n'
            found.append(Snippet(f'{name} --help', n - len(block), 'Examples', '', text))
            block = []
    return found


def of_comments(path):
    """The commands in a file's comments, and of a systemd unit what it starts."""
    found = []
    for n, line in enumerate(read(path).split('\n'), 1):
        commented = re.match(r'#\s{3,}(.+)', line)
        started = re.match(r'Exec\w+=/\S*/(zrs.+)', line)
        if commented or started:
            found.append(Snippet(path, n, '', '', (commented or started)[1] + '\n'))
    return found


def of_output(source, text):
    """The blocks that a program prints for people to copy, indented by four spaces."""
    return of_document(source, text)


def everywhere(more=()):
    """All of them; `more` are texts by their source, as `etc/local-cluster` prints."""
    found = []
    for path in documents():
        found += of_document(path, read(path))
    found.append(Snippet('etc/zope.conf', 1, '', '', read('etc/zope.conf')))
    for path in COMMENTED:
        found += of_comments(path)
    for name in 'zrsd', 'zrsctl':
        found += of_help(name)
    for source, text in more:
        found += of_output(source, text)
    return found


def run_by(module):
    """The snippets that a test module runs, by its `__name__`."""
    return [snippet for snippet in everywhere() if f'test_{snippet.runner}' == module]


def overlooked(found):
    """The lines of the documents and of the comments that look as if they were for copying, and are in no snippet."""
    shown = {}
    for snippet in found:
        shown.setdefault(snippet.source, set()).update(line.strip() for line in snippet.text.splitlines())
    missed = []
    for path in [*documents(), *COMMENTED]:
        for n, line in enumerate(read(path).split('\n'), 1):
            plain = line.strip().lstrip('#').strip() if path in COMMENTED else line.strip()
            if TELLTALE.match(line) and plain not in shown.get(path, ()):
                missed.append(f'{path}:{n}: {line.strip()}')
    return missed


def inline(text):
    """The texts in backticks of a document, outside of blocks."""
    blocks = {line for snippet in of_document('', text) for line in snippet.text.splitlines()}
    prose = '\n'.join(line for line in text.split('\n') if line.strip() not in blocks and not line.startswith('    '))
    prose = re.sub(r'```.*?```', '', prose, flags=re.S)
    return [re.sub(r'\s+', ' ', quoted) for quoted in re.findall(r'`([^`]+)`', prose)]
