/** A `Line` through whichever tab leads: one socket for all tabs of a user in this browser. */
import type {Line, LineEvents, Reason, Status} from './api.js'
import {makeHub, type Hub, type Told} from './hub.js'

/** How often the leader says that it is there, ms. */
const BEAT = 1_000
/** A leader of whom nothing is heard for this long, ms, is robbed by a visible tab. */
const SILENCE = 2_000
/** A timer that is this late, ms, says that the tab had no chance to hear anything either. */
const LATE = 500
/** How long a line that ended for good keeps others from leading, ms: they are told meanwhile. */
const LAST_WORD = 1_000

/**
 * What is said on the channel. `term` is that of the leader who speaks, or is spoken to: of two
 * leaders the one with the higher term is right.
 */
type Said = {term: number} & (
  | Told
  | {kind: 'beat'}
  /** Who leads? It is none with a lower term than this. */
  | {kind: 'who'}
  | {kind: 'join' | 'leave' | 'retry'; tab: string}
  | {kind: 'take'; tab: string; link: number; text: string}
  /** The user has signed out. */
  | {kind: 'out'}
)

/**
 * Make a line that all tabs of `scope` (see `scopeOf`) share: one of them holds the lock of this name,
 * leads, and owns what `connect` makes, which the others use over the channel of this name.
 *
 * Needs `navigator.locks` and `BroadcastChannel`. Where they are there but denied, as in a frame whose
 * storage is blocked, it is a line of one's own. The page must `suspend` it when it is hidden for the
 * back/forward cache or frozen: then nothing is held, and another tab leads.
 */
