"""torch modules: exported graphs that load without the class, weights in safetensors."""

from collections.abc import Iterable

from catalog_core.specs import SerializerSpec


def catalog_register_serializers() -> Iterable[SerializerSpec]:
    """Register `torch`, and `aoti`, which takes no object by itself."""
    yield SerializerSpec("torch", ("torch",), "catalog_torch.serializer:TorchSerializer", extra="torch")
    yield SerializerSpec("aoti", (), "catalog_torch.compiled:CompiledSerializer", extra="torch")
