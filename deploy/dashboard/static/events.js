// What happened, newest first, in the words of who saw it.

import { find, keyed, make, say } from "/static/dom.js";
import { clock } from "/static/words.js";

const KEPT = 200;

export class EventsView {
  constructor() {
    this.reset();
  }

  reset() {
    this.events = [];
    this.#draw();
  }

  heard(events) {
    const all = new Map([...this.events, ...events].map((event) => [name(event), event]));
    this.events = [...all.values()].sort((one, two) => one.time_s - two.time_s).slice(-KEPT);
    this.#draw();
  }

  #draw() {
    find("#events-empty").hidden = this.events.length > 0;
    find("#events").hidden = !this.events.length;
    keyed(find("#events"), this.events.toReversed(), {
      key: name,
      create: (event) => {
        const when = make("time", { datetime: new Date(1000 * event.time_s).toISOString() });
        return make("li", {}, when, make("div", {}, ...told(event)));
      },
      fill: (node, event) => say(find("time", node), clock(event.time_s)),
    });
  }
}

// One line and who said it; what follows, such as a stack, opens on demand.
function told(event) {
  const [first, ...more] = (event.text ?? "").split("\n");
  const kind = event.kind.replaceAll("_", " ");
  const line = [make("b", {}, kind[0].toUpperCase() + kind.slice(1)), first ? `: ${first} ` : " ", make("small", {}, who(event))];
  const rest = more.join("\n").trim();
  return rest ? [make("details", {}, make("summary", {}, ...line), make("pre", {}, rest))] : line;
}

const name = ({ time_s, role, slot, kind, text }) => `${time_s} ${role} ${slot} ${kind} ${text}`;
const who = ({ role, slot }) => (role === "actor" ? `actor ${slot}` : role ?? "");
