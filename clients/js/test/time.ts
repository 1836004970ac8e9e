/** Timers and clocks that a test moves. (Node 20's own: to clear a timer that fired takes away another.) */

interface Timer {
  at: number
  run(): void
}

const real = {setTimeout, clearTimeout, dateNow: Date.now, now: performance.now}
const timers = new Set<Timer>()
let clock = 0
/** Of `performance.now()`, which does not step. */
let monotonic = 0

export function fakeTime(start = 1_800_000_000_000): void {
  clock = start
  monotonic = 1_000
  timers.clear()
  Object.assign(globalThis, {
    setTimeout(run: () => void, ms = 0) {
      // As in browsers: what does not fit into 31 bits is at once.
      const timer = {at: monotonic + (ms >= 0 && ms < 2 ** 31 ? ms : 0), run}
      timers.add(timer)
      return timer
    },
    clearTimeout: (timer: Timer) => void timers.delete(timer),
  })
  Date.now = () => clock
  performance.now = () => monotonic
}

export function realTime(): void {
  Object.assign(globalThis, {setTimeout: real.setTimeout, clearTimeout: real.clearTimeout})
  Date.now = real.dateNow
  performance.now = real.now
}

/** Let time pass, and call what is due, in order. */
export function tick(ms: number): void {
  const end = monotonic + ms
  for (;;) {
    const next = [...timers].reduce<Timer | undefined>((first, each) => first && first.at <= each.at ? first : each, undefined)
    if (!next || next.at > end) break
    timers.delete(next)
    clock += Math.max(0, next.at - monotonic)
    monotonic = Math.max(monotonic, next.at)
    next.run()
  }
  clock += end - monotonic
  monotonic = end
}

/** The wall clock steps, as after sleep: timers did not run meanwhile, and are late now. */
export function step(ms: number): void {
  clock += ms
}

export const turn = () => new Promise<void>(resolve => setImmediate(resolve))

/** Wait for what is under way (a socket, a database), and let `ms` pass with each turn. */
export async function until(what: () => unknown, ms = 0): Promise<void> {
  const end = process.hrtime.bigint() + 10_000_000_000n
  while (!what()) {
    if (process.hrtime.bigint() > end) throw new Error(`never: ${what}`)
    if (ms) tick(ms)
    await turn()
  }
}
