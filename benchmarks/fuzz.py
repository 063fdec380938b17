"""Hand people's odd inputs to commands and library, and see that each ends in a result or in one clear line.

    python benchmarks/fuzz.py --count 5000
    python benchmarks/fuzz.py --files           # graph files, within 2 GiB
    python benchmarks/fuzz.py --case FILE       # one of those that it printed

Configurations, command lines, cards, run folders, graphs of PyG and of networkx, each sound but for one to three odd
parts (`tests.fuzzing`), each in a fork of a process that has imported everything, within 10 s and 4 GiB. The inputs
follow from the seed. It ends with exit code 1 if one ended otherwise. About half a second an input on one core.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.fuzzing import Case, Judge, Limits, Verdict, cases, judging
from tests.fuzzing.files import file_cases

Ended = tuple[Case, Verdict]


def tried(judge: Judge, count: int, number: int) -> list[Ended]:
    """Try so many inputs, each another one: of what is drawn, some is drawn again."""
    found: dict[Case, Verdict] = {}
    rules = settings(
        max_examples=4 * count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )

    @seed(number)
    @rules
    @given(cases())
    def one(case: Case) -> None:
        if case in found or len(found) == count:
            return
        found[case] = judge(case)
        if len(found) % 100 == 0:
            faults = sum(not verdict.fine for verdict in found.values())
            print(f"{len(found)} of {count}, {faults} faults", file=sys.stderr, flush=True)

    one()
    return list(found.items())


def cause(verdict: Verdict) -> str:
    """Return what faults of one cause have in common: the kind of error, and where in our files it came from."""
    places = re.findall(r'File "\S*?((?:mowst|graphkd)/\S+\.py)", line (\d+), in (\w+)', verdict.said)
    last = verdict.said.strip().splitlines()[-1] if verdict.said.strip() else ""
    where = " < ".join(f"{file}:{line} {name}" for file, line, name in places[:-3:-1])
    return f"{verdict.outcome}: {where}: {last.partition(':')[0][:80]}" if where else f"{verdict.outcome}: {last[:60]}"


def report(found: list[Ended]) -> int:
    """Print what became of the inputs; return how many ended as none may."""
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    for case, verdict in found:
        outcomes[case.kind][verdict.outcome] += 1
        outcomes["all"][verdict.outcome] += 1
    for kind, counts in sorted(outcomes.items(), key=lambda each: each[0] == "all"):
        print(f"{kind:15} {counts.total():6}  " + ", ".join(f"{count} {name}" for name, count in counts.most_common()))
    case, slowest = max(found, key=lambda each: each[1].seconds)
    print(f"\nslowest: {slowest.seconds:.1f} s\n{case}")
    case, largest = max(found, key=lambda each: each[1].megabytes)
    print(f"\nlargest: {largest.megabytes:.0f} MiB resident\n{case}")
    faults: dict[str, list[Ended]] = defaultdict(list)
    for case, verdict in found:
        if not verdict.fine:
            faults[cause(verdict)].append((case, verdict))
    for name, held in sorted(faults.items(), key=lambda each: -len(each[1])):
        case, verdict = min(held, key=lambda each: len(str(each[0])))
        print(f"\n=== {len(held)} x {name}\n{str(case)[:3000]}\n--> {verdict.seconds:.1f} s, {verdict.said[-1500:]}")
    count = sum(map(len, faults.values()))
    print(f"\n{len(found)} inputs, {count} ended as none may, of {len(faults)} causes")
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000, help="Number of inputs.")
    parser.add_argument("--seed", type=int, default=0, help="Of the inputs.")
    parser.add_argument("--files", action="store_true", help="300 graph files, damaged or made to do harm, instead.")
    parser.add_argument("--case", type=Path, help="File of one input, to try again.")
    asked = parser.parse_args()
    with judging() as judge:
        if asked.case is not None:
            case = Case.of(asked.case.read_text())
            found = [(case, judge(case))]
            print(found[0][1].outcome, found[0][1].said, sep="\n")
        elif asked.files:
            found = [(case, judge(case, Limits(resident=2 * 2**30))) for case in file_cases(300)]
        else:
            found = tried(judge, asked.count, asked.seed)
    sys.exit(bool(report(found)))


if __name__ == "__main__":
    main()
