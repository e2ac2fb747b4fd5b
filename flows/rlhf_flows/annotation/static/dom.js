// Building pages. Text goes in as text nodes only: whatever a model or a person wrote is never markup.

export const words = JSON.parse(document.body.dataset.words);

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

export function button(label, key, press, attributes = {}) {
  const shown = key ? el("kbd", {}, key === "Enter" ? "⏎" : key) : null;
  return el("button", { type: "button", onclick: press, "aria-keyshortcuts": key || null, ...attributes }, el("span", {}, label), shown);
}

const csrf = document.querySelector("meta[name=csrf]");

export async function call(path, content, again = true) {
  const options = { headers: { accept: "application/json" }, credentials: "same-origin" };
  if (content !== undefined) {
    options.method = "POST";
    options.headers["content-type"] = "application/json";
    options.headers["x-rlhf-csrf"] = csrf.content;
    options.body = JSON.stringify(content);
    options.keepalive = options.body.length < 60000;
  }
  const response = await fetch(path, options);
  const found = await response.json().catch(() => ({}));
  if (response.ok) return found;
  if (response.status === 403 && content !== undefined && again) {
    // The server was started anew since the page was loaded.
    csrf.content = (await call("/api/csrf")).csrf;
    return call(path, content, false);
  }
  const error = new Error(found.error || response.statusText);
  error.status = response.status;
  error.wait = Number(response.headers.get("retry-after") || 0);
  throw error;
}
