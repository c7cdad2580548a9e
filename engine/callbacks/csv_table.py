"""`CsvTable`: a CSV file that grows row by row, and column by column if need be."""

import contextlib
import csv
import io
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import attrs

from engine.callbacks.atomic import remove_leftovers, replacing
from engine.errors import ConfigError

MISSING = "NA"


@attrs.define(eq=False, kw_only=True)
class CsvTable:
    """A CSV file open for writing, whose rows are on their way to the disk as soon as they are written.

    Attributes:
        path: The file.
        separator: Stands between two values.
        lead: The columns that every row has and that stand first.
        names: The columns behind these; None: there is no header yet.
        rows: How many there are, without the header.
    """

    path: Path
    separator: str
    lead: tuple[str, ...]
    names: list[str] | None = None
    rows: int = 0
    _file: BinaryIO = attrs.field(init=False)
    _is_stale: bool = attrs.field(init=False, default=False)

    @classmethod
    def open(cls, path: Path, separator: str, lead: tuple[str, ...], *, append: bool) -> "CsvTable":
        """Opens a file to write on below what it holds, or (`append=False`) in place of it, from the first row on.

        Raises:
            ConfigError: What it holds is another table.
            OSError: It cannot be written.
        """
        table = cls(path=path, separator=separator, lead=lead)
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, path.name.__eq__)
        table._reopen()
        try:
            table._read_header() if append else table.discard()
        except BaseException:
            table.close()
            raise
        return table

    def discard(self) -> None:
        """Lets go what the file holds, as soon as there is a row to take its place: a resumed run takes it up."""
        self.names, self.rows, self._is_stale = None, 0, True

    def keep(self) -> None:
        """Lets what the file holds stand after all, if no row has taken its place."""
        self._is_stale = False

    def write(self, leads: Sequence[tuple[Any, ...]], values: Mapping[str, Sequence[Any]]) -> None:
        """Writes rows; a value that never was there before gets a column of its own.

        Args:
            leads: For each row, what stands in the columns that lead it.
            values: Name -> its value in each row.
        """
        if self._is_stale:
            self._empty()
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=self.separator)
        if self.names is None:
            self.names = sorted(values)
            writer.writerow((*self.lead, *self.names))
        elif not values.keys() <= set(self.names):
            self.rewrite(sorted({*self.names, *values}), self.rows)
        missing = [MISSING] * len(leads)
        columns = [values.get(name, missing) for name in self.names]
        writer.writerows(zip(*zip(*leads, strict=True), *columns, strict=True))
        self._file.write(text.getvalue().encode())  # in one call of the system, that nobody finds half a row
        self._file.flush()
        self.rows += len(leads)

    def rewrite(self, names: list[str], rows: int) -> None:
        """Gives the file other columns, and no more than its first rows; it is replaced as a whole."""
        self._file.close()
        with replacing(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as new:
            writer = csv.writer(new, delimiter=self.separator)
            writer.writerow((*self.lead, *names))
            self.rows = 0
            with self._read() as lines:
                header = next(lines, [])
                for line in itertools.islice(lines, rows):
                    values = dict(zip(header, line, strict=False))
                    writer.writerow([values.get(name, MISSING) for name in (*self.lead, *names)])
                    self.rows += 1
        self._reopen()
        self.names, self._is_stale = names, False

    def sync(self) -> None:
        """Waits until all rows are on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        if self._is_stale and not self._file.closed:
            self._empty()
        self._file.close()

    def _empty(self) -> None:
        self._file.truncate(0)
        self._is_stale = False

    def _reopen(self) -> None:
        self._file = self.path.open("ab")

    @contextlib.contextmanager
    def _read(self) -> Iterator[Iterator[list[str]]]:
        with self.path.open(newline="", encoding="utf-8") as file:
            yield (line for line in csv.reader(file, delimiter=self.separator) if line)

    def _read_header(self) -> None:
        with self._read() as lines:
            header = tuple(next(lines, ()))
            self.rows = sum(1 for _ in lines)
        if not header:
            return
        if header[: len(self.lead)] != self.lead:
            raise ConfigError(
                f"filename={str(self.path)!r}: its columns are {', '.join(header)}, not {', '.join(self.lead)} and "
                "values. Give another file, or append=False to replace this one."
            )
        self.names = list(header[len(self.lead) :])
