"""A small conversation in each format that is imported, with a branch or a tool call where the format can have one."""

from __future__ import annotations

import json
from typing import Any

from s3conv import ConversationState
from s3conv.format.codec import to_json
from s3conv.format.document import state_to_stored
from tests.exchange.chats import branching

NOBODY = "00000000-0000-4000-8000-000000000000"
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at": "sky"}'}}


def _state() -> ConversationState:
    state = ConversationState.start("own", system="Hello")
    state.add_message("user", "Hi")
    return state


def claude_message(uuid: str, parent: str | None, sender: str, content: Any, **more: Any) -> dict[str, Any]:
    """A message of a Claude.ai export."""
    time = "2026-01-02T03:04:05.000001Z"
    made = {"uuid": uuid, "sender": sender, "content": content, "created_at": time, "text": "", **more}
    return made if parent is None else {**made, "parent_message_uuid": parent}


def code_line(uuid: str, parent: str | None, role: str, content: Any, **more: Any) -> dict[str, Any]:
    """A line of a Claude Code session."""
    return {
        "parentUuid": parent,
        "isSidechain": False,
        "sessionId": "session-1",
        "cwd": "/work",
        "type": role,
        "message": {"role": role, "content": content},
        "uuid": uuid,
        "timestamp": "2026-01-02T03:04:05.678Z",
        **more,
    }


def tool_use(call_id: str = "toolu_1", **more: Any) -> dict[str, Any]:
    """A call, as Anthropic's interfaces write it."""
    return {"type": "tool_use", "id": call_id, "name": "look", "input": {"at": "sky"}, **more}


def tool_result(call_id: str = "toolu_1", content: Any = "blue", **more: Any) -> dict[str, Any]:
    """Its result."""
    return {"type": "tool_result", "tool_use_id": call_id, "content": content, **more}


def text(of: str, **more: Any) -> dict[str, Any]:
    """A block of text."""
    return {"type": "text", "text": of, **more}


CLAUDE: dict[str, Any] = {
    "uuid": "claude-1",
    "name": "The sky",
    "summary": "",
    "created_at": "2026-01-02T03:04:00Z",
    "updated_at": "2026-01-02T03:05:00Z",
    "account": {"uuid": "someone"},
    "current_leaf_message_uuid": "a1",
    "chat_messages": [
        claude_message(
            "q", NOBODY, "human", [text("Which colour?")], attachments=[{"extracted_content": "x"}], files=[]
        ),
        claude_message(
            "a1", "q", "assistant", [text("I look."), tool_use(), tool_result(is_error=False), text("Blue.")]
        ),
        claude_message("a2", "q", "assistant", [{"type": "thinking", "thinking": "hm"}, text("Blue, I think.")]),
    ],
}

CLAUDE_CODE: list[Any] = [
    {"type": "summary", "summary": "Looking at the sky", "leafUuid": "a2"},
    code_line("q", None, "user", "Which colour?"),
    code_line("a1", "q", "assistant", [text("I look."), tool_use()]),
    {"type": "file-history-snapshot", "messageId": "r", "snapshot": {}},
    code_line("r", "a1", "user", [tool_result()], toolUseResult={"stdout": "blue"}),
    code_line("a2", "r", "assistant", [text("Blue.")]),
    code_line("s", None, "user", "A task", isSidechain=True),
]

PI: list[Any] = [
    {"type": "session", "id": "pi-1", "timestamp": "2026-01-02T03:04:05Z", "cwd": "/work", "modelId": "m"},
    {"type": "message", "timestamp": "2026-01-02T03:04:06Z", "message": {"role": "user", "content": [text("Which?")]}},
    {"type": "model_change", "timestamp": "2026-01-02T03:04:07Z", "provider": "p", "modelId": "n"},
    {
        "type": "message",
        "timestamp": "2026-01-02T03:04:08Z",
        "message": {
            "role": "assistant",
            "content": [{"type": "toolCall", "id": "c", "name": "look", "arguments": {"at": "sky"}}],
            "model": "n",
        },
    },
    {
        "type": "message",
        "timestamp": "2026-01-02T03:04:09Z",
        "message": {
            "role": "toolResult",
            "toolCallId": "c",
            "toolName": "look",
            "content": [text("blue")],
            "isError": False,
        },
    },
]

LIBRECHAT: dict[str, Any] = {
    "conversationId": "libre-1",
    "endpoint": "openAI",
    "title": "The sky",
    "recursive": True,
    "options": {"model": "gpt-x"},
    "messagesTree": [
        {
            "messageId": "q",
            "parentMessageId": "00000000-0000-0000-0000-000000000000",
            "conversationId": "libre-1",
            "sender": "User",
            "isCreatedByUser": True,
            "text": "Which colour?",
            "createdAt": "2026-01-02T03:04:05.000Z",
            "children": [
                {
                    "messageId": "a1",
                    "parentMessageId": "q",
                    "isCreatedByUser": False,
                    "text": "",
                    "content": [
                        text("I look."),
                        {
                            "type": "tool_call",
                            "tool_call": {"id": "c", "name": "look", "args": '{"at": "sky"}', "output": "blue"},
                        },
                        text("Blue."),
                    ],
                    "children": [],
                },
                {"messageId": "a2", "parentMessageId": "q", "isCreatedByUser": False, "text": "Blue.", "children": []},
            ],
        }
    ],
}

OPENAI: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [text("Which colour?"), {"type": "image_url", "image_url": {"url": "data:,x"}}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "blue"},
        {"role": "assistant", "content": "Blue.", "weight": 1},
    ],
    "tools": [{"type": "function", "function": {"name": "look"}}],
    "parallel_tool_calls": False,
}

SHAREGPT: dict[str, Any] = {
    "id": "share_0",
    "conversations": [
        {"from": "human", "value": "Which colour?"},
        {"from": "function_call", "value": '{"name": "look", "arguments": {"at": "sky"}}'},
        {"from": "observation", "value": "blue"},
        {"from": "gpt", "value": "Blue.", "weight": 0},
    ],
    "system": "Be brief.",
    "tools": "[]",
}

EVERY_FORMAT: dict[str, list[Any]] = {
    "s3conv": [json.loads(to_json(state_to_stored(_state()), "a state"))],
    "dataknobs": [json.loads(json.dumps(_state().to_dict()))],
    "chatgpt": [branching()],
    "claude": [CLAUDE],
    "oasst": [
        {
            "message_tree_id": "tree",
            "prompt": {
                "message_id": "m",
                "role": "prompter",
                "text": "Hi",
                "replies": [{"message_id": "n", "role": "assistant", "text": "Hello", "replies": []}],
            },
        }
    ],
    "librechat": [LIBRECHAT],
    "openai": [OPENAI],
    "tau-bench": [{"task_id": 0, "reward": 1.0, "info": {}, "traj": OPENAI["messages"], "trial": 0}],
    "sharegpt": [SHAREGPT],
    "alpaca": [
        {"instruction": "Say", "input": "hi", "output": "Hi.", "system": "Be brief.", "history": [["a", "b"]], "x": 1}
    ],
    "turns": [{"task": "GR", "id": 1, "history": [{"user": "Which?", "bot": "Blue.", "score": 1}]}],
    "utterances": [{"sample_id": 0, "agent1": "You answer", "utterances": [["agent1", "Hello"], ["agent2", "Hi"]]}],
    "claude-code": CLAUDE_CODE,
    "pi": PI,
}
"""By the format's name: the values, or rows, of a file that holds one conversation."""
