// Calls to the services through the gateway, and what went wrong in words.

// Problem is a call that failed. `text` says what it means to the person at the screen.
export class Problem extends Error {
  constructor(text, { status = 0, unknown = false } = {}) {
    super(text);
    this.status = status;
    // True where the change may have been kept all the same.
    this.unknown = unknown;
  }
}

let answered = () => {};

// onAnswer is told the name of each node that answered, and for what.
export function onAnswer(listener) {
  answered = listener;
}

// call sends JSON and returns JSON. It never sends a change twice: whoever sees a Problem decides.
export async function call(method, path, body, what = "") {
  const headers = { "holdfast-explain": "1" };
  if (body !== undefined) headers["content-type"] = "application/json";
  let reply;
  try {
    reply = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(10_000),
    });
  } catch (err) {
    const late = err.name === "TimeoutError";
    throw new Problem(
      late ? "No answer within 10 seconds." : "The gateway can't be reached. Is the demo still running?",
      // Whether a change got through before the connection broke can't be known from here.
      { unknown: method !== "GET" },
    );
  }
  const node = /node=([^;,\s]+)/.exec(reply.headers.get("holdfast-explain") ?? "")?.[1];
  if (node) answered(node, what);
  const text = await reply.text().catch(() => "");
  if (reply.ok) {
    try {
      return text ? JSON.parse(text) : {};
    } catch {
      throw new Problem("The answer is not JSON: something else than the services answered.", { status: reply.status });
    }
  }
  throw new Problem(explain(reply.status, text), {
    status: reply.status,
    unknown: reply.headers.get("holdfast-outcome") === "unknown" || (reply.status === 504 && method !== "GET"),
  });
}

function explain(status, text) {
  let message = "";
  try {
    message = JSON.parse(text).message ?? "";
  } catch {
    // Not ours: say the status.
  }
  const lead = {
    404: "There is nothing at that address",
    429: "Too much at once, or too much to keep",
    502: "The gateway got no proper answer",
    503: "Not available right now, nothing was changed",
    504: "It took too long",
  }[status];
  if (lead) return message ? `${lead}: ${message}.` : `${lead}.`;
  return message ? `${message[0].toUpperCase()}${message.slice(1)}.` : `The call failed with HTTP status ${status}.`;
}
