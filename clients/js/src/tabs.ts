/** A `Line` through whichever tab leads: one socket for all tabs of a user in this browser. */
import type {Line, LineEvents, Reason, Status} from './api.js'
import {makeHub, type Hub, type Told} from './hub.js'

/** How often the leader says that it is there, ms. */
const BEAT = 1_000
/** A leader of whom this long nothing is heard, ms, is robbed by a visible tab. */
const SILENCE = 2_000
/** A timer that is this late, ms, says that the tab had no chance to hear anything either. */
const LATE = 500
/** How long a line that ended for good keeps others from leading, ms: they are told meanwhile. */
const LAST_WORD = 1_000

/**
 * What is said on the channel. `term` is that of the leader who speaks, or who is spoken to; of two
 * leaders the one with the higher term is right.
 */
type Said = {term: number} & (
  | Told
  | {kind: 'beat'}
  /** Who leads? Not somebody below this term. */
  | {kind: 'who'}
  | {kind: 'join' | 'bye' | 'retry'; tab: string}
  | {kind: 'send'; tab: string; link: number; text: string}
  | {kind: 'out'}
)

/**
 * Make a line that all tabs of `scope` (see `scopeOf`) share: one of them holds the lock of this name,
 * leads, and owns what `connect` makes, which the others use over the channel of this name.
 *
 * Needs `navigator.locks` and `BroadcastChannel`; where the page may not use them, as in a frame whose
 * storage is blocked, it is a line of one's own.
 */
