import { readFileSync } from "node:fs";

const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
const titles = readFileSync(new URL("titles.txt", import.meta.url), "utf8")
  .split("\n")
  .filter((line) => line && !line.startsWith("#"))
  .map((line) => escaped(line.replaceAll(" > ", " ")));

export default {
  test: {
    include: ["conformance/suite.test.mjs"],
    setupFiles: ["conformance/adapter.mjs"],
    testNamePattern: new RegExp(`^\\s*(${titles.join("|")})$`),
    testTimeout: 30_000,
  },
};
