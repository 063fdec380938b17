"""Whatever people hand over ends in a result or in one clear line; `benchmarks/fuzz.py` tries ten times as many."""

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzzing import Case, Limits, cases, judging

PLAIN = settings(derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def judge():
    with judging() as made:
        yield made


@pytest.mark.parametrize("count", [30, pytest.param(500, marks=pytest.mark.slow)])
def test_inputs_end_in_a_result_or_in_one_line(judge, count):
    @settings(PLAIN, max_examples=count)
    @given(cases())
    def one(case):
        verdict = judge(case)
        assert verdict.fine, f"{verdict.outcome}: {verdict.said}\n{case}"

    one()


@pytest.mark.parametrize(
    ("given", "asked", "outcome"),
    [
        ("g = data()", "proper(trained(g).predict_proba(g))", "result"),
        ("g = data(x=None)", "trained(g)", "refused"),
        ("g = data(x=1 / 0)", "trained(g)", "void"),
        ("", "trained(lr=1e38, epochs=3)", "diverged"),
        ("", "run('--out', 'o'); command('predict', 'o/seed-0')", "result"),
        ("", "run('--lr', '-1')", "refused"),
        ("", "run('--lr', '1e38', '--weak.norm', 'none', '--strong.norm', 'none')", "diverged"),
        ("copied()", "run('--out', 'r')", "refused"),
        ("", "data().nothing", "fault"),
        ("", "raise InputError('')", "fault"),
        ("import mowst.run", "mowst.run.flags = lambda: 1 / 0; run()", "fault"),
        ("import mowst.run", "mowst.run.flags = lambda: print('more', file=sys.stderr) or {}['x']; run()", "fault"),
        ("import mowst.run", "mowst.run.flags = lambda: sys.exit(3); run()", "fault"),
        ("", "proper(torch.full((2, 2), float('nan')))", "fault"),
        ("", "os.kill(os.getpid(), 9)", "died"),
        ("", "os.write(1, b'x' * 10**6)", "result"),
    ],
)
def test_a_judge_tells_how_a_case_ended(judge, given, asked, outcome):
    assert judge(Case("", given, asked)).outcome == outcome


def test_a_judge_ends_what_takes_too_long_or_too_much(judge):
    assert judge(Case("", "import time", "time.sleep(60)"), Limits(seconds=0.5)).outcome == "slow"
    assert (
        judge(Case("", "import subprocess", "subprocess.run(['sleep', '60'])"), Limits(seconds=0.5)).outcome == "slow"
    )
    assert judge(Case("", "", "np.ones(10**8)"), Limits(resident=2**29 + 2**28)).outcome == "large"


def test_a_case_is_read_as_it_was_written():
    case = Case("given", "write('a', 'b')\nwrite('c', 'd')", "run()")
    assert Case.of(str(case)) == case
