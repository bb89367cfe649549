// The view of what waits for an answer, and of what was allowed for a while. Each question has
// its own card and its own answer; nothing here answers more than one.

import { Problem, get, post } from "/link.js";
import { element } from "/markdown.js";

const AT = "#approvals";
const DAY = 86_400_000;
const byId = (id) => document.getElementById(id);

export class ApprovalsView {
  constructor() {
    this.title = byId("approvals-title");
    this.lead = byId("approvals-lead");
    this.list = byId("questions");
    this.grantsTitle = byId("grants-title");
    this.grantsNote = byId("grants-note");
    this.grantsNone = byId("grants-none");
    this.grants = byId("grants");
    this.count = byId("waiting");
    this.links = [byId("to-chat"), byId("to-approvals")];
    this.rows = new Map();  // grant number to its row
    this.login = 0;         // which login this is
  }

  get shown() {
    return location.hash === AT;
  }

  // Marks which view is shown; `login` shows neither.
  mark(login) {
    document.body.dataset.view = login ? "login" : this.shown ? "approvals" : "chat";
    for (const link of this.links) {
      const current = (link.hash === AT) === this.shown;
      link.setAttribute("aria-current", current ? "page" : "false");
    }
  }

  // Has the open questions here while it is shown, and in the conversation while it is not.
  gather(approvals) {
    for (const approval of approvals) {
      if (!this.shown) approval.goHome();
      else if (approval.open) this.place(approval);
    }
  }

  // The one that is over first stands first. Cards that are there already stay where they are,
  // so that nothing moves under a hand.
  place(approval) {
    const { node, card } = approval;
    if (node.parentNode === this.list) return;
    const later = [...this.list.children].find((other) => Number(other.dataset.expires) > card.expires);
    approval.leaveHome();
    this.list.insertBefore(node, later ?? null);
  }

  // Says how many wait.
  tell(open) {
    this.count.hidden = open === 0;
    this.count.textContent = String(open);
    this.count.setAttribute("aria-label", open === 1 ? "1 waits" : `${open} wait`);
    const lead = open === 0 ? "Nothing waits for your answer."
      : "Each is answered by itself, with exactly what would run. There is no yes to all of them.";
    if (this.lead.textContent !== lead) this.lead.textContent = lead;
  }

  clear() {
    this.login += 1;
    this.list.replaceChildren();
    this.grants.replaceChildren();
    this.rows.clear();
    this.grantsNote.textContent = "";
    this.tell(0);
  }

  // Shows the grants as they are now.
  async load() {
    if (!this.shown) return;
    const { login } = this;
    try {
      const { grants, more } = await get("/grants");
      // Whoever logged out meanwhile leaves nothing behind.
      if (this.login !== login) return;
      this.draw(grants);
      if (more > 0) this.grantsNote.textContent = `There are ${more} older ones: bulkhead grants list`;
    } catch (error) {
      this.grantsNote.textContent = error.message;
    }
  }

  draw(grants) {
    const there = new Set(grants.map(({ grant }) => grant));
    for (const number of this.rows.keys()) {
      if (!there.has(number)) this.drop(number);
    }
    for (const grant of grants) {
      if (this.rows.has(grant.grant)) continue;
      const row = new GrantRow(grant, () => this.revoke(grant.grant));
      this.rows.set(grant.grant, row);
      this.grants.append(row.node);
    }
    this.grantsNone.hidden = this.rows.size > 0;
  }

  drop(number) {
    const row = this.rows.get(number);
    if (!row) return;
    // Whoever goes on with the keyboard starts again at the head of the list.
    const here = row.node.contains(document.activeElement);
    this.rows.delete(number);
    row.node.remove();
    if (here) this.grantsTitle.focus();
    this.grantsNone.hidden = this.rows.size > 0;
  }

  async revoke(number) {
    const row = this.rows.get(number);
    row.button.disabled = true;
    try {
      await post("/revoke", { grant: number });
      this.grantsNote.textContent = "Revoked: from the next call on, you are asked again.";
      this.drop(number);
    } catch (error) {
      row.button.disabled = false;
      this.grantsNote.textContent = error instanceof Problem ? error.message : "It was not revoked. Try again.";
      // It may be gone already.
      if (error.status === 422) this.load();
    }
  }

  // What is over by the clock goes without being asked.
  tick() {
    for (const [number, row] of this.rows) {
      if (row.expires <= Date.now()) this.drop(number);
    }
  }
}

class GrantRow {
  constructor({ grant, what, covers, expires }, revoke) {
    this.expires = expires;
    const action = element("pre", "action", what);
    action.id = `grant-${grant}`;
    this.button = element("button", "revoke", "Revoke");
    this.button.type = "button";
    this.button.setAttribute("aria-describedby", action.id);
    this.button.addEventListener("click", revoke);
    const words = element("p", "covers", `Covers ${covers}; until `, until(expires), ".");
    this.node = element("li", "card grant", action, element("div", "grant-foot", words, this.button));
  }
}

function until(expires) {
  const date = new Date(expires);
  const days = Math.floor((expires - Date.now()) / DAY);
  const left = days < 1 ? "less than a day" : days === 1 ? "a day" : `${days} days`;
  const node = element("time", "", `${date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" })} (${left})`);
  node.dateTime = date.toISOString();
  return node;
}
