
"use strict";
// Without this script all branches are on the page, one after the other. With it, one of them is shown at a time.
// A stretch is a section of messages up to where the conversation branches; the shown ones are a path through the tree.
document.documentElement.classList.add("js");

document.addEventListener("DOMContentLoaded", () => {
  const stretches = [...document.querySelectorAll(".stretch")];
  const chosen = new Map(); // id of a stretch → the one below it that is shown; at first the first on the page
  for (const stretch of stretches) {
    if (!chosen.has(stretch.dataset.above)) chosen.set(stretch.dataset.above, stretch);
  }

  /** Show the branch that a stretch is on; without one, the branch that is chosen. */
  function show(target) {
    for (let one = target; one; one = document.getElementById(one.dataset.above)) chosen.set(one.dataset.above, one);
    const path = new Set();
    for (let one = stretches[0]; one; one = chosen.get(one.id)) path.add(one);
    // Found by the browser's own search all the same, which then says so by "beforematch".
    for (const stretch of stretches) stretch.hidden = path.has(stretch) ? false : "until-found";
  }

  function showAddressed() {
    const target = document.getElementById(location.hash.slice(1));
    const stretch = target?.closest(".stretch");
    if (!stretch) return;
    show(stretch);
    target.scrollIntoView();
  }

  function take(arrow) {
    const target = document.getElementById(arrow.hash.slice(1));
    const before = arrow.getBoundingClientRect().top;
    show(target);
    history.replaceState(null, "", arrow.hash);
    const same = target.querySelector(`.switch a[rel=${arrow.rel}]`) ?? target.querySelector(".switch a[rel]");
    same.focus({ preventScroll: true });
    scrollBy(0, same.getBoundingClientRect().top - before); // the eye stays where the arrow was
  }

  async function copy(button) {
    const code = button.closest("figure").querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = document.execCommand("copy") ? "Copied" : "Selected";
    }
  }

  document.addEventListener("click", (event) => {
    const arrow = event.target.closest(".switch a[rel]");
    const button = event.target.closest(".copy");
    if (arrow) {
      event.preventDefault();
      take(arrow);
    } else if (button) {
      copy(button);
    }
  });

  // The arrow keys act on the switch that has the focus, else on the first one in view.
  document.addEventListener("keydown", (event) => {
    const rel = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
    if (!rel || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const inView = (one) => {
      const box = one.getBoundingClientRect();
      return box.height > 0 && box.top >= 0 && box.bottom <= innerHeight;
    };
    const focused = document.activeElement.closest(".switch");
    if (!focused && document.activeElement.closest("pre, input")) return;
    const nav = focused ?? [...document.querySelectorAll(".stretch:not([hidden]) > .switch")].find(inView);
    const arrow = nav?.querySelector(`a[rel=${rel}]`);
    if (arrow) {
      event.preventDefault();
      take(arrow);
    }
  });

  document.addEventListener("beforematch", (event) => show(event.target.closest(".stretch")));
  addEventListener("hashchange", showAddressed);
  show(); // the branch that the conversation stands on, until something else is chosen
  for (const stretch of stretches) stretch.classList.remove("off");
  showAddressed();
});
