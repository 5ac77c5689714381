"""For tests of plug-ins: contracts to inherit, a store in memory, and one that fails on request."""
