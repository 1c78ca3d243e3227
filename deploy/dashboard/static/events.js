// What happened, newest first, in the words of who saw it.

import { find, keyed, make, say } from "/static/dom.js";
import { clock, happening, known } from "/static/words.js";

const KEPT = 200;
const LAST_S = 8.64e12; // what a Date can hold; an event may claim any time

export class EventsView {
  constructor() {
    this.reset();
  }

  reset() {
    this.events = [];
    this.ended(false);
    this.#draw();
  }

  // Of an ended run its folder is left; events were never in it.
  ended(ended) {
    say(find("#events-empty"), ended ? "Events are kept only while the run's Redis lives." : "Nothing has happened yet.");
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
        const when = make("time", { datetime: dated(event) ? new Date(1000 * event.time_s).toISOString() : null });
        return make("li", {}, when, make("div", {}, ...told(event)));
      },
      fill: (node, event) => say(find("time", node), clock(dated(event) ? event.time_s : null)),
    });
  }
}

// One line and who said it; what follows, such as a stack, opens on demand.
function told(event) {
  const [first, ...more] = String(event.text ?? "").split("\n");
  const line = [make("b", {}, happening(event.kind)), first ? `: ${first} ` : " ", make("small", {}, who(event))];
  const rest = more.join("\n").trim();
  return rest ? [make("details", {}, make("summary", {}, ...line), make("pre", {}, rest))] : line;
}

const dated = ({ time_s }) => known(time_s) && Math.abs(time_s) <= LAST_S;
const name = ({ time_s, role, slot, kind, text }) => `${time_s} ${role} ${slot} ${kind} ${text}`;
const who = ({ role, slot }) => (role === "actor" ? `actor ${slot}` : role ?? "");
