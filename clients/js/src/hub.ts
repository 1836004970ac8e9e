/** What the leading tab does for all tabs: one connection, many lines. Knows of no lock and no channel. */
import type {Incoming, Line, Outgoing, Status} from './api.js'
import type * as wire from './wire.js'

/** What the hub says to all tabs, or to one. */
export type Told =
  | {
      kind: 'state'
      to?: string
      status: Status
      /** Names the connection, where there is one: what a tab sends says which one it is meant for. */
      link: number
      welcome?: wire.Welcome
      /** What only those who were there have seen of this connection. */
      inbox?: Incoming[]
    }
  | {
      kind: 'frame'
      message: Incoming
      /** Who asked for it; without it nobody did, and it is for all. */
      ids?: Asker[]
      /** It is for those who did not ask, too. */
      all?: boolean
    }

/** A tab, the id of its request, and the PoVs that it wanted nothing of before. */
export type Asker = [tab: string, id: string | undefined, fresh: string[]]

/** What a tab wants of a PoV: its filter as JSON, and its state there. */
interface Want {
  only?: string
  state?: unknown
}

export type Hub = ReturnType<typeof makeHub>

/** Requests whose answer is the same for whoever asks while it is under way. */
const SHARED = /^(subscribe|presence|history|mutes)$/
/** Answers that change something for all tabs of the user. */
const FOR_ALL = /^(receipts|inbox_read|marks|muted|mutes)$/
/** An answer that has not come after this long, ms, may never come: nobody else waits for it. */
const SHARED_FOR = 5_000
/** How many notifications are kept for tabs that join later. */
const INBOX = 1_000

/**
 * Share `line` between tabs; `tell` carries what it says to them.
 *
 * Owns the line. A tab that joins is told how things stand, and counts until it leaves.
 */
export function makeHub(line: Line, tell: (what: Told) => void) {
  const tabs = new Map<string, Map<string, Want>>()
  const asked = new Map<unknown, {message: Outgoing; key: string; at: number; ids: Asker[]}>()
  let inbox: {type: string; [field: string]: unknown}[] = []
  let link = 0
  let ids = 0
  /** How things stand. */
  let state: Told & {kind: 'state'} = {kind: 'state', link, status: {state: 'connecting', since: Date.now()}}
  let status = state.status

  const wanted = (povId: string) => [...tabs.values()].flatMap(each => each.get(povId) ?? [])

  /** Send it for a tab, once for all who ask the same. */
  function ask(message: Outgoing, asker: Asker): void {
    const key = JSON.stringify(message)
    const at = performance.now()
    for (const each of asked.values()) {
      if (each.key === key && SHARED.test(message.type) && at - each.at < SHARED_FOR) {
        each.ids.push(asker)
        return
      }
    }
    const id = `${++ids}`
    asked.set(id, {message, key, at, ids: [asker]})
    line.send({...message, id})
  }

  /** Take a message of a tab, as JSON; one that was meant for another connection is dropped. */
  function take(tab: string, at: number, text: string): void {
    const own = tabs.get(tab)
    if (!own || at !== link) return
    const {id, ...message} = JSON.parse(text) as Outgoing
    const {type} = message
    const povs = [message.povIds ?? message.povId].flat() as string[]
    const povId = povs[0]!
    const fresh: string[] = []
    const isSubscribe = type === 'subscribe'
    if (isSubscribe || type === 'presence') {
      const only = JSON.stringify(message.only)
      for (const each of povs) {
        if (!own.has(each)) fresh.push(each)
        own.set(each, {...own.get(each), ...(isSubscribe ? {only} : message.state ? {state: message.state} : {})})
        // The socket has one filter for a PoV: of different ones each tab leaves out itself what it does not want.
        if (wanted(each).some(want => want.only !== only)) delete message.only
      }
    }
    if (type === 'unsubscribe') own.delete(povId)
    const others = wanted(povId)
    const states = others.flatMap(each => each.state ?? [])
    const shown = states.includes('active') ? 'active' : 'away'
    if (type === 'presence' && states[0]) message.state = shown
    if (type === 'unsubscribe') {
      // A durable one is the user's, and goes out all the same.
      if (others[0] && !message.durable) {
        tell({kind: 'frame', message: {type: 'unsubscribed', povId}, ids: [[tab, id, []]]})
        if (states[0]) ask({type: 'presence', povId, state: shown}, ['', '', []])
        return
      }
      // Whoever subscribes from now on must do so behind this.
      for (const each of asked.values()) each.key = ''
    }
    if (id === undefined) line.send(message)
    else ask(message, [tab, id, fresh])
  }

  line.start({
    status(next) {
      status = next
      if (next.state === 'live') return // `opened` says it
      // The next connection knows nothing of this one.
      for (const each of tabs.values()) each.clear()
      asked.clear()
      inbox = []
      tell((state = {kind: 'state', status, link: ++link}))
    },
    opened(welcome) {
      tell((state = {kind: 'state', status, link: ++link, welcome}))
    },
    message(incoming) {
      const {id, ...message} = incoming as Outgoing
      const {type, povId} = message
      const request = asked.get(id)
      asked.delete(id)
      if (type === 'notification') inbox = [...inbox.slice(1 - INBOX), message]
      if (type === 'inbox_read') inbox = inbox.filter(each => (each.offset as number) > (message.offset as number))
      const lost = (type === 'refreshed' ? message.lost : type === 'unsubscribed' && !request ? [povId] : []) as string[]
      for (const each of tabs.values()) for (const pov of lost) each.delete(pov)
      for (const [tab, , fresh] of request?.ids ?? []) {
        const own = tabs.get(tab)
        if (type === 'error') for (const each of fresh) own?.delete(each)
        for (const each of (message.results ?? []) as wire.Result[]) {
          if (request!.message.type === 'resume') own?.set(each.povId, {...own.get(each.povId)})
          if (each.code && fresh.includes(each.povId)) own?.delete(each.povId)
        }
      }
      tell({kind: 'frame', message, ids: request?.ids, all: FOR_ALL.test(type)})
    },
  })

  return {
    join(tab: string): void {
      tabs.set(tab, new Map())
      tell({...state, to: tab, inbox})
    },
    take,
    /** It is gone: so is what it alone wanted. */
    leave(tab: string): void {
      for (const povId of [...(tabs.get(tab)?.keys() ?? [])]) {
        take(tab, link, JSON.stringify({type: 'unsubscribe', povId, id: ''}))
      }
      tabs.delete(tab)
    },
    retry: () => line.retry(),
    close: (reason: 'closed' | 'signed_out') => line.close(reason),
  }
}
