// The lead's page: figures that stay fresh, pausing, withdrawing, inviting.

import { call, words } from "./dom.js";

const REFRESH_AFTER = 10000, SURE_FOR = 4000;
const $ = (id) => document.getElementById(id);
const say = (text) => { $("status").textContent = text; };

async function refresh() {
  const response = await fetch("/lead", { credentials: "same-origin" });
  if (!response.ok) return;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  $("figures").replaceWith(document.adoptNode(page.getElementById("figures")));
}

async function change(path, content) {
  try {
    const found = await call(path, content);
    await refresh();
    return found;
  } catch (error) {
    say(error.message);
  }
}

document.addEventListener("click", (event) => {
  const { pause, paused, withdraw } = event.target.dataset || {};
  if (pause) change("/lead/api/pause", { name: pause, paused: paused !== "true" });
  if (withdraw && event.target.getAttribute("aria-pressed") === "true") change("/lead/api/withdraw", { name: withdraw });
  else if (withdraw) {
    event.target.setAttribute("aria-pressed", "true");
    say(`${words.withdraw_sure} ${withdraw}`);
    setTimeout(() => event.target.setAttribute("aria-pressed", "false"), SURE_FOR);
  }
});

$("invite").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = new FormData(event.target);
  const found = await change("/lead/api/invite", { name: form.get("name").trim(), role: form.get("role") });
  if (found) {
    $("link").textContent = found.link;
    event.target.reset();
  }
});

setInterval(() => {
  if (!document.hidden && !document.querySelector("[aria-pressed=true]")) refresh().catch(() => {});
}, REFRESH_AFTER);
