from ads.model.framework.sklearn_model import SklearnModel

import tempfile

import numpy as np
from sklearn.linear_model import LinearRegression

rows = np.random.default_rng(0).random((20, 3)).astype("float32")
estimator = LinearRegression().fit(rows, rows.sum(1))

model = SklearnModel(estimator, artifact_dir=tempfile.mkdtemp())
prepared = model.prepare(
    inference_conda_env="oci://packs@space/conda/onnx_p311_cpu_v1",
    inference_python_version="3.11",
    as_onnx=True,
    X_sample=rows,
    y_sample=rows.sum(1),
    force_overwrite=True,
    ignore_conda_error=True,
    use_case_type="regression",
)
verified = model.verify(rows[:3])
introspected = model.introspect()
status = model.summary_status()
model.metadata_custom.add("kind", "graph")
custom = model.metadata_custom.to_dataframe()
taxonomy = model.metadata_taxonomy.to_dataframe()
item = model.metadata_custom.get("kind")
again = SklearnModel.from_model_artifact(
    model.artifact_dir, model.model_file_name, tempfile.mkdtemp(), force_overwrite=True, ignore_conda_error=True
)
