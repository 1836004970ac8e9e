// A bare list, with what the tests ask for:
//   ?server=URL&user=ana&povs=acme,globex  and, where wanted, &tabs=off, &outbox=on, &sdk=FOLDER
// Everything that is waited for stands in the document: the list, and the data of its root.
const given = new URLSearchParams(location.search)
const {connect, createFeed} = await import(`./${given.get('sdk') ?? 'client'}/pov-rt.mjs`)

const root = document.documentElement.dataset
const list = document.querySelector('ol')

// What became of the list, by what the browser says of it: whoever drew it twice cannot hide that.
window.ledger = {added: [], removed: []}
new MutationObserver(changes => {
  for (const change of changes) {
    for (const row of change.addedNodes) ledger.added.push(row.dataset.id)
    for (const row of change.removedNodes) ledger.removed.push(row.dataset.id)
  }
}).observe(list, {childList: true})

window.client = connect({
  url: given.get('server'),
  async getToken({signal, refused = ''}) {
    const answer = await fetch(`/token?user=${given.get('user')}&refused=${refused}`, {signal})
    return (await answer.json()).token
  },
  tabs: given.get('tabs') !== 'off',
  outbox: given.get('outbox') === 'on',
})
window.statuses = []
function tell(status) {
  statuses.push({...status, at: performance.now()})
  Object.assign(root, {state: status.state, reason: status.reason ?? ''})
}
client.on('status', tell)
client.on('welcome', ({connectionId}) => { root.connection = connectionId })
client.on('token', ({renewed}) => { if (renewed) root.renewed = Number(root.renewed ?? 0) + 1 })

window.feed = createFeed(client, given.get('povs').split(','))
const rows = new Map()
function draw() {
  const snapshot = feed.getSnapshot()
  const keys = new Set(snapshot.rows.map(({key}) => key))
  for (const [key, row] of rows) {
    if (keys.has(key)) continue
    row.remove()
    rows.delete(key)
  }
  let next = null // from the oldest on, each one goes before the one before
  for (const {key, activity, state} of snapshot.rows.toReversed()) {
    let row = rows.get(key)
    if (!row) {
      row = document.createElement('li')
      row.dataset.id = row.textContent = activity.id
      rows.set(key, row)
      list.insertBefore(row, next)
    } else if (row.nextSibling !== next) {
      list.insertBefore(row, next)
    }
    row.dataset.state = state
    next = row
  }
  Object.assign(root, {
    unread: snapshot.unread,
    unseen: snapshot.unseen,
    storage: snapshot.storage,
    gaps: snapshot.gaps.length,
    pending: snapshot.pending.length,
    povs: [...snapshot.povs.values()].map(({state}) => state).join(' '),
  })
}
feed.subscribe(draw)
draw()
