// The page: one conversation, as it is in the record, and what happens in it now.

import { Problem, forgetLogin, get, listen, logIn, post, wait, waits } from "/link.js";
import { ApprovalsView } from "/approvals.js";
import { ApprovalView, CallView } from "/cards.js";
import { element, markdown } from "/markdown.js";
import { FreezeView } from "/freeze.js";
import { enrol } from "/passkeys.js";

const byId = (id) => document.getElementById(id);
const view = {
  status: byId("status"), logout: byId("logout"), login: byId("login"), reason: byId("login-reason"),
  empty: byId("empty"), log: byId("log"), working: byId("working"), workingText: byId("working-text"),
  alert: byId("alert"), foot: byId("foot"), composer: byId("composer"), text: byId("text"),
  send: byId("send"), stop: byId("stop"), passkey: byId("passkey"), passkeyNote: byId("passkey-note"),
  passkeyMake: byId("passkey-make"), passkeyClose: byId("passkey-close"), views: byId("views"),
};
const asked = new ApprovalsView();
const freeze = new FreezeView();
const LONGEST_TEXT = 60_000;

// What is shown. All of it but `unsent` and `mine` is made anew when the stream is opened anew.
let turn = null;            // the turn that runs: { id, parts: [{ node, text }], open, whole }
let calls = new Map();      // "turn/call" to CallView
let approvals = new Map();  // approval id to ApprovalView
let replied = new Set();    // turns whose reply is shown
let early = null;           // events that came before the transcript
let catchingUp = false;     // while those are taken
let lastReply = "";
let lastSaid = "";
const unsent = [];          // bubbles of messages that are not accepted yet
const mine = new Map();     // ids of messages sent from here, to their bubbles
const link = { stream: "connecting", gateway: "up" };

start();

async function start() {
  bind();
  const token = location.pathname === "/login" ? location.hash.slice(1) : "";
  const code = location.pathname === "/passkey" ? location.hash.slice(1) : "";
  // The token works once; it has no business in the history.
  if (location.pathname !== "/") history.replaceState(null, "", "/");
  if (token !== "") {
    try {
      await logIn(token);
    } catch (error) {
      if (!(await loggedInAlready())) return showLogin(error.message);
    }
  }
  if (code !== "") {
    if (!(await loggedInAlready())) return showLogin("Log in first. Then open the link of `bulkhead passkey add` again.");
    showPasskey(code);
  }
  listen({ opened, event: take, lost });
}

// One passkey for the code of the link; the code is used up by the first try.
function showPasskey(code) {
  view.passkey.hidden = false;
  view.passkeyMake.addEventListener("click", async () => {
    view.passkeyMake.disabled = true;
    try {
      await enrol(code);
      tellPasskey("Your passkey is enrolled. Calls that can do harm now take it.");
      view.passkeyMake.hidden = true;
    } catch (error) {
      tellPasskey(error instanceof Problem ? error.message : "The passkey was not sent. Try again.");
      view.passkeyMake.disabled = false;
    }
  });
  view.passkeyClose.addEventListener("click", () => (view.passkey.hidden = true));
}

function tellPasskey(text) {
  view.passkeyNote.hidden = false;
  view.passkeyNote.textContent = text;
}

// A used link opened again in a browser that is logged in is no reason to log it out.
async function loggedInAlready() {
  try {
    await get("/transcript");
    return true;
  } catch {
    return false;
  }
}

function bind() {
  view.composer.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  view.text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      submit();
    }
  });
  view.text.addEventListener("input", fit);
  view.stop.addEventListener("click", stop);
  view.logout.addEventListener("click", logOut);
  for (const hint of document.querySelectorAll(".hint")) {
    hint.addEventListener("click", () => {
      view.text.value = hint.textContent;
      fit();
      view.text.focus();
    });
  }
  addEventListener("hashchange", () => {
    showView();
    asked.load();
    if (!asked.shown) return toEnd();
    scrollTo(0, 0);
    asked.title.focus({ preventScroll: true });
  });
  setInterval(() => {
    approvals.forEach((approval) => approval.tick());
    asked.tick();
  }, 1000);
}

// The stream.

function opened() {
  link.stream = "open";
  early = [];
  showChat();
  load();
}

function lost(problem) {
  if (link.stream === "logged out") return false;
  if (problem.status === 401) {
    showLogin("");
    return false;
  }
  link.stream = "lost";
  closePart();
  turn = null;
  showWorking();
  return true;
}

async function load() {
  for (const pause of waits()) {
    try {
      const transcript = await get("/transcript");
      // Whoever logged out meanwhile leaves nothing behind.
      if (link.stream !== "logged out") render(transcript);
      return;
    } catch (error) {
      // The stream notices by itself when the login or the server is gone.
      if (!(error instanceof Problem) || !error.passes || link.stream !== "open") return;
      await wait(pause);
    }
  }
}

