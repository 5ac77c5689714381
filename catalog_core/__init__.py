"""catalog-core: an embedded model registry. `from catalog_core import Catalog`."""

import catalog_core.sqlite  # noqa: F401  before TensorFlow has a chance, see there
from catalog_core.catalog import Catalog
from catalog_core.errors import CatalogError

__all__ = ["Catalog", "CatalogError"]
__version__ = "0.1.0"
