"""The names that scripts import from ADS: use cases, frameworks, keys, categories."""

from __future__ import annotations

from collections.abc import Iterator


class _Words(type):
    """A class of words: `WORD in Words`, `Words.values()`, `Words.keys()`, and iteration over the words."""

    def values(cls) -> tuple[str, ...]:
        """The words."""
        return tuple(value for key, value in vars(cls).items() if not key.startswith("_") and isinstance(value, str))

    def keys(cls) -> tuple[str, ...]:
        """Their names."""
        return tuple(key for key, value in vars(cls).items() if not key.startswith("_") and isinstance(value, str))

    def __contains__(cls, word: object) -> bool:
        return isinstance(word, str) and word.lower() in {value.lower() for value in cls.values()}

    def __iter__(cls) -> Iterator[str]:
        return iter(cls.values())


class UseCaseType(metaclass=_Words):
    """What a model is for. The last seven ADS does not know; to OCI they are `other`."""

    BINARY_CLASSIFICATION = "binary_classification"
    REGRESSION = "regression"
    MULTINOMIAL_CLASSIFICATION = "multinomial_classification"
    CLUSTERING = "clustering"
    RECOMMENDER = "recommender"
    DIMENSIONALITY_REDUCTION = "dimensionality_reduction/representation"
    TIME_SERIES_FORECASTING = "time_series_forecasting"
    ANOMALY_DETECTION = "anomaly_detection"
    TOPIC_MODELING = "topic_modeling"
    NER = "ner"
    SENTIMENT_ANALYSIS = "sentiment_analysis"
    IMAGE_CLASSIFICATION = "image_classification"
    OBJECT_LOCALIZATION = "object_localization"
    OTHER = "other"
    GENERATIVE_MODEL = "generative_model"
    FAST_SIMULATION = "fast_simulation"
    SURROGATE = "surrogate"
    INPAINTING = "inpainting"
    SEGMENTATION = "segmentation"
    TRACKING = "tracking"
    TRIGGER = "trigger"


class Framework(metaclass=_Words):
    """Frameworks, by ADS's names."""

    SCIKIT_LEARN = "scikit-learn"
    XGBOOST = "xgboost"
    TENSORFLOW = "tensorflow"
    PYTORCH = "pytorch"
    MXNET = "mxnet"
    KERAS = "keras"
    LIGHT_GBM = "lightgbm"
    PYMC3 = "pymc3"
    PYOD = "pyod"
    SPACY = "spacy"
    PROPHET = "prophet"
    SKTIME = "sktime"
    STATSMODELS = "statsmodels"
    CUML = "cuml"
    ORACLE_AUTOML = "oracle_automl"
    H20 = "h2o"
    TRANSFORMERS = "transformers"
    NLTK = "nltk"
    EMCEE = "emcee"
    PYSTAN = "pystan"
    BERT = "bert"
    GENSIM = "gensim"
    FLAIR = "flair"
    WORD2VEC = "word2vec"
    ENSEMBLE = "ensemble"
    SPARK = "pyspark"
    EMBEDDING_ONNX = "embedding_onnx"
    OTHER = "other"


class MetadataTaxonomyKeys(metaclass=_Words):
    """The keys of the defined metadata."""

    USE_CASE_TYPE = "UseCaseType"
    FRAMEWORK = "Framework"
    FRAMEWORK_VERSION = "FrameworkVersion"
    ALGORITHM = "Algorithm"
    HYPERPARAMETERS = "Hyperparameters"
    ARTIFACT_TEST_RESULT = "ArtifactTestResults"


class MetadataCustomKeys(metaclass=_Words):
    """The keys of custom metadata that ADS fills itself."""

    SLUG_NAME = "SlugName"
    CONDA_ENVIRONMENT = "CondaEnvironment"
    CONDA_ENVIRONMENT_PATH = "CondaEnvironmentPath"
    ENVIRONMENT_TYPE = "EnvironmentType"
    MODEL_ARTIFACTS = "ModelArtifacts"
    TRAINING_DATASET = "TrainingDataset"
    VALIDATION_DATASET = "ValidationDataset"
    MODEL_SERIALIZATION_FORMAT = "ModelSerializationFormat"
    TRAINING_DATASET_SIZE = "TrainingDatasetSize"
    VALIDATION_DATASET_SIZE = "ValidationDatasetSize"
    TRAINING_DATASET_NUMBER_OF_ROWS = "TrainingDatasetNumberOfRows"
    TRAINING_DATASET_NUMBER_OF_COLS = "TrainingDatasetNumberOfCols"
    VALIDATION_DATASET_NUMBER_OF_ROWS = "ValidationDatasetNumberOfRows"
    VALIDATION_DATASET_NUMBER_OF_COLS = "ValidationDataSetNumberOfCols"
    CLIENT_LIBRARY = "ClientLibrary"
    MODEL_FILE_NAME = "ModelFileName"


class MetadataCustomCategory(metaclass=_Words):
    """The categories of custom metadata."""

    PERFORMANCE = "Performance"
    TRAINING_PROFILE = "Training Profile"
    TRAINING_AND_VALIDATION_DATASETS = "Training and Validation Datasets"
    TRAINING_ENV = "Training Environment"
    OTHER = "Other"
