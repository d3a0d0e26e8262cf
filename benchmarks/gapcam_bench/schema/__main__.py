"""`python -m gapcam_bench.schema`: writes the published schema anew, beside this file."""

from __future__ import annotations

import click

from gapcam.atomic_file import write_atomically
from gapcam_bench.schema import PATH, schema_as_json


def main() -> None:
    """Write it."""
    write_atomically(PATH, schema_as_json())
    click.echo(PATH)


if __name__ == "__main__":
    main()
