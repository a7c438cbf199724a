"""The talk's tables and figures: what each asks, what was published, and how its cells are run."""

from fullrank.tables.talk import Catalogue, Cell, Column, Row, Table, describe_tables, names, open_table

__all__ = ["Catalogue", "Cell", "Column", "Row", "Table", "describe_tables", "names", "open_table"]
