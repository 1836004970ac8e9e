/**
 * A browser of several tabs, in virtual time: Web Locks, BroadcastChannel, timers, freezing, crashes.
 *
 * Node has no Web Locks, and no way to freeze or crash. Each tab runs the bundled source in a realm of
 * its own (`node:vm`), so that what is tested is what a page loads, unchanged. Chances are drawn from a
 * seed: a run can be had again.
 */
import {buildSync} from 'esbuild'
import vm from 'node:vm'
import type * as tabs from '../src/tabs.js'

const source = buildSync({
  entryPoints: ['src/tabs.ts'], bundle: true, write: false, format: 'iife', globalName: 'sdk', target: 'es2023',
}).outputFiles[0]!.text

interface Task {
  at: number
  order: number
  /** Comes from elsewhere: a tab that slept has its own timers first. */
  isMessage?: boolean
  tab?: Tab
  run(): void
}

interface Request {
  tab: Tab
  name: string
  granted(): void
  robbed(): void
}

export class Browser {
  now = 0
  readonly tabs: Tab[] = []
  readonly held = new Map<string, Request>()
  queue: Request[] = []
  readonly channels = new Set<Channel>()
  /** What the wall clock says more than `now`, ms. */
  wall = Date.UTC(2026, 0, 1)
  /** What was thrown where nobody could take it. */
  private thrown: unknown[] = []
  private tasks: Task[] = []
  private order = 0
  private lastHeard = new Map<string, number>()

  constructor(private seed = 1) {}

  /** mulberry32 (T. Ettinger): uniform in [0, 1). */
  random(): number {
    this.seed = (this.seed + 0x6d2b79f5) | 0
    let mixed = Math.imul(this.seed ^ (this.seed >>> 15), 1 | this.seed)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }

  microtask(run: () => void): void {
    queueMicrotask(() => {
      try {
        run()
      } catch (error) {
        this.thrown.push(error)
      }
    })
  }

  open(hidden = false): Tab {
    const tab = new Tab(this, hidden)
    this.tabs.push(tab)
    return tab
  }

  /** Run `task` in `ms`, in a tab unless it is gone, and not before it is thawed. */
  after(ms: number, run: () => void, tab?: Tab): Task {
    const task = {at: this.now + ms, order: ++this.order, run, tab}
    this.tasks.push(task)
    return task
  }

  /** From one tab to another, in a few ms; what one says to another keeps its order. */
  deliver(from: Tab, to: Tab, run: () => void): void {
    const pair = `${from.id} ${to.id}`
    const at = Math.max(this.now + this.random() * 4, this.lastHeard.get(pair) ?? 0)
    this.lastHeard.set(pair, at)
    this.after(at - this.now, run, to).isMessage = true
  }

  /** A tab that slept goes on: what came for it meanwhile arrives in the next moments, in order. */
  deliverLate(to: Tab): void {
    for (const each of this.tasks) if (each.tab === to && each.isMessage) each.at = Math.max(each.at, this.now + 20)
    // And what is said from now on comes behind it.
    for (const [pair, at] of this.lastHeard) {
      if (pair.endsWith(` ${to.id}`)) this.lastHeard.set(pair, Math.max(at, this.now + 20))
    }
  }

  cancel(task: Task | undefined): void {
    this.tasks = this.tasks.filter(each => each !== task)
  }

  /** Let this much time pass. */
  async pass(ms: number): Promise<void> {
    const end = this.now + ms
    await settled()
    for (;;) {
      this.tasks = this.tasks.filter(({tab}) => !tab?.isGone)
      let next: Task | undefined
      for (const each of this.tasks) {
        if (each.tab?.isFrozen || each.at > end) continue
        if (!next || each.at < next.at || (each.at === next.at && each.order < next.order)) next = each
      }
      if (!next) break
      this.cancel(next)
      this.now = Math.max(this.now, next.at)
      next.run()
      await settled()
      if (this.thrown.length) throw this.thrown.shift()
    }
    this.now = end
  }

  /** https://w3c.github.io/web-locks/#algorithms, exclusive locks only. */
  request(tab: Tab, name: string, options: LockOptions, callback: LockGrantedCallback<unknown>): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const {steal, ifAvailable, signal} = options
      if (signal && (steal || ifAvailable)) return reject(new DOMException('signal', 'NotSupportedError'))
      if (tab.isDenied) return reject(new DOMException('denied', 'SecurityError'))
      if (signal?.aborted) return reject(signal.reason)
      const request: Request = {
        tab,
        name,
        granted: () => {
          this.after(this.random() * 2, () => {
            Promise.resolve()
              .then(() => callback({name, mode: 'exclusive'}))
              .then(resolve, reject)
              .finally(() => this.release(request))
          }, tab)
        },
        robbed: () => {
          this.after(this.random() * 2, () => reject(new DOMException('robbed', 'AbortError')), tab).isMessage = true
        },
      }
      signal?.addEventListener('abort', () => {
        if (!this.queue.includes(request)) return
        this.queue = this.queue.filter(each => each !== request)
        reject(signal.reason)
      })
      if (ifAvailable && (this.held.has(name) || this.queue.some(each => each.name === name))) {
        return resolve(callback(null))
      }
      if (steal) {
        this.held.get(name)?.robbed()
        this.held.delete(name)
        this.queue.unshift(request)
      } else this.queue.push(request)
      this.grant()
    })
  }

  private release(request: Request): void {
    if (this.held.get(request.name) !== request) return
    this.held.delete(request.name)
    this.grant()
  }

  private grant(): void {
    for (const each of [...this.queue]) {
      if (this.held.has(each.name)) continue
      this.queue = this.queue.filter(other => other !== each)
      this.held.set(each.name, each)
      each.granted()
    }
  }

  forget(tab: Tab): void {
    this.queue = this.queue.filter(each => each.tab !== tab)
    for (const [name, each] of this.held) if (each.tab === tab) this.held.delete(name)
    for (const each of this.channels) if (each.tab === tab) this.channels.delete(each)
    this.grant()
  }
}

