"""`python -m sdf.cli`, as `sdf`."""

from sdf.cli import main

main()
