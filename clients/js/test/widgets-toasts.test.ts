/** Which toasts there are, whatever comes and whenever. */
import assert from 'node:assert/strict'
import {beforeEach, mock, test} from 'node:test'
import type {Client, Row} from '../src/api.js'
import {makeReports} from '../src/widgets/reports.js'
import {actionsOf, filterOf, topicOf} from '../src/widgets/toasts/toast.js'
import {isQuiet} from '../src/widgets/quiet.js'
import {gapOf, live, MINUTE, pending, START, World} from './toasts-world.js'

test('one activity shows for six seconds and is heard once', () => {
  const world = live()
  const row = world.come()
  assert.deepEqual(world.kinds, ['activity'])
  assert.deepEqual(world.only.rows, [row])
  assert.deepEqual(world.sounds, ['arrive'])
  assert.deepEqual(world.told, [row])
  world.pass(5_999)
  assert.equal(Math.round(world.policy.spent(world.only) * 6_000), 5_999)
  assert.deepEqual(world.kinds, ['activity'])
  world.pass(1)
  assert.deepEqual(world.kinds, [])
  assert.equal(world.policy.next, undefined)
})

test('more than two on one PoV within three seconds are one, with the last two named', () => {
  const world = live('acme', 'globex')
  world.come({user: 'bo'})
  world.come({user: 'cy'})
  assert.deepEqual(world.kinds, ['activity', 'activity'])
  const third = world.come({user: 'di'})
  assert.deepEqual(world.kinds, ['burst 3'])
  assert.deepEqual([world.only.rows[0], world.only.rows.length], [third, 2])
  assert.deepEqual(world.only.users, ['di', 'cy', 'bo'])
  world.come({pov: 'globex'})
  assert.deepEqual(world.kinds, ['activity', 'burst 3'])
  world.pass(2_999)
  world.come()
  assert.deepEqual(world.kinds, ['burst 4', 'activity'])
  world.pass(3_000)
  world.come()
  assert.deepEqual(world.kinds, ['activity', 'burst 4', 'activity'])
})

test('those that wait behind do not get older, and neither does any that is held', () => {
  const world = live('a', 'b', 'c', 'd')
  for (const pov of ['a', 'b', 'c', 'd']) world.come({pov})
  world.pass(6_000)
  assert.deepEqual(world.policy.toasts.map(each => each.povs[0]), ['a'])
  world.policy.hold(true)
  assert.equal(world.policy.next, undefined)
  world.pass(MINUTE)
  world.policy.hold(false)
  assert.equal(world.policy.spent(world.only), 0)
  world.pass(5_999)
  assert.equal(world.kinds.length, 1)
  world.pass(1)
  assert.equal(world.kinds.length, 0)
})

test('a burst of 1,000 is one toast, one sound, one change a snapshot', () => {
  const world = live()
  for (let i = 0; i < 20; i++) {
    for (let n = 0; n < 50; n++) world.add({user: `user-${n}`})
    world.pass(100)
    world.look()
  }
  assert.deepEqual(world.kinds, ['burst 1000'])
  assert(world.changes <= 20)
  assert.equal(world.told.length, 1_000)
  assert.equal(world.sounds.length, 20) // the sound itself is bounded by `play`
})

test('however many PoVs, those behind are bounded and none is left uncounted', () => {
  const povs = Array.from({length: 100}, (_, i) => `pov-${i}`)
  const world = live(...povs)
  for (const pov of povs) world.come({pov, actions: pov.endsWith('7') ? [{label: 'Open'}] : undefined})
  assert.equal(world.policy.toasts.length, 10)
  assert.equal(world.policy.toasts.reduce((sum, each) => sum + each.count, 0), 100)
  const many = world.policy.toasts.filter(each => each.kind === 'burst')
  assert.equal(many.length, 1)
  assert(many[0]!.povs.length > 80)
})

