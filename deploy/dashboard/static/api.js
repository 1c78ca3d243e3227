// What the page asks of its own host, and nothing else.

export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

const SESSION_OVER = "This page may no longer ask. Open the address with the token again: dreamfleet status prints it.";

async function answer(response) {
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  const text = response.status === 401 ? SESSION_OVER : body.error || `refused (${response.status})`;
  throw new Refused(text, response.status);
}

// path with the known parameters, encoded.
export function address(path, parameters = {}) {
  const known = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return known.length ? `${path}?${new URLSearchParams(known)}` : path;
}

export async function ask(path, parameters) {
  return answer(await fetch(address(path, parameters), { signal: AbortSignal.timeout(20000) }));
}

export async function tell(path, body) {
  return answer(
    await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(20000),
    }),
  );
}
