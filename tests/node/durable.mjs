// Follows a log with the official client, unmodified; prints each item's offset as a line. It asks the
// file for a token before each request. What it gives up with is the last line.
import { readFileSync } from "node:fs";
import { stream } from "@durable-streams/client";

const [url, file, mode, start, count] = process.argv.slice(2);
const headers = { Authorization: () => `Bearer ${readFileSync(file, "utf8")}` };
let left = Number(count);

/** What is there: without `live` the client reads one answer. */
async function catchUp(offset) {
  const res = await stream({ url, live: false, offset, headers, warnOnHttp: false });
  for (const item of await res.json()) console.log(item.offset);
  if (!res.upToDate) await catchUp(res.offset);
}

async function follow(live, offset) {
  const res = await stream({ url, live, offset, headers, warnOnHttp: false });
  res.subscribeJson(({ items }) => {
    for (const item of items) {
      console.log(item.offset);
      left -= 1;
      if (left === 0) process.exit(0);
    }
  });
  await res.closed;
}

try {
  await (mode === "catch-up" ? catchUp(start) : follow(mode, start));
} catch (error) {
  const { code, missed } = error.json?.error ?? {};
  console.log(JSON.stringify({ status: error.status, code, missed }));
  process.exit(1);
}
