/** Time that goes on only when it is told to: it is always Thursday, 26 November 2026, 14:12, and pictures
 * are the same whenever they are taken. Import it before anything that asks for the time. */

/** When it is, in whatever time zone the browser has. */
export const NOW = new Date(2026, 10, 26, 14, 12).getTime()

/** Real ones: what waits for the browser and not for the time uses these. */
export const real = {
  Date: globalThis.Date,
  setTimeout: globalThis.setTimeout.bind(globalThis),
  clearTimeout: globalThis.clearTimeout.bind(globalThis),
  setInterval: globalThis.setInterval.bind(globalThis),
  clearInterval: globalThis.clearInterval.bind(globalThis),
}

interface Timer {
  at: number
  every?: number
  run(): void
}

const began = performance.now()
const timers = new Map<number, Timer>()
let now = NOW
let last = 0

class StandingDate extends real.Date {
  constructor(...given: [] | [number | string]) {
    // What `new Date(...)` takes is more than a type can say of a spread.
    super(...(given.length ? given : [now]) as [number])
  }

  static override now(): number {
    return now
  }
}

type Callback = (...given: unknown[]) => void

function add(run: Callback, ms: unknown, every: boolean, given: unknown[]): number {
  const wait = Math.max(0, Number(ms) || 0)
  timers.set(++last, {at: now + wait, every: every ? Math.max(1, wait) : undefined, run: () => run(...given)})
  return last
}

const standing = {
  Date: StandingDate,
  setTimeout: (run: Callback, ms?: number, ...given: unknown[]) => add(run, ms, false, given),
  clearTimeout: (id?: number) => { timers.delete(id ?? 0) },
  setInterval: (run: Callback, ms?: number, ...given: unknown[]) => add(run, ms, true, given),
  clearInterval: (id?: number) => { timers.delete(id ?? 0) },
}

Object.assign(globalThis, standing)
// When a browser has nothing else to do is a matter of the machine; here that is after the next frame.
globalThis.requestIdleCallback = run => requestAnimationFrame(() => run({didTimeout: false, timeRemaining: () => 50}))
globalThis.cancelIdleCallback = id => cancelAnimationFrame(id)
performance.now = () => began + now - NOW

/** Forget all timers, and begin at 14:12 again. */
export function reset(): void {
  timers.clear()
  now = NOW
}

/** Let the browser do what it has to do at once: promises, messages, what is drawn. */
export async function turn(): Promise<void> {
  await new Promise<void>(resolve => {
    const {port1, port2} = new MessageChannel()
    port1.onmessage = () => {
      port1.close()
      resolve()
    }
    port2.postMessage(null)
  })
}

/** Wait until the next frame has been drawn. */
export async function frame(): Promise<void> {
  await new Promise(resolve => requestAnimationFrame(resolve))
  await turn()
}

/** Let `ms` go by: timers run when they are due, in order, each followed by what it leads to, and then by `look`. */
export async function pass(ms: number, look?: () => Promise<void>): Promise<void> {
  const end = now + ms
  for (;;) {
    const due = [...timers].filter(([, {at}]) => at <= end).sort(([a, {at: x}], [b, {at: y}]) => x - y || a - b)[0]
    if (!due) break
    const [id, timer] = due
    now = Math.max(now, timer.at)
    if (timer.every) timer.at = now + timer.every
    else timers.delete(id)
    timer.run()
    await turn()
    if (look) {
      await frame()
      await look()
    }
  }
  now = end
  await frame()
  await look?.()
}

/** Do something for which time has to go on. */
export async function really<T>(work: () => Promise<T>): Promise<T> {
  Object.assign(globalThis, real)
  try {
    return await work()
  } finally {
    Object.assign(globalThis, standing)
  }
}
