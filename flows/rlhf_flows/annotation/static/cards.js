// The parts that several views share: the prompt, the cards of the samples, the editor, the comment.

import { button, el, words } from "./dom.js";

const NAMES = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const SVG = "http://www.w3.org/2000/svg";

export const nameOf = (place) => NAMES[place] || String(place + 1);

export function promptCard(item) {
  const turns = item.prompt.map((turn) =>
    el("div", { class: `turn ${turn.role}` }, turn.role ? el("b", {}, words[turn.role] || turn.role) : null, el("p", { class: "text" }, turn.text)),
  );
  return el("section", { class: "prompt", "aria-label": words.prompt }, ...turns);
}

export function sampleCard(item, place, ...more) {
  const sample = item.samples[place];
  const body = sample.text != null ? el("p", { class: "text" }, sample.text) : sample.frames.length ? clip(sample.frames) : trajectory(sample);
  return el(
    "article",
    { class: "sample", "data-place": place, "aria-label": `${words.answer} ${nameOf(place)}` },
    el("h2", {}, nameOf(place)),
    body,
    ...more,
  );
}

// The pictures of a segment, one after the other and over again; a click stops them. Who wants less motion clicks through.
function clip(frames) {
  let at = 0, seen = false, running = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  const picture = el("img", { class: "clip", src: frames[0], alt: words.answer, onclick: () => (still ? step() : (running = !running)) });
  const still = !running;
  const step = () => { picture.src = frames[(at = (at + 1) % frames.length)]; };
  const timer = setInterval(() => {
    seen ||= picture.isConnected;
    if (seen && !picture.isConnected) clearInterval(timer);
    else if (running) step();
  }, 100);
  return picture;
}

// Each observed quantity over time, drawn as it goes on.
function trajectory(sample) {
  const rows = sample.observations;
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 200 80");
  svg.setAttribute("class", "trajectory");
  for (let column = 0; column < Math.min(6, rows[0]?.length || 0); column++) {
    const values = rows.map((row) => row[column]);
    const low = Math.min(...values), span = Math.max(...values) - low || 1;
    const line = document.createElementNS(SVG, "polyline");
    const points = values.map((value, i) => `${(200 * i) / Math.max(1, values.length - 1)},${76 - (72 * (value - low)) / span}`);
    line.setAttribute("points", points.join(" "));
    line.setAttribute("class", `line-${column}`);
    line.setAttribute("pathLength", "1");
    svg.append(line);
  }
  return svg;
}

export function showDifferences(root, pieces) {
  root.querySelectorAll(".sample > .text").forEach((text, place) => {
    text.replaceChildren(...pieces[place].map(([piece, differs]) => (differs ? el("mark", {}, piece) : piece)));
  });
}

export function textField(label, value, changed, attributes = {}) {
  const field = el("textarea", { rows: 3, "aria-label": label, placeholder: label, maxlength: 50000, oninput: () => changed(field.value), ...attributes });
  field.value = value || "";
  return field;
}

export function editButton(place, edit) {
  return button(words.edit, nameOf(place), () => edit(place), { class: "quiet edit" });
}
