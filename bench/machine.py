# SPDX-License-Identifier: Apache-2.0
"""What a measurement was made on, and what processes cost there. Linux, standard library only."""
import importlib.metadata
import os
from pathlib import Path
import platform
import time

TICKS_PER_S = os.sysconf('SC_CLK_TCK')
INSTRUCTION_SETS = ('avx2', 'avx_vnni', 'avx512f', 'avx512_vnni', 'avx512_bf16', 'amx_tile')
PACKAGES = ('numpy', 'openvino', 'onnxruntime', 'ros-rclpy')


def describe() -> dict:
    """
    Describe the machine and the versions that matter.

    :return: processor, cores, memory_mib, instruction_sets, load (one minute), niceness of this
        process, python, packages
    """
    cpu = _fields(Path('/proc/cpuinfo').read_text().split('\n\n')[0])
    memory = _fields(Path('/proc/meminfo').read_text())
    flags = cpu.get('flags', '').split()
    return {
        'processor': cpu.get('model name', platform.machine()), 'cores': os.cpu_count(),
        'usable_cores': cores(), 'memory_mib': int(memory['MemTotal'].split()[0]) // 1024,
        'instruction_sets': [name for name in INSTRUCTION_SETS if name in flags],
        'load': os.getloadavg()[0], 'niceness': os.nice(0),
        'system': f'{platform.system()} {platform.release()}',
        'python': platform.python_version(),
        'packages': {name: _version(name) for name in PACKAGES}}


def cores() -> list:
    """Return the cores this process may use."""
    return sorted(os.sched_getaffinity(0))


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that all threads of a process have used, seconds."""
    values = _stat(pid)
    return (int(values[11]) + int(values[12])) / TICKS_PER_S


def machine_seconds() -> dict:
    """Return CPU time of all cores since boot, seconds: busy, and stolen by the host."""
    values = [int(value) / TICKS_PER_S for value in
              Path('/proc/stat').read_text().splitlines()[0].split()[1:9]]
    user, nice, system, _, _, irq, softirq, stolen = values
    return {'busy': user + nice + system + irq + softirq, 'stolen': stolen}


class CpuMeter:
    """How many cores named processes, all others and the host have used since this was made."""

    def __init__(self, **pids):
        """
        Start measuring.

        :param pids: process numbers by name
        """
        self._pids = pids
        self._before = self._read()

    def _read(self):
        return {'wall': time.monotonic(), **machine_seconds(),
                **{name: cpu_seconds(pid) for name, pid in self._pids.items()}}

    def cores(self) -> dict:
        """Return CPU time by wall time: of each process, of ``others``, and ``stolen``."""
        now = self._read()
        used = {name: now[name] - self._before[name] for name in now}
        wall_s, busy_s = used.pop('wall'), used.pop('busy')
        # The kernel counts in ticks, so on a quiet machine the difference may be below zero.
        used['others'] = max(0.0, busy_s - sum(used[name] for name in self._pids))
        return {name: seconds / wall_s for name, seconds in used.items()}


def age_s() -> float:
    """Return how long ago this process was started, seconds (to 10 ms)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(_stat('self')[19]) / TICKS_PER_S


def memory_mib(pid='self') -> dict:
    """Return resident memory of a process: all, and what is its own (neither file nor shared)."""
    status = _fields(Path(f'/proc/{pid}/status').read_text())
    return {'resident': int(status['VmRSS'].split()[0]) / 1024,
            'own': int(status['RssAnon'].split()[0]) / 1024}


def family(pid: int) -> list:
    """Return a process and all its descendants that run, the process itself first."""
    found = [pid]
    for parent in found:  # grows meanwhile
        try:
            tasks = list(Path(f'/proc/{parent}/task').iterdir())
            found += [int(child) for task in tasks
                      for child in (task / 'children').read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            pass  # ended meanwhile
    return found


def is_running(pid: int) -> bool:
    """
    Tell whether a process runs.

    One that has ended is still listed until its parent has asked how; where the parent has ended
    too, that is up to the system's first process, and some look only every few seconds.
    """
    try:
        return _stat(pid)[0] not in 'ZX'
    except (FileNotFoundError, ProcessLookupError):
        return False


def command_line(pid: int) -> str:
    """Return the command line of a process; '' if it has ended."""
    try:
        return Path(f'/proc/{pid}/cmdline').read_bytes().replace(b'\0', b' ').decode().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ''


def usage(pid: int) -> dict:
    """
    Count what a process holds.

    :param pid: process
    :return: main_mib and children_mib (resident, of the process and of its descendants), threads,
        files (open descriptors) of the process, children (running descendants)
    """
    children = []
    for child in family(pid)[1:]:
        try:
            children.append(memory_mib(child)['resident'])
        except (FileNotFoundError, ProcessLookupError, KeyError):
            pass  # ended meanwhile
    return {'main_mib': memory_mib(pid)['resident'], 'children_mib': sum(children),
            'threads': len(list(Path(f'/proc/{pid}/task').iterdir())),
            'files': len(list(Path(f'/proc/{pid}/fd').iterdir())), 'children': len(children)}


def _stat(pid):
    """Fields of /proc/<pid>/stat from the third on; the name before may hold spaces."""
    return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()


def _fields(text):
    pairs = (line.partition(':') for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