export function makeTabLine({scope, connect}: {scope: string; connect(): Line}): Line {
  const page: Document | undefined = globalThis.document
  let on: LineEvents
  let status: Status = {state: 'connecting', since: Date.now()}
  /** This tab from when it enters to when it leaves; another one each time. */
  let tab = ''
  let stay: AbortController
  let turn: AbortController | undefined
  let channel: BroadcastChannel | undefined
  /** The newest term heard of; nothing of an older one counts. */
  let term = 0
  /** That of the leader whom this tab has asked to join, and whether it may. */
  let asked = 0
  let hasJoined = false
  /** Which connection of the leader's this line is open on. */
  let link = 0
  let wasOpen = false
  let hub: Hub | undefined
  /** That of the hub. */
  let ownTerm = 0
  let beating: ReturnType<typeof setInterval>
  let watching: ReturnType<typeof setTimeout>
  let heardAt = 0

  function tell(next: Omit<Status, 'since'>, since = Date.now()): void {
    // Another leader's first attempt is not ours.
    const state = next.state === 'connecting' && wasOpen ? 'offline' : next.state
    on.status((status = {...next, state, since: state === status.state ? status.since : since}))
  }

  /** Say it to all tabs, and to this one: the leader's own is a tab like the others. */
  function say(what: Said): void {
    channel?.postMessage(what)
    const by = hub
    queueMicrotask(() => hub === by && hear(what))
  }

  /** Have a lock for as long as `signal` is not aborted; rejects with `AbortError` if it is, or robbed. */
  async function hold(name: string, signal: AbortSignal, taken: () => void, steal = false): Promise<void> {
    await navigator.locks.request(name, steal ? {steal} : {signal}, () => new Promise<void>(resolve => {
      signal.onabort = () => resolve()
      if (signal.aborted) resolve()
      else taken()
    }))
  }

  const lockOf = (each: string) => `${scope}:tab:${each}`

  function enter(): void {
    tab = crypto.randomUUID()
    const {signal} = (stay = new AbortController())
    // The leader waits for this lock: it has it when this tab is gone, however it went.
    hold(lockOf(tab), signal, () => {
      channel = new BroadcastChannel(scope)
      channel.onmessage = ({data}) => hear(data)
      say({kind: 'who', term})
      queue()
      watch()
    }).catch(() => signal.aborted || lead())
  }

  function leave(reason?: Reason): void {
    const held = turn
    turn = undefined
    // The next one in the queue would try at once what has just ended for good.
    if (hub && reason) setTimeout(() => held?.abort(), LAST_WORD)
    else held?.abort()
    say({kind: 'leave', term, tab})
    link = 0
    stepDown(reason)
    tab = ''
    asked = 0
    stay.abort()
    channel?.close()
    channel = undefined
    clearTimeout(watching)
  }

  /** Wait for the lead, or take it at once. */
  function queue(steal?: boolean): void {
    turn?.abort()
    const mine = (turn = new AbortController())
    const over = () => {
      if (turn !== mine) return
      stepDown()
      queue()
    }
    hold(scope, mine.signal, lead, steal).then(over, error => {
      if (error.name !== 'AbortError') throw error
      over()
    })
  }

  function lead(): void {
    // A clock that was set back is no harm: whoever knows a higher term says so, see `follow`.
    const own = (ownTerm = Math.max(term, Date.now()) + Math.random())
    hub = makeHub(connect(), what => ownTerm === own && say({...what, term: own}))
    beating = setInterval(beat, BEAT)
    beat()
  }

  function beat(): void {
    say({kind: 'beat', term: ownTerm})
  }

  function stepDown(reason?: Reason): void {
    clearInterval(beating)
    ownTerm = 0
    hub?.close(reason === 'signed_out' ? reason : 'closed')
    hub = undefined
    part()
  }

  /** No leader has this line any more. */
  function part(): void {
    hasJoined = false
    const wasLinked = link
    link = 0
    if (wasLinked) tell({state: 'offline'})
  }

  function hear(said: Said): void {
    if (!tab || typeof said?.term !== 'number') return // something else speaks here
    if (hub && said.term > ownTerm) {
      // Robbed, or led on without knowing of the others.
      stepDown()
      turn?.abort()
    }
    const {kind} = said
    if (kind === 'who') return hub && beat()
    if (kind === 'out') return end('signed_out')
    if (kind === 'beat' || kind === 'state' || kind === 'frame') follow(said)
    else if (hub && said.term === ownTerm) serve(hub, said)
  }

  /** Do, as the leader, what a tab asks for. */
  function serve(hub: Hub, said: Extract<Said, {tab: string}>): void {
    if (said.kind === 'take') return hub.take(said.tab, said.link, said.text)
    hub[said.kind](said.tab)
    if (said.kind === 'join') {
      navigator.locks
        .request(lockOf(said.tab), {signal: turn?.signal}, () => say({...said, kind: 'leave'}))
        .catch(() => {}) // the lead is over; or locks are denied, and there is no other tab
    }
  }

  /** Take, as a tab like others, what the leader says. */
  function follow(said: Said & (Told | {kind: 'beat'})): void {
    if (said.term < term) {
      if (said.kind === 'beat') say({kind: 'who', term})
      return
    }
    heardAt = performance.now()
    if (said.term > asked) {
      term = asked = said.term
      part()
      say({kind: 'join', term, tab})
    }
    if (said.kind === 'state' && (said.to ? said.to === tab : hasJoined)) {
      const {state, reason, since} = said.status
      hasJoined = true
      if (state === 'closed') return end(reason!, said.status)
      link = said.welcome ? said.link : 0
      tell(said.status, since)
      if (!link) return // closed by who was told, too
      wasOpen = true
      on.opened(said.welcome!)
      for (const each of said.inbox ?? []) if (link) on.message(each)
    } else if (said.kind === 'frame' && hasJoined) {
      const own = said.ids?.filter(each => each[0] === tab)
      for (const [, id] of own ?? []) on.message({...said.message, id})
      if (!own || (said.all && !own[0])) on.message(said.message)
    }
  }

  /** Rob a leader that is not heard, if this tab is visible and had the chance to hear something. */
  function watch(ms = SILENCE, isSure = false): void {
    clearTimeout(watching)
    if (page?.hidden || !tab) return
    const due = performance.now() + ms
    watching = setTimeout(() => {
      const now = performance.now()
      const left = heardAt + SILENCE - now
      if (hub || now > due + LATE) watch()
      else if (left > 0) watch(left)
      // What is queued gets its turn first; and of several tabs one is the first.
      else if (!isSure) watch(100 + Math.random() * 200, true)
      else {
        queue(true)
        watch()
      }
    }, ms)
  }

  function end(reason: Reason, last: Omit<Status, 'since'> = {state: 'closed', reason}): void {
    if (status.state === 'closed') return
    page?.removeEventListener('visibilitychange', seen)
    if (tab) leave(reason === 'closed' ? undefined : reason)
    tell(last)
  }

  const seen = () => watch()

  return {
    get isOpen() {
      return link > 0
    },
    start(events) {
      on = events
      page?.addEventListener('visibilitychange', seen)
      queueMicrotask(() => status.state === 'connecting' && tell(status))
      enter()
    },
    send(message) {
      if (link) say({kind: 'take', term, tab, link, text: JSON.stringify(message)})
    },
    retry() {
      say({kind: 'retry', term, tab})
    },
    suspend() {
      if (!tab) return
      leave()
      wasOpen = false
      tell({state: 'suspended'})
    },
    resume() {
      if (status.state !== 'suspended') return
      tell({state: 'connecting'})
      enter()
    },
    close(reason) {
      if (reason === 'signed_out') say({kind: 'out', term})
      end(reason)
    },
  }
}
