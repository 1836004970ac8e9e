// A bare list, as the scenario `screen` has it:
//   ?server=URL&device=NAME&povs=a,b&ledger=URL&tab=NAME
// What the browser says of the list goes to the ledger at once: what a page kept would die with it.
import {connect, createFeed} from './client/pov-rt.mjs'

const given = new URLSearchParams(location.search)
const list = document.querySelector('ol')
// Chromium ends the connections of a page that slept: what was not acknowledged is told again.
const life = crypto.randomUUID()
const untold = []
let number = 0
let ledger
function open() {
  ledger = new WebSocket(`${given.get('ledger')}/${given.get('tab')}/${life}`)
  ledger.onopen = () => { for (const [, text] of untold) ledger.send(text) }
  ledger.onmessage = ({data}) => { while (untold[0]?.[0] <= data) untold.shift() }
  ledger.onclose = open
}
function tell(what) {
  const text = JSON.stringify({number: ++number, at: Date.now(), ...what})
  untold.push([number, text])
  if (ledger.readyState === WebSocket.OPEN) ledger.send(text)
}
open()
tell({begins: true})
window.addEventListener('error', ({message}) => tell({error: message}))
window.addEventListener('unhandledrejection', ({reason}) => tell({error: String(reason?.stack ?? reason)}))

// Whoever drew a row twice, or moved one, cannot hide it from the observer.
new MutationObserver(changes => {
  const rows = []
  for (const {addedNodes, removedNodes, nextSibling} of changes) {
    for (const row of addedNodes) rows.push([row.dataset.id, nextSibling?.dataset.id ?? ''])
    for (const row of removedNodes) rows.push([row.dataset.id])
  }
  tell({rows})
}).observe(list, {childList: true})

// Says who leads: locks know whose they are, and so this tab has one with its name.
void navigator.locks.request(`screen:${given.get('tab')}`, () => new Promise(() => {}))
window.leader = async () => {
  const {held} = await navigator.locks.query()
  const lead = held.find(({name}) => /^pov-rt:[0-9a-f]+$/.test(name))
  const its = held.find(({name, clientId}) => clientId === lead?.clientId && name.startsWith('screen:'))
  return its?.name.slice('screen:'.length) ?? ''
}
window.locks = async () => JSON.stringify(await navigator.locks.query())
window.hang = ms => {
  const began = Date.now()
  while (Date.now() < began + ms);
  return began
}

const client = connect({
  url: given.get('server'),
  device: given.get('device'),
  getToken: async ({signal}) => (await (await fetch('/token?user=ana', {signal})).json()).token,
})
client.on('status', ({state, reason = '', detail = ''}) => tell({state, why: `${reason} ${detail}`.trim()}))

window.feed = createFeed(client, given.get('povs').split(','))
window.unread = () => Object.fromEntries([...feed.getSnapshot().povs].map(([povId, {unread}]) => [povId, unread]))
window.read = () => { feed.read().catch(({code}) => tell({read: code})) }

const rows = new Map()
let gaps
function draw() {
  const snapshot = feed.getSnapshot()
  const keys = new Set(snapshot.rows.map(({key}) => key))
  for (const [key, row] of rows) {
    if (keys.has(key)) continue
    row.remove()
    rows.delete(key)
  }
  let next = null // from the oldest on, each one goes before the one before
  for (const {key, activity} of snapshot.rows.toReversed()) {
    let row = rows.get(key)
    if (!row) {
      row = document.createElement('li')
      row.dataset.id = row.textContent = activity.id
      rows.set(key, row)
    }
    if (row.nextSibling !== next || !row.parentNode) list.insertBefore(row, next)
    next = row
  }
  if (snapshot.gaps === gaps) return
  gaps = snapshot.gaps
  if (gaps.length) tell({gaps})
}
feed.subscribe(draw)
draw()
