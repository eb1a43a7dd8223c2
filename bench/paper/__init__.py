"""The paper's comparison: ``python -m bench paper --photos DIR``.

`cases` are the images to invert, `contenders` the methods, `measures` the metrics. `runs` caches every result;
`figures` and `report` show them.
"""

from bench.paper.command import add_arguments, run

__all__ = ["add_arguments", "run"]
