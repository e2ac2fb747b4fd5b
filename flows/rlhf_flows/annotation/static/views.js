// One function a view: draws the question and says which keys do what. `page` holds the state that is drafted
// (`page.state`) and what a view can ask for: `send`, `changed`, `redraw`.

import { button, el, words } from "./dom.js";
import { differences } from "./diff.js";
import { draggable, reordered } from "./drag.js";
import { editButton, nameOf, promptCard, sampleCard, showDifferences, textField } from "./cards.js";

export function pair(page) {
  const { item, state } = page;
  const cards = item.samples.map((_, place) => sampleCard(item, place, editable(item, place) ? editButton(place, page.edit) : null));
  const root = [promptCard(item), el("div", { class: "pair" }, ...cards), ...extras(page)];
  if (state.differences && editable(item, 0)) {
    showDifferences(root[1], differences(item.samples[0].text, item.samples[1].text));
  }
  const choose = (choice, strength, both_bad = false) => () => page.send({ view: "pair", choice, strength, both_bad });
  const scale = [
    [words.a_clearly, "1", choose("first", "clearly"), "strong"],
    [words.a_slightly, "2", choose("first", "slightly"), ""],
    [words.tie, "3", choose("tie", "clearly"), ""],
    [words.b_slightly, "4", choose("second", "slightly"), ""],
    [words.b_clearly, "5", choose("second", "clearly"), "strong"],
  ].map(([label, key, press, look]) => button(label, key, press, { class: `choice ${look}` }));
  return {
    root,
    main: scale,
    more: [
      button(words.both_bad, "0", choose("tie", "clearly", true)),
      button(words.differences, "d", () => page.change({ differences: !state.differences }), { "aria-pressed": String(!!state.differences) }),
    ],
  };
}

export function ranking(page) {
  const { item, state } = page;
  const count = item.samples.length;
  const order = state.order || []; // [place, whether it shares the rank of the one before]
  const ranks = ranksOf(order);
  const place = (chosen) => {
    if (!order.some(([placed]) => placed === chosen)) page.change({ order: [...order, [chosen, false]] });
  };
  // Dragging orders the whole list: from then on the cards stand where they were put.
  const rows = state.rows || item.samples.map((_, at) => at);
  const cards = rows.map((at) => {
    const rank = ranks.get(at);
    const card = sampleCard(item, at, editable(item, at) ? editButton(at, page.edit) : null);
    card.prepend(button(rank ? String(rank) : "·", String(at + 1), () => place(at), { class: `rank ${rank ? "placed" : ""}`, "aria-label": `${nameOf(at)} ${rank || ""}` }));
    card.append(el("span", { class: "grip", title: words.drag, "aria-hidden": "true" }, "⠿"));
    return card;
  });
  draggable(cards, (card) => card.querySelector(".grip"), (from, to, level) => {
    const sharing = new Map(order);
    const standing = rows.map((at, index) => [at, index > 0 && order.length === count && sharing.get(at)]);
    const moved = reordered(standing, from, to, level);
    page.change({ order: moved, rows: moved.map(([at]) => at) });
  });
  const share = () => {
    if (order.length > 1) page.change({ order: [...order.slice(0, -1), [order.at(-1)[0], !order.at(-1)[1]]] });
  };
  const send = () => {
    if (order.length < count) return page.say(words.complete_first);
    page.send({ view: "ranking", ranks: item.samples.map((_, at) => ranks.get(at)) });
  };
  return {
    root: [promptCard(item), el("p", { class: "hint" }, words.rank_hint), el("div", { class: "ranking" }, ...cards), ...extras(page)],
    main: [button(words.send, "Enter", send, { class: "choice strong", disabled: order.length < count })],
    more: [
      button(words.same_rank, "t", share, { "aria-pressed": String(!!order.at(-1)?.[1]) }),
      button(words.clear, "Backspace", () => page.change({ order: order.slice(0, -1) })),
    ],
  };
}

