
"use strict";
// The list is on the page as it is; this script searches and sorts its rows, and shows them some at a time.
const page = document.documentElement;
page.classList.add("js", "loading");

document.addEventListener("DOMContentLoaded", () => {
  const STEP = 100;
  const list = document.getElementById("list");
  const search = document.getElementById("search");
  const order = document.getElementById("order");
  const count = document.getElementById("count");
  const more = document.getElementById("more");
  const plain = (text) => text.toLowerCase().normalize("NFKD").replace(/\p{M}/gu, "");
  const byText = new Intl.Collator().compare;
  const orders = {
    newest: (a, b) => (a.updated < b.updated) - (a.updated > b.updated),
    oldest: (a, b) => (a.updated > b.updated) - (a.updated < b.updated),
    longest: (a, b) => b.messages - a.messages,
    title: (a, b) => byText(a.title, b.title),
  };
  const rows = [...list.children].map((item) => ({
    item,
    title: item.querySelector("a").textContent,
    text: item.querySelector(".text")?.textContent ?? "",
    updated: item.dataset.updated,
    messages: Number(item.dataset.messages),
  }));
  list.replaceChildren();
  list.before(count.parentElement); // it was written last, when the number was known
  let found = rows;

  function showSome() {
    const shown = list.childElementCount;
    list.append(...found.slice(shown, shown + STEP).map((row) => row.item));
    more.hidden = list.childElementCount >= found.length;
    markFound();
  }

  function showFound() {
    const words = plain(search.value).split(/\s+/).filter(Boolean);
    const holds = (row) => {
      row.plain ??= plain(`${row.title} ${row.text}`);
      return words.every((word) => row.plain.includes(word));
    };
    found = words.length ? rows.filter(holds) : rows;
    count.textContent = words.length
      ? `${found.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")}`
      : count.dataset.all;
    list.replaceChildren();
    showSome();
  }

  function markFound() {
    if (!window.Highlight) return;
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const ranges = [];
    const texts = document.createTreeWalker(list, NodeFilter.SHOW_TEXT);
    while (words.length && texts.nextNode()) {
      const text = texts.currentNode.data.toLowerCase();
      if (text.length !== texts.currentNode.length) continue;
      for (const word of words) {
        for (let at = text.indexOf(word); at >= 0; at = text.indexOf(word, at + word.length)) {
          const range = new Range();
          range.setStart(texts.currentNode, at);
          range.setEnd(texts.currentNode, at + word.length);
          ranges.push(range);
        }
      }
    }
    CSS.highlights.set("found", new Highlight(...ranges));
  }

  function sort() {
    rows.sort(orders[order.value]);
    showFound();
  }

  search.addEventListener("input", showFound);
  order.addEventListener("change", sort);
  more.addEventListener("click", showSome);
  sort();
  page.classList.remove("loading");
});
