// The annotator's page: fetches a question, shows its view, sends the answer, keeps drafts.

import { button, call, el, words } from "./dom.js";
import * as views from "./views.js";

const SKIPS = ["unclear", "cannot_judge", "harmful", "broken", "other"];
const DRAFT_AFTER = 500, POLL_AFTER = 8000, RETRY_AFTER = 2000;
const $ = (id) => document.getElementById(id);

let item = null, state = {}, keys = {}, busy = false, draftTimer = 0, pollTimer = 0;
let activeSince = null, activeFor = 0; // milliseconds that the question was in front of the annotator

const page = {
  get item() { return item; },
  get state() { return state; },
  change(changes, redraw = true) {
    state = { ...state, ...changes };
    clearTimeout(draftTimer);
    draftTimer = setTimeout(saveDraft, DRAFT_AFTER);
    if (redraw) draw();
  },
  edit(place) {
    page.change({ editing: place, edited: state.editing === place ? state.edited : item.samples[place].text });
    $("editor").focus();
  },
  say(text) { $("status").textContent = text; },
  send(given) {
    // The page belongs to the answer until it is saved: what is pressed meanwhile would belong to the next question.
    if (busy) return;
    const extra = given.view === "writing" ? {} : { edited: state.editing == null ? "" : state.edited || "" };
    const seconds = Math.min(86400, (activeFor + (activeSince ? Date.now() - activeSince : 0)) / 1000);
    clearTimeout(draftTimer);
    const content = { form: item.form, question: item.question, draft: state, given: { ...given, ...extra, comment: state.comment || "", seconds } };
    submit("/api/answer", content, words.saved);
  },
};

async function submit(path, content, said) {
  busy = true;
  document.body.classList.add("busy");
  for (;;) {
    try {
      const found = await call(path, content);
      busy = false;
      document.body.classList.remove("busy");
      show(found);
      page.say(found.undone === false ? words.nothing_to_undo : said);
      return;
    } catch (error) {
      if (error.status && error.status !== 429 && error.status < 500) {
        busy = false;
        document.body.classList.remove("busy");
        page.say(error.message);
        return;
      }
      page.say(words.not_saved);
      await new Promise((resolve) => setTimeout(resolve, Math.max(RETRY_AFTER, 1000 * (error.wait || 0))));
    }
  }
}

async function saveDraft() {
  if (!item || busy) return;
  const { form, question } = item;
  try {
    await call("/api/draft", { form, question, draft: state });
    if (item?.question === question && !busy) page.say(words.draft_saved);
  } catch (error) {
    if (!error.status || error.status >= 500 || error.status === 429) draftTimer = setTimeout(saveDraft, RETRY_AFTER);
  }
}

function show(found) {
  clearTimeout(pollTimer);
  item = found.item;
  state = item?.draft || {};
  activeFor = 0;
  activeSince = document.hidden ? null : Date.now();
  const { answered, today, remaining } = found.standing;
  pace.push([Date.now(), answered]);
  $("standing").textContent = [`${today} ${words.today}`, `${remaining} ${words.left}`, speed()].filter(Boolean).join(" · ");
  if (!item) {
    const [title, text] = found.paused ? [words.paused_title, words.paused_text] : [words.done_title, words.done_text];
    $("title").textContent = title;
    $("task").replaceChildren(el("p", { class: "closed" }, text));
    $("bar").replaceChildren(...common(false));
    $("open-guidelines").hidden = true;
    keys = keysOf($("bar"));
    pollTimer = setTimeout(load, POLL_AFTER);
    return;
  }
  draw();
  scrollTo(0, 0);
  $("task").focus({ preventScroll: true });
}

const pace = []; // [time, answered] since the page was opened
function speed() {
  const [[since, before], [until, now]] = [pace[0], pace.at(-1)];
  if (now - before < 3) return "";
  return `${Math.round((until - since) / 1000 / (now - before))} ${words.each}`;
}