function ranksOf(order) {
  const ranks = new Map();
  order.forEach(([place, shared], index) => ranks.set(place, shared && index ? ranks.get(order[index - 1][0]) : index + 1));
  return ranks;
}

export function rating(page) {
  const { item, state } = page;
  const scores = state.scores || item.samples.map(() => ({}));
  const rows = item.samples.flatMap((_, place) => item.criteria.map((criterion) => [place, criterion]));
  const at = Math.min(state.row ?? 0, rows.length - 1);
  const rate = (place, name, value, row) => {
    const changed = scores.map((each, i) => (i === place ? { ...each, [name]: value } : each));
    const next = rows.findIndex(([i, criterion]) => changed[i][criterion.name] === undefined);
    page.change({ scores: changed, row: next < 0 ? row : next });
  };
  const steps = Array.from({ length: item.high - item.low + 1 }, (_, i) => item.low + i);
  const scale = ([place, criterion], row) =>
    el(
      "div",
      { class: `scale ${row === at ? "current" : ""}`, role: "group", "aria-label": `${nameOf(place)} ${criterion.name}` },
      el("span", { class: "criterion", title: criterion.description }, criterion.name, criterion.description ? el("small", {}, criterion.description) : null),
      el(
        "span",
        { class: "steps" },
        ...steps.map((value) =>
          button(String(value), null, () => rate(place, criterion.name, value, row), { "aria-pressed": String(scores[place][criterion.name] === value) }),
        ),
      ),
    );
  const cards = item.samples.map((_, place) =>
    sampleCard(item, place, ...rows.map((row, i) => (row[0] === place ? scale(row, i) : null)), editable(item, place) ? editButton(place, page.edit) : null),
  );
  const complete = rows.every(([place, criterion]) => scores[place][criterion.name] !== undefined);
  const send = () => (complete ? page.send({ view: "rating", scores }) : page.say(words.complete_first));
  const press = (key) => {
    const value = key === "0" && item.high === 10 ? 10 : Number(key);
    if (steps.includes(value)) rate(rows[at][0], rows[at][1].name, value, at);
  };
  const move = (by) => () => page.change({ row: Math.max(0, Math.min(rows.length - 1, at + by)) });
  const keys = Object.fromEntries([..."0123456789"].map((key) => [key, () => press(key)]));
  return {
    root: [promptCard(item), el("p", { class: "hint keyboard" }, `${item.low}–${item.high} · ${words.move_hint}`), el("div", { class: `pair of-${item.samples.length}` }, ...cards), ...extras(page)],
    main: [button(words.send, "Enter", send, { class: "choice strong", disabled: !complete })],
    more: [],
    keys: { ...keys, ArrowUp: move(-1), ArrowDown: move(1) },
  };
}

export function writing(page) {
  const { item, state } = page;
  const field = textField(words.write_hint, state.text, (text) => page.change({ text }, false), { rows: 8, class: "writing", "data-main": true });
  const cards = item.samples.map((_, place) => sampleCard(item, place));
  // What is typed does not redraw the page, so the state is read anew.
  const send = () => ((page.state.text || "").trim() ? page.send({ view: "writing", text: page.state.text }) : page.say(words.complete_first));
  return {
    root: [promptCard(item), cards.length ? el("div", { class: `pair of-${cards.length}` }, ...cards) : null, field, ...extras(page)],
    main: [button(words.send, "Ctrl+Enter", send, { class: "choice strong" })],
    more: [],
  };
}

const editable = (item, place) => item.samples[place]?.text != null;

// The editor for a better answer, and the comment, where they are open.
function extras(page) {
  const { state } = page;
  const found = [];
  if (state.editing != null) {
    found.push(el("p", { class: "hint" }, `${nameOf(state.editing)} · ${words.edit_hint}`));
    found.push(textField(words.edit_hint, state.edited, (edited) => page.change({ edited }, false), { id: "editor", rows: 5 }));
  }
  if (state.commenting) {
    found.push(textField(words.comment_hint, state.comment, (comment) => page.change({ comment }, false), { id: "comment", rows: 2 }));
  }
  return found;
}