test('nothing is said of what a first load begins with', () => {
  const world = new World('acme')
  world.log('acme').isKnown = false
  world.status = {state: 'connecting', since: START}
  world.look()
  world.log('acme').isKnown = true
  for (let i = 0; i < 50; i++) world.add({at: START - MINUTE})
  world.connect('catching-up')
  world.add()
  world.connect('live')
  assert.deepEqual(world.kinds, [])
  world.come()
  assert.deepEqual(world.kinds, ['activity'])
})

test('what was stored here says where one was: a reload is told what came meanwhile, without a sound', () => {
  const world = new World('acme')
  world.add()
  world.connect('connecting')
  world.connect('catching-up')
  world.come({at: START})
  world.connect('live')
  assert.deepEqual(world.kinds, ['activity'])
  assert.equal(world.only.rows[0]!.offset, 2)
  assert.deepEqual(world.sounds, [])
})

test('after an absence there is one digest without a sound; another one adds to it', () => {
  const world = live('acme', 'globex')
  world.pass(60 * MINUTE) // nothing happened: that is no absence
  world.connect('offline', 'network')
  world.pass(1_000)
  world.connect('catching-up')
  for (let i = 0; i < 3; i++) world.add()
  world.connect('live')
  assert.deepEqual(world.kinds, ['burst 3'])
  world.pass(10_000)
  for (const since of [0, 1]) {
    const lostAt = world.now
    world.connect('offline', 'network')
    world.pass(6 * MINUTE)
    world.connect('catching-up')
    for (const user of ['bo', 'cy', 'di']) world.add({user, pov: since ? 'globex' : 'acme'})
    world.add({own: true})
    world.connect('live')
    if (!since) assert.equal(world.only.at, lostAt)
  }
  assert.deepEqual(world.kinds, ['digest 6'])
  assert.deepEqual([world.only.users.length, world.only.povs.length], [3, 2])
  assert.deepEqual(world.sounds, [])
  assert.equal(world.unshown.filter(([, reason]) => reason === 'digest').length, 6)
  world.pass(60 * MINUTE)
  assert.deepEqual(world.kinds, ['digest 6'])
  for (const log of world.logs.values()) log.read = log.tip
  world.look()
  assert.deepEqual(world.kinds, [])
})

test('a machine that slept learns of it late: the rows say since when', () => {
  const world = live()
  const slept = world.now
  world.now += 90 * MINUTE
  world.connect('offline', 'silent')
  world.connect('catching-up')
  for (let i = 0; i < 5; i++) world.add({at: slept + MINUTE * i})
  world.connect('live')
  assert.deepEqual(world.kinds, ['digest 5'])
})

test('what the server did not send is told by its numbers, once', () => {
  const world = live()
  world.connect('offline', 'network')
  world.pass(1_000)
  world.log('acme').tip = 214
  world.gaps = [gapOf(214)]
  world.connect('catching-up')
  world.connect('live')
  assert.deepEqual(world.kinds, ['digest 214'])
  assert.equal(world.only.users.length, 6)
  world.policy.dismiss(world.only.key)
  world.connect('offline', 'network')
  world.connect('catching-up')
  world.connect('live')
  assert.deepEqual(world.kinds, [])

  const again = new World('acme')
  again.log('acme').tip = 214
  again.gaps = [gapOf(214)]
  again.look() // stored, and there before this page was
  assert.deepEqual(again.kinds, [])
})

test('nothing is called complete that is not', () => {
  const world = live()
  world.connect('offline', 'network')
  world.pass(5_000)
  assert.deepEqual(world.kinds, ['offline'])
  world.log('acme').tip = 12
  world.gaps = [gapOf(12, {digest: undefined})]
  world.connect('live')
  assert.deepEqual(world.kinds, [])
})

test('offline is said after five seconds, and that it is over only if it was said', () => {
  const world = live()
  world.connect('offline', 'network')
  world.pass(4_999)
  assert.deepEqual(world.kinds, [])
  world.connect('live')
  world.pass(MINUTE)
  assert.deepEqual(world.kinds, [])
  world.connect('offline', 'network')
  world.pass(5_000)
  assert.deepEqual(world.kinds, ['offline'])
  assert.equal(world.only.duration, undefined)
  world.connect('catching-up')
  world.add()
  world.add({own: true})
  world.connect('live')
  assert.deepEqual(world.kinds, ['back'])
  assert.equal(world.only.count, 1)
  assert.deepEqual(world.sounds, [])
  world.pass(6_000)
  assert.deepEqual(world.kinds, [])
})

