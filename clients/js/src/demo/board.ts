/** A board as one person has it: `/demo/board?user=ana&pov=mossgate-bank&task=audit-log-export`. */
import {connect, createFeed} from '/client/pov-rt-widgets.mjs'
import {render} from 'lit'
import type {Client, Feed, Row} from '../api.js'
import {countOf} from './account.js'
import {board, type Comment, type View} from './board-view.js'
import {makeNet} from './net.js'
import {makePage, peopleOf} from './page.js'
import {makeQueue, withChanges, type Change} from './queue.js'
import {API, USER, type BoardState, type Pov, type Task} from './shared.js'

/** What the page gives to both tags. */
interface Widget extends HTMLElement {
  client: Client
  feed: Feed
  pov: string
}

/** How often it is said that somebody still writes, ms: the server forgets it after 6 s. */
const STILL_WRITES = 2_000
/** How many of a PoV are loaded at first. */
const PAGE = 200

const given = new URLSearchParams(location.search)
const user = given.get('user') ?? 'ana'
const headers = {[USER]: user}
const main = document.querySelector('main')!
/** What happens on the PoV that is looked at. */
const list = document.querySelector<Widget>('pov-team-activity')!
/** What happens on all of them. */
const toasts = document.querySelector<Widget>('pov-activity-notification')!
const net = makeNet()
// All of the page is behind its plug: the SDK, too, asks over HTTP why a socket did not open.
globalThis.fetch = net.fetch

async function ask<T>(path: string): Promise<T> {
  const answer = await fetch(API + path, {headers})
  if (!answer.ok) throw new Error(`${path} answers ${answer.status}`)
  return await answer.json() as T
}

const page = makePage(draw)
let state = await ask<BoardState>('/board')
let povId = given.get('pov') ?? ''
let taskId = given.get('task') ?? ''
let failure = ''
let wrote = 0

const povs = state.povs.map(({id}) => id)
page.people = peopleOf(state.people)
const client = connect({
  user,
  async getToken() {
    return (await ask<{token: string}>('/token')).token
  },
  WebSocket: net.WebSocket,
  // Its own socket, or another tab would carry what its plug should cut.
  tabs: false,
  outbox: true,
})
/** All that happens: what there are toasts of, and what is counted. So nothing of it is given up. */
const feed = createFeed(client, povs, {page: PAGE, limit: 0})
/** What was said: the log is where the board keeps it. */
const talk = createFeed(client, povs, {page: PAGE, presence: false, only: {types: ['comment']}})

// ---- the board, and what waits to be done to it ----

let isLoading = false
let isStale = false

/** Fetch the board. One that is under way may have come too early: then it is fetched once more. */
async function reload(): Promise<void> {
  if (isLoading) {
    isStale = true
    return
  }
  isLoading = true
  try {
    do {
      isStale = false
      state = await ask<BoardState>('/board')
    } while (isStale)
  } finally {
    isLoading = false
  }
  draw()
}

/** Fetch it where that can wait: without a connection until there is one, which does it again. */
function refresh(): void {
  reload().catch((error: unknown) => console.info('the board is as of before:', String(error)))
}

const queue = makeQueue({
  name: `pov-demo-${user}`,
  send: ({method, path, body}) =>
    fetch(path, {method, headers, body: body === undefined ? '' : JSON.stringify(body)}),
  changed: draw,
  done: reload,
  refused(why) {
    failure = why
  },
})

function change(fields: Omit<Change, 'path' | 'key'> & {at: string; what: string}): void {
  const {at, what, ...rest} = fields
  failure = ''
  queue.add({...rest, key: `${rest.povId} ${what}`, path: `${API}/povs/${rest.povId}/${at}`})
}

// ---- what is drawn ----

const detail = ({details}: Row['activity'], name: string) => String(details?.[name] ?? '')

/** What was said about a task since the board began, and what waits to be. */
function commentsOf(pov: Pov, task: Task): Comment[] {
  const isMeant = (activity: {povId: string; details?: Record<string, unknown>}) =>
    activity.povId === pov.id && activity.details?.task === task.id
  const {rows} = talk.getSnapshot()
  const said = rows.filter(({activity, at}) => isMeant(activity) && at >= state.since).reverse()
    .map(({activity, at}) => ({id: activity.id, who: activity.userId, text: detail(activity, 'text'), at}))
  const ids = new Set(said.map(({id}) => id))
  const waiting = client.pending.filter(({id, activity}) => isMeant(activity) && !ids.has(id))
    .map(({id, activity, at, state: its, failure: why}) => ({
      id, who: user, text: String(activity.details?.text), at,
      waits: its === 'waiting' ? isLive() ? 'sending' : 'not sent yet' : why?.message ?? 'not sent: too old',
    }))
  return [...said, ...waiting]
}

const isLive = () => client.status.state === 'live'

