#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
Change the code in small ways and count which changes the unit tests notice: ``make mutants``.

A change is a sign, an operator, a comparison, a condition, a number or a bound, in one place of
one file. For each, the tests that run the changed function run until one fails, in a process
forked for it; nothing in the package is touched. Which test runs which function is noted once, in
``build/mutants.json``. Changes that cannot be seen from outside are listed with a reason in
``tools/equivalent_mutants.json``. Texts of messages are not changed: tests of words would have to
repeat them.

Mutation tools from the registry (mutmut, cosmic-ray) import the package from a copy of its own,
which the finder of a checkout does not know, and change every text and argument besides.
"""
import argparse
import ast
from collections import defaultdict
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
import functools
import hashlib
import importlib
import importlib.abc
import importlib.util
import json
import os
from pathlib import Path
import random
import signal
import sys
import threading
import time
from types import CodeType, FrameType
from typing import Any, Collection, Dict, Iterator, List, Optional

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = 'lingbot_world_ros'
EQUIVALENT = ROOT / 'tools' / 'equivalent_mutants.json'
CORE = ('geometry', 'robots', 'actions', 'session', 'worlds/library.py', 'worlds/definition.py',
        'worlds/world_file.py')
HANGS_S, HANGS_TIMES = 10, 10  # a test hangs after this, and that many times what it takes
NOTES = ROOT / 'build' / 'mutants.json'  # which test runs which functions
LEFT_OUT = ('test_engine_contract.py',)  # drives every engine: minutes, and no unit test
SLOW_S = 0.5  # a test that takes longer is no unit test, and is left out
LIBRARIES = ('cv2', 'numpy', 'triton', 'yaml')  # loaded once, not in every child
BINARY = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
          ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult}
COMPARE = {ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq,
           ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn,
           ast.NotIn: ast.In}
CALLS = {'min': 'max', 'max': 'min', 'minimum': 'maximum', 'maximum': 'minimum', 'sin': 'cos',
         'cos': 'sin', 'fmin': 'fmax', 'fmax': 'fmin', 'any': 'all', 'all': 'any'}


@dataclass(frozen=True)
class Mutant:
    """One small change: where it is, the code there before and after."""

    file: str  # relative to the package
    where: str  # qualified name of the function
    before: str
    after: str
    line: int
    function: str  # file and first line of the function or class, as ``Notes`` has it
    index: int  # of all changes of the file
    nth: int  # of those in the function that read the same

    @property
    def key(self) -> str:
        """Name that survives edits elsewhere in the file."""
        nth = f' ({self.nth})' if self.nth > 1 else ''
        return f'{self.file}:{self.where}: {self.before} -> {self.after}{nth}'


class Mutator(ast.NodeTransformer):
    """Count the places that can be changed; change one of them if asked to."""

    def __init__(self, file: str, wanted: int = -1):
        """
        Prepare.

        :param file: relative to the package
        :param wanted: index of the place to change; -1 changes nothing
        """
        self.file, self.wanted = file, wanted
        self.found, self._scope, self._lines = [], [], []

    def visit_module(self, tree: ast.Module) -> ast.Module:
        """Go through a file."""
        tree.body = [self.visit(node) for node in tree.body]
        return ast.fix_missing_locations(tree)

    def visit(self, node: ast.AST) -> ast.AST:
        """Go through one node and all below it."""
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            return self._visit_scope(node)
        if isinstance(node, ast.arguments) or isinstance(node, (ast.AnnAssign, ast.arg)):
            return self._visit_annotated(node)
        if not self._scope or isinstance(node, (ast.JoinedStr, ast.Raise)):
            return node  # module constants; texts of messages
        node = self.generic_visit(node)
        for changed in self._changes(node):
            index = len(self.found)
            what = '.'.join(self._scope), ast.unparse(node), ast.unparse(changed)
            nth = 1 + sum((m.where, m.before, m.after) == what for m in self.found)
            self.found.append(Mutant(self.file, *what, node.lineno,
                                     f'{self.file}:{self._lines[-1]}', index, nth))
            if index == self.wanted:
                return ast.copy_location(changed, node)
        return node

    def _visit_scope(self, node: ast.AST) -> ast.AST:
        self._scope.append(node.name)
        self._lines.append(min([node.lineno, *(d.lineno for d in node.decorator_list)]))
        node.body = [self.visit(child) for child in node.body]
        self._scope.pop()
        self._lines.pop()
        return node

    def _visit_annotated(self, node: ast.AST) -> ast.AST:
        """Leave annotations and defaults; a value is code."""
        if isinstance(node, ast.AnnAssign) and node.value is not None and self._scope:
            node.value = self.visit(node.value)
        return node

    @staticmethod
    def _changes(node: ast.AST):
        if isinstance(node, ast.BinOp) and type(node.op) in BINARY:
            if not _is_text(node):
                yield ast.BinOp(node.left, BINARY[type(node.op)](), node.right)
        elif isinstance(node, ast.AugAssign) and type(node.op) in BINARY:
            yield ast.AugAssign(node.target, BINARY[type(node.op)](), node.value)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not)):
            yield node.operand
        elif isinstance(node, ast.Compare) and len(node.ops) == 1:
            yield ast.Compare(node.left, [COMPARE[type(node.ops[0])]()], node.comparators)
        elif isinstance(node, ast.BoolOp):
            other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield ast.BoolOp(other, node.values)
        elif isinstance(node, (ast.If, ast.IfExp)) and isinstance(
                node.test, (ast.Name, ast.Attribute, ast.Call)):
            fields = {name: getattr(node, name) for name in node._fields}
            yield type(node)(**{**fields, 'test': ast.UnaryOp(ast.Not(), node.test)})
        elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
            # One more is nothing to a billion.
            yield ast.Constant(node.value + 1 if abs(node.value) < 1000 else 2 * node.value)
        elif isinstance(node, ast.Constant) and type(node.value) is bool:
            yield ast.Constant(not node.value)
        elif isinstance(node, ast.Call):
            name = getattr(node.func, 'attr', None) or getattr(node.func, 'id', None)
            if name in CALLS:
                func = (ast.Name(CALLS[name], ast.Load()) if isinstance(node.func, ast.Name) else
                        ast.Attribute(node.func.value, CALLS[name], ast.Load()))
                yield ast.Call(func, node.args, node.keywords)


def _is_text(node: ast.BinOp) -> bool:
    return any(isinstance(part, ast.JoinedStr) or isinstance(part, ast.Constant)
               and isinstance(part.value, str) for part in ast.walk(node))


def mutants_of(file: str) -> list:
    """List all changes of a file, relative to the package."""
    mutator = Mutator(file)
    mutator.visit_module(ast.parse((ROOT / PACKAGE / file).read_text()))
    return mutator.found


class MutantLoader(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Import one module of the package with a change in it."""

    def __init__(self, mutant: Mutant):
        """Prepare; to be put in front of ``sys.meta_path``."""
        self._path = ROOT / PACKAGE / mutant.file
        self._name = f'{PACKAGE}.{mutant.file[:-3].replace("/", ".")}'
        tree = Mutator(mutant.file, mutant.index).visit_module(ast.parse(self._path.read_text()))
        self._code = compile(tree, str(self._path), 'exec')

    def find_spec(self, name, path=None, target=None):
        """Answer for the changed module alone."""
        if name == self._name:
            return importlib.util.spec_from_file_location(name, self._path, loader=self)
        return None

    def create_module(self, spec):
        """Leave it to Python."""

    def exec_module(self, module):
        """Run the changed code."""
        exec(self._code, module.__dict__)


