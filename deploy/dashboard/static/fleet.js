// Who works for the run, what each is doing, and the buttons that change it.

import { tell } from "/static/api.js";
import { confirmed } from "/static/confirm.js";
import { find, keyed, make, say, setAttribute } from "/static/dom.js";
import { ago, duration, number, UNKNOWN } from "/static/words.js";

const CELLS = [
  ["who", "Who"], ["doing", "Doing"], ["host", "Host"], ["env", "Environment"], ["num", "Steps/s"], ["num", "Policy"],
  ["num", "Policy age"], ["num", "Return"], ["num", "Last seen"], ["tools", ""],
];
const ASKS = {
  drain: { title: "Drain", text: "It finishes what it holds, hands it over and stays away until it is started again.", yes: "Drain it" },
  restart: { title: "Restart", text: "It hands over what it holds and a new process takes its place.", yes: "Restart it" },
};

export class FleetView {
  // failed(message): says in the page why something was refused.
  constructor({ failed }) {
    this.failed = failed;
    find("#fewer").addEventListener("click", () => this.#scale(-1));
    find("#more").addEventListener("click", () => this.#scale(+1));
    this.reset(null);
  }

  reset(run) {
    this.run = run;
    this.show(null, null, true);
  }

  show(fleet, now_s, ended) {
    this.desired = fleet?.desired ?? null;
    const fixed = ended || this.desired === null;
    find("#more").disabled = fixed;
    find("#fewer").disabled = fixed || this.desired < 1;
    say(find("#desired"), ended ? UNKNOWN : (this.desired ?? UNKNOWN));
    say(find("#fleet-count"), fleet && !ended ? counts(fleet) : "");
    const missing = (row) => !row.up && !row.held && !ended; // who is not as wished comes first
    const rows = (fleet?.rows ?? []).toSorted((one, two) => missing(two) - missing(one));
    find("#fleet-empty").hidden = rows.length > 0;
    say(find("#fleet-empty"), ended ? "The run has ended; nobody works for it." : "Nobody has reported yet.");
    find("#fleet-scroll").hidden = !rows.length;
    keyed(find("#fleet-rows"), rows, {
      key: (row) => `${row.role} ${row.slot}`,
      create: (row) => this.#row(row),
      fill: (node, row) => fill(node, row, now_s, ended),
    });
  }

  async #scale(delta) {
    if (delta < 0 && this.desired === 1) {
      const ask = { title: "No actors", text: "With no actor left nothing new arrives; the learner waits for it.", yes: "Let the last one go" };
      if (!(await confirmed(ask))) return;
    }
    await this.#tell("/api/scale", { delta }, ({ desired }) => {
      this.desired = desired;
      say(find("#desired"), desired);
      find("#fewer").disabled = desired < 1;
    });
  }

  async #tell(path, body, then = () => {}) {
    try {
      then(await tell(path, { run: this.run, ...body }));
      this.failed(null);
    } catch (error) {
      this.failed(error.message);
    }
  }

  #row({ role, slot }) {
    const row = make("tr", { role: "row" });
    for (const [name, label] of CELLS) row.append(make("td", { role: "cell", class: name, "data-label": label }));
    for (const action of ["drain", "restart", "start"]) {
      const button = make("button", { type: "button", "data-action": action, "aria-label": `${action} ${role} ${slot}` });
      button.textContent = action[0].toUpperCase() + action.slice(1);
      button.addEventListener("click", async () => {
        const ask = ASKS[action];
        if (ask && !(await confirmed({ ...ask, title: `${ask.title} ${role} ${slot}?` }))) return;
        await this.#tell("/api/slot", { slot, action });
      });
      row.lastElementChild.append(button);
    }
    return row;
  }
}

function counts({ running, starting, pending }) {
  const parts = [`${running} running`];
  if (starting) parts.push(`${starting} starting`);
  if (pending) parts.push(`${pending} pending`);
  return `${parts.join(", ")}; wanted`;
}

function fill(node, row, now_s, ended) {
  const texts = [
    row.role === "actor" ? `actor ${row.slot}` : row.role,
    [row.doing, row.reason].filter(Boolean).join(": ") || (row.up ? "running" : "away"),
    row.host ?? UNKNOWN,
    row.env ?? UNKNOWN,
    number(row.steps_per_s),
    row.policy_version === null || row.policy_version === undefined ? UNKNOWN : `v${row.policy_version}`,
    duration(row.policy_age_s),
    number(row.return_mean),
    row.last_seen_s === null || row.last_seen_s === undefined ? UNKNOWN : ago(now_s - row.last_seen_s),
  ];
  setAttribute(node, "data-up", row.up && !ended ? "yes" : ended || row.held ? "held" : "no");
  texts.forEach((text, index) => {
    say(node.children[index], text);
    if (index === 2 || index === 3) node.children[index].title = text;
  });
  const steered = row.restartable && !ended;
  for (const button of node.lastElementChild.children) {
    const start = button.dataset.action === "start";
    button.hidden = !steered || start !== Boolean(row.held);
  }
}
