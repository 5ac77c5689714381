"""`python -m catalog_cli`."""

from catalog_cli.main import main

main()
