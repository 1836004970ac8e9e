/** What the leading tab does for all tabs: one connection, many lines. Knows of no lock and no channel. */
import type {Incoming, Line, Outgoing, Status} from './api.js'
import type * as wire from './wire.js'

/** What the hub says to tabs: to `to`, or to all. */
export type Told =
  | {
      kind: 'state'
      to?: string
      status: Status
      /** Counts the connections; 0: there is none. What tabs send says which one it is meant for. */
      link: number
      welcome?: wire.Welcome
      /** What only those who were there have seen of this connection. */
      inbox?: Incoming[]
    }
  /** A message of the server: for all, or with `ids` an answer, whose `id` each tab gets back. */
  | {kind: 'frame'; to?: string; message: Incoming; ids?: Asker[]; all?: boolean}

/** A tab, the id of its request, and the PoVs that it had no interest in before. */
type Asker = [tab: string, id: string, fresh: string[]]

/** What a tab wants of a PoV: its filter as JSON, and its state there. */
interface Want {
  only?: string
  state?: string
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
 * Owns the line. A tab gets nothing before it joined, and is told how things stand when it does.
 */
export function makeHub(line: Line, tell: (what: Told) => void) {
  const tabs = new Map<string, Map<string, Want>>()
  const asked = new Map<unknown, {type: string; key: string; at: number; ids: Asker[]}>()
  let inbox: {type: string; [field: string]: unknown}[] = []
  let status: Status = {state: 'connecting', since: Date.now()}
  let welcome: wire.Welcome | undefined
  let link = 0
  let ids = 0

  function forget(): void {
    for (const each of tabs.values()) each.clear()
    asked.clear()
    inbox = []
  }

  function wanted(povId: string): Want[] {
    return [...tabs.values()].flatMap(each => each.get(povId) ?? [])
  }

  /** Send it for a tab, once for all who ask the same. */
  function ask(message: Outgoing, asker: Asker): void {
    const key = JSON.stringify(message)
    const now = performance.now()
    for (const each of asked.values()) {
      if (SHARED.test(message.type) && each.key === key && now - each.at < SHARED_FOR) return void each.ids.push(asker)
    }
    asked.set(`${++ids}`, {type: message.type, key, at: now, ids: [asker]})
    line.send({...message, id: `${ids}`})
  }

  /** Take a message of a tab, as JSON; one that was meant for another connection is dropped. */
  function take(tab: string, at: number, text: string): void {
    const own = tabs.get(tab)
    if (!own || !welcome || at !== link) return
    const {id, ...message} = JSON.parse(text) as Outgoing
    const {type} = message
    const povs = [message.povIds ?? message.povId].flat() as string[]
    const [povId = ''] = povs
    let fresh: string[] = []
    if (type === 'subscribe' || type === 'presence') {
      fresh = povs.filter(each => !own.has(each))
      for (const each of fresh) own.set(each, {})
    }
    if (type === 'subscribe') {
      const only = JSON.stringify(message.only)
      for (const each of povs) own.get(each)!.only = only
      // The socket has one filter for a PoV: tabs that want others leave out themselves what they do not want.
      if (povs.some(each => wanted(each).some(want => want.only !== only))) delete message.only
    } else if (type === 'presence') {
      if (message.state) own.get(povId)!.state = message.state as string
      const states = wanted(povId).flatMap(each => each.state ?? [])
      if (states[0]) message.state = states.includes('active') ? 'active' : 'away'
    } else if (type === 'unsubscribe') {
      own.delete(povId)
      const others = wanted(povId)
      if (others[0] && !message.durable) {
        tell({kind: 'frame', message: {type: 'unsubscribed', povId}, ids: [[tab, id!, []]]})
        if (others.some(each => each.state) && !others.some(each => each.state === 'active')) {
          ask({type: 'presence', povId, state: 'away'}, ['', '', []])
        }
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
      if (next.state === 'live' && !welcome) return // `opened` says it
      if (next.state !== 'live') {
        welcome = undefined
        forget()
      }
      tell({kind: 'state', status, link: welcome ? link : 0})
    },
    opened(next) {
      forget()
      welcome = next
      tell({kind: 'state', status, link: ++link, welcome})
    },
    message(incoming) {
      const {id, ...message} = incoming as {type: string; [field: string]: unknown}
      const request = asked.get(id)
      asked.delete(id)
      const {type} = message
      if (type === 'notification') inbox = [...inbox.slice(1 - INBOX), message]
      if (type === 'inbox_read') inbox = inbox.filter(each => Number(each.offset) > Number(message.offset))
      if (type === 'unsubscribed' && !request) for (const each of tabs.values()) each.delete(message.povId as string)
      for (const [tab, , fresh] of request?.ids ?? []) {
        const own = tabs.get(tab)
        if (type === 'error') for (const each of fresh) own?.delete(each)
        for (const {povId, code} of (message.results ?? []) as wire.Result[]) {
          if (!code && request!.type === 'resume' && own?.has(povId) === false) own.set(povId, {})
          if (code && fresh.includes(povId)) own?.delete(povId)
        }
      }
      tell({kind: 'frame', message, ids: request?.ids, all: FOR_ALL.test(type)})
    },
  })

  return {
    join(tab: string): void {
      if (!tabs.has(tab)) tabs.set(tab, new Map())
      tell({kind: 'state', to: tab, status, link: welcome ? link : 0, welcome, inbox})
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
