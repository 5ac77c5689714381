"""What plug-ins implement. Each file states its promises; `catalog_core.testing` holds the exam."""

from catalog_core.interfaces.backend import Backend, Blobs, Capabilities, Head, Journal
from catalog_core.interfaces.runtime import Artifact, Runtime, Session
from catalog_core.interfaces.serializer import Directory, Reader, SaveRequest, Serializer
from catalog_core.interfaces.store import BlobInfo, LocalFiles, ObjectStore

__all__ = [
    "Artifact",
    "Backend",
    "BlobInfo",
    "Blobs",
    "Capabilities",
    "Directory",
    "Head",
    "Journal",
    "LocalFiles",
    "ObjectStore",
    "Reader",
    "Runtime",
    "SaveRequest",
    "Serializer",
    "Session",
]
