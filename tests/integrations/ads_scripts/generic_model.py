from ads.model.generic_model import GenericModel

import os
import tempfile

artifact_dir = tempfile.mkdtemp()
with open(os.path.join(artifact_dir, "table.json"), "w") as file:
    file.write('{"1": 10, "2": 20}')
score = os.path.join(tempfile.mkdtemp(), "score.py")
with open(score, "w") as file:
    file.write("""
import json, os
def load_model(model_file_name="table.json"):
    with open(os.path.join(os.path.dirname(os.path.realpath(__file__)), model_file_name)) as file:
        return json.load(file)
def predict(data, model=load_model()):
    return {"prediction": [model.get(str(item), -1) for item in data]}
""")

model = GenericModel(estimator=None, artifact_dir=artifact_dir, serialize=False)
prepared = model.prepare(
    inference_conda_env="oci://packs@space/conda/any",
    inference_python_version="3.11",
    model_file_name="table.json",
    score_py_uri=score,
    force_overwrite=True,
    ignore_conda_error=True,
)
verified = model.verify([1, 2, 3])
introspected = model.introspect()
status = model.summary_status()
model.metadata_custom.add("note", "a table", replace=True)
custom = model.metadata_custom.to_dataframe()
taxonomy = model.metadata_taxonomy.to_dataframe()
item = model.metadata_custom.get("note")
again = GenericModel.from_model_artifact(
    uri=model.artifact_dir,
    model_file_name="table.json",
    artifact_dir=tempfile.mkdtemp(),
    force_overwrite=True,
    ignore_conda_error=True,
)