def imported_modules(path: Path) -> set:
    """Return the modules of the package that a file imports, relative paths."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or '').startswith(PACKAGE):
            below = node.module[len(PACKAGE) + 1:].replace('.', '/')
            found.add(f'{below}.py')
            found.update(f'{below}/{alias.name}.py'.lstrip('/') for alias in node.names)
    return found


def unit_tests() -> dict:
    """
    Find the tests of each file that need no ROS graph.

    :return: module file -> test files: those that import it, the closest first, then those that
        import another file of its room, through which it is reached
    """
    direct, rooms = defaultdict(list), defaultdict(list)
    for path in sorted((ROOT / 'test').glob('test_*.py')):
        text = path.read_text()
        if 'rclpy' in text or 'torch' in text or 'ros_graph' in text or path.name in LEFT_OUT:
            continue
        modules = imported_modules(path)
        for module in modules:
            direct[module].append((len(modules), path.name))
        for room in {module.rpartition('/')[0] for module in modules}:
            rooms[room].append((len(modules), path.name))
    files = [path.relative_to(ROOT / PACKAGE).as_posix()
             for path in (ROOT / PACKAGE).rglob('*.py')]
    return {file: list(dict.fromkeys(
        name for _, name in (*sorted(direct[file]), *sorted(rooms[file.rpartition('/')[0]]))))
        for file in files}


class Notes:
    """Plugin of pytest that notes which functions each test runs, and for how long."""

    def __init__(self) -> None:
        """Prepare; ``tests`` fills while they run."""
        self.tests: Dict[str, Dict[str, Any]] = {}  # node id -> seconds, functions
        self._codes: Dict[int, CodeType] = {}  # run since the test began
        self._shared: Dict[int, CodeType] = {}  # run for all tests of a file

    def profile(self, frame: FrameType, event: str, _: Any) -> None:
        """Take note of a call; see ``sys.setprofile``."""
        if event == 'call':
            self._codes[id(frame.f_code)] = frame.f_code

    def pytest_collection_finish(self) -> None:
        """What ran up to here was imported, for all tests."""
        self._shared.update(self._codes)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        """What makes a fixture of several tests runs for all of them."""
        before, self._codes = self._codes, {}
        yield
        if fixturedef.scope != 'function':
            self._shared.update(self._codes)
        self._codes.update(before)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
        """Note one test, as if it were the first."""
        for name in [name for name in sys.modules if name.startswith(PACKAGE)]:
            for value in list(vars(sys.modules[name]).values()):
                if isinstance(value, functools._lru_cache_wrapper):
                    value.cache_clear()
        self._codes, started_s = {}, time.monotonic()
        yield
        self.tests[item.nodeid] = {'took_s': time.monotonic() - started_s,
                                   'functions': self._functions(self._codes)}

    def pytest_sessionfinish(self) -> None:
        """Add to each test what ran for all of them."""
        shared = self._functions(self._shared)
        for noted in self.tests.values():
            noted['functions'] = sorted({*noted['functions'], *shared})

    @staticmethod
    def _functions(codes: Dict[int, CodeType]) -> List[str]:
        within = f'{ROOT / PACKAGE}/'
        return [f'{code.co_filename[len(within):]}:{code.co_firstlineno}'
                for code in list(codes.values()) if code.co_filename.startswith(within)]


class Chosen:
    """Plugin of pytest that runs some tests of a file, the quick ones first."""

    def __init__(self, tests: Dict[str, float]) -> None:
        """
        Choose.

        :param tests: node id -> seconds
        """
        self._tests = tests

    def pytest_collection_modifyitems(self, items: List[Any]) -> None:
        """Drop the others; a change may even rename a test, which is for others to see."""
        items[:] = sorted((item for item in items if item.nodeid in self._tests),
                          key=lambda item: self._tests[item.nodeid])

    def pytest_runtest_protocol(self, item: Any) -> None:
        """Let a test that hangs end the process."""
        signal.alarm(HANGS_S + round(HANGS_TIMES * self._tests[item.nodeid]))


@contextmanager
def _child() -> Iterator[None]:
    """Silence this process, put it into a group of its own, and end it with ``os._exit``."""
    try:
        os.setpgid(0, 0)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        os.chdir(ROOT)
        yield
    finally:
        os._exit(1)


def _pytest(name: str, plugin: object) -> int:
    return int(pytest.main(['-x', '-q', '-p', 'no:cacheprovider', '--tb=no', f'test/{name}'],
                           plugins=[plugin]))


def _failed(child: int) -> bool:
    """Wait for a forked process, and end what it leaves."""
    _, status = os.waitpid(child, 0)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    return status != 0


def notes_of(names: Collection[str]) -> Dict[str, Dict[str, Any]]:
    """
    Note what the tests of some files run, or read it from where it was noted before.

    :param names: of test files
    :return: for each, node id -> seconds and functions
    :raises SystemExit: tests fail with the code as it is
    """
    shared = hashlib.sha256()
    for path in sorted([*(ROOT / PACKAGE).rglob('*.py'), *(
            path for path in (ROOT / 'test').glob('*.py') if not path.name.startswith('test_'))]):
        shared.update(path.read_bytes())
    noted = json.loads(NOTES.read_text()) if NOTES.is_file() else {}
    NOTES.parent.mkdir(exist_ok=True)
    for name in names:
        digest = shared.copy()
        digest.update((ROOT / 'test' / name).read_bytes())
        if noted.get(name, {}).get('digest') == digest.hexdigest():
            continue
        child = os.fork()
        if child == 0:
            with _child():
                notes = Notes()
                threading.setprofile(notes.profile)
                sys.setprofile(notes.profile)
                code = _pytest(name, notes)
                sys.setprofile(None)
                noted[name] = {'digest': digest.hexdigest(), 'tests': notes.tests}
                NOTES.write_text(json.dumps(noted))
                os._exit(code)
        if _failed(child):
            raise SystemExit(f'error: {name} fails without a change; mend it first.')
        noted = json.loads(NOTES.read_text())
    return {name: noted[name]['tests'] for name in names}


def tests_of(mutant: Mutant, notes: Dict[str, Dict[str, Any]]) -> Dict[str, Dict[str, float]]:
    """
    Choose the tests that run a function.

    :param mutant: a change in it
    :param notes: of the tests to choose from
    :return: test file -> node id -> seconds; first those that import the file, quick ones first
    """
    chosen = {name: {test: noted['took_s'] for test, noted in tests.items()
                     if mutant.function in noted['functions'] and noted['took_s'] < SLOW_S}
              for name, tests in notes.items()}
    return {name: chosen[name] for name in sorted(filter(chosen.get, chosen), key=lambda name: (
        mutant.file not in imported_modules(ROOT / 'test' / name), sum(chosen[name].values())))}


def run(mutant: Optional[Mutant], tests: Dict[str, Dict[str, float]]) -> bool:
    """
    Run tests against a change in a forked process.

    :param mutant: the change; None for the code as it is
    :param tests: test file -> node id -> seconds
    :return: whether a test failed, or hung
    """
    child = os.fork()
    if child == 0:
        with _child():
            _forget()
            if mutant is not None:
                sys.meta_path.insert(0, MutantLoader(mutant))
            for name, chosen in tests.items():
                code = _pytest(name, Chosen(chosen))
                if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
                    os._exit(code)
            os._exit(0)
    return _failed(child)


def _forget() -> None:
    """Let package and tests be imported anew, should this process have imported some."""
    folders = ROOT / PACKAGE, ROOT / 'test'
    for name, module in list(sys.modules.items()):
        if set(folders) & set(Path(getattr(module, '__file__', None) or '/').parents):
            del sys.modules[name]


def main() -> int:
    """Run a sample of all changes and print which went unnoticed; return the exit code."""
    parser = argparse.ArgumentParser(prog='python tools/mutants.py', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('files', nargs='*', help='files or folders of the package (default: '
                        f'{" ".join(CORE)})')
    parser.add_argument('--count', type=int, default=400, help='changes to try; 0 is all')
    parser.add_argument('--seed', type=int, default=0, help='which ones')
    parser.add_argument('--least', type=float, default=95.0, help='percent to be noticed')
    parser.add_argument('--out', type=Path, help='JSON file for the result')
    args = parser.parse_args()
    for library in LIBRARIES:
        with suppress(ImportError):
            importlib.import_module(library)
    files = sorted({path.relative_to(ROOT / PACKAGE).as_posix() for name in args.files or CORE
                    for path in ([ROOT / PACKAGE / name] if name.endswith('.py') else
                                 (ROOT / PACKAGE / name).rglob('*.py')) if path.is_file()})
    tests = unit_tests()
    equivalent = set(json.loads(EQUIVALENT.read_text())) if EQUIVALENT.is_file() else set()
    mutants = [m for file in files for m in mutants_of(file) if m.key not in equivalent]
    if args.count and args.count < len(mutants):
        mutants = random.Random(args.seed).sample(mutants, args.count)
    notes = notes_of(sorted({name for m in mutants for name in tests[m.file]}))
    with open(os.devnull, 'w') as null, redirect_stdout(null):  # load pytest's plugins here, once
        pytest.main(['--collect-only', str(ROOT / 'test' / 'conftest.py')])
    survivors, started_s = [], time.monotonic()
    for number, mutant in enumerate(mutants, 1):
        chosen = tests_of(mutant, {name: notes[name] for name in tests[mutant.file]})
        if not run(mutant, chosen):
            survivors.append(mutant)
            print(f'unnoticed by {sum(map(len, chosen.values()))} tests: '
                  f'line {mutant.line} of {mutant.key}', flush=True)
        if number % 50 == 0:
            print(f'{number} of {len(mutants)} in {time.monotonic() - started_s:.0f} s, '
                  f'{len(survivors)} unnoticed', flush=True)
    score = 100.0 * (1.0 - len(survivors) / max(len(mutants), 1))
    print(f'{len(mutants) - len(survivors)} of {len(mutants)} changes noticed: {score:.1f} %')
    if args.out:
        args.out.write_text(json.dumps({'changes': len(mutants), 'noticed': score,
                                        'seed': args.seed,
                                        'unnoticed': [vars(m) for m in survivors]}, indent=2))
    return int(score < args.least)


if __name__ == '__main__':
    raise SystemExit(main())
