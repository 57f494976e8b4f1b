"""The error tree answers its questions for every class."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import faultline
from faultline import errors
from faultline.errors import FaultlineError, Happened, all_errors

EXIT_CODES = {1, 2, 3, 4, 5, 6, 7, 8}


@pytest.fixture(scope="module", autouse=True)
def everything_is_loaded() -> None:
    """Classes that another module derives count too."""
    for module in pkgutil.walk_packages(faultline.__path__, "faultline."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def test_every_error_says_what_happened_and_whether_to_retry() -> None:
    for error in all_errors():
        assert isinstance(error.happened, Happened), error
        assert isinstance(error.retry, bool), error
        assert error.exit_code in EXIT_CODES, error
        assert 400 <= error.http_status < 600, error
        assert error.__doc__, error


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [vars(error).get("code") for error in all_errors()]
    assert None not in codes, [error for error in all_errors() if "code" not in vars(error)]
    assert len(codes) == len(set(codes)), sorted(filter(None, codes))


def test_the_unforeseen_counts_as_maybe() -> None:
    assert FaultlineError.happened is Happened.MAYBE


def test_the_tree_is_drawn_in_the_docstring_of_its_module() -> None:
    drawn = errors.__doc__ or ""
    for error in all_errors():
        if error.__module__ == "faultline.errors":
            assert error.__name__ in drawn, f"{error.__name__} is missing in the drawing"


def test_an_error_tells_its_hint_and_its_json() -> None:
    error = errors.InvalidParameter("latency", "100", "a duration", hint="a bare number")
    assert str(error).endswith("a bare number")
    assert error.as_dict() == {
        "code": "invalid-parameter",
        "message": error.message,
        "hint": "a bare number",
        "happened": "nothing",
        "retry": False,
        "field": "latency",
        "expected": "a duration",
    }
