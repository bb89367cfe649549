// Cards: what a tool call is and where it stands, and what a person is asked.

import { element } from "/markdown.js";
import { Problem, post } from "/link.js";
import { sign } from "/passkeys.js";

const CALL_STATES = {
  waiting: "Waiting for you",
  running: "Running",
  done: "Done",
  failed: "Failed",
  refused: "Not run",
  unknown: "Outcome unknown",
};

// Where an answer came from that counts.
const PLACES = { operator: "in a terminal", terminal: "in a terminal", web: "on the page" };

const ANSWERS = {
  approve: "Approved",
  deny: "Denied",
  expired: "Expired without an answer, which means no",
  cancelled: "No longer needed",
};

// The longest reason for a no; the server counts bytes.
const LONGEST_REASON = 1000;

// A click within this time after the card came into view was meant for something else.
const UNSEEN = 700;

export class CallView {
  constructor(card) {
    this.state = element("span", "call-state");
    this.title = element("code", "call-title");
    this.output = element("pre", "output");
    this.summary = element("summary", "", element("span", "dot"), this.title, this.state);
    this.node = element("details", "card call", this.summary, this.output);
    this.summary.addEventListener("click", (event) => {
      if (this.output.textContent === "") event.preventDefault();
    });
    this.update(card);
  }

  update(card) {
    this.node.dataset.state = card.state;
    this.node.dataset.detail = card.detail === "" ? "none" : "some";
    this.title.textContent = card.title;
    this.state.textContent = CALL_STATES[card.state] ?? card.state;
    this.output.textContent = card.detail;
  }
}

export class ApprovalView {
  constructor(card) {
    this.card = card;
    this.ready = false;
    this.busy = "";       // "signing" while the passkey is asked for, "sending" after that
    this.home = document.createComment("");
    this.expires = element("span", "expires");
    this.note = element("p", "note");
    this.note.setAttribute("role", "status");
    this.deny = this.button("deny", "Deny");
    this.approve = this.button("approve", this.signed ? "Approve with passkey" : "Approve");
    this.reason = this.reasonField();
    const id = `approval-${card.approval}`;
    const title = element("h3", "", "May I do this?");
    title.id = id;
    title.tabIndex = -1;
    this.title = title;
    this.body = element("div", "approval-body", element("pre", "action", card.action), ...facts(card));
    this.buttons = element("div", "buttons", this.expires, this.deny, this.approve);
    const label = element("label", "why", "If you deny, why? (Optional; the model is told.)", this.reason);
    this.foot = element("div", "approval-foot", label, this.buttons);
    this.node = element("section", "card approval", title, this.body, this.note, this.foot);
    this.node.setAttribute("aria-labelledby", id);
    this.node.dataset.state = "open";
    this.node.dataset.expires = card.expires;
    this.tick();
    this.watch();
  }

  // Whether a yes has to be signed: a click is not enough.
  get signed() {
    return this.card.needs !== "answer";
  }

  get open() {
    return this.node.dataset.state === "open";
  }

  // Shows how much time is left.
  tick() {
    if (!this.open) return;
    const seconds = Math.max(0, Math.ceil((this.card.expires - Date.now()) / 1000));
    const clock = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    this.expires.textContent = seconds > 0 ? `No answer in ${clock} means no` : "Time is up";
    if (seconds === 0) this.refresh();
  }

  // It is over; the answer that came `over` a channel is the one that counts.
  close(answer, over) {
    const now = document.activeElement;
    // A button that was pressed and cannot be pressed any more has lost the focus.
    const here = this.foot.contains(now) || (this.busy === "sending" && now === document.body);
    const place = over === null ? "" : ` ${PLACES[over] ?? `over ${over}`}`;
    this.node.dataset.state = answer;
    this.title.textContent = `${ANSWERS[answer] ?? answer}${place}`;
    this.note.textContent = "";
    this.asking?.abort();
    this.foot.remove();
    this.seen?.disconnect();
    // Whoever goes on with the keyboard goes on with the next.
    if (here) this.title.focus({ preventScroll: true });
  }

