"""Nobody reads, lists, changes or deletes another tenant's conversations: tried in every way that a caller has."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3conv import Archive, ConversationState
from tenants import MAX_ID, Tenant, UnknownCallerError, tenant_of
from tests.functions.calls import ALICE, BOB, Chat, conversation, event, fresh, says

SECRET = "what only Alice may read"
NAME = "alices"


def identity(arn: str | None, account: str | None = None, cognito: object = None) -> dict[str, Any]:
    iam = {"userArn": arn, "accountId": account, "cognitoIdentity": cognito, "callerId": "AIDEXAMPLE"}
    return {"authorizer": {"iam": iam}}


ACCOUNT = "111122223333"
UUID = "7a3f1c2e-0000-4000-8000-0123456789ab"

# --- who it is -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("context", "owner"),
    [
        (identity(ALICE, ACCOUNT), f"{ACCOUNT}:user/alice"),
        (identity(f"arn:aws:iam::{ACCOUNT}:user/a/path/alice", ACCOUNT), f"{ACCOUNT}:user/alice"),
        (identity(f"arn:aws:sts::{ACCOUNT}:assumed-role/app/session", ACCOUNT), f"{ACCOUNT}:role/app"),
        (identity(f"arn:aws:sts::{ACCOUNT}:assumed-role/app/user@example.com", ACCOUNT), f"{ACCOUNT}:role/app"),
        (identity(f"arn:aws-us-gov:sts::{ACCOUNT}:assumed-role/app/s", ACCOUNT), f"{ACCOUNT}:role/app"),
        (identity(f"arn:aws-cn:iam::{ACCOUNT}:user/alice", ACCOUNT), f"{ACCOUNT}:user/alice"),
        (
            identity(
                f"arn:aws:sts::{ACCOUNT}:assumed-role/pool/CognitoIdentityCredentials",
                ACCOUNT,
                {"amr": ["authenticated"], "identityId": f"eu-west-1:{UUID}", "identityPoolId": "eu-west-1:pool"},
            ),
            f"cognito:eu-west-1:{UUID}",
        ),
        (
            identity(ALICE, ACCOUNT, {"amr": None, "identityId": None, "identityPoolId": None}),
            f"{ACCOUNT}:user/alice",
        ),
    ],
)
def test_a_tenant_is_the_identity_that_iam_has_verified(context: object, owner: str) -> None:
    assert tenant_of(context) == Tenant(owner)


@pytest.mark.parametrize(
    "context",
    [
        None,
        {},
        {"authorizer": None},
        {"authorizer": {"jwt": {"claims": {"sub": "alice"}}}},
        {"authorizer": {"lambda": {"userArn": ALICE, "accountId": ACCOUNT}}},
        {"userArn": ALICE, "accountId": ACCOUNT},
        identity(None, ACCOUNT),
        identity(ALICE),
        identity(ALICE, "444455556666"),
        identity(f"arn:aws:iam::{ACCOUNT}:root", ACCOUNT),
        identity(f"arn:aws:sts::{ACCOUNT}:federated-user/alice", ACCOUNT),
        identity(f"arn:aws:iam::{ACCOUNT}:role/app", ACCOUNT),
        identity(f"arn:aws:sts::{ACCOUNT}:assumed-role/app", ACCOUNT),
        identity(f"arn:aws:sts::{ACCOUNT}:assumed-role//session", ACCOUNT),
        identity(f"arn:aws:sts::{ACCOUNT}:assumed-role/app/session/more", ACCOUNT),
        identity(f"arn:aws:iam::{ACCOUNT}:user/alice\n", ACCOUNT),
        identity(f"arn:aws:iam::{ACCOUNT}:user/älice", ACCOUNT),
        identity("arn:aws:iam::１１１１２２２２３３３３:user/alice", "１１１１２２２２３３３３"),
        identity(f"arn:evil:iam::{ACCOUNT}:user/alice", ACCOUNT),
        identity(ALICE, ACCOUNT, {"identityId": ""}),
        identity(ALICE, ACCOUNT, {"identityId": f"eu-west-1:{UUID}/../x"}),
        identity(ALICE, ACCOUNT, {"identityId": [f"eu-west-1:{UUID}"]}),
    ],
)
def test_an_identity_that_names_no_one_is_refused(context: object, url: str) -> None:
    with pytest.raises(UnknownCallerError):
        tenant_of(context)
    chat = Chat(fresh("chat"))
    request = event(ALICE, "GET", "/conversations")
    if isinstance(context, dict):
        request["requestContext"] = {**request["requestContext"], "authorizer": None, **context}
        assert chat.handle(request).status == 403


OWNERS = st.one_of(
    st.builds(
        "{}:{}/{}".format, st.from_regex("[0-9]{12}", fullmatch=True), st.sampled_from(["user", "role"]), st.text()
    ),
    st.builds("cognito:{}".format, st.text()),
)
IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: len(text.encode()) <= MAX_ID)


@given(OWNERS, OWNERS, IDS, IDS)
def test_no_two_conversations_share_a_stored_id(one: str, other: str, mine: str, theirs: str) -> None:
    same = (one, mine) == (other, theirs)
    assert (Tenant(one).stored_id(mine) == Tenant(other).stored_id(theirs)) == same
    assert len(Tenant(one).stored_id(mine).encode()) <= 1024


# --- what a caller may try -----------------------------------------------------------------------------------------

_STORED = Tenant(f"{ACCOUNT}:user/alice").stored_id(NAME)

PATHS: Mapping[str, str] = {
    "her id": NAME,
    "her stored id": _STORED,
    "her stored id from above": f"../{_STORED}",
    "her name and id": f"alice/{NAME}",
    "her owner and id": f"{ACCOUNT}:user/alice/{NAME}",
    "up and down": f"../../conversations/{NAME}",
    "the key": f"conversations/00/{quote(_STORED, safe='')}.json.zst",
    "encoded twice": quote(_STORED, safe=""),
    "a NUL behind": f"{NAME}\0",
    "a space behind": f"{NAME} ",
    "in capitals": NAME.upper(),
    "full width": "ａｌｉｃｅｓ",
    "a wildcard": "*",
    "an empty prefix": f"/{NAME}",
}

ROLE_NAMED_LIKE_HER = f"arn:aws:sts::{ACCOUNT}:assumed-role/alice/alice"
SESSION_NAMED_LIKE_HER = f"arn:aws:sts::{ACCOUNT}:assumed-role/app/alice"
HER_NAME_ELSEWHERE = "arn:aws:iam::444455556666:user/alice"
HER_NAME_AS_A_PATH = f"arn:aws:iam::{ACCOUNT}:user/alice/bob"
NEARLY_HER_NAME = f"arn:aws:iam::{ACCOUNT}:user/Alice"
OTHERS = [BOB, ROLE_NAMED_LIKE_HER, SESSION_NAMED_LIKE_HER, HER_NAME_ELSEWHERE, HER_NAME_AS_A_PATH, NEARLY_HER_NAME]


@pytest.fixture
def alices(start: Callable[[], Chat], url: str) -> Chat:
    """A process in which Alice has had her say, and so has her conversation in memory."""
    chat = start()
    begun = chat(ALICE, "POST", conversation(NAME, "messages"), says(SECRET, title=SECRET, user_id="alice"))
    assert begun.status == 201
    return chat


@pytest.fixture
def untouched(alices: Chat, url: str) -> Any:
    """Afterwards Alice has what she had."""
    yield
    assert alices.messages(ALICE, NAME) == [SECRET]
    stored = Archive.open(url).load(_STORED)
    assert stored is not None
    assert stored.metadata["owner"] == f"{ACCOUNT}:user/alice"
    (item,) = alices(ALICE, "GET", "/conversations").body["conversations"]
    assert item["conversation_id"] == NAME


def attempts(caller: str, path: str, **more: Any) -> list[dict[str, Any]]:
    """Every request that there is, for one conversation."""
    return [
        event(caller, "GET", conversation(path), **more),
        event(caller, "GET", conversation(path), query="branch=&last=1", **more),
        event(caller, "GET", "/conversations", **more),
        event(caller, "GET", "/conversations", query="user_id=alice", **more),
        event(caller, "DELETE", conversation(path), **more),
        event(caller, "POST", conversation(path, "messages"), says("from another", parent=""), **more),
        event(caller, "POST", conversation(path, "messages"), says("from another"), **more),
        event(caller, "GET", conversation(path), **more),
    ]


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
@pytest.mark.parametrize("caller", OTHERS)
def test_by_any_path(alices: Chat, caller: str, path: str) -> None:
    for request in attempts(caller, path):
        assert SECRET not in alices.handle(request).text


@pytest.mark.usefixtures("untouched")
def test_by_headers_that_name_her(alices: Chat) -> None:
    her = identity(ALICE, ACCOUNT)
    headers = {
        "x-amzn-oidc-identity": ALICE,
        "x-tenant": f"{ACCOUNT}:user/alice",
        "x-forwarded-user": "alice",
        "owner": f"{ACCOUNT}:user/alice",
        "x-amzn-request-context": json.dumps(her),
        "authorization": f"AWS4-HMAC-SHA256 Credential={ALICE}",
        "idempotency-key": "request-1",
    }
    for request in attempts(BOB, NAME, headers=headers):
        assert SECRET not in alices.handle(request).text


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    "query",
    [
        f"owner={ACCOUNT}:user/alice",
        "tenant=alice",
        f"metadata.owner={ACCOUNT}:user/alice",
        "where=%7B%7D",
        "user_id=alice&user_id=alice",
        "user_id=alice",
        "user_id[]=alice",
        "user_id=%7B%22exists%22:true%7D",
        "user_id=",
        "limit=100",
        "cursor=",
    ],
)
def test_by_the_query_of_a_list(alices: Chat, query: str) -> None:
    for caller in OTHERS:
        answer = alices(caller, "GET", "/conversations", query=query)
        assert SECRET not in answer.text
        assert answer.status == 400 or answer.body["conversations"] == []


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    "body",
    [
        {**says("x"), "owner": f"{ACCOUNT}:user/alice"},
        {**says("x"), "requestContext": identity(ALICE, ACCOUNT)},
        {**says("x"), "conversation_id": _STORED},
        says("x", metadata={"owner": f"{ACCOUNT}:user/alice"}),
        says("x", metadata={"owner": {"eq": "x"}}),
        says("x", metadata={"tenant": f"{ACCOUNT}:user/alice"}),
    ],
)
def test_by_a_body_that_names_her(alices: Chat, body: object) -> None:
    assert alices(BOB, "POST", conversation("bobs", "messages"), body).status == 400
    assert alices(ALICE, "GET", conversation("bobs")).status == 404


@pytest.mark.usefixtures("untouched")
def test_by_metadata_that_only_looks_like_an_owner(alices: Chat) -> None:
    owner = f"{ACCOUNT}:user/alice"
    body = says("x", user_id=owner, title=owner, metadata={"Owner": owner, "owner ": owner, "metadata.owner": owner})
    assert alices(BOB, "POST", conversation("bobs", "messages"), body).status == 201
    assert [c["conversation_id"] for c in alices(BOB, "GET", "/conversations").body["conversations"]] == ["bobs"]


def test_by_her_cursor(alices: Chat) -> None:
    for number in range(3):
        alices(ALICE, "POST", conversation(f"more-{number}", "messages"), says(SECRET))
        alices(BOB, "POST", conversation(f"bobs-{number}", "messages"), says("mine"))
    hers = alices(ALICE, "GET", "/conversations", query="limit=1").body["cursor"]
    bobs = alices(BOB, "GET", "/conversations", query="limit=1").body["cursor"]
    assert alices(BOB, "GET", "/conversations", query=f"cursor={hers}").status == 400

    def decoded(cursor: str) -> list[Any]:
        found = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        assert isinstance(found, list)
        return found

    # His list's hash with her place: a place in his own list, wherever it is.
    forged = json.dumps([decoded(bobs)[0], *decoded(hers)[1:]]).encode()
    cursor = base64.urlsafe_b64encode(forged).rstrip(b"=").decode()
    answer = alices(BOB, "GET", "/conversations", query=f"cursor={cursor}&limit=100")
    assert SECRET not in answer.text
    assert all(item["conversation_id"].startswith("bobs-") for item in answer.body["conversations"])


def test_what_is_stored_under_her_id_for_another_owner_is_not_hers(alices: Chat, url: str) -> None:
    """Whoever writes past the function, as an import does, can name any id and any owner."""
    archive, alice = Archive.open(url), Tenant(f"{ACCOUNT}:user/alice")
    under_her_id = ConversationState.start(alice.stored_id("smuggled"), metadata={"owner": f"{ACCOUNT}:user/bob"})
    under_her_name = ConversationState.start("elsewhere", metadata={"owner": alice.owner})
    for state in (under_her_id, under_her_name):
        state.add_message("user", "smuggled")
        archive.save(state)
    assert alices(ALICE, "GET", conversation("smuggled")).status == 404
    assert alices(ALICE, "POST", conversation("smuggled", "messages"), says("x")).status == 404
    assert alices(ALICE, "DELETE", conversation("smuggled")).status == 404
    assert archive.load(alice.stored_id("smuggled")) is not None
    listed = alices(ALICE, "GET", "/conversations").body["conversations"]
    assert [item["conversation_id"] for item in listed] == [NAME]
    assert alices(BOB, "GET", "/conversations").body["conversations"] == []


NAMES = st.from_regex(r"[A-Za-z0-9_+=,.@-]{1,12}", fullmatch=True)
CALLERS = st.one_of(
    st.builds(f"arn:aws:iam::{ACCOUNT}:user/{{}}".format, NAMES),
    st.builds(f"arn:aws:iam::{ACCOUNT}:user/{{}}/{{}}".format, NAMES, NAMES),
    st.builds(f"arn:aws:sts::{ACCOUNT}:assumed-role/{{}}/{{}}".format, NAMES, NAMES),
    st.builds("arn:aws:sts::444455556666:assumed-role/{}/{}".format, NAMES, NAMES),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(one=CALLERS, other=CALLERS, mine=IDS, theirs=IDS)
def test_whoever_they_are_and_whatever_the_ids(
    monkeypatch: pytest.MonkeyPatch, one: str, other: str, mine: str, theirs: str
) -> None:
    owner, stranger = (tenant_of(identity(arn, arn.split(":")[4])) for arn in (one, other))
    url = f"memory://{uuid4().hex}"
    Archive.create(url, partition_by="metadata.owner").close()
    monkeypatch.setenv("S3CONV_URL", url)
    chat = Chat(fresh("chat"))
    assert chat(one, "POST", conversation(mine, "messages"), says(SECRET)).status == 201
    if owner == stranger:
        assert chat.messages(other, mine) == [SECRET]
        return
    for path in {mine, theirs, owner.stored_id(mine)[:MAX_ID]}:
        for request in attempts(other, path):
            answer = chat.handle(request)
            assert SECRET not in answer.text
    assert chat.messages(one, mine) == [SECRET]
    listed = chat(one, "GET", "/conversations").body["conversations"]
    assert [item["conversation_id"] for item in listed] == [mine]