test('what catches up is not offline, and neither is what sleeps', () => {
  for (const [state, reason] of [['catching-up', 'network'], ['suspended', 'frozen']] as const) {
    const world = live()
    world.connect('offline', 'network')
    world.pass(3_000)
    world.connect(state, reason)
    world.pass(MINUTE)
    assert.deepEqual(world.kinds, [])
  }
})

test('a dismissed "offline" stays away until the next break', () => {
  const world = live()
  world.connect('offline', 'network')
  world.pass(5_000)
  world.policy.dismiss(world.only.key)
  world.connect('offline', 'network')
  world.pass(MINUTE)
  assert.deepEqual(world.kinds, [])
})

test('a restart is said as one, until it takes longer than one does', () => {
  const world = live()
  world.connect('offline', 'restarting')
  world.pass(5_000)
  assert.deepEqual(world.kinds, ['restarting'])
  world.connect('offline', 'network')
  assert.deepEqual(world.kinds, ['offline'])
  world.connect('live')
  assert.deepEqual(world.kinds, ['back'])
})

test('where the page tells of the connection, nothing is told or due', () => {
  const world = live()
  world.tells = false
  world.connect('offline', 'network')
  assert.equal(world.policy.next, undefined)
  world.pass(MINUTE)
  world.connect('live')
  assert.deepEqual(world.kinds, [])
})

test('the end of a session asks for the user, once', () => {
  const world = live()
  world.connect('offline', 'network')
  world.pass(5_000)
  world.connect('closed', 'session_ended')
  assert.deepEqual(world.kinds, ['session'])
  assert(world.only.isAlert)
  assert.deepEqual(world.sounds, ['attend'])
  world.look()
  world.pass(60 * MINUTE)
  assert.deepEqual(world.kinds, ['session'])
  world.policy.dismiss(world.only.key)
  world.look()
  assert.deepEqual(world.kinds, [])
  world.connect('connecting')
  world.connect('live')
  world.connect('closed', 'session_ended')
  assert.deepEqual(world.kinds, ['session'])
  world.connect('connecting')
  assert.deepEqual(world.kinds, [])
})

test('nothing of the last person is left after signing out', () => {
  const world = live()
  world.come()
  world.connect('closed', 'signed_out')
  assert.deepEqual(world.kinds, [])
  for (let i = 0; i < 5; i++) world.add()
  world.connect('connecting')
  world.connect('live')
  assert.deepEqual(world.kinds, [])
})

test('what was not sent stays until it went or was discarded, and is heard once', () => {
  const world = live()
  world.pending = ['1', '2', '3', '4'].map(id => pending(id))
  world.look()
  assert.deepEqual(world.kinds, ['unsent', 'unsent']) // never a pile of alerts
  assert.deepEqual(world.sounds, ['attend'])
  world.look()
  assert.equal(world.kinds.length, 2)
  world.policy.dismiss(world.policy.toasts[0]!.key)
  world.look()
  assert.deepEqual(world.policy.toasts.map(each => each.pending!.id), ['3', '1'])
  world.pending = [pending('1', 'waiting'), pending('4')]
  world.look()
  assert.deepEqual(world.policy.toasts.map(each => each.pending!.id), ['4'])
  world.pending = [pending('1')]
  world.look()
  assert.deepEqual(world.policy.toasts.map(each => each.pending!.id), ['1'])
  world.pending = []
  world.look()
  assert.deepEqual(world.kinds, [])
})

test('what waits to be sent is told of when there is no connection for it', () => {
  const world = live()
  world.pending = [pending('1', 'waiting'), pending('2', 'waiting')]
  world.look()
  assert.deepEqual(world.kinds, [])
  world.connect('offline', 'network')
  world.pass(5_000)
  assert.deepEqual(world.kinds, ['unsent', 'offline'])
  world.connect('live')
  world.pending = []
  world.look()
  assert.deepEqual(world.kinds, ['back'])
})

