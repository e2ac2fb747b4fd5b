// Cards that are put in order by their handles, with a mouse, a pen or a finger. The keyboard has its own way.

const EDGE = 70, SCROLL = 9; // pixels from the window's edge where it scrolls, and how far at a time

// `cards` stand below each other. `dropped(from, to, level)` is told where the card number `from` was let go: before the
// card number `to` of the others (their count is the end), or level with it.
export function draggable(cards, handleOf, dropped) {
  cards.forEach((card, from) => {
    handleOf(card).addEventListener("pointerdown", (start) => {
      if (start.button) return;
      start.preventDefault();
      follow(start, card, cards.filter((other) => other !== card), (to, level) => dropped(from, to, level));
    });
  });
}

function follow(start, card, others, dropped) {
  const handle = start.currentTarget;
  const origin = start.clientY + scrollY;
  let pointer = start.clientY, place = null;
  handle.setPointerCapture(start.pointerId);
  card.classList.add("dragged");
  const move = () => {
    card.style.transform = `translateY(${pointer + scrollY - origin}px)`;
    place = placeOf(pointer, others);
    others.forEach((other, at) => {
      other.classList.toggle("level", place.level && at === place.to);
      other.classList.toggle("before", !place.level && at === place.to);
      other.classList.toggle("after", !place.level && place.to === others.length && at === others.length - 1);
    });
  };
  const scrolling = setInterval(() => {
    const by = pointer < EDGE ? -SCROLL : pointer > innerHeight - EDGE ? SCROLL : 0;
    if (by) {
      scrollBy(0, by);
      move();
    }
  }, 16);
  const moved = (event) => {
    pointer = event.clientY;
    move();
  };
  const end = (event) => {
    clearInterval(scrolling);
    for (const [name, listener] of listeners) handle.removeEventListener(name, listener);
    document.removeEventListener("keydown", escape, true);
    card.classList.remove("dragged");
    card.style.transform = "";
    others.forEach((other) => other.classList.remove("level", "before", "after"));
    if (event.type === "pointerup" && place) dropped(place.to, place.level);
  };
  const escape = (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    end(event);
  };
  const listeners = [["pointermove", moved], ["pointerup", end], ["pointercancel", end], ["lostpointercapture", end]];
  for (const [name, listener] of listeners) handle.addEventListener(name, listener);
  document.addEventListener("keydown", escape, true);
}

// The middle half of a card is level with it; above and below lie the places between.
function placeOf(y, others) {
  for (let at = 0; at < others.length; at++) {
    const { top, height } = others[at].getBoundingClientRect();
    if (y < top + height / 4) return { to: at, level: false };
    if (y < top + (3 * height) / 4) return { to: at, level: true };
  }
  return { to: others.length, level: false };
}

// The ranking [[place, whether it shares the rank of the one before], ...] after the card number `from` of `order` was
// dropped before, or level with, the card number `to` of the others.
export function reordered(order, from, to, level) {
  const [place] = order[from];
  const rest = order.filter((_, at) => at !== from);
  // Who shared the rank of the card that left shares that of the one before it, if that one did.
  if (order[from + 1]?.[1]) rest[from] = [rest[from][0], order[from][1]];
  if (level) return [...rest.slice(0, to + 1), [place, true], ...rest.slice(to + 1)];
  // Between two that share a rank there is no place of its own: it goes there and shares it.
  const between = Boolean(to && rest[to]?.[1]);
  return [...rest.slice(0, to), [place, between], ...rest.slice(to)];
}
