// Numbers as people say them. Unknown is an en dash.

export const UNKNOWN = "\u2013";
export const known = (value) => typeof value === "number" && Number.isFinite(value);

// About three digits: 0.0123, 4.56, 78.9, 1,234.
export function number(value) {
  if (!known(value)) return UNKNOWN;
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(1);
  const digits = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

// Whole things: 7, 9,999, 12.3k, 4.5M.
export function count(value) {
  if (!known(value)) return UNKNOWN;
  for (const [unit, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (Math.abs(value) >= (unit === 1e3 ? 1e4 : unit)) return `${trim(value / unit)}${letter}`;
  }
  return Math.round(value).toLocaleString("en");
}

const trim = (value) => value.toLocaleString("en", { maximumFractionDigits: Math.abs(value) >= 100 ? 0 : 1 });

export function bytes(value) {
  if (!known(value)) return UNKNOWN;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let step = 0;
  while (value >= 1024 && step < units.length - 1) {
    value /= 1024;
    step += 1;
  }
  return `${trim(value)} ${units[step]}`;
}

export const percent = (ratio) => (known(ratio) ? `${few(100 * ratio)} %` : UNKNOWN);
const few = (value) => value.toLocaleString("en", { maximumFractionDigits: Math.abs(value) < 10 ? 1 : 0 });

// 0.4 s, 12 s, 3 min 20 s, 2 h 05 min, 3 d 4 h.
export function duration(seconds) {
  if (!known(seconds)) return UNKNOWN;
  if (seconds < 10) return `${Math.max(0, seconds).toFixed(seconds < 1 ? 1 : 0)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const [days, hours, minutes] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60];
  if (days) return hours ? `${days} d ${hours} h` : `${days} d`;
  if (hours) return `${hours} h ${String(minutes).padStart(2, "0")} min`;
  const rest = whole % 60;
  return minutes < 10 && rest ? `${minutes} min ${rest} s` : `${minutes} min`;
}

export const ago = (seconds) => (known(seconds) ? (seconds < 2 ? "now" : `${duration(seconds)} ago`) : UNKNOWN);

// The time of day of a Unix time [s]; with the day when it was not today.
export function clock(time_s, now = Date.now()) {
  if (!known(time_s)) return UNKNOWN;
  const when = new Date(1000 * time_s);
  const time = when.toLocaleTimeString("en-GB");
  const today = new Date(now).toDateString() === when.toDateString();
  return today ? time : `${when.toLocaleDateString("en-GB", { day: "numeric", month: "short" })} ${time}`;
}

// An event's kind, as people say it; one without words of its own as it was written.
export function happening(kind) {
  const written = typeof kind === "string" ? kind.replaceAll("_", " ").trim() : "";
  return HAPPENINGS.get(kind) ?? (written ? written[0].toUpperCase() + written.slice(1) : "Something happened");
}

const HAPPENINGS = new Map([
  ["actor_claimed", "An actor took its place"], ["actor_pending", "An actor waits for room"],
  ["actor_drained", "An actor left"], ["actor_fenced", "An actor was replaced"],
  ["actor_died", "An actor died"], ["policy_awaited", "An actor waits for a safe policy"],
  ["chunk_rejected", "Chunks were invalid"], ["gap", "Chunks are missing"], ["steps_lost", "Steps cannot be read any more"],
  ["not_finite", "Training diverged"], ["disk_full", "The disk is full"], ["disk_has_room", "The disk has room again"],
]);
