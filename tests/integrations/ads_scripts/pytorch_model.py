from ads.model.framework.pytorch_model import PyTorchModel

import tempfile

import torch

torch.manual_seed(0)
estimator = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU())
features = torch.ones(2, 4)

model = PyTorchModel(estimator, artifact_dir=tempfile.mkdtemp(), properties={"inference_python_version": "3.11"})
prepared = model.prepare(
    inference_conda_env="oci://packs@space/conda/pytorch_p311_cpu_v1",
    X_sample=features.numpy(),
    force_overwrite=True,
    use_torch_script=True,
    ignore_conda_error=True,
    use_case_type="other",
)
verified = model.verify(features)
introspected = model.introspect()
status = model.summary_status()
model.metadata_taxonomy["UseCaseType"].update(value="regression")
model.metadata_custom.add(key="epochs", value=3, category="Training Profile", description="")
custom = model.metadata_custom.to_dataframe()
taxonomy = model.metadata_taxonomy.to_dataframe()
item = model.metadata_taxonomy.get("UseCaseType")
again = PyTorchModel.from_model_artifact(
    model.artifact_dir, model.model_file_name, tempfile.mkdtemp(), force_overwrite=True, ignore_conda_error=True
)