test('a mute takes its toasts away, and knows what it takes back', () => {
  const world = live('acme', 'globex')
  world.log('acme').level = 'toast'
  for (let i = 0; i < 3; i++) world.come()
  world.come({pov: 'globex'})
  world.log('acme').level = 'off'
  world.look()
  world.policy.muted('acme', START + 60 * MINUTE)
  assert.deepEqual(world.kinds, ['muted', 'activity'])
  assert.equal(world.policy.toasts[0]!.at, START + 60 * MINUTE)
  assert.equal(world.policy.levelBefore('acme'), 'toast')
  assert.equal(world.policy.levelBefore('globex'), 'sound')
  world.policy.muted('globex', START + 60 * MINUTE)
  assert.deepEqual(world.kinds, ['muted'])
})

test('the browser\'s notifications are asked for once, after the third', () => {
  const world = live('a', 'b', 'c', 'd')
  world.mayAsk = true
  world.come({pov: 'a'})
  world.come({pov: 'b'})
  assert(!world.kinds.includes('ask'))
  world.come({pov: 'c'})
  assert.equal(world.kinds[0], 'ask')
  world.policy.dismiss(world.policy.toasts[0]!.key)
  world.come({pov: 'd'})
  assert(!world.kinds.includes('ask'))
})

test('who is not told of it, and why', () => {
  const world = live('acme', 'globex', 'initech')
  world.come({own: true})
  world.log('acme').level = 'off'
  world.come()
  world.log('acme').level = 'feed'
  world.come()
  world.log('acme').level = 'sound'
  world.fits = row => row.activity.type !== 'file'
  world.come({type: 'file'})
  world.inView = row => row.povId === 'globex'
  world.come({pov: 'globex'})
  world.isQuiet = true
  world.come()
  assert.deepEqual(world.unshown.map(([, reason]) => reason), ['own', 'muted', 'feed', 'filtered', 'feed', 'quiet'])
  assert.deepEqual([world.kinds, world.sounds], [[], []])
  world.isQuiet = false
  world.log('acme').level = 'toast'
  world.come()
  assert.deepEqual([world.kinds, world.sounds], [['activity'], []])
})

test('a digest is for who may be told: not in quiet hours, not of what a feed shows', () => {
  for (const change of [
    (world: World) => { world.isQuiet = true },
    (world: World) => { world.inView = () => true },
    (world: World) => { world.log('acme').level = 'off' },
  ]) {
    const world = live()
    change(world)
    world.connect('offline', 'network')
    world.tells = false
    world.pass(10 * MINUTE)
    world.connect('catching-up')
    for (let i = 0; i < 5; i++) world.add()
    world.gaps = [gapOf(3)]
    world.connect('live')
    assert(!world.kinds.some(each => each.startsWith('digest')))
    assert.equal(world.unshown.length, 5)
  }
})

test('what is read elsewhere goes, and what asks for something stays', () => {
  const world = live()
  world.come()
  world.come({actions: [{label: 'Open', href: '/x'}]})
  world.log('acme').read = 2
  world.look()
  assert.deepEqual(world.kinds, ['action'])
  world.pass(60 * MINUTE)
  assert.deepEqual(world.kinds, ['action'])
  assert.deepEqual(world.sounds, ['arrive', 'attend'])
})

