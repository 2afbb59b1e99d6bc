"""Exceptions and warnings. Messages say what was found, where, what was expected and what to do."""
from __future__ import annotations

import importlib

__all__ = ["AccuracyWarning", "DuplicatesWarning", "MissingDependencyError", "PointError", "ScoreError",
           "UnsupportedError", "require"]


class PointError(ValueError):
    """A row of the data is not a point of the manifold."""


class UnsupportedError(NotImplementedError):
    """The manifold or engine has no way to do what was asked."""


class MissingDependencyError(ImportError):
    """An optional package is needed and is not installed."""


class ScoreError(ArithmeticError):
    """A model of the score returned numbers that are not finite."""


class AccuracyWarning(UserWarning):
    """The heat kernel of this manifold is known approximately only; the message estimates the error."""


class DuplicatesWarning(UserWarning):
    """More than one per cent of the rows are copies of others."""


def require(name, *, feature, extra):
    """Import an optional package or say how to get it.

    Parameters
    ----------
    name : str
        Module to import.
    feature : str
        What needs it, for the message.
    extra : str
        The extra of this package that installs it.

    Returns
    -------
    module

    Raises
    ------
    MissingDependencyError
        If the module cannot be imported.

    Examples
    --------
    >>> from rdks.errors import require
    >>> require("math", feature="this example", extra="demo").floor(2.5)
    2
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependencyError(
            f"{feature} needs the package {name!r}, which cannot be imported ({error}). "
            f'Install it with: python -m pip install "rdks[{extra}]"') from error