function draw(): void {
  const shown = withChanges(state, queue.waiting)
  const pov = shown.povs.find(({id}) => id === povId) ?? shown.povs[0]!
  // Once chosen it stays, whoever does it.
  const task = pov.tasks.find(({id}) => id === taskId) ?? pov.tasks.find(({done}) => !done) ?? pov.tasks[0]
  taskId = task?.id ?? ''
  const isWaiting = new Set(isLive() ? [] : queue.waiting.map(({key}) => key))
  const counts = new Map(pov.tasks.map(each => [each.id, commentsOf(pov, each).length]))
  const typing = feed.getSnapshot().povs.get(pov.id)?.typing ?? []
  const view: View = {
    ...page, user, pov, task, failure, povs: shown.povs, phases: shown.phases,
    counted: each => counts.get(each.id) ?? 0,
    comments: task ? commentsOf(pov, task) : [],
    writing: typing.filter(({userId, where}) => userId !== user && where === task?.title).map(({userId}) => userId),
    waits: each => isWaiting.has(`${pov.id} ${each?.id ?? 'phase'}`),
    open,
    setDone: (each, done) => change({
      povId: pov.id, task: {...each, done}, what: each.id,
      method: done ? 'PUT' : 'DELETE', at: `tasks/${each.id}/done`,
    }),
    add(title) {
      const id = `t-${crypto.randomUUID().slice(0, 13)}`
      change({
        povId: pov.id, task: {id, title, who: user, done: false}, what: id,
        method: 'PUT', at: `tasks/${id}`, body: {title},
      })
    },
    move: phase => change({
      povId: pov.id, phase, what: 'phase', method: 'PUT', at: `phase/${encodeURIComponent(shown.phases[phase]!)}`,
    }),
    write: text => writes(text, pov, task),
    say: text => void says(text, pov, task),
  }
  render(board(view), main)
  list.pov = pov.id
}

function open(pov: string, task = ''): void {
  povId = pov
  taskId = task
  failure = ''
  const at = new URLSearchParams({user, pov, ...task && {task}})
  history.replaceState(null, '', `?${at}`)
  draw()
}

// ---- what is written ----

function writes(text: string, pov: Pov, task: Task | undefined): void {
  const now = performance.now()
  if (text && now - wrote < STILL_WRITES) return
  if (!text && !wrote) return
  wrote = text ? now : 0
  feed.typing(pov.id, !!text, task?.title)
}

/** Publish it: the SDK keeps it until the server has it, over reloads, too. */
async function says(text: string, pov: Pov, task: Task | undefined): Promise<void> {
  if (!task) return
  writes('', pov, task)
  const href = `${location.pathname}?${new URLSearchParams({pov: pov.id, task: task.id})}`
  const details = {title: task.title, task: task.id, text, href}
  try {
    await client.publish({type: 'comment', action: 'added', povId: pov.id, details})
  } catch (error) {
    failure = error instanceof Error ? error.message : String(error)
    draw()
  }
}

// ---- what happens ----

/** How many of the rows changed the board. */
let changes = -1
let wasLive = false

function look(): void {
  const {rows, connection} = feed.getSnapshot()
  let found = 0
  for (const {activity} of rows) if (activity.type === 'task' || activity.type === 'phase') found++
  const isBack = connection.state === 'live' && !wasLive
  wasLive = connection.state === 'live'
  if (found !== changes || isBack) refresh()
  if (isBack) void queue.flush()
  changes = found
  document.documentElement.dataset.state = connection.state
  draw()
}

feed.subscribe(look)
talk.subscribe(draw)
client.on('pending', draw)

window.board = {
  get isPlugged() {
    return net.isPlugged
  },
  plug: isPlugged => net.plug(isPlugged),
  reload,
  count(base, log) {
    const snapshot = feed.getSnapshot()
    // What was sent before this page was loaded, and is counted: its rows are there, one page further down.
    for (const [id, {hasEarlier, position}] of snapshot.povs) {
      const oldest = Math.min(...snapshot.rows.filter(row => row.povId === id).map(({offset}) => offset))
      const start = base.get(id)
      if (hasEarlier && start && start.epoch === position?.epoch && oldest > start.offset + 1) loadEarlier(id)
    }
    return countOf(snapshot, base, log)
  },
}

const loading = new Set<string>()

function loadEarlier(id: string): void {
  if (loading.has(id)) return
  loading.add(id)
  feed.loadEarlier(id)
    .catch((error: unknown) => console.info('earlier pages come later:', String(error)))
    .finally(() => loading.delete(id))
}

for (const widget of [list, toasts]) {
  Object.assign(widget, {
    client, people: page.people, povs: Object.fromEntries(state.povs.map(({id, name}) => [id, name])),
    href: (activity: Row['activity']) => activity.details?.href && `${detail(activity, 'href')}&user=${user}`,
  })
  widget.addEventListener('pov-open', event => {
    const {activity} = (event as CustomEvent<{activity: Row['activity']}>).detail
    event.preventDefault() // it is this page that shows it
    open(activity.povId, detail(activity, 'task'))
  })
}
toasts.feed = feed
list.style.height = '100%'
look()
