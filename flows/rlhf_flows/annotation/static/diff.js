// Word-level differences of two texts: the longest common subsequence of their words.

const LIMIT = 4_000_000; // cells of the table; longer texts are shown without marks

export function wordsOf(text) {
  if (window.Intl && Intl.Segmenter) {
    return Array.from(new Intl.Segmenter(undefined, { granularity: "word" }).segment(text), (part) => part.segment);
  }
  return text.match(/\s+|[\p{L}\p{N}]+|[^\s\p{L}\p{N}]/gu) || [];
}

// For each text a list of [piece, whether the other text lacks it].
export function differences(left, right) {
  const a = wordsOf(left), b = wordsOf(right);
  if (a.length * b.length > LIMIT) return [[[left, false]], [[right, false]]];
  const width = b.length + 1;
  const table = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      table[i * width + j] =
        a[i] === b[j] ? table[(i + 1) * width + j + 1] + 1 : Math.max(table[(i + 1) * width + j], table[i * width + j + 1]);
    }
  }
  const found = [[], []];
  const add = (side, piece, differs) => {
    const last = found[side].at(-1);
    if (last && last[1] === differs) last[0] += piece;
    else found[side].push([piece, differs]);
  };
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      add(0, a[i++], false);
      add(1, b[j++], false);
    } else if (j >= b.length || (i < a.length && table[(i + 1) * width + j] >= table[i * width + j + 1])) add(0, a[i++], true);
    else add(1, b[j++], true);
  }
  return found;
}
