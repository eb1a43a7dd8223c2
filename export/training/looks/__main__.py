"""``python -m export.training.looks``: as ``python -m export train looks``, with nothing but what training needs."""

from __future__ import annotations

import argparse

from assets.allocator import keep_freed
from export.training.looks.command import add_arguments, add_common, run

keep_freed()
parser = argparse.ArgumentParser(prog="python -m export.training.looks", description="Train the two looks.")
parser.set_defaults(domain="ffhq")
add_arguments(parser)
add_common(parser)
run(parser.parse_args())