export function makeTabLine({scope, connect}: {scope: string; connect(): Line}): Line {
  const page: Document | undefined = globalThis.document
  let on: LineEvents
  let status: Status = {state: 'connecting', since: Date.now()}
  /** This tab, from when it enters to when it leaves; another one each time. */
  let tab = ''
  let stay: AbortController | undefined
  let turn: AbortController | undefined
  let channel: BroadcastChannel | undefined
  /** The newest term heard of; nothing of an older one counts. */
  let term = 0
  let joined = false
  /** Which connection of the leader this line is open on; 0: on none. */
  let link = 0
  let wasOpen = false
  let hub: Hub | undefined
  /** That of the hub. */
  let ownTerm = 0
  let beating: ReturnType<typeof setInterval> | undefined
  let watching: ReturnType<typeof setTimeout> | undefined
  let heardAt = 0
  let isSuspended = false
  /** Aborted at the end. */
  const life = new AbortController()

  function tell(next: Status): void {
    // Another leader's first attempt is not ours.
    if (next.state === 'connecting' && wasOpen) next = {...next, state: 'offline'}
    if (next.state === status.state && next.reason === status.reason) next = {...next, since: status.since}
    on.status((status = next))
  }

  /** Say it to all tabs, and to this one: the leader's own is a tab like the others. */
  function say(what: Said): void {
    channel?.postMessage(what)
    const by = hub
    queueMicrotask(() => {
      if (hub === by) hear(what)
    })
  }

  /** Have a lock for as long as `signal` is not aborted; rejects with `AbortError` if it is, or robbed. */
  async function hold(name: string, signal: AbortSignal, taken: () => void, steal = false): Promise<void> {
    await navigator.locks.request(name, steal ? {steal} : {signal}, () => new Promise<void>(resolve => {
      if (signal.aborted) return resolve()
      signal.addEventListener('abort', () => resolve())
      taken()
    }))
  }

  function enter(): void {
    tab = crypto.randomUUID()
    const {signal} = (stay = new AbortController())
    // The leader waits for this lock: it has it when this tab is gone, however it went.
    hold(`${scope}:tab:${tab}`, signal, () => {
      channel = new BroadcastChannel(scope)
      channel.onmessage = ({data}) => hear(data)
      say({kind: 'who', term})
      queue()
      watch()
    }).catch(error => {
      if (!signal.aborted && error.name !== 'AbortError') lead()
    })
  }

  function leave(reason: Reason = 'closed'): void {
    const held = turn
    turn = undefined
    // The next one in the queue would try at once what has just ended for good.
    if (hub && reason !== 'closed') setTimeout(() => held?.abort(), LAST_WORD)
    else held?.abort()
    say({kind: 'bye', term, tab})
    joined = false
    link = 0
    stepDown(reason)
    tab = ''
    stay?.abort()
    channel?.close()
    channel = undefined
    clearTimeout(watching)
  }

  /** Wait for the lead, or take it at once. */
  function queue(steal?: boolean): void {
    turn?.abort()
    const mine = (turn = new AbortController())
    hold(scope, mine.signal, lead, steal).catch(error => {
      if (error.name !== 'AbortError') throw error
    }).then(() => {
      if (turn !== mine) return
      stepDown()
      queue()
    })
  }

  function lead(): void {
    // A clock that was set back is no harm: whoever knows a higher term says so, see `hear`.
    const own = (ownTerm = Math.max(term, Date.now()) + Math.random())
    hub = makeHub(connect(), what => {
      if (ownTerm === own) say({...what, term: own})
    })
    beating = setInterval(beat, BEAT)
    beat()
  }

  function beat(): void {
    say({kind: 'beat', term: ownTerm})
  }

  function stepDown(reason?: Reason): void {
    if (!hub) return
    clearInterval(beating)
    ownTerm = 0
    hub.close(reason === 'signed_out' ? reason : 'closed')
    hub = undefined
    part()
  }

  /** No leader has this line any more. */
  function part(): void {
    joined = false
    if (!link) return
    link = 0
    tell({state: 'offline', since: Date.now()})
  }

  function hear(said: Said): void {
    if (!tab || typeof said?.term !== 'number') return // something else speaks here
    if (hub && said.term > ownTerm) {
      // Robbed, or led on without knowing of the others.
      stepDown()
      turn?.abort()
    }
    switch (said.kind) {
      case 'who':
        return hub && beat()
      case 'out':
        return end('signed_out')
      case 'join':
      case 'send':
      case 'retry':
      case 'bye':
        if (hub && said.term === ownTerm) serve(said)
        return
      case 'beat':
      case 'state':
      case 'frame':
        follow(said)
    }
  }

  /** As the leader: do what a tab asks for. */
  function serve(said: Said & {tab: string}): void {
    const {tab: of} = said
    if (said.kind === 'send') hub!.take(of, said.link, said.text)
    else if (said.kind === 'retry') hub!.retry()
    else if (said.kind === 'bye') hub!.leave(of)
    else {
      hub!.join(of)
      navigator.locks
        .request(`${scope}:tab:${of}`, {signal: turn?.signal}, () => say({kind: 'bye', term: said.term, tab: of}))
        .catch(() => {}) // the lead is over, or locks are denied and there is no other tab
    }
  }

  /** As a tab of the leader's. */
  function follow(said: Said & (Told | {kind: 'beat'})): void {
    if (said.term < term) {
      if (said.kind === 'beat') say({kind: 'who', term})
      return
    }
    heardAt = performance.now()
    if (said.term > term) {
      term = said.term
      part()
      say({kind: 'join', term, tab})
    }
    if (said.kind === 'beat' || (said.to ? said.to !== tab : !joined)) return
    if (said.kind === 'frame') {
      const {message, ids, all} = said
      const own = ids?.filter(each => each[0] === tab) ?? []
      for (const [, id] of own) on.message({...message, id})
      if (!ids || (all && !own.length)) on.message(message)
      return
    }
    joined = true
    link = said.link
    const {state, reason} = said.status
    if (state === 'closed') return end(reason!, said.status)
    tell(said.status)
    if (!said.welcome || !link) return
    wasOpen = true
    on.opened(said.welcome)
    for (const each of said.inbox ?? []) on.message(each)
  }

  /** Rob a leader that is not heard, if this tab is visible, and had the chance to hear something. */
  function watch(ms = SILENCE, isSure = false): void {
    clearTimeout(watching)
    if (page?.hidden) return
    const due = performance.now() + ms
    watching = setTimeout(() => {
      const now = performance.now()
      const left = heardAt + SILENCE - now
      if (hub || now - due > LATE) return watch()
      if (left > 0) return watch(left)
      // What is queued gets its turn first; and of several tabs one is the first.
      if (!isSure) return watch(100 + Math.random() * 200, true)
      queue(true)
      watch()
    }, ms)
  }

  function away(next: Omit<Status, 'since'>): void {
    if (!tab) return
    leave()
    wasOpen = false
    tell({...next, since: Date.now()})
  }

  function back(): void {
    if (tab || isSuspended || status.state === 'closed') return
    tell({state: 'connecting', since: Date.now()})
    enter()
  }

  function end(reason: Reason, last: Status = {state: 'closed', reason, since: Date.now()}): void {
    if (status.state === 'closed') return
    life.abort()
    if (tab) leave(reason)
    tell(last)
  }

  return {
    get isOpen() {
      return link > 0
    },
    start(events) {
      on = events
      const listen = (where: EventTarget | undefined, type: string, listener: () => void) =>
        where?.addEventListener(type, listener, {signal: life.signal})
      const sleep = () => away({state: 'suspended', reason: 'frozen'})
      listen(page, 'visibilitychange', () => watch())
      listen(page, 'freeze', sleep)
      listen(page, 'resume', back)
      listen(globalThis as unknown as EventTarget, 'pagehide', sleep)
      listen(globalThis as unknown as EventTarget, 'pageshow', back)
      queueMicrotask(() => {
        if (status.state === 'connecting') on.status(status)
      })
      enter()
    },
    send(message) {
      if (link) say({kind: 'send', term, tab, link, text: JSON.stringify(message)})
    },
    retry() {
      say({kind: 'retry', term, tab})
    },
    suspend() {
      isSuspended = true
      away({state: 'suspended'})
    },
    resume() {
      isSuspended = false
      back()
    },
    close(reason) {
      if (reason === 'signed_out') say({kind: 'out', term})
      end(reason)
    },
  }
}
