// Asks before anything happens that cannot be taken back.

import { find, say } from "/static/dom.js";

export function confirmed({ title, text, yes }) {
  const dialog = find("#confirm");
  say(find("#confirm-title"), title);
  say(find("#confirm-text"), text);
  say(find("#confirm-yes"), yes);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
