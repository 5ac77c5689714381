"""What this package announces to catalog-core. Imports nothing large."""

from catalog_core.specs import BackendSpec, CommandSpec, RuntimeSpec, SerializerSpec


def catalog_register_backends():
    yield BackendSpec(
        "logfile", ("logfile",), "catalog_stranger.log:open_store", options="catalog_stranger.options:LogOptions"
    )


def catalog_register_serializers():
    yield SerializerSpec("polycal", ("polycal",), "catalog_stranger.serializer:PolycalSerializer")


def catalog_register_runtimes():
    yield RuntimeSpec("polycal", ("polycal",), ("cpu",), "catalog_stranger.runtime:NumpyRuntime")


def catalog_register_commands():
    yield CommandSpec("stranger-info", "catalog_stranger.command:info", help="Say what calibrations there are.")
