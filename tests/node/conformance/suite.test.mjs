// The published suite. Its own command finds no tests where it is installed.
import { runConformanceTests } from "@durable-streams/server-conformance-tests";

runConformanceTests({ baseUrl: process.env.POV_RT_URL });
