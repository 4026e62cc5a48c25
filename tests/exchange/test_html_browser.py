"""The pages in headless Chromium: what a reader sees, and does with the mouse and the keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from s3conv import ConversationState
from s3conv.exchange.html import conversation_page
from s3conv.exchange.html_index import index_begin, index_end, index_row, row_html
from s3conv.exchange.naming import file_name, link_to
from tests.exchange import pages
from tests.exchange.browser import Browser, chromium
from tests.exchange.shared import real_file

LEFT, RIGHT, ENTER, TAB = "\ue012", "\ue014", "\ue007", "\ue004"
WIDTHS = (1280, 390)

OUTSIDE = """
return [...document.querySelectorAll("*")].flatMap((element) => [...element.attributes])
  .filter((attribute) => ["src", "srcset", "href", "action", "data", "style", "poster"].includes(attribute.name))
  .filter((attribute) => !attribute.ownerElement.matches("a"))
  .map((attribute) => attribute.value.slice(0, 40));
"""
WIDER_THAN_THE_WINDOW = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(window: Browser) -> Iterator[Browser]:
    """A window in which nothing went wrong, and which asked for nothing but files."""
    window.resize(1280)
    yield window
    window.command("Emulation.setScriptExecutionDisabled", value=False)
    window.command("Emulation.setEmulatedMedia", media="", features=[])
    assert window.log("browser") == []
    assert [url for url in window.requested() if not url.startswith("file://")] == []


def save(state: ConversationState, folder: Path) -> Path:
    path = folder / file_name(state.conversation_id, ".html")
    path.write_text(conversation_page(state, back="../index.html"), encoding="utf-8")
    return path


def save_index(states: list[ConversationState], folder: Path) -> Path:
    path = folder / "index.html"
    with path.open("w", encoding="utf-8") as out:
        out.write(index_begin())
        for state in states:
            out.write(row_html(index_row(state, link_to(file_name(state.conversation_id, ".html")))))
        out.write(index_end(len(states), pages.at(0)))
    return path


def seen(browser: Browser) -> list[str]:
    """The messages that are shown, each as text."""
    return [text.strip() for text in browser.texts("article .said")]


# --- branches -------------------------------------------------------------------------------------------------


def test_the_page_opens_on_the_branch_that_the_conversation_stands_on(browser: Browser, tmp_path: Path) -> None:
    browser.open(save(pages.tree(), tmp_path))
    assert seen(browser) == ["You are a poet.", pages.SEA, pages.GULLS, "I like the gulls. Again?", pages.POST]


def test_arrows_switch_between_the_branches(browser: Browser, tmp_path: Path) -> None:
    page = save(pages.tree(), tmp_path)
    browser.open(page)
    first = ".stretch:not([hidden]) > .switch"
    assert browser.text(first).split() == ["\u2039", "2", "/", "3", "\u203a"]
    browser.click(f"{first} a[rel=next]")
    assert seen(browser)[2:] == [pages.DEEP]
    browser.click(f"{first} a[rel=prev]")
    assert seen(browser)[2:] == [pages.GULLS, "I like the gulls. Again?", pages.POST]  # the branch that was left
    browser.click(f"{first} a[rel=prev]")
    assert seen(browser)[2:] == [pages.WAVES, "Make it happier.", pages.HAPPY]
    assert browser.text(first).split()[1:4] == ["1", "/", "3"]

    # The address names the branch: it can be sent to somebody.
    fragment = browser.run("return location.hash")
    browser.open(page, fragment)
    assert seen(browser)[2:] == [pages.WAVES, "Make it happier.", pages.HAPPY]


def test_the_keyboard_switches_too(browser: Browser, tmp_path: Path) -> None:
    browser.open(save(pages.tree(), tmp_path))
    browser.press(RIGHT)  # the first switch in view
    assert seen(browser)[2:] == [pages.DEEP]
    browser.press(RIGHT)  # there is no next one
    assert seen(browser)[2:] == [pages.DEEP]
    browser.press(LEFT)
    assert seen(browser)[-1] == pages.POST
    browser.press(TAB)  # the other arrow of this switch: the focus had stayed with it
    browser.press(ENTER)
    assert seen(browser)[2:] == [pages.DEEP]


def test_a_switch_stays_where_the_eye_is(browser: Browser, tmp_path: Path) -> None:
    state = ConversationState.start("long", system="Go on.\n" * 60)
    asked = state.add_message("user", "Shall we?")
    for answer in ("No.", "Yes."):
        state.add_message("assistant", answer, parent=asked)
        for _ in range(20):
            state.add_message("user", "And then?\n" * 9)
    browser.open(save(state, tmp_path))
    switch = "document.querySelector('.stretch:not([hidden]) > .switch')"
    browser.run(f"{switch}.scrollIntoView({{block: 'center'}})")
    browser.be_still()
    before = browser.run(f"return {switch}.getBoundingClientRect().top")
    browser.run(f"{switch}.querySelector('a[rel=prev]').click()")
    assert seen(browser)[2] == "No."
    assert abs(browser.run(f"return {switch}.getBoundingClientRect().top") - before) < 2


def test_a_link_to_a_message_shows_its_branch(browser: Browser, tmp_path: Path) -> None:
    browser.open(save(pages.tree(), tmp_path), "#m8")
    assert seen(browser)[-1] in (pages.HAPPY, pages.DEEP)
    assert browser.run("return document.querySelector('#m8').checkVisibility()")


def test_the_search_of_the_browser_finds_what_is_on_other_branches(browser: Browser, tmp_path: Path) -> None:
    browser.open(save(pages.tree(), tmp_path), "#:~:text=no%20bottom")
    assert seen(browser)[2:] == [pages.DEEP]


def test_without_its_script_all_branches_are_on_the_page_the_current_one_first(
    browser: Browser, tmp_path: Path
) -> None:
    page = save(pages.tree(), tmp_path)
    browser.command("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(page)
    browser.command("Emulation.setScriptExecutionDisabled", value=False)  # to look, not to run the page's own again
    shown = seen(browser)
    assert shown[:5] == ["You are a poet.", pages.SEA, pages.GULLS, "I like the gulls. Again?", pages.POST]
    assert sorted(shown[5:]) == sorted([pages.CRUST, pages.WAVES, "Make it happier.", pages.HAPPY, pages.DEEP])
    assert "follows message 2" in browser.text("main")
    assert browser.run(
        "return document.querySelector('.copy') === null || !document.querySelector('.copy').checkVisibility()"
    )


# --- what is in messages --------------------------------------------------------------------------------------


def test_markup_in_a_message_is_text(browser: Browser, tmp_path: Path) -> None:
    state = ConversationState.start("hostile", system="<script>document.title = 'broken'</script>")
    state.metadata["title"] = "</title><script>document.title = 'broken'</script>"
    for text in pages.HOSTILE:
        state.add_message("user", f"{text} END")
        state.add_message("assistant", f"{text} END", name=text, branch_name=text, metadata={"model": text, text: text})
        state.add_message("tool", f"{text} END", name=text, tool_call_id=text)
    browser.open(save(state, tmp_path))
    assert browser.run("return document.title") == "</title><script>document.title = 'broken'</script>"
    assert browser.run("return document.scripts.length") == 1
    assert browser.run("return document.querySelectorAll('img, svg, iframe, form, object, h1 ~ h1').length") == 0
    assert browser.text("#m1 .said") == "<script>document.title = 'broken'</script>"
    assert "<script>document.title = 'broken'</script>" in browser.text("#m2 .said")
    assert "<script>document.title = 'broken'</script>" in browser.text("#m3 .said")
    ends = browser.run(
        "return [...document.querySelectorAll('.said')].filter((one) => one.textContent.includes('END')).length"
    )
    assert ends == 3 * len(pages.HOSTILE)
    links = browser.run("return [...document.querySelectorAll('.said a')].map((one) => one.protocol)")
    assert set(links) <= {"https:", "http:", "mailto:"}
    assert browser.run(OUTSIDE) == []


def test_a_text_of_five_million_letters_opens(browser: Browser, tmp_path: Path) -> None:
    state = ConversationState.start("long")
    state.add_message("user", "x" * 5_000_000)
    state.add_message("assistant", "The end.")
    browser.open(save(state, tmp_path))
    assert browser.run("return document.querySelector('#m1 .plain').textContent.length") == 5_000_000
    assert browser.run(WIDER_THAN_THE_WINDOW) <= 0


def test_code_is_copied_as_it_is(browser: Browser, tmp_path: Path) -> None:
    browser.open(save(pages.code(), tmp_path))
    assert browser.run("return document.querySelector('#m3 .said pre').textContent") == pages.CODE.removesuffix("\n")
    said = browser.run(
        """
        const button = document.querySelector("#m3 .said .copy");
        const changed = new Promise((done) => new MutationObserver(done).observe(button, { childList: true }));
        button.click();
        return changed.then(() => button.textContent);
        """
    )
    assert said in ("Copied", "Selected")


def test_tools_are_folded_and_images_are_there(browser: Browser, tmp_path: Path) -> None:
    browser.open(save(pages.code(), tmp_path))
    assert "a square" in browser.text("#m5 details.call > summary")
    assert not browser.run("return document.querySelector('#m6 details.result pre').checkVisibility()")
    browser.click("#m6 details.result > summary")
    assert browser.text("#m6 details.result pre") == '[{"title": "Squares"}]'
    assert browser.run("return [...document.images].map((one) => [one.naturalWidth, one.naturalHeight])") == [[160, 90]]
    assert "report.pdf" in browser.text("#m4")
    assert browser.run("return document.querySelector('#m3 details.beside pre').textContent.includes('512')")


def test_a_text_runs_in_its_own_direction(browser: Browser, tmp_path: Path) -> None:
    browser.open(save(pages.right_to_left(), tmp_path))
    sides = browser.run(
        """
        return [...document.querySelectorAll("#m2 .prose > p")].map((one) => {
          const range = document.createRange();
          range.selectNodeContents(one);
          const [text, box] = [range.getBoundingClientRect(), one.getBoundingClientRect()];
          return text.left - box.left < box.right - text.right ? "left" : "right";
        });
        """
    )
    assert sides == ["right", "left", "right"]
    assert browser.run("return getComputedStyle(document.querySelector('#m2 ol')).direction") == "rtl"
    assert browser.run("return getComputedStyle(document.querySelector('#m2 header')).direction") == "ltr"


def test_it_is_dark_where_the_reader_wants_it_dark(browser: Browser, tmp_path: Path) -> None:
    browser.open(save(pages.code(), tmp_path))
    brightness = (
        "const [red, green, blue] = getComputedStyle(document.documentElement).backgroundColor.match(/[0-9]+/g);"
        "return (Number(red) + Number(green) + Number(blue)) / 765"
    )
    assert browser.run(brightness) > 0.9
    browser.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert browser.run(brightness) < 0.2


def test_on_paper_there_is_nothing_to_click(browser: Browser, tmp_path: Path) -> None:
    browser.open(save(pages.code(), tmp_path))
    browser.command("Emulation.setEmulatedMedia", media="print")
    assert not browser.run("return document.querySelector('.copy').checkVisibility()")
    assert browser.run("return getComputedStyle(document.querySelector('#m3 pre')).whiteSpace") == "pre-wrap"


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["tree", "code", "right_to_left", "session"])
def test_nothing_is_wider_than_the_window_and_nothing_comes_from_elsewhere(
    browser: Browser, tmp_path: Path, name: str, width: int
) -> None:
    if name == "session":
        state = pages.session(real_file("agent/pi_before-compaction.jsonl.gz"))
    else:
        state = {"tree": pages.tree, "code": pages.code, "right_to_left": pages.right_to_left}[name]()
    browser.resize(width)
    browser.open(save(state, tmp_path))
    assert browser.run(WIDER_THAN_THE_WINDOW) <= 0
    browser.run("for (const one of document.querySelectorAll('details')) one.open = true")
    assert browser.run(WIDER_THAN_THE_WINDOW) <= 0
    assert [url for url in browser.run(OUTSIDE) if not url.startswith("data:image/png;base64,")] == []


def test_a_session_of_990_messages(browser: Browser, tmp_path: Path) -> None:
    browser.open(save(pages.session(real_file("agent/pi_before-compaction.jsonl.gz")), tmp_path))
    assert browser.run("return document.querySelectorAll('article').length") == 990
    assert browser.text(".questions summary") == "55 questions"
    browser.click(".questions summary")
    browser.click(".questions li:last-child a")
    target = browser.run("return location.hash")
    place = browser.run("return document.querySelector(arguments[0]).getBoundingClientRect().top", target)
    assert 0 <= place < 900


# --- the list of all conversations ----------------------------------------------------------------------------


@pytest.fixture
def index(tmp_path: Path) -> Path:
    states = []
    for number in range(250):
        state = ConversationState.start(f"c{number}", metadata={"title": f"Chat number {number:03}"})
        for _ in range(1 + number % 7):
            state.add_message("user", f"What is {number} times two? <b>&amp;</b>")
        state.updated_at = pages.at(number * 37 % 250)
        states.append(state)
    states.append(pages.tree())
    states[-1].metadata["title"] = "Café de l’Étoile </ol><script>document.title = 'broken'</script>"
    states[-1].updated_at = pages.at(9999)
    for state in states:
        save(state, tmp_path)
    return save_index(states, tmp_path)


def titles(browser: Browser) -> list[str]:
    found = browser.run("return [...document.querySelectorAll('#list li > a')].map((one) => one.textContent)")
    assert isinstance(found, list)
    return [str(title) for title in found]


def test_the_list_shows_the_newest_first_and_more_on_demand(browser: Browser, index: Path) -> None:
    browser.open(index)
    assert browser.run("return document.title") == "Conversations"
    assert titles(browser)[0] == "Café de l’Étoile </ol><script>document.title = 'broken'</script>"
    assert len(titles(browser)) == 100
    assert browser.text("#count") == "251 conversations"
    browser.click("#more")
    browser.click("#more")
    assert len(titles(browser)) == 251
    assert not browser.run("return document.querySelector('#more').checkVisibility()")
    assert browser.run(OUTSIDE) == []


def test_it_searches_while_one_types(browser: Browser, index: Path) -> None:
    browser.open(index)
    browser.type("#search", "number 12")
    assert browser.text("#count") == "13 of 251"  # 012, 112, 212, and 120 to 129
    assert all("12" in title for title in titles(browser))
    browser.run("document.querySelector('#search').value = ''")
    browser.type("#search", "etoile HAIKU")  # without accents; a word of the title, one of the text
    assert browser.text("#count") == "1 of 251"
    browser.click("#list a")
    assert seen(browser)[-1] == pages.POST
    browser.open(index)
    browser.type("#search", "nothing at all")
    assert (browser.text("#count"), titles(browser)) == ("0 of 251", [])


@pytest.mark.parametrize(
    ("order", "first"),
    [("oldest", "Chat number 000"), ("longest", "Café de l’Étoile"), ("title", "Café de l’Étoile")],
)
def test_it_sorts(browser: Browser, index: Path, order: str, first: str) -> None:
    browser.open(index)
    browser.run(
        "const order = document.querySelector('#order');"
        "order.value = arguments[0]; order.dispatchEvent(new Event('change'))",
        order,
    )
    assert titles(browser)[0].startswith(first)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_list_fits_the_window(browser: Browser, index: Path, width: int) -> None:
    browser.resize(width)
    browser.open(index)
    assert browser.run(WIDER_THAN_THE_WINDOW) <= 0


def test_without_its_script_the_list_is_whole(browser: Browser, index: Path) -> None:
    browser.command("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(index)
    browser.command("Emulation.setScriptExecutionDisabled", value=False)
    assert len(titles(browser)) == 251
    assert not browser.run("return document.querySelector('#search').checkVisibility()")


def test_twenty_thousand_conversations(browser: Browser, tmp_path: Path) -> None:
    state = ConversationState.start("c")
    state.add_message("user", "What is the matter? " * 30)
    row = row_html(index_row(state, "c.html"))
    page = tmp_path / "index.html"
    page.write_text(index_begin() + row * 20_000 + index_end(20_000), encoding="utf-8")
    assert page.stat().st_size < 20_000_000
    browser.open(page)
    assert browser.text("#count") == "20,000 conversations"
    browser.type("#search", "matter")
    assert browser.text("#count") == "20,000 of 20,000"
    assert browser.run("return document.querySelectorAll('*').length") < 2_000
