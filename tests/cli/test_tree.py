"""The tree that `show` draws: linear chats stay flat, branches are indented, and depth costs nothing."""

from __future__ import annotations

from s3conv import ConversationState
from s3conv.cli.tree import conversation_lines


def drawn(state: ConversationState, full: bool = False) -> list[str]:
    lines = [line.plain for line in conversation_lines(state, full)]
    return [line for line in lines[lines.index("") :] if line.strip(" │")]


def test_branches_calls_and_the_current_one() -> None:
    state = ConversationState.start("x", system="S")
    question = state.add_message("user", "Q")
    state.add_message("assistant", "one", metadata={"model": "m"})
    state.add_message("assistant", None, tool_calls=[{"id": "c1", "function": {"name": "f", "arguments": '{"a": 1}'}}],
                      parent=question, branch_name="again")  # fmt: skip
    state.add_message(
        "tool", [{"type": "text", "text": "3"}, {"type": "image", "url": "u"}], tool_call_id="c1", name="f"
    )
    lines = [line.replace(f"  {state.updated_at:%Y-%m-%d %H:%M}", "") for line in drawn(state)]
    assert lines == [
        "* system",
        "  S",
        "* user",
        "  Q",
        "├─   assistant  m  [0.0]",
        "│    one",
        "└─ * assistant  branch again  [0.1]",
        '     calls f({"a": 1})',
        "   * tool f  <- current",
        "     3",
        '     [image] {"type": "image", "url": "u"}',
        "     answers call c1",
    ]


def test_the_line_to_the_last_branch_is_whole() -> None:
    state = ConversationState.start("x", system="S")
    first = state.add_message("user", "a")
    state.add_message("user", "b", parent=state.path_to("")[0])
    state.add_message("assistant", "c", parent=first)
    state.add_message("assistant", "d", parent=first)
    lines = [line.plain for line in conversation_lines(state)]
    assert [line for line in lines[lines.index("") :] if not line.strip(" │")] == ["", "│", "│  │", "│  │", "│"]


def test_long_messages_show_their_first_lines() -> None:
    state = ConversationState.start("x", system="\n".join(str(n) for n in range(20)) + "\r\n" + "w" * 1000)
    assert drawn(state)[-1] == "  … 15 more lines"
    assert all(len(line) < 200 for line in drawn(state))
    assert drawn(state, full=True)[-1] == "  " + "w" * 1000


def test_a_linear_chat_is_not_indented_however_long() -> None:
    state = ConversationState.start("x", system="S")
    for n in range(10_000):
        state.add_message("user", str(n))
    lines = drawn(state)
    assert len(lines) == 20_002
    assert max(map(len, lines)) < 60


def test_a_branch_at_every_message_indents_to_some_depth_only() -> None:
    state = ConversationState.start("x", system="S")
    last = state.message_tree.data
    for n in range(3_000):
        following = state.add_message("user", str(n), parent=last)
        state.add_message("user", "other", parent=last)
        last = following
    lines = drawn(state)
    assert len(lines) == 12_002
    assert max(map(len, lines)) < 220
