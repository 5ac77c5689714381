"""`catalog import` of models that other programs keep: MLflow, Hugging Face, BentoML, Triton, and plain files."""

from collections.abc import Iterable

from catalog_core.specs import FormatSpec

SAFE = ("*.safetensors", "*.onnx", "*.keras", "*.pt2", "*.skops", "*.npy", "*.npz", "*.ubj", "*.lgb")
PICKLED = (
    "*.pkl", "*.pickle", "*.joblib", "*.pt", "*.pth", "*.ckpt", "*.bin", "*.h5", "*.hdf5",
)  # fmt: skip


def catalog_register_formats() -> Iterable[FormatSpec]:
    """Register the readers, the most telling marks first. A mark that begins with `./` fits no single file."""
    yield FormatSpec("mlflow", ("./MLmodel",), "catalog_doors.mlflow:read")
    yield FormatSpec("bentoml", ("./model.yaml",), "catalog_doors.bentoml:read")
    yield FormatSpec("triton", ("./config.pbtxt", "./*/config.pbtxt"), "catalog_doors.triton:read")
    yield FormatSpec("savedmodel", ("./saved_model.pb",), "catalog_doors.files:read", extra="tensorflow")
    yield FormatSpec(
        "huggingface",
        (
            "./snapshots/*/*",
            "./model_index.json",
            "./adapter_config.json",
            "./modules.json",
            "./config.json",
            "./*.safetensors",
            "./*.safetensors.index.json",
            "./pytorch_model*.bin",
        ),
        "catalog_doors.huggingface:read",
    )
    yield FormatSpec("file", (*SAFE, *PICKLED), "catalog_doors.files:read")
