"""Inputs as people make them, and what becomes of them."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.fuzzing.commands import cards, command_lines, configurations, folders, graph_files
from tests.fuzzing.graphs import estimators, networks
from tests.fuzzing.judge import Case, Judge, Limits, Verdict, judging

__all__ = ["Case", "Judge", "Limits", "Verdict", "cases", "judging"]

KINDS = (configurations(), command_lines(), cards(), folders(), graph_files(), estimators(), estimators(), networks())


def cases() -> st.SearchStrategy[Case]:
    """Draw an input of any kind."""
    return st.one_of(*KINDS)
