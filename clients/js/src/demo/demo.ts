/** Two people's boards side by side, what breaks them, and a line that counts. */
import {html, nothing, render} from 'lit'
import {sentOf} from './account.js'
import {givenName, makePage, number, peopleOf} from './page.js'
import {API, USER, type BoardPage, type BoardState, type Count, type Positions} from './shared.js'
import type {Position} from '../api.js'
import {icon} from '../widgets/icons.js'
import {avatar, nameOf} from '../widgets/people.js'

/** How long between two looks at the logs, ms. */
const LOOK = 500
/** After all that a log can have: the page that is asked for is empty, and says where the log is. */
const END = Number.MAX_SAFE_INTEGER
/** Whose token the page uses for that, and who presses what is nobody's own. */
const OBSERVER = 'sam'

const frames = [...document.querySelectorAll('iframe')]
const tools = document.querySelector<HTMLElement>('#tools')!
const line = document.querySelector<HTMLElement>('#line')!
const page = makePage(draw)

const boardOf = (user: string): BoardPage | undefined =>
  frames.find(({dataset}) => dataset.user === user)?.contentWindow?.board

// ---- the logs ----

let token = ''
let povs: string[] = []
/** Where the logs were when the page was opened: from there on it counts. */
let base: Positions | undefined
let log: Positions = new Map()
let said = ''

async function ask<T>(path: string, as: string, method = 'GET'): Promise<T> {
  const answer = await fetch(API + path, {method, headers: {[USER]: as}, body: method === 'GET' ? undefined : ''})
  const body = await answer.json() as T & {error?: string}
  if (!answer.ok) throw new Error(body.error ?? `${path} answers ${answer.status}`)
  return body
}

/** Where a PoV's log is, by the server's own word. */
async function positionOf(povId: string): Promise<Position> {
  const answer = await fetch(`/api/povs/${povId}/activities?limit=1&after=${END}`, {headers: {Authorization: `Bearer ${token}`}})
  if (answer.status === 401) token = ''
  if (!answer.ok) throw new Error(`the log of ${povId} answers ${answer.status}`)
  const {epoch, offset} = await answer.json() as Position
  return {epoch, offset}
}

async function look(): Promise<void> {
  try {
    if (!povs.length) {
      const board = await ask<BoardState>('/board', OBSERVER)
      page.people = peopleOf(board.people)
      povs = board.povs.map(({id}) => id)
    }
    token ||= (await ask<{token: string}>('/token', OBSERVER)).token
    log = new Map(await Promise.all(povs.map(async id => [id, await positionOf(id)] as const)))
    base ??= log
    line.dataset.server = 'up'
  } catch (error) {
    // It starts anew, or is away: what is shown is as of before.
    line.dataset.server = String(error)
  }
  draw()
  setTimeout(() => void look(), LOOK)
}

// ---- what is done to it ----

async function press(path: string, as = OBSERVER): Promise<void> {
  said = ''
  try {
    await ask(path, as, 'POST')
  } catch (error) {
    said = error instanceof Error ? error.message : String(error)
  }
  draw()
}

async function reset(): Promise<void> {
  await press('/reset')
  await Promise.all(frames.map(frame => frame.contentWindow?.board?.reload()))
}

function plug(): void {
  const jonas = boardOf('jonas')
  jonas?.plug(!jonas.isPlugged)
  draw()
}

// ---- what is drawn ----

const figure = (name: string, value: number, id: string, more: unknown = nothing, classes = '') => html`
  <div class=${classes}><dt>${name}</dt><dd data-count=${id} data-value=${value}>${number(value)} ${more}</dd></div>`

function draw(): void {
  const isCut = boardOf('jonas')?.isPlugged === false
  render(html`
    <button class="btn" id="plug" aria-pressed=${isCut} @click=${plug}>
      ${icon('plug')}${isCut ? 'Plug Jonas back in' : 'Unplug Jonas'}</button>
    <button class="btn" id="expire" @click=${() => void press('/end-token', 'ana')}>${icon('key')}Expire Ana’s token</button>
    <button class="btn" id="restart" @click=${() => void press('/restart')}>${icon('server')}Restart the server</button>
    <button class="btn" id="burst" @click=${() => void press('/burst')}>${icon('bolt')}Send 1,000 activities</button>`, tools)
  if (!base) return
  const from = base
  const counts = frames.map(frame => {
    const count: Count = frame.contentWindow?.board?.count(from, log) ?? {shown: 0, lost: 0, twice: 0, toCome: sentOf(from, log)}
    return {user: frame.dataset.user!, ...count}
  })
  const sum = (of: 'lost' | 'twice') => counts.reduce((all, each) => all + each[of], 0)
  const bad = (of: 'lost' | 'twice') => sum(of) ? 'bad' : ''
  render(html`
    <dl>
      ${figure('Sent', sentOf(from, log), 'sent')}
      ${counts.map(({user, shown, toCome}) => figure(
        `Shown to ${givenName(page, user)}`, shown, `shown-${user}`,
        html`<small data-count="to-come-${user}" data-value=${toCome}>${toCome ? `${number(toCome)} to come` : nothing}</small>`))}
      ${figure('Lost', sum('lost'), 'lost', nothing, bad('lost'))}
      ${figure('Twice', sum('twice'), 'twice', nothing, bad('twice'))}
    </dl>
    <p role="status">${said}</p>
    <button class="btn btn-text" id="reset" @click=${() => void reset()}>Reset the board</button>`, line)
  for (const frame of frames) {
    const bar = frame.previousElementSibling as HTMLElement
    const user = frame.dataset.user!
    const address = `/demo/board?user=${user}`
    render(html`<span class="me">${avatar(page, user, 'av-m')}<b>${nameOf(page, user)}</b></span>
      <a class="url" href=${address} target="_blank">${address}</a>`, bar)
  }
}

void look()
