# SPDX-License-Identifier: Apache-2.0
"""
Attack the nodes: ``make fuzz ARGS="--cases 10000 --seed 0"``.

Ends with 1 if anything was found. What is found is printed as a line for ``corpus.py``, which is
tried first from then on.
"""
import argparse
from pathlib import Path
import sys
import tempfile
import time

from fuzz.campaign import Campaign, NAMES, SLOW_S
from fuzz.targets import TARGETS

FINDINGS = Path(__file__).resolve().parents[2] / 'bench' / 'out' / 'fuzz_findings.txt'
ROUND = 1000  # cases after which memory is looked at


def main() -> int:
    """Run a campaign; return the exit code."""
    parser = argparse.ArgumentParser(prog='fuzz', description=__doc__)
    parser.add_argument('--cases', type=int, default=10_000, help='how many; default %(default)s')
    parser.add_argument('--seed', type=int, default=0, help='another one makes other cases')
    parser.add_argument('--only', default='', help='targets whose name holds this')
    parser.add_argument('--replay', metavar='LINE', help='try one line of corpus.py and end')
    args = parser.parse_args()
    targets = [target for target in TARGETS if args.only in target.name]
    if not targets:
        parser.error(f'no target holds {args.only!r}; there are '
                     f'{", ".join(target.name for target in TARGETS)}')
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix='fuzz_') as root, \
            Campaign(Path(root), lambda text: print(text, flush=True),
                     args.cases >= 2 * ROUND, SLOW_S) as campaign:
        if args.replay:
            name, case = eval(args.replay.rstrip().rstrip(','), dict(NAMES))
            campaign.replay(name, case)
            return 1 if campaign.findings else 0
        if not args.only:
            campaign.run_corpus()
        run_rounds(campaign, targets, args.cases, args.seed)
        report(campaign, time.monotonic() - started_s)
        if campaign.findings:
            FINDINGS.parent.mkdir(parents=True, exist_ok=True)
            FINDINGS.write_text(''.join(f'    ({f.target!r}, {f.case!r}),\n'
                                        for f in campaign.findings))
            print(f'{FINDINGS} has them as lines for corpus.py.')
        return 1 if campaign.findings or campaign.leaks() else 0


def run_rounds(campaign, targets, num_cases, seed):
    """
    Attack all targets in turns.

    :param campaign: that counts
    :param targets: to attack
    :param num_cases: at least, together
    :param seed: the same gives the same cases
    """
    num_rounds = max(num_cases // ROUND, 1)
    share = num_cases / num_rounds / sum(target.share for target in targets)
    for number in range(num_rounds):
        for target in targets:
            campaign.run(target, max(round(share * target.share), 1), seed * 100_003 + number)
        campaign.end_round()
    number = num_rounds
    largest = sorted(targets, key=lambda target: -target.share)[:3]
    while campaign.num_cases < num_cases and not campaign.findings:  # some targets have few cases
        for target in largest:
            campaign.run(target, (num_cases - campaign.num_cases) // len(largest) + 1,
                         seed * 100_003 + number)
        number += 1
    campaign.end_round()


def report(campaign, seconds):
    """Print what was done and found."""
    words = ('accepted', 'refused', 'sent', 'broken', 'failed', 'died')
    print(f'{"target":42}{"".join(f"{word:>9}" for word in words)}   slowest')
    for name, counts in campaign.outcomes.items():
        if counts:
            numbers = ''.join(f'{counts[word] or "":>9}' for word in words)
            print(f'{name:42}{numbers}{campaign.slowest[name][0] * 1e3:8.0f} ms')
    for name, rounds in campaign.memory.items():
        path = ', '.join(f'{usage["rss_mb"]:.1f}' for _, usage in rounds)
        last = rounds[-1][1]
        print(f'{name}: {path} MB; {last["threads"]} threads, {last["files"]} files; '
              f'{campaign.restarts[name]} restarts')
    for leak in campaign.leaks():
        print(f'LEAK {leak}')
    totals = sum(campaign.outcomes.values(), type(next(iter(campaign.outcomes.values())))())
    print(f'{campaign.num_cases} cases in {seconds:.0f} s: {totals["accepted"]} accepted, '
          f'{totals["refused"]} refused, {totals["died"]} nodes lost, '
          f'{len(campaign.findings)} findings, {len(campaign.leaks())} leaks.')


if __name__ == '__main__':
    sys.exit(main())
