"""The names that scripts import from ADS: use cases, frameworks, keys, categories."""

from __future__ import annotations


class UseCaseType:
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


class Framework:
    """Frameworks by ADS's names, those that a catalog has serializers for."""

    SCIKIT_LEARN = "scikit-learn"
    XGBOOST = "xgboost"
    LIGHT_GBM = "lightgbm"
    TENSORFLOW = "tensorflow"
    KERAS = "keras"
    PYTORCH = "pytorch"
    OTHER = "other"


class MetadataTaxonomyKeys:
    """The keys of the defined metadata."""

    USE_CASE_TYPE = "UseCaseType"
    FRAMEWORK = "Framework"
    FRAMEWORK_VERSION = "FrameworkVersion"
    ALGORITHM = "Algorithm"
    HYPERPARAMETERS = "Hyperparameters"
    ARTIFACT_TEST_RESULTS = "ArtifactTestResults"


class MetadataCustomCategory:
    """The categories of custom metadata."""

    PERFORMANCE = "Performance"
    TRAINING_PROFILE = "Training Profile"
    TRAINING_AND_VALIDATION_DATASETS = "Training and Validation Datasets"
    TRAINING_ENV = "Training Environment"
    OTHER = "Other"
