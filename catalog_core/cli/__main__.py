"""`python -m catalog_core.cli`."""

from catalog_core.cli.main import main

main()
