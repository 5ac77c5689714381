"""`catalog import` of models that other programs keep: MLflow, Hugging Face, BentoML, Triton, TorchServe, pins,
modelstore, Kedro, Weights & Biases, archives, and plain files. What is known only by its name is kept, and said."""

from collections.abc import Iterable

from catalog_core.specs import FormatSpec

SAFE = ("*.safetensors", "*.onnx", "*.keras", "*.pt2", "*.skops", "*.npy", "*.npz", "*.ubj", "*.lgb")
PICKLED = (
    "*.pkl", "*.pickle", "*.joblib", "*.pt", "*.pth", "*.ckpt", "*.bin", "*.h5", "*.hdf5",
)  # fmt: skip

STORES = {  # format → marks, and the function of catalog_doors.stores that reads it
    "torchserve": (("./MAR-INF/MANIFEST.json",), "torchserve"),
    "pins": (("[0-9]*T[0-9]*Z-*/ ./data.txt", "./[0-9]*T[0-9]*Z-*/data.txt"), "pins"),
    "modelstore": (("./model-info.json ./python-info.json", "./python-info.json"), "modelstore"),
    "kedro": (("./[0-9][0-9][0-9][0-9]-[0-9]*T*Z/*",), "kedro"),
    "wandb-artifact": (("*:v[0-9]*/",), "wandb_artifact"),
    "wandb": (("./files/wandb-metadata.json", "./wandb-metadata.json"), "wandb_run"),
}
ARCHIVES = ("*.zip", "*.tar", "*.tar.gz", "*.tgz", "*.mar", "*.bentomodel", "*.nemo")
INSTEAD = {  # format → marks, what it is, and what to import in its place
    "gguf": (("*.gguf", "*.ggml"), "a model of llama.cpp: import the folder with safetensors that it was made from"),
    "tflite": (("*.tflite", "*.litert"), "a model of LiteRT: import the SavedModel or .keras file it was made from"),
    "coreml": (
        ("*.mlmodel", "*.mlpackage/", "*.mlmodelc/"),
        "a model of Core ML: import what it was made from, or export that as ONNX",
    ),
    "openvino": (
        ("./openvino_model.xml", "./*.xml ./*.bin"),
        "a model of OpenVINO: import the ONNX graph or SavedModel that it was made from",
    ),
    "pmml": (("*.pmml",), "a model in PMML: export the model as ONNX or skops where it was trained, and import that"),
    "tensorrt": (
        ("*.engine", "*.plan", "*.trt"),
        "an engine of TensorRT, built for one device: import the ONNX graph that it was built from",
    ),
    "catboost": (("*.cbm",), "a model of CatBoost: model.save_model('model.onnx', format='onnx') writes what is read"),
    "paddle": (
        ("*.pdmodel", "*.pdiparams", "*.pdparams"),
        "a model of PaddlePaddle: import what paddle2onnx makes of it",
    ),
    "flax": (
        ("*.msgpack",),
        "a file of Flax: flax.serialization.msgpack_restore reads it; catalog.save takes the arrays that it gives",
    ),
    "executorch": (("*.pte",), "a program of ExecuTorch: import the .pt2 file that torch.export wrote of the module"),
    "h2o": (("*.mojo",), "a model of H2O: keep it for H2O, or train it anew in scikit-learn or XGBoost"),
    "device": (("*.mnn", "*.ncnn", "*.rknn", "*.hef", "*.dlc"), "a model for one device: import the ONNX graph of it"),
    "caffe": (("*.caffemodel",), "a model of Caffe: export it as ONNX, and import that"),
    "r": (("*.rds", "*.RData", "*.rda"), "an object of R: export the model as ONNX, or its numbers as .npz"),
    "tensorflow-graph": (
        ("*.pb",),
        "a graph of TensorFlow (a frozen one of TensorFlow 1, or one part of a SavedModel): import the folder of the "
        "SavedModel; tf.compat.v1.saved_model.simple_save makes one of a frozen graph",
    ),
    "tensorflow-checkpoint": (
        ("./*.ckpt.index", "./*.ckpt-*.index", "./checkpoint ./*.index", "./*.index ./*.data-?????-of-?????"),
        "a checkpoint of TensorFlow: restore it into the model, and save that model, or export it as .keras",
    ),
    "orbax": (
        ("./_CHECKPOINT_METADATA", "./_METADATA ./d", "./*/_METADATA"),
        "a checkpoint of Orbax: restore it in JAX; catalog.save takes the arrays that it gives",
    ),
    "torch-distributed": (
        ("./*.distcp",),
        "a distributed checkpoint of torch: torch.distributed.checkpoint.format_utils.dcp_to_torch_save makes one "
        "file of it; import that with --unsafe",
    ),
    "deepspeed": (
        ("./zero_to_fp32.py", "./latest ./*/*_model_states.pt", "./mp_rank_*_model_states.pt"),
        "a checkpoint of DeepSpeed: its zero_to_fp32.py, with --safe_serialization, makes safetensors: import these",
    ),
    "spacy": (("./config.cfg ./meta.json",), "a pipeline of spaCy: `spacy.load` reads it; nothing here runs it"),
}  # fmt: skip


def catalog_register_formats() -> Iterable[FormatSpec]:
    """Register the readers, the most telling marks first. A mark that begins with `./` fits no single file."""
    for name, (marks, function) in STORES.items():
        yield FormatSpec(name, marks, f"catalog_doors.stores:{function}")
    yield FormatSpec("mlflow", ("./MLmodel",), "catalog_doors.mlflow:read")
    yield FormatSpec("bentoml", ("./model.yaml", "./latest ./*/model.yaml"), "catalog_doors.bentoml:read")
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
    yield FormatSpec("archive", ARCHIVES, "catalog_doors.packed:read")
    for name, (marks, instead) in INSTEAD.items():
        yield FormatSpec(name, marks, "catalog_doors.stores:kept", instead=instead)
