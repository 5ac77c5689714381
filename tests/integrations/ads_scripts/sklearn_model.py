from ads.model.framework.sklearn_model import SklearnModel

import os
import tempfile

import pandas as pd
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

data = load_iris(as_frame=True)
X, y = data.data, pd.DataFrame({"target": data.target})
estimator = LogisticRegression(max_iter=300).fit(X.to_numpy(), y["target"])

model = SklearnModel(estimator=estimator, artifact_dir=tempfile.mkdtemp())
prepared = model.prepare(
    inference_conda_env="oci://packs@space/conda/generalml_p311_cpu_v1",
    inference_python_version="3.11",
    X_sample=X,
    y_sample=y,
    force_overwrite=True,
    ignore_conda_error=True,
    use_case_type="multinomial_classification",
)
verified = model.verify(X.head(3))
introspected = model.introspect()
status = model.summary_status()
model.metadata_custom.set_training_data(path="oci://data@space/iris.csv", data_size="(150, 4)")
model.metadata_custom.add("accuracy", 0.97, "on all of it", "Performance")
custom = model.metadata_custom.to_dataframe()
taxonomy = model.metadata_taxonomy.to_dataframe()
item = model.metadata_custom.get("accuracy")
again = SklearnModel.from_model_artifact(
    model.artifact_dir, model.model_file_name, tempfile.mkdtemp(), force_overwrite=True, ignore_conda_error=True
)
again_status = again.summary_status()
assert os.path.isfile(os.path.join(model.artifact_dir, model.model_file_name))
