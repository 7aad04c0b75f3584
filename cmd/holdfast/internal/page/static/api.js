// Calls to the page's own server. The token came in the URL's fragment, which the browser sends to nobody.

const KEPT = "token";

// take finds the token: in the fragment, where it is taken out so that it is not copied along, or kept from before.
export function take() {
  const parts = new URLSearchParams(location.hash.slice(1));
  const fresh = parts.get("token");
  if (fresh) {
    keep(fresh);
    const entity = parts.get("entity");
    history.replaceState(null, "", `${location.pathname}${entity ? `#${entity}` : ""}`);
    return fresh;
  }
  try {
    return sessionStorage.getItem(KEPT) ?? "";
  } catch {
    return "";
  }
}

function keep(token) {
  try {
    sessionStorage.setItem(KEPT, token);
  } catch {
    // Then a reload needs the whole address again.
  }
}

// Refused says that the token is not the one of the mesh that runs now.
export class Refused extends Error {}

export async function call(token, method, path, body) {
  const reply = await fetch(path, {
    method,
    headers: { authorization: `Bearer ${token}`, ...(body === undefined ? {} : { "content-type": "application/json" }) },
    body: body === undefined ? undefined : JSON.stringify(body),
    signal: AbortSignal.timeout(10_000),
  });
  const answer = await reply.json().catch(() => ({}));
  if (reply.status === 401) throw new Refused(answer.error);
  if (!reply.ok) throw new Error(answer.error ?? `HTTP status ${reply.status}`);
  return answer;
}
