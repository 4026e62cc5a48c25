"""s3conv keeps LLM conversations in an object store: trees of messages, an index beside them, and nothing else.

`Archive` (or `AsyncArchive`) is where to begin; `ConversationState` is one conversation.
"""

from s3conv.archive import Archive, AsyncArchive
from s3conv.core.comparing import Difference, Verified
from s3conv.core.context import OnOperation, Operation
from s3conv.core.exporting import OnDamaged
from s3conv.core.index import Consistency
from s3conv.core.listing import Page
from s3conv.core.maintaining import Maintained
from s3conv.core.saving import OnConflict
from s3conv.core.stats import RunStats, Stats
from s3conv.core.verifying import Progress
from s3conv.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    BucketNotFoundError,
    ConflictError,
    CorruptError,
    CredentialsError,
    DeadlineExceededError,
    IndexDamagedError,
    InvalidInputError,
    NotFoundError,
    OutcomeUnknownError,
    PartialSaveError,
    SchemaVersionError,
    StorageError,
    StoreError,
    UnavailableError,
    UnsafeStoreError,
    UnsupportedFormatError,
)
from s3conv.format.document import Document
from s3conv.format.entry import Entry
from s3conv.format.filters import Where
from s3conv.model import (
    SCHEMA_VERSION,
    ConversationNode,
    ConversationState,
    LLMMessage,
    Tree,
    calculate_node_id,
    get_messages_for_llm,
    get_node_by_id,
)
from s3conv.storage import ConversationStorage, S3ConversationStorage
from s3conv.store import ObjectStore, StoreOptions

__version__ = "0.1.0"

__all__ = [
    "SCHEMA_VERSION",
    "AccessDeniedError",
    "AlreadyExistsError",
    "Archive",
    "AsyncArchive",
    "BucketNotFoundError",
    "ConflictError",
    "Consistency",
    "ConversationNode",
    "ConversationState",
    "ConversationStorage",
    "CorruptError",
    "CredentialsError",
    "DeadlineExceededError",
    "Difference",
    "Document",
    "Entry",
    "IndexDamagedError",
    "InvalidInputError",
    "LLMMessage",
    "Maintained",
    "NotFoundError",
    "ObjectStore",
    "OnConflict",
    "OnDamaged",
    "OnOperation",
    "Operation",
    "OutcomeUnknownError",
    "Page",
    "PartialSaveError",
    "Progress",
    "RunStats",
    "S3ConversationStorage",
    "SchemaVersionError",
    "Stats",
    "StorageError",
    "StoreError",
    "StoreOptions",
    "Tree",
    "UnavailableError",
    "UnsafeStoreError",
    "UnsupportedFormatError",
    "Verified",
    "Where",
    "calculate_node_id",
    "get_messages_for_llm",
    "get_node_by_id",
]
