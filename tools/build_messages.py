#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
Build message packages for rclpy without CMake; ``tools/install.py`` runs it in ``.venv``.

The sources are those of CMake: rosidl's own generators write them. They take a third of the time
because one process runs them all: it parses each definition once, and starts Python once. The
compiler gets most sources of a library in one piece, while the next ones are generated.

Not in here: what only C++ and packages that build on these need, as headers and CMake files.
"""
import argparse
import compileall
from concurrent.futures import ThreadPoolExecutor
import json
import os
from pathlib import Path
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
from xml.etree import ElementTree

import numpy
from rosidl_adapter import convert_to_idl
from rosidl_parser import parser

VENV = Path(sys.prefix)
TYPESUPPORTS = ('rosidl_typesupport_fastrtps_c', 'rosidl_typesupport_introspection_c')
MODULES = (*TYPESUPPORTS, 'rosidl_typesupport_c')  # for each, Python gets a module
GENERATORS = {  # with further arguments, in an order in which each finds what it needs
    'rosidl_generator_type_description': (),
    'rosidl_generator_c': (),
    'rosidl_typesupport_fastrtps_c': (),
    'rosidl_typesupport_introspection_c': (),
    'rosidl_typesupport_c': ('--typesupports', *TYPESUPPORTS),
    'rosidl_generator_py': ('--typesupport-impls', ';'.join(MODULES)),
}
# What generated code calls beside other messages, and what it includes.
LIBRARIES = ('rosidl_runtime_c', 'rcutils', *MODULES, 'rosidl_typesupport_fastrtps_cpp', 'fastcdr')
HEADERS = (*LIBRARIES, 'rosidl_runtime_cpp', 'rosidl_typesupport_interface', 'rmw',
           'rosidl_dynamic_typesupport')


class BuildError(Exception):
    """A step failed: the text ends with which."""


class Package:
    """A message package: its name, its definitions and where its parts go."""

    def __init__(self, folder, prefix, work):
        """
        Copy the definitions to where they are installed.

        :param folder: has ``package.xml``, and definitions in ``action``, ``msg`` and ``srv``
        :param prefix: folder of what is installed
        :param work: folder of what is needed during the build only
        """
        self.name = ElementTree.parse(folder / 'package.xml').findtext('name')
        self.work = work / self.name
        self.share = prefix / 'share' / self.name
        self.index = prefix / 'share' / 'ament_index' / 'resource_index'
        self.lib = prefix / 'lib'
        self.python = prefix / Path(sysconfig.get_path('purelib')).relative_to(VENV) / self.name
        self.definitions = [path.relative_to(folder) for kind in ('action', 'msg', 'srv')
                            for path in sorted(folder.glob(f'{kind}/*.{kind}'))]
        self.idl = [path.with_suffix('.idl') for path in self.definitions]
        for path in (Path('package.xml'), *self.definitions):
            text = (folder / path).read_text(encoding='utf-8')
            write(self.share / path, for_distribution(self.name, path, text))

    def output(self, generator):
        """Return the folder that a generator fills."""
        if generator == 'rosidl_generator_py':
            return self.python
        return self.work / generator / self.name


def say(text):
    """Print a progress line; in the place of sys.stdout empy has put something else."""
    print(text, file=sys.__stdout__, flush=True)


def write(path, text):
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8')


def for_distribution(package, path, text):
    """
    Fit a definition to the distribution of the wheels.

    :param package: its name
    :param path: file, relative to the package
    :param text: what is in it
    :return: what should be in it
    """
    if (package, path.name) != ('control_msgs', 'FollowJointTrajectory.action'):
        return text
    manifest = ElementTree.parse(VENV / 'share' / 'action_msgs' / 'package.xml')
    if [int(number) for number in manifest.findtext('version').split('.')] >= [2, 1]:
        return text
    # Feedback has the two index fields from Kilted (control_msgs 6.3) on; Jazzy has not.
    return ''.join(line for line in text.splitlines(keepends=True)
                   if not line.startswith(('int32 index', 'int32 multi_dof_index')))


def parse_once():
    """Let generators share what is parsed: they only read it, and parsing takes long."""
    parse, parsed = parser.parse_idl_file, {}

    def parse_idl_file(locator, png_file=None):
        path = locator.get_absolute_path()
        if path not in parsed:
            parsed[path] = parse(locator, png_file)
        return parsed[path]
    parser.parse_idl_file = parse_idl_file  # before any generator imports it


def prepare(package):
    """
    Translate the definitions, register them, and write what is the work of CMake.

    :param package: Package
    :raises BuildError: if a definition is wrong
    """
    for path in package.definitions:
        try:
            convert_to_idl(package.share, package.name, path, package.share)
        except Exception as error:
            raise BuildError(f'{package.name}/{path}: {type(error).__name__}: {error}') from error
    write(package.index / 'packages' / package.name, '')
    write(package.index / 'rosidl_interfaces' / package.name,
          '\n'.join(sorted(map(str, (*package.idl, *package.definitions)))))
    write(package.python / '__init__.py', '')
    for template in VENV.glob('share/rosidl_*_c/resource/*__visibility_control.h.in'):
        text = template.read_text(encoding='utf-8').replace('@PROJECT_NAME@', package.name)
        write(package.output(template.parent.parent.name) / 'msg' / template.stem,
              text.replace('@PROJECT_NAME_UPPER@', package.name.upper()))


def generate(package, generator, others):
    """
    Run one generator, in this process.

    :param package: Package
    :param generator: key of ``GENERATORS``
    :param others: names of the message packages among the wheels
    :raises BuildError: if it fails
    """
    say(f'{package.name}: {generator}')
    descriptions = package.output('rosidl_generator_type_description')
    arguments = package.work / f'{generator}.json'
    write(arguments, json.dumps({
        'package_name': package.name,
        'output_dir': str(package.output(generator)),
        'template_dir': str(VENV / 'share' / generator / 'resource'),
        'idl_tuples': [f'{package.share}:{path}' for path in package.idl],
        'ros_interface_files': [str(package.share / path) for path in package.definitions],
        'type_description_tuples': [f'{path}:{descriptions / path.with_suffix(".json")}'
                                    for path in package.idl],
        'include_paths': [f'{name}:{VENV / "share" / name}' for name in others],
        'target_dependencies': [],  # everything is new
    }))
    sys.argv = [generator, '--generator-arguments-file', str(arguments), *GENERATORS[generator]]
    try:
        runpy.run_path(str(VENV / 'lib' / generator / generator), run_name='__main__')
    except SystemExit as end:
        if end.code:
            raise BuildError(f'{package.name}: {generator} failed') from end
    except Exception as error:
        raise BuildError(f'{package.name}: {generator}: '
                         f'{type(error).__name__}: {error}') from error


def compile_library(package, path, sources, others, uses=()):
    """
    Compile and link a library with one command.

    :param package: Package
    :param path: of the library
    :param sources: its C or C++ files
    :param others: names of the message packages among the wheels
    :param uses: futures of libraries of the same package that it calls
    :return: path
    :raises BuildError: with what the compiler said
    """
    # Descriptions define the same static names; all other files can share one compilation.
    alone = [source for source in sources if source.stem.endswith('__description')]
    together = package.work / f'{path.stem}{sources[0].suffix}'
    write(together, ''.join(f'#include "{source}"\n' for source in sources
                            if source not in alone))
    headers = [*(package.work / generator for generator in GENERATORS), package.python.parent,
               VENV / 'include', *(VENV / 'include' / name for name in (*HEADERS, *others)),
               sysconfig.get_path('include'), numpy.get_include()]
    libraries = [*(future.result() for future in uses),
                 *(VENV / 'lib' / f'lib{name}.so' for name in LIBRARIES),
                 *(library for name in others
                   for library in VENV.glob(f'lib/lib{name}__rosidl_*.so'))]
    compiler = (os.environ.get('CXX') or 'c++' if together.suffix == '.cpp' else
                os.environ.get('CC') or 'cc')
    say(f'{package.name}: compiling {path.name}')
    done = subprocess.run(
        [*shlex.split(compiler), '-fPIC', '-shared',
         f'-DROS_PACKAGE_NAME="{package.name}"', *(f'-I{folder}' for folder in headers),
         together, *alone, '-o', path, f'-Wl,-soname,{path.name}', '-Wl,--as-needed', *libraries],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace')
    if done.returncode:
        raise BuildError(f'{done.stdout}{package.name}: {path.name} was not built')
    return path


def build(package, others, pool):
    """
    Generate the sources of a package, and have each library compiled as soon as it can be.

    :param package: Package
    :param others: names of the message packages among the wheels
    :param pool: threads that wait for compilers
    :return: futures of its libraries
    :raises BuildError: if a step fails
    """
    prepare(package)
    built = {}

    def start(path, sources, uses):
        built[path.stem] = pool.submit(compile_library, package, path, sources, others,
                                       [built[f'lib{package.name}__{part}'] for part in uses])
    for generator in GENERATORS:
        generate(package, generator, others)
        if generator != 'rosidl_generator_type_description':
            sources = sorted(package.output(generator).glob('*/**/*.c*'))
            start(package.lib / f'lib{package.name}__{generator}.so', sources,
                  () if generator == 'rosidl_generator_c' else ('rosidl_generator_c',))
    for module in MODULES:
        uses = {module, 'rosidl_generator_c', 'rosidl_generator_py', 'rosidl_typesupport_c'}
        start(package.python / f'{package.name}_s__{module}.so',
              [package.python / f'_{package.name}_s.ep.{module}.c'], sorted(uses))
    for path in package.idl:
        path = path.with_suffix('.json')
        shutil.copy(package.output('rosidl_generator_type_description') / path,
                    package.share / path)
    return list(built.values())


def build_all(folders, prefix, work):
    """
    Build packages.

    :param folders: those with a ``package.xml``
    :param prefix: new folder for the result
    :param work: new folder for the rest
    :raises BuildError: if a step fails
    """
    parse_once()
    packages = [Package(folder, prefix, work) for folder in folders]
    own = {package.name for package in packages}  # earlier ones may be among the wheels
    others = [path.name for path in
              VENV.glob('share/ament_index/resource_index/rosidl_interfaces/*')
              if path.name not in own]
    (prefix / 'lib').mkdir(parents=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        libraries = [library for package in packages for library in build(package, others, pool)]
        for library in libraries:
            library.result()
    compileall.compile_dir(prefix / 'lib', quiet=1)


def main():
    """
    Build what the command line names.

    :return: exit status
    """
    arguments = argparse.ArgumentParser(description='Build message packages for rclpy.')
    arguments.add_argument('--prefix', type=Path, required=True, help='new folder for the result')
    arguments.add_argument('--work', type=Path, required=True, help='new folder for the rest')
    arguments.add_argument('folders', type=Path, nargs='+', help='those with a package.xml')
    options = arguments.parse_args()
    try:
        build_all(options.folders, options.prefix, options.work)
    except (BuildError, OSError) as error:  # no compiler, no space
        print(error, file=sys.__stderr__)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