test('what is amended is told as it is now, what is retracted no more', () => {
  const world = live()
  const change = (row: Row, more: Partial<Row['activity']>) => {
    world.rows = world.rows.map(each => each.key === row.key ? {...each, activity: {...each.activity, ...more}} : each)
    world.log('acme').tip++ // what tells of it is no row
    world.look()
  }
  const first = world.come()
  change(first, {amended: true, details: {text: 'new'}})
  assert.deepEqual(world.only.rows[0]!.activity.details, {text: 'new'})
  const {changes} = world
  world.look()
  assert.equal(world.changes, changes)
  change(first, {retracted: true, details: undefined})
  assert.deepEqual(world.kinds, [])
  const burst = [world.come(), world.come(), world.come()]
  assert.deepEqual(world.kinds, ['burst 3'])
  change(burst[2]!, {retracted: true})
  assert.deepEqual([world.only.count, world.only.rows.length], [2, 1])
  assert.deepEqual(world.told.length, 4)
  const late = world.add()
  change(late, {retracted: true})
  assert.equal(world.told.length, 4, 'what was retracted before it was told of never is')
})

test('the team feed, a log that begins anew, and a page before the oldest row', () => {
  const world = live('*')
  world.come({pov: 'acme'}, '*')
  world.come({pov: 'globex'}, '*')
  assert.deepEqual(world.policy.toasts.map(each => each.povs[0]), ['globex', 'acme'])
  assert.deepEqual(world.rows.map(topicOf), ['*', '*'])
  world.pass(MINUTE)
  world.log('*').epoch = 'e2'
  world.log('*').tip = 0
  world.come({pov: 'acme'}, '*')
  assert.equal(world.only.rows[0]!.epoch, 'e2')
  world.pass(MINUTE)
  world.rows.push({...world.rows[0]!, offset: 0, key: '["*","e2",0]'})
  world.look()
  assert.deepEqual(world.kinds, [])
})

test('one PoV that cannot be followed does not keep the others waiting', () => {
  const world = live('acme', 'globex')
  Object.assign(world.log('globex'), {state: 'joining', failure: {code: 'limit_exceeded', message: ''}})
  world.come()
  assert.deepEqual(world.kinds, ['activity'])
})

test('only what is new is looked at', () => {
  const world = live()
  for (let i = 0; i < 1_000; i++) world.add()
  world.look()
  world.pass(MINUTE)
  world.add()
  let looked = 0
  const snapshot = world.snapshot()
  const rows = new Proxy(snapshot.rows, {
    get(target, name) {
      if (typeof name === 'string' && /^\d+$/.test(name)) looked++
      return Reflect.get(target, name) as unknown
    },
  })
  world.policy.changed({...snapshot, rows})
  assert.equal(world.kinds.length, 1)
  assert(looked <= 3, `${looked}`)
})

test('a filter names types, actions or both', () => {
  const row = live().add({type: 'task'})
  const fits = (filter?: string) => filterOf(filter)(row)
  for (const each of [undefined, '', ' , ', 'task', 'file, task', 'task:completed', ':completed', ' task : completed ']) assert(fits(each), each)
  for (const each of ['file', 'task:added', ':added', 'file:completed']) assert(!fits(each), each)
})

test('actions of an activity are two at most, and only what is well made', () => {
  const of = (actions: unknown) => actionsOf(live().add({actions})).map(each => each.label)
  assert.deepEqual(of([{label: 'A', href: '/'}, {label: 'B'}, {label: 'C'}]), ['A', 'B'])
  assert.deepEqual(of([null, {label: 1}, {href: '/'}, {label: 'A', href: 1}, 'x', {label: 'B'}]), ['B'])
  for (const each of [null, 'x', {label: 'A'}, 1]) assert.deepEqual(of(each), [])
})

test('quiet hours are of the day, and may go over midnight', () => {
  const at = (time: string) => new Date(`2026-11-12T${time}`)
  for (const [hours, time, is] of [
    ['19:00-08:00', '18:59', false], ['19:00-08:00', '19:00', true], ['19:00-08:00', '00:00', true],
    ['19:00-08:00', '07:59', true], ['19:00-08:00', '08:00', false], ['12:30-13:00', '12:45', true],
    ['12:30-13:00', '13:00', false], [' 9:00 - 10:00 ', '09:30', true], ['', '12:00', false], ['always', '12:00', false],
    ['09:00-09:00', '09:00', false],
  ] as const) assert.equal(isQuiet(hours, at(time)), is, `${hours} ${time}`)
  assert.equal(isQuiet(undefined, at('12:00')), false)
})