function render({ entries, running }) {
  turn = running === null ? null : { id: running, parts: [], open: null, whole: false };
  calls = new Map();
  approvals = new Map();
  replied = new Set();
  view.log.replaceChildren();
  asked.list.replaceChildren();
  asked.load();
  for (const entry of entries) show(entry);
  view.log.append(...unsent.filter((bubble) => bubble.firstChild.textContent !== lastSaid));
  const waiting = early ?? [];
  early = null;
  catchingUp = true;
  for (const event of waiting) take(event);
  catchingUp = false;
  showWorking();
  toEnd();
}

function show(entry) {
  if (entry.entry === "user") view.log.append(said((lastSaid = entry.text)));
  if (entry.entry === "assistant") view.log.append(answer((lastReply = entry.text)));
  if (entry.entry === "notice") view.log.append(notice(entry.text));
  if (entry.entry === "call") placeCall(entry.card);
}

// Events, by their type.
const on = {
  link({ state }) {
    if (link.gateway === "down" && state === "up") {
      early = [];
      load();
    }
    link.gateway = state;
    showStatus();
  },
  said({ message, text }) {
    // It may have reached the transcript before this stream.
    if (catchingUp && text === lastSaid) return;
    const bubble = mine.get(message) ?? said(text);
    if (!bubble.isConnected) keepAtEnd(() => view.log.append(bubble));
  },
  turn_started({ turn: id }) {
    turn = { id, parts: [], open: null, whole: true };
  },
  token({ turn: id, text }) {
    // Without its beginning a piece makes no sense; the whole comes with the reply.
    if (turn?.id !== id || !turn.whole) return;
    if (turn.open === null) {
      turn.open = { node: answer(""), text: "" };
      turn.parts.push(turn.open);
      keepAtEnd(() => view.log.append(turn.open.node));
    }
    turn.open.text += text;
    redraw(turn.open);
  },
  call({ card }) {
    closePart();
    keepAtEnd(() => placeCall(card));
  },
  approval({ card }) {
    if (approvals.has(card.approval)) return;
    const approval = new ApprovalView(card);
    approvals.set(card.approval, approval);
    const call = calls.get(`${card.turn}/${card.call}`);
    keepAtEnd(() => {
      if (call) call.node.after(approval.home);
      else view.log.append(approval.home);
      asked.gather([approval]);
    });
    // What is asked is read from its beginning.
    if (!asked.shown && approval.node.offsetHeight > innerHeight / 2) approval.node.scrollIntoView({ block: "start" });
    view.alert.textContent = `Your answer is needed: ${card.action}`;
  },
  approval_closed({ approval, answer: how, over }) {
    approvals.get(approval)?.close(how, over);
  },
  grants_changed() {
    asked.load();
  },
  answer_refused({ approval, text }) {
    approvals.get(approval)?.refused(text);
  },
  reply({ turn: id, text }) {
    const known = replied.has(id);
    const parts = turn?.id === id ? turn.parts : [];
    finish(id);
    // It may have reached the transcript before this stream.
    if (known || (catchingUp && text === lastReply)) return;
    replied.add(id);
    lastReply = text;
    keepAtEnd(() => {
      // The whole answer takes the place of the piece that it ends with, so that it stays above
      // what was written meanwhile. What it says again need not stand there twice.
      const said = parts.filter((part) => text.includes(part.text.trim()));
      const whole = answer(text);
      if (said.length > 0) said.at(-1).node.before(whole);
      else view.log.append(whole);
      for (const part of said) part.node.remove();
    });
  },
  notice({ ends_turn: ended, text }) {
    if (ended !== null) finish(ended);
    keepAtEnd(() => view.log.append(notice(text)));
  },
};

function take(event) {
  if (link.stream === "logged out") return;
  if (early !== null && event.type !== "link") {
    early.push(event);
    return;
  }
  on[event.type]?.(event);
  showWorking();
}

function finish(id) {
  if (turn?.id !== id) return;
  closePart();
  turn = null;
}

function closePart() {
  if (!turn?.open) return;
  const part = turn.open;
  turn.open = null;
  draw(part);
}

// A part that grows is drawn once a frame.
function redraw(part) {
  if (part.waits) return;
  part.waits = true;
  requestAnimationFrame(() => {
    part.waits = false;
    keepAtEnd(() => draw(part));
  });
}

function draw(part) {
  part.node.replaceChildren(markdown(part.text));
  if (part === turn?.open) lastBlock(part.node).append(element("span", "caret"));
}

// Where the text goes on.
function lastBlock(node) {
  const last = node.lastElementChild;
  return last?.matches("p, ul, ol, li, blockquote, pre, pre code, h3, h4, h5, h6") ? lastBlock(last) : node;
}

// Pieces of the log.

function said(text) {
  return element("div", "said-by-me", element("p", "bubble", text));
}

