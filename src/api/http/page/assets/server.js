/** All that is said to the server. Paths are relative, so that the page works below a proxy's prefix too. */

const KEY = "dept-api-key";

/** The API key lives as long as the tab and goes nowhere but to this server. */
export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (text) => (text ? sessionStorage.setItem(KEY, text) : sessionStorage.removeItem(KEY)),
};

/** What the server refused, or that it could not be reached. */
export class Failure extends Error {
  constructor(message, more = {}) {
    super(message);
    Object.assign(this, more);
  }

  static of(status, text) {
    try {
      const { message, code, param, request_id } = JSON.parse(text).error;
      return new Failure(message, { status, code, param, request: request_id });
    } catch {
      return new Failure(`The server answered ${status}.`, { status });
    }
  }
}

export const base = new URL(".", document.baseURI);

export function headers(more = {}) {
  return key.get() ? { ...more, authorization: `Bearer ${key.get()}` } : more;
}

async function send(method, path, body, signal) {
  const json = body === undefined ? {} : { "content-type": "application/json" };
  let response;
  try {
    response = await fetch(new URL(path, base), {
      method, signal, headers: headers(json), body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The server can't be reached. Is it still running?");
  }
  if (!response.ok) throw Failure.of(response.status, await response.text());
  return response;
}

/** Asks and reads JSON; nothing where there is no body. */
export async function call(method, path, body, signal) {
  const response = await send(method, path, body, signal);
  return response.status === 204 ? undefined : response.json();
}

/** The events of a streamed generation, parsed, until [DONE]. */
export async function* events(body, signal) {
  const response = await send("POST", "v1/generate", { ...body, stream: true }, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Failure("The stream broke off before its end.");
    const frames = (rest + value).split("\n\n");
    rest = frames.pop();
    for (const frame of frames) {
      const data = frame.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart()).join("\n");
      if (!data) continue;
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw Failure.of(200, data);
      yield event;
    }
  }
}

/** A page of adapters whose names contain `search`. */
export function adapters(search, after, signal) {
  const query = new URLSearchParams({ limit: "50" });
  if (search) query.set("search", search);
  if (after) query.set("after", after);
  return call("GET", `v1/adapters?${query}`, undefined, signal);
}

/** Uploads files; `progress` is told the share that has been sent. */
export function upload(name, body, { type, replace, progress }) {
  return new Promise((resolve, reject) => {
    // fetch tells nothing of how much has been sent.
    const request = new XMLHttpRequest();
    request.open("PUT", new URL(`v1/adapters/${encodeURIComponent(name)}`, base));
    const fields = headers({ ...(type ? { "content-type": type } : {}), ...(replace ? {} : { "if-none-match": "*" }) });
    for (const [field, value] of Object.entries(fields)) request.setRequestHeader(field, value);
    request.upload.addEventListener("progress", (event) => event.lengthComputable && progress(event.loaded / event.total));
    request.addEventListener("load", () =>
      request.status < 300 ? resolve(JSON.parse(request.responseText)) : reject(Failure.of(request.status, request.responseText)));
    request.addEventListener("error", () => reject(new Failure("The connection broke off during the upload.")));
    request.send(body);
  });
}