// ---- reports ----

interface Told {povId: string; offset: number; shown: boolean; reason?: string}

function reporting(world: World) {
  const sent: Told[] = []
  const client = {request: async (_: string, fields: Told) => {
    sent.push(fields)
    return {type: 'acked'}
  }} as unknown as Client
  return {sent, client, reports: makeReports(() => client, () => world.snapshot())}
}

beforeEach(() => mock.timers.reset())

test('of each PoV the newest is reported, at most once in five seconds', () => {
  mock.timers.enable({apis: ['setTimeout']})
  const world = live('acme', 'globex')
  const {sent, reports} = reporting(world)
  const [first, second] = [world.add(), world.add()]
  reports.add(second)
  reports.add(first, 'quiet')
  reports.add(world.add({pov: 'globex'}), 'muted')
  mock.timers.tick(4_999)
  assert.equal(sent.length, 0)
  mock.timers.tick(1)
  assert.deepEqual(sent.map(({povId, offset, shown, reason}) => [povId, offset, shown, reason]), [
    ['acme', 2, true, undefined], ['globex', 1, false, 'muted'],
  ])
  reports.add(second)
  mock.timers.tick(MINUTE)
  assert.equal(sent.length, 2)
  // Ended with something gathered, it begins anew.
  reports.add(world.add())
  reports.end()
  mock.timers.tick(MINUTE)
  assert.equal(sent.length, 2)
  reports.add(world.add())
  mock.timers.tick(MINUTE)
  assert.equal(sent.at(-1)!.offset, 4)
})

test('nothing is reported past what can still be loaded, or without a connection', () => {
  mock.timers.enable({apis: ['setTimeout']})
  const world = live()
  const {sent, reports} = reporting(world)
  world.gaps = [gapOf(1)]
  reports.add(world.add())
  mock.timers.tick(5_000)
  world.gaps = []
  world.status = {state: 'offline', since: START}
  reports.add(world.add())
  mock.timers.tick(5_000)
  assert.deepEqual(sent, [])
})

for (const [where, hidden, held, told] of [
  ['no page of the browser is visible', true, [], [[1, false, 'hidden'], [1, true, undefined]]],
  ['another tab is visible', true, [{name: 'pov-rt:visible'}], [[1, true, undefined]]],
  ['the page has come back meanwhile', false, [], [[1, true, undefined]]],
] as const) {
  test(`a row in a hidden page is told of as hidden, and then as shown: ${where}`, async () => {
    mock.timers.enable({apis: ['setTimeout']})
    const before = Object.getOwnPropertyDescriptor(globalThis, 'navigator')
    Object.defineProperty(globalThis, 'navigator', {configurable: true, value: {locks: {query: async () => ({held})}}})
    Object.assign(globalThis, {document: {hidden}})
    try {
      const world = live()
      const {sent, reports} = reporting(world)
      const row = world.add()
      reports.add(row, 'hidden')
      mock.timers.tick(5_000)
      await new Promise(setImmediate)
      reports.add(row, 'filtered')
      mock.timers.tick(5_000)
      reports.add(row)
      mock.timers.tick(5_000)
      assert.deepEqual(sent.map(({offset, shown, reason}) => [offset, shown, reason]), told)
    } finally {
      if (before) Object.defineProperty(globalThis, 'navigator', before)
      else delete (globalThis as {navigator?: unknown}).navigator
      delete (globalThis as {document?: unknown}).document
    }
  })
}

test('what two elements report of one client is told once, and that it was shown goes before that it was not', () => {
  mock.timers.enable({apis: ['setTimeout']})
  const world = live()
  const {sent, client} = reporting(world)
  const [feed, toasts] = [0, 1].map(() => makeReports(() => client, () => world.snapshot()))
  const row = world.add()
  toasts!.add(row, 'filtered')
  feed!.add(row)
  toasts!.add(row, 'filtered')
  mock.timers.tick(MINUTE)
  assert.deepEqual(sent.map(({offset, shown, reason}) => [offset, shown, reason]), [[1, true, undefined]])
})
