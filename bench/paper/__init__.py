"""The paper's comparison: ``python -m bench paper --photos DIR``.

`cases` are what is inverted, `contenders` by which methods, `measures` how well; `runs` keeps every result, and
`figures` and `report` show them.
"""

from bench.paper.command import add_arguments, run

__all__ = ["add_arguments", "run"]