/** Until nothing is left in the queue of microtasks. */
function settled(): Promise<void> {
  return new Promise(resolve => setImmediate(resolve))
}

class Channel {
  onmessage: ((event: {data: unknown}) => void) | undefined

  constructor(readonly tab: Tab, readonly name: string) {
    tab.browser.channels.add(this)
  }

  postMessage(data: unknown): void {
    if (!this.tab.browser.channels.has(this)) throw new DOMException('closed', 'InvalidStateError')
    for (const each of this.tab.browser.channels) {
      if (each === this || each.name !== this.name) continue
      const copy = structuredClone(data)
      this.tab.browser.deliver(this.tab, each.tab, () => {
        if (this.tab.browser.channels.has(each)) each.onmessage?.({data: copy})
      })
    }
  }

  close(): void {
    this.tab.browser.channels.delete(this)
  }
}

let count = 0

export class Tab {
  readonly id = ++count
  isGone = false
  isFrozen = false
  /** Whether storage is denied, and locks with it. */
  isDenied = false
  /** Hidden tabs' timers come at multiples of this, ms. */
  throttle = 1000
  readonly document: EventTarget & {hidden: boolean}
  readonly window = new EventTarget()
  readonly sdk: typeof tabs

  constructor(readonly browser: Browser, hidden: boolean) {
    this.document = Object.assign(new EventTarget(), {hidden})
    const timers = new Map<number, Task>()
    let ids = 0
    const at = (ms: number) => {
      const due = browser.now + ms
      const step = this.document.hidden ? this.throttle : 1
      return Math.ceil(due / step) * step - browser.now
    }
    const setTimeout = (run: () => void, ms = 0) => {
      const id = ++ids
      timers.set(id, browser.after(at(ms), () => {
        timers.delete(id)
        run()
      }, this))
      return id
    }
    const setInterval = (run: () => void, ms: number) => {
      const id = ++ids
      const again = () => void timers.set(id, browser.after(at(ms), () => {
        again()
        run()
      }, this))
      again()
      return id
    }
    const clear = (id: number) => {
      browser.cancel(timers.get(id))
      timers.delete(id)
    }
    const realm: Record<string, unknown> = {
      document: this.document,
      addEventListener: this.window.addEventListener.bind(this.window),
      navigator: {
        locks: {
          request: (name: string, ...rest: [LockOptions, LockGrantedCallback<unknown>] | [LockGrantedCallback<unknown>]) =>
            browser.request(this, name, rest.length > 1 ? (rest[0] as LockOptions) : {}, rest.at(-1) as never),
        },
      },
      BroadcastChannel: class extends Channel {
        constructor(name: string) {
          super(thisTab, name)
        }
      },
      crypto: {randomUUID: () => `tab-${this.id}-${++ids}`},
      performance: {now: () => browser.now},
      Date: {now: () => Math.floor(browser.wall + browser.now)},
      Math: Object.assign(Object.create(Math), {max: Math.max, random: () => browser.random()}),
      AbortController, queueMicrotask: (run: () => void) => browser.microtask(run), setTimeout, setInterval, clearTimeout: clear, clearInterval: clear,
    }
    const thisTab = this
    this.sdk = vm.runInContext(`${source};sdk`, vm.createContext(realm)) as typeof tabs
  }

  show(visible = true): void {
    this.document.hidden = !visible
    this.document.dispatchEvent(new Event('visibilitychange'))
  }

  /** Stop everything; without the event where the machine, a debugger or a long task does it. */
  freeze(event = true): void {
    if (event) this.document.dispatchEvent(new Event('freeze'))
    this.isFrozen = true
  }

  thaw(event = true): void {
    this.isFrozen = false
    this.browser.deliverLate(this)
    if (event) this.document.dispatchEvent(new Event('resume'))
  }

  /** Into the back/forward cache. */
  hide(): void {
    this.window.dispatchEvent(new Event('pagehide'))
    this.isFrozen = true
  }

  /** And out of it. */
  comeBack(): void {
    this.isFrozen = false
    this.window.dispatchEvent(new Event('pageshow'))
  }

  crash(): void {
    this.isGone = true
    this.browser.forget(this)
  }

  /** Closed by the user: `pagehide`, then it is gone. */
  async close(): Promise<void> {
    this.window.dispatchEvent(new Event('pagehide'))
    await settled()
    this.crash()
  }
}
