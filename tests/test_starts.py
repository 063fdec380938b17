"""Runs that start at once share a graph that none has prepared yet, and nothing else."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "starts.py"


def test_runs_that_start_at_once_leave_a_whole_result_each():
    command = [sys.executable, str(SCRIPT), "--count", "8", "--at-once", "4", "--processes", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "8 results of 8 that there must be, 0 faults" in ended.stdout, ended.stdout + ended.stderr
    assert ended.returncode == 0
