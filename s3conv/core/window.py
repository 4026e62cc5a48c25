"""The activity window: for a while, one intent may speak for the saves that follow it. DESIGN.md, section 6.

Law: only what an activity changes (`updated_at`, the counts, size and revision) may go unannounced, and only until the
instant that the document itself names. Whoever is later, or cannot tell the time, announces as ever.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from s3conv.core.commit import Announcement, Draft
from s3conv.core.context import Context
from s3conv.core.known import Known
from s3conv.errors import InvalidInputError
from s3conv.format.document import restamped
from s3conv.format.entry import MAX_WINDOW, Intent, index_time, lasting, read_index_time
from s3conv.model.state import ConversationState

MARGIN = 120.0
"""Seconds beyond its window for which an intent is left alone: the 60 that a save may take, and as much again."""


def check_window(seconds: object) -> float:
    """Return it if it can be an activity window, else raise `InvalidInputError`."""
    if not isinstance(seconds, int | float) or not 0 <= seconds <= MAX_WINDOW:
        raise InvalidInputError(f"activity_window {seconds!r}: expected 0 to {MAX_WINDOW:.0f} seconds")
    return float(seconds)


def speaks(intent: Intent, age: float) -> bool:
    """Whether an intent of this age, in seconds, may yet speak for a save."""
    return intent.window > 0 and age <= intent.window + MARGIN


def lasting_of(context: Context, state: ConversationState) -> str:
    """What an activity leaves as it is in a state, to be compared; nothing where there is no window."""
    if not context.activity_window:
        return ""
    return lasting(index_time(state.created_at), state.schema_version, state.metadata)


def spoken_for(context: Context, known: Known, constant: str) -> Announcement | None:
    """The announcement that a save on `known` may count as its own; None: it has to make one.

    It counts as made when its window ends, so that it is as stale as any other 60 seconds after that.
    """
    until = known.stamp.speaks_until
    if until is None or not context.activity_window:
        return None
    elapsed = context.wall_clock() - known.wall
    left = read_index_time(until).timestamp() - known.date
    # A clock that was set back tells nothing, and no writer of ours reaches further than the longest window.
    if not 0 <= elapsed < left <= MAX_WINDOW:
        return None
    if constant != known.lasting:
        return None
    return Announcement(known.date + left, known.wall + left)


def end_of(date: float, window: float) -> str:
    """When a window ends that began at `date` of the store's clock."""
    return index_time(datetime.fromtimestamp(date + window, UTC))


def speaking(draft: Draft, announcement: Announcement) -> Draft:
    """The same write, its document saying for how long its announcement speaks."""
    stamp = replace(draft.stamp, speaks_until=end_of(announcement.date, draft.intent.window))
    return replace(draft, stamp=stamp, body=restamped(draft.body, draft.stamp, stamp))
