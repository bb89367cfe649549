// The button that freezes everything, and the question before it.

import { post } from "/link.js";

const byId = (id) => document.getElementById(id);

export class FreezeView {
  constructor() {
    this.button = byId("panic");
    this.home = byId("freeze");
    this.title = byId("freeze-title");
    this.note = byId("freeze-note");
    this.yes = byId("freeze-yes");
    this.button.addEventListener("click", () => this.show(this.home.hidden));
    byId("freeze-no").addEventListener("click", () => this.show(false));
    this.yes.addEventListener("click", () => this.freeze());
  }

  // Whoever is logged out has no button.
  mark(loggedOut) {
    this.button.hidden = loggedOut;
    if (loggedOut) this.show(false);
  }

  show(open) {
    this.home.hidden = !open;
    this.button.setAttribute("aria-expanded", String(open));
    this.note.textContent = "";
    this.yes.disabled = false;
    if (open) this.title.focus();
  }

  async freeze() {
    this.yes.disabled = true;
    this.note.textContent = "Freezing";
    try {
      await post("/panic");
      this.show(false);
    } catch (error) {
      this.note.textContent = `${error.message} In a terminal, \`bulkhead panic\` works without this page.`;
      this.yes.disabled = false;
    }
  }
}