function draw() {
  const field = document.activeElement?.id;
  const view = views[item.view](page);
  $("title").textContent = item.title || words[`title_${item.view}`];
  $("task").className = `view-${item.view}`;
  $("task").replaceChildren(...view.root.filter(Boolean));
  $("bar").replaceChildren(el("div", { class: `main n${view.main.length}` }, ...view.main), el("div", { class: "more" }, ...view.more, ...common(true)));
  $("open-guidelines").hidden = !item.guidelines;
  $("guidelines").textContent = item.guidelines;
  const wanted = localStorage.getItem("guidelines") || (matchMedia("(max-width: 52rem)").matches ? "closed" : "open");
  $("guidelines").hidden = !item.guidelines || wanted === "closed";
  keys = { ...keysOf(document), ...view.keys };
  if (field) $(field)?.focus();
}

function common(answerable) {
  const undo = button(words.undo, "u", () => !busy && submit("/api/undo", {}, words.undone));
  if (!answerable) return [undo];
  const comment = () => {
    if (!state.commenting) page.change({ commenting: true });
    $("comment").focus();
  };
  return [button(words.comment, "c", comment), button(words.skip, "s", () => $("skip").showModal()), undo];
}

// Every button that shows a key answers to it.
function keysOf(root) {
  const found = {};
  for (const shown of root.querySelectorAll("header button[aria-keyshortcuts], #task button[aria-keyshortcuts], #bar button[aria-keyshortcuts], button[aria-keyshortcuts]")) {
    if (!shown.closest("dialog")) found[shown.getAttribute("aria-keyshortcuts")] = () => shown.click();
  }
  return { ...found, g: () => $("open-guidelines").click(), "?": () => $("open-keys").click() };
}

document.addEventListener("keydown", (event) => {
  const dialog = document.querySelector("dialog[open]");
  if (dialog) {
    const chosen = [...dialog.querySelectorAll("button[aria-keyshortcuts]")].find((each) => each.getAttribute("aria-keyshortcuts") === event.key);
    if (chosen) chosen.click();
    return;
  }
  const typing = event.target.matches?.("textarea, input");
  if (event.key === "Escape" && typing) return event.target.blur();
  const name = (event.ctrlKey || event.metaKey) && event.key === "Enter" ? "Ctrl+Enter" : event.key;
  if (name !== "Ctrl+Enter" && (typing || event.ctrlKey || event.metaKey || event.altKey)) return;
  if (event.repeat) return;
  if (name === "Enter" && event.target.matches?.("button, a")) return;
  const other = name === name.toLowerCase() ? name.toUpperCase() : name.toLowerCase();
  const press = keys[name] || keys[other] || (name === "Ctrl+Enter" && keys.Enter);
  if (press) {
    event.preventDefault();
    press();
  }
});

document.addEventListener("visibilitychange", () => {
  if (document.hidden && activeSince) {
    activeFor += Date.now() - activeSince;
    activeSince = null;
    clearTimeout(draftTimer);
    if (Object.keys(state).length) saveDraft();
  } else if (!document.hidden) activeSince = Date.now();
});

$("open-guidelines").addEventListener("click", () => {
  localStorage.setItem("guidelines", $("guidelines").hidden ? "open" : "closed");
  draw();
});
$("open-keys").addEventListener("click", () => {
  const shown = [...document.querySelectorAll("header button, #task button, #bar button")].filter((each) => each.querySelector("kbd") && !each.hidden);
  const lines = shown.flatMap((each) => [el("dt", {}, el("kbd", {}, each.querySelector("kbd").textContent)), el("dd", {}, (each.querySelector("span") || each.firstChild).textContent.trim())]);
  $("keys").querySelector("dl").replaceChildren(...lines);
  $("keys").showModal();
});
$("skip").querySelector(".reasons").append(
  ...SKIPS.map((reason, at) =>
    button(words[reason], String(at + 1), () => {
      $("skip").close();
      page.send({ view: "skip", reason });
    }),
  ),
);

async function load() {
  try {
    show(await call("/api/next"));
  } catch (error) {
    page.say(error.status === 401 ? error.message : words.not_saved);
    pollTimer = setTimeout(load, POLL_AFTER);
  }
}
load();
