"""Results as text for people and as files for programs."""
from __future__ import annotations

import csv
import json
import textwrap
from pathlib import Path

__all__ = ["WIDTH", "check_path", "number", "paragraph", "save", "table"]

#: Columns of a line.
WIDTH = 110


def number(mean, spread=None, digits=2):
    """Write a mean and what follows ±.

    Examples
    --------
    >>> from rdks.benchmarks.report import number
    >>> number(-1.8649, 0.108), number(0.5)
    ('-1.86 ± 0.11', '0.50')
    """
    text = f"{mean:.{digits}f}"
    return text if spread is None or spread != spread else f"{text} ± {spread:.{digits}f}"


def table(head, rows, first=31, width=18):
    """Lay out rows of text in columns.

    Parameters
    ----------
    head : sequence of str
        One word per column; the first names the rows.
    rows : sequence of sequences of str
        A row of one cell is a heading.
    first, width : int
        Width of the first column and of the others, at least.

    Returns
    -------
    str

    Examples
    --------
    >>> from rdks.benchmarks.report import table
    >>> print(table(["", "flood"], [["ours"], ["one bandwidth", "0.61"]], first=15, width=6))
                      flood
      ours
        one bandwidth  0.61
    """
    first = max([first, *(len(row[0]) + 2 for row in rows if len(row) > 1)])

    def line(cells, indent):
        return ("  " + " " * indent + cells[0].ljust(first - indent)
                + "".join(cell.rjust(width) for cell in cells[1:])).rstrip()

    return "\n".join([line(head, 0), *(line(row, 2 if len(row) > 1 else 0) for row in rows)])


def paragraph(text, indent=2):
    """Fill a paragraph, indented."""
    return textwrap.fill(" ".join(text.split()), WIDTH, initial_indent=" " * indent, subsequent_indent=" " * indent,
                         break_on_hyphens=False)


def check_path(path):
    """Return a path for results after checking that it can be written; before hours of work, not after.

    Parameters
    ----------
    path : str or path

    Raises
    ------
    ValueError
        If it ends neither in .json nor in .csv.
    FileNotFoundError
        If its folder does not exist.

    Returns
    -------
    pathlib.Path
    """
    path = Path(path)
    if path.suffix not in (".json", ".csv"):
        raise ValueError(f"results are written as .json or .csv, not as {path.name!r}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} for the results does not exist; make it first")
    return path


def save(path, header, records, summaries):
    """Write results to a file.

    Parameters
    ----------
    path : str or path
        With .json everything is written; with .csv one line per fit.
    header : dict
        What was run, by what.
    records : list of dict
        One per fit, of numbers and text, and ``details``, a dict.
    summaries : list of dict
        What the tables show.
    """
    path = check_path(path)
    if path.suffix == ".json":
        text = json.dumps({**header, "summaries": summaries, "fits": records}, indent=1)
        path.write_text(text + "\n", encoding="utf-8")
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        flat = [{**record, "details": json.dumps(record["details"])} for record in records]
        writer = csv.DictWriter(file, list(flat[0]))
        writer.writeheader()
        writer.writerows(flat)
