// What the suite writes becomes activities, and what it reads of them is taken out of their messages.
//
// It creates streams and appends to them, of any type; pov-rt has PoVs, whose activities are JSON
// and are published elsewhere. So PUT and POST are answered here. GET, HEAD and OPTIONS go to the
// server: status, headers, offsets and events are the server's. Only what a value is wrapped in is
// taken off its bodies.

import { createHash } from "node:crypto";

const { POV_RT_URL: server, POV_RT_READER: reader, POV_RT_SERVICE: service } = process.env;
const PIECE_BYTES = 9_000; // details have at most 16 KiB
const BATCH = 200;
const real = globalThis.fetch;
/** The content type of each stream, by its path. */
const types = new Map();

const povOf = (path) => createHash("sha256").update(path).digest("hex").slice(0, 32);
const isJson = (type) => type.split(";")[0].trim().toLowerCase() === "application/json";
const wrap = (value) => ({ v: value });
const unwrap = (item) => item.data.details.v;

function split(bytes, type) {
  if (isJson(type)) {
    const value = JSON.parse(new TextDecoder().decode(bytes));
    return (Array.isArray(value) ? value : [value]).map(wrap);
  }
  const pieces = [];
  for (let at = 0; at < bytes.length; at += PIECE_BYTES)
    pieces.push(wrap(Buffer.from(bytes.subarray(at, at + PIECE_BYTES)).toString("base64")));
  return pieces;
}

async function append(path, bytes) {
  const povId = povOf(path);
  const all = split(bytes, types.get(path)).map((details) => ({
    type: "value", action: "appended", userId: "suite", povId, details,
  }));
  for (let at = 0; at < all.length; at += BATCH) {
    const answer = await real(`${server}/api/activities`, {
      method: "POST",
      headers: { Authorization: `Bearer ${service}`, "Content-Type": "application/json" },
      body: JSON.stringify(all.slice(at, at + BATCH)),
    });
    const { results } = await answer.json();
    for (const each of results) if (each.error) throw new Error(JSON.stringify(each.error));
  }
}

async function read(path, method, search, headers, signal) {
  const sent = new Headers(headers);
  if (method !== "OPTIONS") sent.set("Authorization", `Bearer ${reader}`);
  const answer = await real(`${server}/api/povs/${povOf(path)}/stream${search}`, {
    method, headers: sent, signal,
  });
  const type = types.get(path) ?? "application/json";
  const kind = answer.headers.get("content-type") ?? "";
  if (kind === "text/event-stream")
    return new Response(answer.body.pipeThrough(events(type)), answer);
  if (!answer.ok || method === "OPTIONS" || answer.status === 204) return answer;
  const out = new Headers(answer.headers);
  out.delete("content-length");
  out.set("content-type", type);
  if (method === "HEAD") return new Response(null, { headers: out });
  const items = await answer.json();
  const body = isJson(type)
    ? JSON.stringify(items.map(unwrap))
    : Buffer.concat(items.map((item) => Buffer.from(unwrap(item), "base64")));
  return new Response(body, { status: answer.status, headers: out });
}

/** Takes values out of the events `data`, and hands each on with the event `control` behind it. */
function events(type) {
  let text = "";
  const decoder = new TextDecoder();
  const encoder = new TextEncoder();
  return new TransformStream({
    transform(chunk, controller) {
      text += decoder.decode(chunk, { stream: true });
      // A pair is one piece on the wire; a chunk may end in the middle of it.
      const end = text.lastIndexOf("event: control");
      const done = end < 0 ? -1 : text.indexOf("\n\n", end);
      if (done < 0) return;
      const whole = text.slice(0, done + 2);
      text = text.slice(done + 2);
      const changed = whole.replace(/^data:(\[.*\])$/gm, (_, json) => {
        const values = JSON.parse(json).map(unwrap);
        if (isJson(type)) return `data:${JSON.stringify(values)}`;
        const lines = Buffer.concat(values.map((each) => Buffer.from(each, "base64"))).toString();
        return lines.split(/\r\n|\r|\n/).map((line) => `data:${line}`).join("\n");
      });
      controller.enqueue(encoder.encode(changed));
    },
  });
}

async function next(path) {
  const answer = await read(path, "HEAD", "", {});
  return { "Stream-Next-Offset": answer.headers.get("Stream-Next-Offset") };
}

globalThis.fetch = async (input, init) => {
  const request = new Request(input, init);
  const { method, headers } = request;
  const { pathname, search } = new URL(request.url);
  if (!pathname.startsWith("/v1/")) return real(input, init);
  const bytes = new Uint8Array(await request.arrayBuffer());
  const signal = init?.signal ?? undefined;
  const given = headers.get("content-type");
  if (method === "PUT") {
    const isNew = !types.has(pathname);
    if (isNew) types.set(pathname, given ?? "application/octet-stream");
    if (isNew && bytes.length) await append(pathname, bytes);
    return new Response(null, {
      status: isNew ? 201 : 200,
      headers: { ...(await next(pathname)), "Content-Type": types.get(pathname), Location: request.url },
    });
  }
  if (method === "POST") {
    if (!types.has(pathname)) return new Response(null, { status: 404 });
    await append(pathname, bytes);
    return new Response(null, { status: 204, headers: await next(pathname) });
  }
  return read(pathname, method, search, headers, signal);
};
