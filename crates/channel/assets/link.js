// The way to the server: requests, and the stream of events.
//
// The session has two halves. One is a cookie that no script can read; the other is kept here,
// where only this origin, port included, can read it, and goes along as a header.

const STORED = "bulkhead.page_key";
const FIRST_WAIT = 500;
const LONGEST_WAIT = 10_000;
// Longer than the server's keep-alive lines are apart.
const SILENCE = 40_000;

export class Problem extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
  // Whether the same request may succeed later.
  get passes() {
    return this.status === 0 || this.status === 408 || this.status === 429 || this.status === 503;
  }
}

export async function get(path) {
  return request(path, { method: "GET" });
}

export async function post(path, body = {}) {
  return request(path, { method: "POST", body: JSON.stringify(body) });
}

export async function logIn(token) {
  const { page_key: key } = await post("/login", { token });
  localStorage.setItem(STORED, key);
}

export function forgetLogin() {
  localStorage.removeItem(STORED);
}

export function wait(ms) {
  return new Promise((done) => setTimeout(done, ms));
}

// The waits between tries: each twice the one before, up to a limit.
export function* waits() {
  for (let ms = FIRST_WAIT; ; ms = Math.min(ms * 2, LONGEST_WAIT)) yield ms;
}

// Keeps an event stream open until `handlers.lost` says that nobody is logged in.
// `opened` is called for each new stream before its events, `event` for each event,
// `lost` with the problem when the stream ends; it returns whether to try again.
export async function listen(handlers) {
  let pauses = waits();
  for (;;) {
    let problem = new Problem(0, "The connection was lost.");
    try {
      const abort = new AbortController();
      const response = await send("/events", { method: "GET", signal: abort.signal });
      pauses = waits();
      handlers.opened();
      await readEvents(response.body, abort, handlers.event);
    } catch (error) {
      if (error instanceof Problem) problem = error;
    }
    if (!handlers.lost(problem)) return;
    await wait(pauses.next().value);
  }
}

async function readEvents(body, abort, take) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const silence = setTimeout(() => abort.abort(), SILENCE);
    const { done, value } = await reader.read();
    clearTimeout(silence);
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      if (block.startsWith("data: ")) take(JSON.parse(block.slice(6)));
    }
  }
}

async function request(path, options) {
  const response = await send(path, options);
  return response.json();
}

async function send(path, options) {
  const headers = { "X-Bulkhead-Page-Key": localStorage.getItem(STORED) ?? "" };
  if (options.body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store", credentials: "same-origin", redirect: "error" });
  } catch {
    throw new Problem(0, "Bulkhead is not answering. Is it running? `bulkhead up` starts it.");
  }
  if (response.ok) return response;
  let text = `The server said ${response.status}.`;
  try {
    text = (await response.json()).error ?? text;
  } catch {
    // Not one of our own replies; the status has to do.
  }
  throw new Problem(response.status, text);
}
