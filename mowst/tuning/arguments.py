"""Arguments of public functions, checked by their annotations when they are called."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar, get_type_hints

from mowst.system import check_type_of

P = ParamSpec("P")
R = TypeVar("R")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Refuse an argument of another type than its annotation says, with an `InputError` that names it."""
    signature = inspect.signature(function)
    hints = cache(lambda: get_type_hints(function))  # not before its module is whole

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        bound: dict[str, Any] = signature.bind(*args, **kwargs).arguments
        for name, value in bound.items():
            plain = signature.parameters[name].kind is not inspect.Parameter.VAR_KEYWORD
            if plain and name in hints():
                check_type_of(name, value, hints()[name])
        return function(*args, **kwargs)

    return call
