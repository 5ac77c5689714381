from ads.model.framework.xgboost_model import XGBoostModel

import tempfile

import numpy as np
import xgboost

rows = np.random.default_rng(0).random((60, 3))
labels = (rows[:, 0] > 0.5).astype(int)
estimator = xgboost.XGBClassifier(n_estimators=3).fit(rows, labels)

model = XGBoostModel(estimator, tempfile.mkdtemp())
prepared = model.prepare(
    "oci://packs@space/conda/generalml_p311_cpu_v1",
    "3.11",
    None,
    None,
    None,
    False,
    None,
    True,
    X_sample=rows,
    y_sample=labels,
    ignore_conda_error=True,
    use_case_type="binary_classification",
)
verified = model.verify(rows[:3].tolist())
introspected = model.introspect()
status = model.summary_status()
model.metadata_custom.set_validation_data("oci://data@space/rest.csv", "(20, 3)")
custom = model.metadata_custom.to_dataframe()
taxonomy = model.metadata_taxonomy.to_dataframe()
item = model.metadata_custom["ValidationDataset"]
again = XGBoostModel.from_model_artifact(
    model.artifact_dir, model.model_file_name, tempfile.mkdtemp(), force_overwrite=True, reload=True
)