function answer(text) {
  const node = element("article", "answer", markdown(text));
  node.dir = "auto";
  return node;
}

function notice(text) {
  return element("p", "notice", text);
}

function placeCall(card) {
  const key = `${card.turn}/${card.call}`;
  const known = calls.get(key);
  if (known) return known.update(card);
  const call = new CallView(card);
  calls.set(key, call);
  view.log.append(call.node);
}

// What the person does.

async function submit() {
  const text = view.text.value.trim();
  if (text === "") return;
  if (text === "/stop") {
    view.text.value = "";
    return stop();
  }
  if (new TextEncoder().encode(text).length > LONGEST_TEXT) {
    view.alert.textContent = "This message is too long.";
    view.text.setCustomValidity("This message is too long.");
    view.text.reportValidity();
    return;
  }
  view.text.value = "";
  fit();
  const id = crypto.randomUUID();
  const node = said(text);
  mine.set(id, node);
  const state = element("p", "unsent");
  node.append(state);
  unsent.push(node);
  view.log.append(node);
  showWorking();
  toEnd();
  await deliver(id, text, state);
  unsent.splice(unsent.indexOf(node), 1);
}

// Sends until it is accepted or refused for good; the same id makes it one message.
async function deliver(id, text, state) {
  for (const pause of waits()) {
    try {
      await post("/message", { id, text });
      state.remove();
      return;
    } catch (error) {
      state.textContent = error.message;
      if (!(error instanceof Problem) || !error.passes) {
        state.classList.add("failed");
        if (view.text.value === "") view.text.value = text;
        fit();
        return;
      }
      keepAtEnd(() => (state.textContent = `${error.message} Your message is kept and sent again.`));
    }
    await wait(pause);
  }
}

async function stop() {
  try {
    await post("/stop");
    view.workingText.textContent = "Stopping";
  } catch (error) {
    view.alert.textContent = error.message;
  }
}

async function logOut() {
  try {
    await post("/logout");
  } catch {
    // The half that is kept here is forgotten in any case.
  }
  forgetLogin();
  showLogin("You are logged out.");
}

// The frame around it.

function showLogin(reason) {
  view.login.hidden = false;
  view.reason.hidden = !reason;
  view.reason.textContent = reason;
  for (const node of [view.foot, view.logout, view.views, view.empty, view.working]) node.hidden = true;
  view.log.replaceChildren();
  approvals = new Map();
  asked.clear();
  link.stream = "logged out";
  showView();
  showStatus();
}

function showChat() {
  view.login.hidden = true;
  view.foot.hidden = false;
  view.logout.hidden = false;
  view.views.hidden = false;
  showView();
  showStatus();
  // On a phone this would bring up the keyboard.
  if (!matchMedia("(pointer: coarse)").matches) view.text.focus();
}

// The conversation, or what waits for an answer.
function showView() {
  asked.mark(link.stream === "logged out");
  freeze.mark(link.stream === "logged out");
  asked.gather(approvals.values());
}

function showWorking() {
  asked.tell([...approvals.values()].filter((approval) => approval.open).length);
  const asks = [...approvals.values()].some((approval) => approval.open);
  view.working.hidden = turn === null || asks || Boolean(turn.open);
  view.workingText.textContent = "Thinking";
  view.stop.hidden = turn === null;
  view.send.hidden = turn !== null && view.text.value.trim() === "";
  view.empty.hidden = view.log.childElementCount > 0 || early !== null;
  document.title = asks ? "Your answer is needed · Bulkhead" : "Bulkhead";
  showStatus(asks);
}

function showStatus(asks = [...approvals.values()].some((approval) => approval.open)) {
  const [state, text] = statusNow(asks);
  if (view.status.dataset.state !== state) view.status.dataset.state = state;
  if (view.status.textContent !== text) view.status.textContent = text;
}

function statusNow(asks) {
  if (link.stream === "logged out") return ["out", "Not logged in"];
  if (link.stream === "connecting") return ["connecting", "Connecting"];
  if (link.stream === "lost") return ["lost", "Reconnecting"];
  if (link.gateway !== "up") return ["lost", "Gateway is restarting"];
  if (asks) return ["asks", "Needs your answer"];
  if (turn !== null) return ["working", "Working"];
  return ["ready", "Ready"];
}

function fit() {
  view.text.setCustomValidity("");
  keepAtEnd(() => {
    view.text.style.height = "auto";
    view.text.style.height = `${view.text.scrollHeight}px`;
  });
  view.send.hidden = turn !== null && view.text.value.trim() === "";
}

// Somebody who reads further up stays there.
function keepAtEnd(change) {
  const page = document.scrollingElement;
  const atEnd = !asked.shown && page.scrollHeight - page.scrollTop - page.clientHeight < 120;
  change();
  if (atEnd) toEnd();
}

function toEnd() {
  const page = document.scrollingElement;
  page.scrollTop = page.scrollHeight;
}
