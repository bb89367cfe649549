// Markdown to DOM nodes. Text becomes text nodes only, so that nothing in it can become markup;
// links and images are shown as text with their address, and nothing is ever fetched.

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const QUOTE = /^ {0,3}> ?(.*)$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const ROW = /^\s*\|(.+)\|\s*$/;
const DASHES = /^\s*\|(?:\s*:?-+:?\s*\|)+\s*$/;
// Quotes in quotes and lists in lists deeper than this are shown as they are written.
const DEEPEST = 8;

export function markdown(text) {
  const fragment = document.createDocumentFragment();
  blocks(text.replace(/\r\n?/g, "\n").split("\n"), fragment, 0);
  return fragment;
}

export function element(name, className, ...children) {
  const node = document.createElement(name);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

function blocks(lines, into, depth) {
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    let match;
    if (line.trim() === "") {
      at += 1;
    } else if ((match = FENCE.exec(line))) {
      at = fence(lines, at, match, into);
    } else if ((match = HEADING.exec(line))) {
      // The page's own headings are h1 and h2.
      into.append(inline(element(`h${Math.min(match[1].length + 2, 6)}`), match[2]));
      at += 1;
    } else if (RULE.test(line)) {
      into.append(element("hr"));
      at += 1;
    } else if (depth < DEEPEST && QUOTE.test(line)) {
      const end = run(lines, at, (next) => QUOTE.test(next));
      const quote = element("blockquote");
      blocks(lines.slice(at, end).map((quoted) => QUOTE.exec(quoted)[1]), quote, depth + 1);
      into.append(quote);
      at = end;
    } else if (depth < DEEPEST && ITEM.test(line)) {
      at = list(lines, at, into, depth);
    } else if (ROW.test(line) && DASHES.test(lines[at + 1] ?? "")) {
      at = table(lines, at, into);
    } else {
      const end = run(lines, at, (next) => next.trim() !== "" && !begins(next));
      into.append(paragraph(lines.slice(at, Math.max(end, at + 1))));
      at = Math.max(end, at + 1);
    }
  }
}

function begins(line) {
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || ITEM.test(line);
}

function run(lines, from, holds) {
  let end = from;
  while (end < lines.length && holds(lines[end])) end += 1;
  return end;
}

function fence(lines, at, [, mark, language], into) {
  const closes = (line) => line.trim().startsWith(mark) && line.trim().replaceAll(mark[0], "") === "";
  const end = run(lines, at + 1, (line) => !closes(line));
  const code = element("code", "", lines.slice(at + 1, end).join("\n"));
  const block = element("pre", "code", code);
  if (language) block.dataset.language = language;
  into.append(block);
  return end + 1;
}

function list(lines, at, into, depth) {
  const [, indent, mark] = ITEM.exec(lines[at]);
  const ordered = /\d/.test(mark);
  const node = element(ordered ? "ol" : "ul");
  if (ordered) node.start = Number.parseInt(mark, 10);
  while (at < lines.length) {
    const item = ITEM.exec(lines[at]);
    if (!item || item[1].length < indent.length || /\d/.test(item[2]) !== ordered || RULE.test(lines[at])) break;
    const inner = item[1].length + item[2].length + 1;
    const belongs = (line) => line.trim() === "" || /^\s*/.exec(line)[0].length >= Math.min(inner, item[1].length + 2);
    let end = run(lines, at + 1, belongs);
    while (end > at + 1 && lines[end - 1].trim() === "") end -= 1;
    const body = [item[3], ...lines.slice(at + 1, end).map((line) => line.replace(new RegExp(`^\\s{0,${inner}}`), ""))];
    const entry = element("li");
    blocks(body, entry, depth + 1);
    node.append(entry);
    at = run(lines, end, (line) => line.trim() === "" && ITEM.test(lines[end + 1] ?? ""));
  }
  into.append(node);
  return at;
}

function table(lines, at, into) {
  const end = run(lines, at, (line) => ROW.test(line));
  const row = (line, cell) => {
    const node = element("tr");
    for (const text of ROW.exec(line)[1].split("|")) node.append(inline(element(cell), text.trim()));
    return node;
  };
  const body = element("tbody", "", ...lines.slice(at + 2, end).map((line) => row(line, "td")));
  into.append(element("div", "table", element("table", "", element("thead", "", row(lines[at], "th")), body)));
  return end;
}

function paragraph(lines) {
  const node = element("p");
  lines.forEach((line, index) => {
    if (index > 0) node.append(/ {2,}$|\\$/.test(lines[index - 1]) ? element("br") : "\n");
    inline(node, line.trim().replace(/\\$/, ""));
  });
  return node;
}

// What can begin inside a line, the first that matches wins.
const INLINE = [
  [/^`([^`]+)`|^``(.+?)``/, ([, one, two]) => element("code", "", one ?? two)],
  [/^\\([\\`*_{}[\]()#+.!~>|-])/, ([, literal]) => literal],
  [/^!\[([^\]]*)\]\(\s*([^)\s]+)[^)]*\)/, ([, label, to]) => address(`image: ${label}`, to)],
  [/^\[([^\]]+)\]\(\s*([^)\s]+)[^)]*\)/, ([, label, to]) => address(label, to)],
  [/^\*\*(?=\S)(.+?)\*\*/, ([, inner]) => inline(element("strong"), inner)],
  [/^__(?=\S)(.+?)__(?!\w)/, ([, inner]) => inline(element("strong"), inner)],
  [/^~~(?=\S)(.+?)~~/, ([, inner]) => inline(element("s"), inner)],
  [/^\*(?=[^\s*])(.+?)\*/, ([, inner]) => inline(element("em"), inner)],
  [/^_(?=[^\s_])(.+?)_(?!\w)/, ([, inner]) => inline(element("em"), inner)],
];

function inline(into, text) {
  let plain = "";
  let at = 0;
  while (at < text.length) {
    const special = "`\\![*_~".includes(text[at]) && !(text[at] === "_" && /\w/.test(text[at - 1] ?? ""));
    const found = special && first(text.slice(at));
    if (found) {
      if (plain) into.append(plain);
      plain = "";
      into.append(found.node);
      at += found.length;
    } else {
      plain += text[at];
      at += 1;
    }
  }
  if (plain) into.append(plain);
  return into;
}

function first(text) {
  for (const [pattern, make] of INLINE) {
    const match = pattern.exec(text);
    if (match) return { node: make(match), length: match[0].length };
  }
  return null;
}

function address(label, to) {
  return element("span", "address", label === to ? "" : `${label} `, element("code", "", to));
}
