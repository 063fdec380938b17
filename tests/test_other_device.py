"""What runs on a GPU puts its tensors there, and an epoch that is recorded waits for none of them.

Both are seen on a device of our own (`tests.other_device`), in processes of their own: torch knows it for good.
"""

import subprocess
import sys

import pytest
from torch.utils import backend_registration

pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch lets nobody write a device in Python",
)


def passes(marked: str, chosen: str = "") -> None:
    """Run some tests of `tests/on_other_device.py` in a process of their own."""
    options = ["-q", "-n", "0", "--tb=short", "-p", "no:cacheprovider", "-m", marked, "-k", chosen]
    command = [sys.executable, "-m", "pytest", "tests/on_other_device.py", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_a_run_is_what_it_is_on_the_cpu():
    passes("not slow")


@pytest.mark.slow
@pytest.mark.parametrize("chosen", ["loss", "expert or gate", "not loss and not expert and not gate"])
def test_everything_runs_there(chosen):
    passes("slow", chosen)
