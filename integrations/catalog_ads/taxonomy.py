"""The name that `catalog_oracle.taxonomy` had; it goes with the next release."""

from catalog_oracle.taxonomy import *  # noqa: F403
