"""The chat function: what it takes, keeps, shows and answers; and what repeats and neighbours do to it."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import s3conv
from s3conv import Archive, ConversationState
from tenants import Tenant
from tests.functions.calls import ALICE, BOB, Answer, Chat, conversation, event, says

Start = Callable[[], Chat]
MESSAGES = "messages"


def meanwhile(monkeypatch: pytest.MonkeyPatch, what: Callable[[], object]) -> None:
    """Let something happen once between the load and the save of the next append."""
    import turns

    append_to = turns.Turn.append_to
    waiting = [what]

    def appending(self: Any, state: Any, key: str) -> Any:
        appended = append_to(self, state, key)
        if waiting:
            waiting.pop()()
        return appended

    monkeypatch.setattr(turns.Turn, "append_to", appending)


# --- the way of a conversation -------------------------------------------------------------------------------------


def test_a_conversation_is_begun_continued_shown_listed_and_deleted(start: Start) -> None:
    path = conversation("first")
    begun = start()(ALICE, "POST", f"{path}/messages", says("Hello", title="Greetings", user_id="u-1"))
    assert (begun.status, begun.body) == (201, {"conversation_id": "first", "node_id": "", "appended": True})
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    turn = [
        {"role": "assistant", "content": None, "tool_calls": [call], "metadata": {"model": "m-1"}},
        {"role": "tool", "content": "42", "tool_call_id": "call_1", "name": "look"},
        {"role": "assistant", "content": [{"type": "text", "text": "It is 42"}]},
    ]
    continued = start()(ALICE, "POST", f"{path}/messages", {"messages": turn})
    assert (continued.status, continued.body["node_id"]) == (201, "0.0.0")
    shown = start()(ALICE, "GET", path)
    assert shown.status == 200
    assert shown.body["metadata"] == {"title": "Greetings", "user_id": "u-1"}
    assert (shown.body["current_node_id"], shown.body["node_id"], shown.body["leaves"]) == ("0.0.0",) * 2 + (["0.0.0"],)
    assert [{k: v for k, v in one.items() if k != "timestamp"} for one in shown.body["messages"]] == [
        {"role": "user", "content": "Hello"},
        *turn,
    ]
    listed = start()(ALICE, "GET", "/conversations")
    assert listed.body["cursor"] is None
    (item,) = listed.body["conversations"]
    assert (item["conversation_id"], item["message_count"]) == ("first", 4)
    assert item["metadata"] == {"title": "Greetings", "user_id": "u-1"}
    assert start()(ALICE, "DELETE", path).status == 204
    for chat in (start(), start()):
        assert chat(ALICE, "DELETE", path).status == 404
        assert chat(ALICE, "GET", path).status == 404
        assert chat(ALICE, "GET", "/conversations").body["conversations"] == []


def test_what_begins_a_conversation_counts_only_then(chat: Chat) -> None:
    chat(ALICE, "POST", conversation("c", MESSAGES), says("one", metadata={"tags": ["x"]}, title="A"))
    chat(ALICE, "POST", conversation("c", MESSAGES), says("two", metadata={"tags": ["y"]}, title="B"))
    assert chat(ALICE, "GET", conversation("c")).body["metadata"] == {"tags": ["x"], "title": "A"}


def test_a_field_that_is_null_is_as_if_it_were_not_there(chat: Chat) -> None:
    message = {"role": "assistant", "content": None, "tool_calls": None, "function_call": None, "metadata": None}
    body = {"messages": [message], "parent": None, "user_id": None, "title": None, "metadata": None}
    assert chat(ALICE, "POST", conversation("c", MESSAGES), body).status == 201
    shown = chat(ALICE, "GET", conversation("c")).body
    assert shown["metadata"] == {}
    assert set(shown["messages"][0]) == {"role", "content", "timestamp"}
    assert chat(ALICE, "POST", conversation("d", MESSAGES), {"messages": [{"role": None}]}).status == 400


def test_a_conversation_that_was_imported_goes_on(chat: Chat, url: str) -> None:
    """Written past the function, with fields of messages that it would not take, and a key that is no text."""
    alice = Tenant("111122223333:user/alice")
    state = ConversationState(alice.stored_id("c"), metadata={"owner": alice.owner, "source": {"format": "x"}})
    root = state.add_message("user", "hi", metadata={"idempotency_key": ["x"], "rating": 5})
    root.message.metadata = {"lang": "en"}
    root.message.extra = {"refusal": None}
    Archive.open(url).save(state)
    assert chat(ALICE, "POST", conversation("c", MESSAGES), says("ho")).status == 201
    first, second = chat(ALICE, "GET", conversation("c")).body["messages"]
    assert (first["metadata"], first["refusal"]) == ({"lang": "en", "rating": 5}, None)
    assert second["content"] == "ho"


def test_an_answer_can_be_given_below_an_earlier_message(chat: Chat) -> None:
    path = conversation("c", MESSAGES)
    chat(ALICE, "POST", path, says("question"))
    chat(ALICE, "POST", path, says("first answer", "assistant"))
    again = {"messages": {"role": "assistant", "content": "second", "branch_name": "retry"}, "parent": ""}
    assert chat(ALICE, "POST", path, again).body["node_id"] == "1"
    chat(ALICE, "POST", path, says("thanks"))
    assert chat.messages(ALICE, "c") == ["question", "second", "thanks"]
    assert chat.messages(ALICE, "c", "branch=0") == ["question", "first answer"]
    assert chat.messages(ALICE, "c", "branch=1") == ["question", "second"]
    assert chat.messages(ALICE, "c", "branch=") == ["question"]
    assert chat.messages(ALICE, "c", "branch=retry") == ["question", "second", "thanks"]
    assert chat.messages(ALICE, "c", "last=1&branch=retry") == ["thanks"]
    assert chat(ALICE, "GET", conversation("c")).body["leaves"] == ["0", "1.0"]
    for branch in ("2", "00", "other", "0.0.0.0", "%00"):
        assert chat(ALICE, "GET", conversation("c"), query=f"branch={branch}").status == 404
    for parent in ("7", "x"):
        refused = chat(ALICE, "POST", path, says("lost", parent=parent))
        assert (refused.status, refused.body["error"][:6]) == (400, "parent")
    assert chat(ALICE, "POST", conversation("new", MESSAGES), says("lost", parent="")).status == 400
    assert chat(ALICE, "GET", conversation("new")).status == 404


def test_a_name_of_several_branches_is_that_of_the_newest_to_its_newest_end(chat: Chat) -> None:
    path = conversation("c", MESSAGES)
    chat(ALICE, "POST", path, says("question"))
    for number in range(2):
        named = {"role": "assistant", "content": f"answer {number}", "branch_name": "retry"}
        chat(ALICE, "POST", path, {"messages": named, "parent": ""})
    for number in range(2):
        chat(ALICE, "POST", path, says(f"thanks {number}", parent="1"))
    chat(ALICE, "POST", path, says("elsewhere", parent="0"))
    assert chat.messages(ALICE, "c", "branch=retry") == ["question", "answer 1", "thanks 1"]
    assert chat.messages(ALICE, "c") == ["question", "answer 0", "elsewhere"]


def test_a_list_comes_by_pages_and_by_user(chat: Chat) -> None:
    for number in range(7):
        body = says("hi", user_id=f"u-{number % 2}")
        chat(ALICE, "POST", conversation(f"c-{number}", MESSAGES), body)

    def pages(query: str) -> list[list[str]]:
        found, cursor = [], ""
        for _ in range(9):
            page = chat(ALICE, "GET", "/conversations", query=query + cursor).body
            found.append([item["conversation_id"] for item in page["conversations"]])
            if page["cursor"] is None:
                return found
            cursor = f"&cursor={page['cursor']}"
        raise AssertionError("a list without end")

    assert pages("limit=3") == [["c-6", "c-5", "c-4"], ["c-3", "c-2", "c-1"], ["c-0"]]
    assert pages("user_id=u-1&limit=2") == [["c-5", "c-3"], ["c-1"]]
    assert pages("user_id=nobody") == [[]]
    cursor = chat(ALICE, "GET", "/conversations", query="limit=3").body["cursor"]
    for query in (f"user_id=u-1&cursor={cursor}", "cursor=", "cursor=AAAA", "cursor=%F0%9F%98%80"):
        refused = chat(ALICE, "GET", "/conversations", query=query)
        assert (refused.status, refused.body["error"][:6]) == (400, "cursor")


def test_a_list_says_whose_metadata_it_shows_in_part(chat: Chat) -> None:
    chat(ALICE, "POST", conversation("long", MESSAGES), says("hi", metadata={"long": "x" * 9_000, "short": 1}))
    chat(ALICE, "POST", conversation("short", MESSAGES), says("hi", metadata={"short": 1}))
    for folded in (False, True):
        if folded:
            chat.module.ARCHIVE.maintain()
        short, long = chat(ALICE, "GET", "/conversations").body["conversations"]
        assert (short["metadata"], "metadata_truncated" in short) == ({"short": 1}, False)
        assert (long["metadata"], long["metadata_truncated"]) == ({"short": 1}, True)


@pytest.mark.parametrize(
    "conversation_id", ["a/b", "100%", "%2F", "a?b#c", "messages", "..", " ", "ü", "😀", "x" * 512, "a,b;c=d", "\n"]
)
def test_any_id_will_do(chat: Chat, conversation_id: str) -> None:
    chat(ALICE, "POST", conversation(conversation_id, MESSAGES), says("hi"))
    assert chat.messages(ALICE, conversation_id) == ["hi"]
    (item,) = chat(ALICE, "GET", "/conversations").body["conversations"]
    assert item["conversation_id"] == conversation_id


# --- repeats and neighbours ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", ["by the header", "by the request's id"])
def test_a_request_that_comes_again_changes_nothing(start: Start, named: str) -> None:
    body = {"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]}
    once = (
        event(ALICE, "POST", conversation("c", MESSAGES), body, headers={"Idempotency-Key": "turn 1"})
        if named == "by the header"
        else event(ALICE, "POST", conversation("c", MESSAGES), body, request_id="r-1")
    )
    chat = start()
    first = chat.handle(once)
    chat(ALICE, "POST", conversation("c", MESSAGES), says("three"))
    for process in (chat, start(), chat):
        again = process.handle(once)
        assert (again.status, again.body["appended"], again.body["node_id"]) == (200, False, first.body["node_id"])
    assert start().messages(ALICE, "c", "branch=0.0") == ["one", "two", "three"]


def test_a_request_that_comes_twice_at_once_is_one(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    other, once = start(), event(ALICE, "POST", conversation("c", MESSAGES), says("hi"), request_id="r-1")
    faster: list[Answer] = []
    meanwhile(monkeypatch, lambda: faster.append(other.handle(once)))
    slower = start().handle(once)
    assert (faster[0].status, slower.status) == (201, 200)
    assert faster[0].body["node_id"] == slower.body["node_id"] == ""
    assert start().messages(ALICE, "c") == ["hi"]


def test_two_requests_that_begin_a_conversation_at_once_are_both_there(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = start()
    meanwhile(monkeypatch, lambda: other(ALICE, "POST", conversation("c", MESSAGES), says("theirs")))
    assert start()(ALICE, "POST", conversation("c", MESSAGES), says("mine")).status == 201
    assert start().messages(ALICE, "c") == ["theirs", "mine"]


@pytest.mark.parametrize("names_the_parent", [True, False])
def test_turns_that_go_to_several_processes_in_turn_are_one_branch(start: Start, names_the_parent: bool) -> None:
    """Each process has kept the conversation as it was after its own last turn."""
    processes, parent = [start() for _ in range(3)], None
    for number in range(9):
        body = says(f"{number}", **({"parent": parent} if names_the_parent and parent is not None else {}))
        parent = processes[number % 3](ALICE, "POST", conversation("c", MESSAGES), body).body["node_id"]
    assert start().messages(ALICE, "c") == [str(number) for number in range(9)]
    assert len(start()(ALICE, "GET", conversation("c")).body["leaves"]) == 1


def test_two_requests_that_continue_it_at_once_are_branches(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    chat, other = start(), start()
    chat(ALICE, "POST", conversation("c", MESSAGES), says("begin"))
    meanwhile(monkeypatch, lambda: other(ALICE, "POST", conversation("c", MESSAGES), says("theirs")))
    mine = chat(ALICE, "POST", conversation("c", MESSAGES), says("mine"))
    assert mine.body["node_id"] == "1"
    assert chat.messages(ALICE, "c", "branch=0") == ["begin", "theirs"]
    assert chat.messages(ALICE, "c", "branch=1") == ["begin", "mine"]


@pytest.mark.parametrize("when", ["before", "while"])
def test_a_conversation_that_others_delete_is_begun_again(
    start: Start, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    chat, other = start(), start()
    chat(ALICE, "POST", conversation("c", MESSAGES), says("old"))
    if when == "before":  # a process that has it in memory is not told
        other(ALICE, "DELETE", conversation("c"))
    else:
        meanwhile(monkeypatch, lambda: other(ALICE, "DELETE", conversation("c")))
    assert chat(ALICE, "POST", conversation("c", MESSAGES), says("new")).status == 201
    assert start().messages(ALICE, "c") == ["new"]


@pytest.mark.parametrize("kept", [True, False])
def test_a_repeat_finds_what_others_have_deleted_wherever_it_runs(start: Start, kept: bool) -> None:
    chat, path, key = start(), conversation("c", MESSAGES), {"idempotency-key": "k"}
    chat(ALICE, "POST", path, says("one"))
    once = says("two", parent="")
    assert chat(ALICE, "POST", path, once, headers=key).status == 201
    start()(ALICE, "DELETE", conversation("c"))
    assert (chat if kept else start())(ALICE, "POST", path, once, headers=key).status == 400
    assert start()(ALICE, "GET", conversation("c")).status == 404


@pytest.mark.parametrize("when", ["before", "while"])
def test_a_repeat_of_a_part_is_none_though_others_have_sent_the_whole(
    start: Start, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    chat, other, path, key = start(), start(), conversation("c", MESSAGES), {"idempotency-key": "k"}
    chat(ALICE, "POST", path, says("one"))
    part = says("two", parent="")
    whole = {**part, "messages": [*part["messages"], {"role": "assistant", "content": "three"}]}

    def send_whole() -> Answer:
        return other(ALICE, "POST", path, whole, headers=key)

    if when == "before":
        assert send_whole().status == 201
    else:
        meanwhile(monkeypatch, send_whole)
    assert chat(ALICE, "POST", path, part, headers=key).status == 422
    assert start().messages(ALICE, "c", "branch=0.0") == ["one", "two", "three"]


def test_only_a_repeat_looks_again(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    path, key, warm = conversation("c", MESSAGES), {"idempotency-key": "k"}, start()
    warm(ALICE, "POST", path, says("one"))
    for chat, requests in ((warm, [2]), (warm, [1, 1]), (start(), [2, 1])):
        capsys.readouterr()
        chat(ALICE, "POST", path, says("two", parent=""), headers=key)
        assert [json.loads(line)["Requests"] for line in capsys.readouterr().out.splitlines()] == requests


def test_a_key_names_one_thing_only(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    chat, path, key = start(), conversation("c", MESSAGES), {"idempotency-key": "k"}
    chat(ALICE, "POST", path, says("one"), headers=key)
    longer = {"messages": [{"role": "user", "content": "one"}, {"role": "user", "content": "two"}]}
    for other in (says("another"), says("one", "assistant"), longer):
        assert chat(ALICE, "POST", path, other, headers=key).status == 422
    second = start()
    late = {"idempotency-key": "l"}
    meanwhile(monkeypatch, lambda: second(ALICE, "POST", path, says("theirs"), headers=late))
    assert chat(ALICE, "POST", path, says("mine"), headers=late).status == 422
    assert start().messages(ALICE, "c") == ["one", "theirs"]


@pytest.mark.parametrize("kept", [True, False])
def test_a_key_names_one_request_with_all_that_it_says(start: Start, kept: bool) -> None:
    chat, path, key = start(), conversation("c", MESSAGES), {"idempotency-key": "k"}
    two = {"role": "user", "content": "two", "metadata": {"x": 1}, "branch_name": "b"}
    three = {"role": "assistant", "content": "three"}
    chat(ALICE, "POST", path, says("one"))
    said = {"messages": [two, three], "parent": ""}
    assert chat(ALICE, "POST", path, said, headers=key).body["node_id"] == "0.0"
    for other in (
        {**said, "messages": [two]},
        {**said, "messages": [two, three, three]},
        {**said, "messages": [{**two, "metadata": {"x": 2}}, three]},
        {**said, "messages": [{**two, "metadata": {}}, three]},
        {**said, "messages": [{**two, "branch_name": None}, three]},
        {**said, "messages": [two, {**three, "metadata": {"x": 1}}]},
        {**said, "parent": "0"},
    ):
        assert (chat if kept else start())(ALICE, "POST", path, other, headers=key).status == 422
    for same in (said, {"messages": [two, three]}, {**said, "title": "counted only for the first"}):
        again = (chat if kept else start())(ALICE, "POST", path, same, headers=key)
        assert (again.status, again.body["node_id"]) == (200, "0.0")


def test_what_began_a_conversation_has_no_parent_to_be_repeated_with(chat: Chat) -> None:
    path, key = conversation("c", MESSAGES), {"idempotency-key": "k"}
    assert chat(ALICE, "POST", path, says("one"), headers=key).body["node_id"] == ""
    assert chat(ALICE, "POST", path, says("one", parent=""), headers=key).status == 422
    assert chat(ALICE, "POST", path, says("one"), headers=key).status == 200


# --- what is refused -----------------------------------------------------------------------------------------------

_ONE = {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"messages": [{"role": "user", "content": NaN}]}', "not JSON"),
        ('{"messages": [{"role": "user", "content": [1e999]}]}', "finite"),
        ('{"messages": [{"role": "user", "content": "\\ud800"}]}', "whole characters"),
        ('{"messages": [{"role": "user", "content": %s}]}' % ("[" * 300 + "]" * 300), "200 levels"),
        ("9" * 5000, "not JSON"),
        ([], "the body: expected an object"),
        ({}, "messages: expected"),
        ({"messages": []}, "messages: expected"),
        ({"messages": [_ONE] * 101}, "1 to 100"),
        ({"messages": "hi"}, "messages has to be a list or an object"),
        ({"messages": ["hi"]}, "messages[0]: expected an object"),
        ({"messages": [_ONE, {"content": "x"}]}, "messages[1].role"),
        ({"messages": [{"role": "", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "content has to be a string or a list or null"),
        ({"messages": [{"role": "user", "text": "x"}]}, "'text' is not known"),
        ({"messages": [{"role": "user", "metadata": {"idempotency_key": "k"}}]}, "Idempotency-Key"),
        ({"messages": [_ONE], "owner": "me"}, "'owner' is not known"),
        ({"messages": [_ONE], "metadata": {"owner": "me"}}, "'owner' cannot be set"),
        ({"messages": [_ONE], "metadata": {"tenant": "me"}}, "'tenant' cannot be set"),
        ({"messages": [_ONE], "metadata": {"user_id": "me"}}, "'user_id' cannot be set"),
        ({"messages": [_ONE], "user_id": 5}, "user_id has to be a string"),
        ({"messages": [_ONE], "parent": 0}, "parent has to be a string"),
    ],
    ids=lambda value: str(value)[:40] if not isinstance(value, str) else value[:24],
)
def test_a_body_that_cannot_be_kept_is_refused(chat: Chat, body: object, said: str) -> None:
    refused = chat(ALICE, "POST", conversation("c", MESSAGES), body)
    assert refused.status == 400
    assert said in refused.body["error"]
    assert chat(ALICE, "GET", conversation("c")).status == 404


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_of_another_type_is_refused(chat: Chat, content_type: str) -> None:
    refused = chat(ALICE, "POST", conversation("c", MESSAGES), says("x"), headers={"content-type": content_type})
    assert refused.status == 415


def test_a_body_that_is_too_large_is_refused(chat: Chat) -> None:
    assert chat(ALICE, "POST", conversation("c", MESSAGES), says("x" * (4 << 20))).status == 413


@pytest.mark.parametrize("key", ["", "x" * 201, "ü", "a\nb"])
def test_a_key_that_is_none_is_refused(chat: Chat, key: str) -> None:
    refused = chat(ALICE, "POST", conversation("c", MESSAGES), says("x"), headers={"Idempotency-Key": key})
    assert (refused.status, refused.body["error"][:15]) == (400, "Idempotency-Key")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/conversations", "GET"),
        ("HEAD", "/conversations", "GET"),
        ("PUT", "/conversations/c", "GET, DELETE"),
        ("OPTIONS", "/conversations/c", "GET, DELETE"),
        ("GET", "/conversations/c/messages", "POST"),
    ],
)
def test_a_method_that_is_not_known_is_refused_with_those_that_are(
    chat: Chat, method: str, path: str, allowed: str
) -> None:
    refused = chat(ALICE, method, path)
    assert (refused.status, refused.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize(
    "path", ["/", "", "/conversation", "/conversations/c/", "/conversations/c/messages/1", "/x/conversations/c"]
)
def test_a_path_that_is_not_known_is_not_found(chat: Chat, path: str) -> None:
    assert chat(ALICE, "GET", path).status == 404


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/conversations/", ""),
        ("/conversations/%zz", ""),
        ("/conversations/%ff", ""),
        ("/conversations/100%", ""),
        (f"/conversations/{'x' * 513}", ""),
        ("/conversations", "limit=0"),
        ("/conversations", "limit=101"),
        ("/conversations", "limit=-1"),
        ("/conversations", "limit=1.5"),
        ("/conversations", "limit=²"),
        ("/conversations", "limit=1&limit=2"),
        ("/conversations", "user_id=a&user_id=b"),
        ("/conversations", "user_id"),
        ("/conversations", "user_id=%f"),
        ("/conversations", "user_id=%ff"),
        ("/conversations", "owner=me"),
        ("/conversations/c", "last=0"),
        ("/conversations/c", "cursor=x"),
        ("/conversations", "&".join(f"k{n}=1" for n in range(30))),
    ],
)
def test_a_path_or_query_that_says_nothing_clear_is_refused(chat: Chat, path: str, query: str) -> None:
    assert chat(ALICE, "GET", path, query=query).status == 400


@pytest.mark.parametrize(
    "given", [None, [], "x", {}, {"version": "1.0"}, {"version": "2.0"}, {"version": "2.0", "requestContext": []}]
)
def test_an_event_that_is_no_request_is_refused(chat: Chat, given: object) -> None:
    assert chat.handle(given).status in (400, 403)


def test_a_body_in_base64_and_a_stage_in_the_path_are_understood(chat: Chat) -> None:
    assert chat(ALICE, "POST", conversation("c", MESSAGES), says("ü"), encoded=True).status == 201
    staged = f"/prod{conversation('c')}"
    assert chat(ALICE, "GET", staged, stage="prod").body["messages"][0]["content"] == "ü"
    assert chat(ALICE, "GET", staged).status == 404
    assert chat(ALICE, "GET", f"/$default{conversation('c')}").status == 404
    encoded = event(ALICE, "POST", conversation("c", MESSAGES), says("x"), encoded=True)
    assert chat.handle({**encoded, "body": encoded["body"] + "!"}).status == 400


def test_an_answer_that_lambda_would_not_pass_on_says_so(chat: Chat) -> None:
    for number in range(2):
        chat(ALICE, "POST", conversation("c", MESSAGES), says(f"{number}" * (3 << 20)))
    assert chat(ALICE, "GET", conversation("c")).status == 413
    assert len(chat.messages(ALICE, "c", "last=1")) == 1


@pytest.mark.parametrize(
    "body",
    [
        says('"' * 1_900_000),  # four bytes each, where an answer is measured
        {"messages": {"role": "user", "metadata": {"m": '"' * 1_900_000}}},
        '{"messages": {"role": "user", "content": [%s1]}}' % ("1e15," * 500_000),  # 1000000000000000.0 when it is shown
        says("x", metadata={"m": '"' * 20_000}),
        says("x", title="x" * 70_000),
    ],
    ids=["a content", "a message's metadata", "numbers", "metadata", "a title"],
)
def test_what_could_never_be_shown_is_not_kept(chat: Chat, body: object) -> None:
    assert chat(ALICE, "POST", conversation("c", MESSAGES), body).status == 413
    assert chat(ALICE, "GET", conversation("c")).status == 404


def test_the_largest_that_is_kept_can_be_shown(chat: Chat) -> None:
    name = "\x01" * 512
    long = says('"' * 1_370_000, metadata={"m": '"' * 16_000})
    assert chat(ALICE, "POST", conversation(name, MESSAGES), long).status == 201
    assert len(chat.messages(ALICE, name, "last=1")[0]) == 1_370_000


@pytest.mark.parametrize(
    ("content", "fit"),
    [("x" * (3 << 20), 5), ("x" * (1 << 20) + "\U0001f600", 3), ([[]] * 140_000, 1)],
    ids=["a byte each", "four bytes each", "lists"],
)
def test_a_conversation_grows_only_as_far_as_a_function_can_hold_it(chat: Chat, content: object, fit: int) -> None:
    path, last = conversation("c", MESSAGES), {}
    for _ in range(fit):
        last = event(ALICE, "POST", path, says(content))
        assert chat.handle(last).status == 201
    refused = chat(ALICE, "POST", path, says(content))
    assert (refused.status, refused.body["error"][:23]) == (413, "expected a conversation")
    assert chat.handle(last).status == 200  # a repeat of what is there
    assert chat(ALICE, "GET", conversation("c"), query="last=1").body["message_count"] == fit
    assert chat(ALICE, "DELETE", conversation("c")).status == 204


@pytest.mark.parametrize("levels", [300, 900, 970, 990])
def test_a_body_that_is_nested_deeply_is_refused_wherever_that_is_noticed(chat: Chat, levels: int) -> None:
    body = '{"messages": [{"role": "user", "content": %s}]}' % ("[" * levels + "]" * levels)
    assert chat(ALICE, "POST", conversation("c", MESSAGES), body).status == 400


# --- when the store fails ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (s3conv.UnavailableError, 503),
        (s3conv.OutcomeUnknownError, 503),
        (s3conv.DeadlineExceededError, 503),
        (s3conv.NotFoundError, 503),
        (s3conv.AccessDeniedError, 500),
        (s3conv.CorruptError, 500),
        (s3conv.UnsupportedFormatError, 500),
        (s3conv.ConflictError, 409),
    ],
)
@pytest.mark.parametrize("request_", ["load", "edit", "list", "delete"])
def test_an_error_of_the_store_says_whether_to_try_again_and_nothing_of_the_bucket(
    chat: Chat, monkeypatch: pytest.MonkeyPatch, error: type[Exception], status: int, request_: str
) -> None:
    chat(ALICE, "POST", conversation("c", MESSAGES), says("x"))

    def fail(*_: object, **__: object) -> object:
        raise error("s3://secret-bucket/prod is not well")

    monkeypatch.setattr(chat.module.ARCHIVE, request_, fail)
    method, path = {
        "load": ("GET", conversation("c")),
        "edit": ("POST", conversation("c", MESSAGES)),
        "list": ("GET", "/conversations"),
        "delete": ("DELETE", conversation("c")),
    }[request_]
    answer = chat(ALICE, method, path, says("x") if method == "POST" else None)
    assert answer.status == status
    assert ("retry-after" in answer.headers) == (status == 503)
    assert "secret-bucket" not in answer.text


def test_a_bug_is_logged_by_its_place_without_what_a_conversation_says(
    chat: Chat, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> object:
        raise KeyError("my secret")

    monkeypatch.setattr(chat.module, "read_turn", fail)
    with caplog.at_level(logging.DEBUG):
        answer = chat(ALICE, "POST", conversation("c", MESSAGES), says("my secret"))
    assert (answer.status, answer.body) == (500, {"error": "internal error"})
    assert "KeyError in" in caplog.text
    assert "test_chat.py" in caplog.text
    assert "my secret" not in caplog.text
    assert "Traceback" not in caplog.text


def test_nothing_that_is_said_is_logged(
    chat: Chat, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        chat(ALICE, "POST", conversation("c", MESSAGES), says("my secret", title="my secret"))
        chat(ALICE, "POST", conversation("c", MESSAGES), '{"messages": [{"role": "my secret", "content": [1e999]}]}')
        chat(ALICE, "GET", conversation("c"))
        chat(ALICE, "GET", conversation("my secret"))
    printed = capsys.readouterr()
    assert "my secret" not in printed.out + printed.err + caplog.text


def test_without_an_archive_a_caller_is_told_to_come_back(monkeypatch: pytest.MonkeyPatch, start: Start) -> None:
    monkeypatch.setenv("S3CONV_URL", "memory://nothing-here-yet")
    assert start()(ALICE, "GET", "/conversations").status == 503


def test_when_no_time_is_left_nothing_is_begun(chat: Chat, url: str) -> None:
    chat.invocation.seconds = 0.2
    for method, path in (("POST", conversation("c", MESSAGES)), ("GET", conversation("c")), ("GET", "/conversations")):
        assert chat(ALICE, method, path, says("x") if method == "POST" else None).status == 503
    assert Archive.open(url).count() == 0


def test_it_leaves_maintenance_to_the_function_for_it(chat: Chat) -> None:
    assert chat.module.ARCHIVE._context.auto_maintain is False


def test_every_field_parameter_and_status_is_documented(chat: Chat) -> None:
    import turns

    page = (Path(__file__).parents[2] / "docs" / "serverless-http.md").read_text(encoding="utf-8")
    source = "".join(path.read_text(encoding="utf-8") for path in Path(turns.__file__).parent.glob("*.py"))
    statuses = {int(status) for status in re.findall(r"(?:Refused|Missing|answer)\(\s*([2-5][0-9]{2})\b", source)}
    assert {400, 404, 503} < statuses
    asked = re.findall(r"\.parameters\(\(([^)]+)\)\)", source)
    parameters = {name for names in asked for name in re.findall(r"\w+", names)}
    assert parameters == {"branch", "last", "user_id", "cursor", "limit"}
    missing = [
        *(f"`{field}`" for field in [*turns._MESSAGE, *turns._TURN] if f"`{field}`" not in page),
        *(f"?{name}=" for name in sorted(parameters) if f"`?{name}=" not in page),
        *(str(status) for status in sorted(statuses) if f"| {status}" not in page and f" {status} " not in page),
    ]
    assert missing == []


# --- metrics -------------------------------------------------------------------------------------------------------


def test_every_operation_is_one_line_of_embedded_metrics(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    chat(ALICE, "POST", conversation("c", MESSAGES), says("hi"))
    chat(BOB, "GET", conversation("c"))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["Operation"] for line in lines] == ["edit", "load"]
    for line in lines:
        (described,) = line["_aws"]["CloudWatchMetrics"]
        assert described["Namespace"] == "s3conv"
        assert described["Dimensions"] == [["Function", "Operation"]]
        assert line["Function"] == "the-function"
        names = [metric["Name"] for metric in described["Metrics"]]
        assert names == ["Requests", "Retries", "Conflicts", "BytesRead", "BytesWritten", "Milliseconds"]
        assert all(isinstance(line[name], int | float) for name in names)
    assert lines[0]["Requests"] == 4  # the descriptor and the conversation, its intent and its document
    assert lines[0]["BytesWritten"] > 0
    assert lines[1]["Requests"] == 1
