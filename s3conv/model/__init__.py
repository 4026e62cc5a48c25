"""What a conversation is: tree, messages, state, schema versions, merge. Pure: no I/O, no clock but `utcnow`."""

from s3conv.model.message import ConversationNode, LLMMessage
from s3conv.model.schema import SCHEMA_VERSION
from s3conv.model.state import ConversationState, get_messages_for_llm
from s3conv.model.tree import Tree, calculate_node_id, get_node_by_id

__all__ = [
    "SCHEMA_VERSION",
    "ConversationNode",
    "ConversationState",
    "LLMMessage",
    "Tree",
    "calculate_node_id",
    "get_messages_for_llm",
    "get_node_by_id",
]