  refused(text) {
    this.note.textContent = this.open ? text : `Your answer did not count: ${text}`;
    this.busy = "";
    this.refresh();
  }

  // It stands in the conversation, behind its mark there.
  goHome() {
    if (this.node.previousSibling === this.home) return;
    this.leaveHome();
    this.home.after(this.node);
  }

  // It moves: what is clicked at its new place has to be seen there first.
  leaveHome() {
    this.ready = false;
    this.refresh();
    if (this.open) this.watch();
  }

  reasonField() {
    const field = element("input", "reason");
    field.type = "text";
    field.maxLength = LONGEST_REASON;
    field.autocomplete = "off";
    field.addEventListener("input", () => this.refresh());
    // Enter can only be a no.
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.isComposing) return;
      event.preventDefault();
      if (!this.deny.disabled) this.answer("deny");
    });
    return field;
  }

  button(answer, label) {
    const node = element("button", answer, label);
    node.type = "button";
    node.disabled = true;
    node.addEventListener("click", () => this.answer(answer));
    return node;
  }

  // The buttons work once the card has been in view for a moment.
  watch() {
    this.seen?.disconnect();
    clearTimeout(this.timer);
    this.seen = new IntersectionObserver((entries) => {
      clearTimeout(this.timer);
      const inView = entries.some((entry) => entry.isIntersecting);
      if (inView && this.open && !this.ready) {
        this.timer = setTimeout(() => {
          this.ready = true;
          this.refresh();
        }, UNSEEN);
      }
    });
    this.seen.observe(this.buttons);
  }

  // Whoever writes why not does not mean yes.
  refresh() {
    const usable = this.open && this.ready && this.card.expires > Date.now();
    this.deny.disabled = !usable || this.busy === "sending";
    this.approve.disabled = !usable || this.busy !== "" || this.reason.value.trim() !== "";
  }

  async answer(answer) {
    if (!this.ready || !this.open) return;
    this.asking?.abort();
    const { approval, digest, nonce } = this.card;
    const said = { approval, digest, nonce, answer };
    if (answer === "deny") said.reason = this.reason.value.trim();
    try {
      if (answer === "approve" && this.signed) said.passkey = await this.sign(digest);
      this.busy = "sending";
      this.refresh();
      this.note.textContent = answer === "approve" ? "Approving…" : "Denying…";
      await post("/answer", said);
    } catch (error) {
      // A no that came meanwhile has its own words.
      if (this.asking?.signal.aborted && answer === "approve") return;
      this.refused(error instanceof Problem ? error.message : "Your answer was not sent. Try again.");
    }
  }

  // While the passkey is asked for, no can still be said.
  async sign(digest) {
    this.asking = new AbortController();
    this.note.textContent = "Use your passkey to sign exactly this…";
    this.busy = "signing";
    this.refresh();
    try {
      return await sign(digest, this.asking.signal);
    } catch (error) {
      throw new Problem(0, `${error.message} ${this.elsewhere}`);
    }
  }

  get elsewhere() {
    return `Enrol one with \`bulkhead passkey add\`, or approve in a terminal: bulkhead approvals approve ${this.card.approval}`;
  }
}

function facts(card) {
  const list = element("dl", "facts", ...fact("Why I ask", card.reason), ...fact("A yes covers", card.covers));
  if (card.needs !== "answer") {
    list.append(...fact("A yes needs", `Your passkey, here; or in a terminal: bulkhead approvals approve ${card.approval}`));
  }
  if (card.said.trim() === "") return [list];
  const quote = element("figure", "said", element("figcaption", "", "What the model says about it. Do not rely on it."),
    element("blockquote", "", card.said));
  return [list, quote];
}

function fact(name, text) {
  return [element("dt", "", name), element("dd", "", text)];
}
