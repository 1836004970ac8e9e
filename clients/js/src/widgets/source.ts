/** Where an element gets what it shows: one client for all elements of a page that mean the same server and user, one store for those that show the same. */
import type {Client, Feed, Options} from '../api.js'
import {connect} from '../client.js'
import {createFeed} from '../feed.js'

/** What an element says of it; all of it optional but `pov`, where there is no `feed`. */
export interface SourceOptions {
  readonly url?: string
  readonly tokenUrl?: string
  readonly getToken?: Options['getToken']
  readonly client?: Client
  readonly feed?: Feed
  readonly pov?: string
  readonly group?: string
}

/** What an element holds while it is on a page. */
export interface Source {
  /** Absent where the page gave only a `feed`. */
  readonly client?: Client
  readonly feed: Feed
  release(): void
}

/** So long it is kept for an element that moves: a dialog may take it along when it goes, and it comes back, ms. */
const MOMENT = 1_000

/** Things that several share: made for the first, ended some time after the last. */
class Shared<K, T> {
  readonly #all = new Map<K, {value: T; holders: number}>()

  /** Hold what is of `key`; `end` is called when nobody has held it for a moment: elements move about. */
  hold(key: K, make: () => T, end: (value: T) => void): [value: T, release: () => void] {
    let entry = this.#all.get(key)
    if (!entry) this.#all.set(key, entry = {value: make(), holders: 0})
    const {value} = entry
    entry.holders++
    return [value, () => setTimeout(() => {
      if (--entry.holders) return
      if (this.#all.get(key) === entry) this.#all.delete(key)
      end(value)
    }, MOMENT)]
  }

  /** Whoever asks next gets another one. */
  forget(isMeant: (value: T) => boolean): void {
    for (const [key, {value}] of this.#all) if (isMeant(value)) this.#all.delete(key)
  }
}

/** By server and how tokens are got. */
const clients = new Shared<unknown, Client>()
/** By client, then by what is shown. */
const feeds = new Shared<string, Feed>()
const numbers = new WeakMap<object, number>()
let last = 0

/** A number for an object, always the same. */
function numberOf(object: object): number {
  if (!numbers.has(object)) numbers.set(object, ++last)
  return numbers.get(object)!
}

/** The server: what was said, else where this module was served by one, else the page's own. */
export function serverOf(url?: string): string {
  if (url) return new URL(url, document.baseURI).href
  const {origin, pathname} = new URL(import.meta.url)
  const at = pathname.lastIndexOf('/client/')
  return at < 0 ? location.origin : origin + pathname.slice(0, at)
}

/** Asks the page's app for a socket token: with its cookies, and with no more than that. */
function tokenFrom(address: string): Options['getToken'] {
  return async ({signal}) => {
    const answer = await fetch(address, {credentials: 'include', signal})
    if (answer.status === 401) return null // nobody is signed in
    if (!answer.ok) throw new Error(`${address} answers ${answer.status}`)
    return (await answer.json() as {token: string}).token
  }
}

/** Hold what an element shows, as it says; undefined while it does not say which PoV. Throws on a wrong `url`. */
export function acquire({url, tokenUrl, getToken, client, feed, pov, group}: SourceOptions): Source | undefined {
  if (feed) return {client, feed, release() {}}
  const povs = [...new Set(pov?.split(/\s+/).filter(Boolean))].sort()
  if (!povs.length) return
  let releaseClient = () => {}
  if (!client) {
    const server = serverOf(url)
    const from = new URL(tokenUrl ?? server.replace(/\/?$/, '/api/auth/ws-token'), document.baseURI).href
    ;[client, releaseClient] = clients.hold(
      `${server} ${getToken ? numberOf(getToken) : from}`,
      () => connect({url: server, getToken: getToken ?? tokenFrom(from)}), each => each.close())
  }
  const made = client
  const [shared, releaseFeed] = feeds.hold(
    JSON.stringify([numberOf(client), povs, group]),
    () => createFeed(made, povs, group === 'off' ? {groupWithin: 0} : {}), each => each.close())
  return {client, feed: shared, release: () => { releaseFeed(); releaseClient() }}
}

/** Whoever shares this client gets another one, and connects anew, when it next asks. */
export function forget(client: Client | undefined): void {
  clients.forget(each => each === client)
}
