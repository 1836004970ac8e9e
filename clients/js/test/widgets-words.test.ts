// What the components say: of states, times, numbers, people and activities.
import assert from 'node:assert/strict'
import {test} from 'node:test'
import fc from 'fast-check'
import type {Group, PovState, Reason, Row, Snapshot, State} from '../src/api.js'
import {seenBy} from '../src/widgets/around.js'
import {completeSince, sayBriefly} from '../src/widgets/brief.js'
import {hueOf, initialsOf, isAwaited, nameOf, type Person} from '../src/widgets/people.js'
import {catchUp, progressOf} from '../src/widgets/progress.js'
import {linkOf, plainSentence, quoteOf} from '../src/widgets/sentences.js'
import {sayState, stateOf} from '../src/widgets/status.js'
import {has, say, type Values} from '../src/widgets/text.js'
import {age, dated, moment, span} from '../src/widgets/times.js'
import '../src/widgets/words-more.js'

const speaker = {locale: 'en-GB'}
const teller = {...speaker, requestUpdate() {}}
const MINUTE = 60_000
const HOUR = 60 * MINUTE

const pov = (povId: string, more: Partial<PovState> = {}): PovState => ({
  povId, position: {epoch: 'e', offset: 10}, state: 'live', unread: 0, unseen: 0, readOffset: 0, seenOffset: 0,
  completeSince: at(9, 14), hasEarlier: false, present: [], typing: [], receipts: new Map(), level: 'sound', ...more,
})

const at = (hours: number, minutes: number) => new Date(2026, 10, 24, hours, minutes).getTime()
const NOW = at(14, 10)

function row(offset: number, more: Partial<Row['activity']> = {}, given: Partial<Row> = {}): Row {
  return {
    key: `["acme","e",${offset}]`, povId: 'acme', epoch: 'e', offset, at: at(13, offset), state: 'read', own: false,
    activity: {id: `a-${offset}`, povId: 'acme', userId: 'jonas', type: 'task', action: 'completed', ...more}, ...given,
  }
}

function snapshot(state: State, reason?: Reason, more: Partial<Snapshot> = {}): Snapshot {
  const rows = [row(10)]
  return {
    connection: {state, reason, since: at(14, 2)}, rows, groups: [], unread: 0, unseen: 0, gaps: [], pending: [],
    povs: new Map([['acme', pov('acme')]]), storage: 'off', ...more,
  }
}

/** What stands in the header and in the foot. */
function words(given: Snapshot, now = NOW): [header: string, foot: string, thread: string, action?: string] {
  const {says, also, foot, thread, action} = sayState(speaker, given, now)
  const plain = (said?: readonly [string, Values?]) => said ? say(speaker, ...said) : ''
  return [plain(says) + plain(also), plain(foot), thread, action]
}

const TABLE: [Snapshot, ...ReturnType<typeof words>][] = [
  [snapshot('connecting'), 'Connecting', 'Loading the latest activity', 'filling', undefined],
  [snapshot('live'), 'Live · complete since 09:14', 'Complete since 09:14', '', undefined],
  [snapshot('catching-up'), 'Catching up', 'Loading the latest activity', 'filling', undefined],
  [snapshot('catching-up', 'slow'), 'Catching up · this connection is slow', 'Loading the latest activity', 'filling', undefined],
  [snapshot('offline', 'network'), 'Offline since 14:02', 'You have everything up to 14:02', 'broken', 'retry'],
  [snapshot('offline', 'silent'), 'Offline since 14:02', 'You have everything up to 14:02', 'broken', 'retry'],
  [snapshot('suspended', 'frozen'), 'Paused · this tab was asleep', 'You have everything up to 14:02', 'broken', 'resume'],
  [snapshot('offline', 'restarting'), 'Server restarting · back in seconds', 'You have everything up to 14:02', 'broken', undefined],
  [snapshot('offline', 'busy'), 'Server busy since 14:02', 'You have everything up to 14:02', 'broken', 'retry'],
  [snapshot('offline', 'token'), 'Renewing the session', 'You have everything up to 14:02', 'broken', undefined],
  [snapshot('closed', 'session_ended'), 'Session ended · sign in to go on', 'You have everything up to 14:02', 'broken', 'sign-in'],
  [snapshot('closed', 'signed_out'), 'Signed out', 'Nothing is kept here', 'bad', 'sign-in'],
  [snapshot('closed', 'ended'), 'Disconnected by an administrator', 'Stopped at 14:02', 'bad', undefined],
  [snapshot('closed', 'page_error'), 'Stopped · this page has an error', 'Stopped at 14:02', 'bad', 'reload'],
  [snapshot('closed', 'refused'), 'Stopped · this page isn’t allowed here', 'Stopped at 14:02', 'bad', undefined],
  [snapshot('closed', 'closed'), 'Stopped', 'Stopped at 14:02', 'bad', undefined],
  [snapshot('live', undefined, {rows: []}), 'Live · nothing missed', 'Nothing missed', '', undefined],
  [
    snapshot('live', undefined, {gaps: [{povId: 'acme', to: {epoch: 'e', offset: 4}, missed: 12, state: 'open'}]}),
    'Live · 12 missed', 'Complete, but for 12 that can be loaded', '', undefined,
  ],
  [
    snapshot('live', undefined, {povs: new Map([
      ['acme', pov('acme')], ['globex', pov('globex', {state: 'ended', failure: {code: 'forbidden', message: ''}})],
    ])}),
    'Live · complete since 09:14', '1 of 2 PoVs can’t be shown', '', undefined,
  ],
  [
    snapshot('live', undefined, {povs: new Map([['acme', pov('acme', {state: 'ended', failure: {code: 'forbidden', message: ''}})]])}),
    'No access', '1 of 1 PoVs can’t be shown', 'bad', undefined,
  ],
]

for (const [given, ...expected] of TABLE) {
  const {state, reason = ''} = given.connection
  test(`${state} ${reason}: ${expected[0]}`, () => assert.deepEqual(words(given), expected))
}

test('renewing the token is said after ten seconds, and is as it was before', () => {
  const {connection} = snapshot('offline', 'token')
  assert.equal(stateOf(connection, connection.since + 9_999), 'live')
  assert.equal(stateOf(connection, connection.since + 10_000), 'renewing')
})

test('what waits to be sent is said while it can be', () => {
  const pending = [{id: 'x', activity: {type: 'task', action: 'completed', povId: 'acme'}, at: NOW, state: 'waiting' as const}]
  assert.equal(words(snapshot('offline', 'network', {pending}))[1], '1 waits here to be sent')
  assert.equal(words(snapshot('closed', 'ended', {pending}))[1], 'Stopped at 14:02')
})

test('every state has its words, and what is read out of it', () => {
  for (const [given] of TABLE) {
    const {says, foot} = sayState(speaker, given, NOW)
    for (const [key] of [says, foot]) assert.ok(has(speaker, key), key)
  }
  for (const key of ['expired', 'ended', 'page-error', 'signed-out', 'no-access', 'offline', 'busy', 'restarting']) {
    assert.ok(has(speaker, `told.${key}`), key)
  }
})

test('what is said before the table is loaded is what the table says', () => {
  for (const [given] of TABLE) {
    const brief = sayBriefly(speaker, given, NOW)
    if (!brief) continue
    const spoken = ({says, also, foot, ...rest}: typeof brief) =>
      ({...rest, action: rest.action, words: [says, also, foot].map(each => each && say(speaker, ...each))})
    assert.deepEqual(spoken(brief), spoken(sayState(speaker, given, NOW)))
  }
})

test('complete since is the latest of all PoVs, known when all are', () => {
  fc.assert(fc.property(fc.array(fc.option(fc.integer({min: 1}), {nil: undefined}), {maxLength: 5}), times => {
    const povs = new Map(times.map((completeSince, i) => [`p${i}`, pov(`p${i}`, {completeSince})]))
    const isKnown = times.length > 0 && times.every(each => each !== undefined)
    assert.equal(completeSince(snapshot('live', undefined, {povs})), isKnown ? Math.max(...times as number[]) : undefined)
  }))
})

test('catching up counts what came of what the server says was missed', () => {
  const before = snapshot('offline', 'network')
  const begun = catchUp(before, at(13, 21))
  const later = snapshot('catching-up', undefined, {
    unread: 214, rows: Array.from({length: 38}, (_, i) => row(11 + i, {}, {state: 'new'})),
    povs: new Map([['acme', pov('acme', {position: {epoch: 'e', offset: 48}})]]),
  })
  const progress = progressOf(begun, later)
  assert.deepEqual(progress, {since: at(13, 21), n: 38, total: 214})
  const {says, foot} = sayState(speaker, later, at(14, 2), progress)
  assert.equal(say(speaker, ...says), 'Catching up · 38 of 214')
  assert.equal(say(speaker, ...foot), 'Was offline for 41 mins')
})

test('times are as short as they can be', () => {
  const cases: [number, string][] = [
    [NOW - 59_000, 'now'], [NOW - 2 * MINUTE, '2 mins'], [NOW - 14 * MINUTE, '14 mins'], [at(13, 48), '13:48'],
    [at(13, 48) - 24 * HOUR, 'Mon'], [new Date(2026, 10, 12, 8).getTime(), '12 Nov'], [new Date(2025, 10, 12, 8).getTime(), '12 Nov 2025'],
  ]
  for (const [given, expected] of cases) assert.equal(age(speaker, given, NOW), expected)
  assert.equal(moment(speaker, at(9, 14), NOW), '09:14')
  assert.match(moment(speaker, at(9, 14) - 24 * HOUR, NOW), /^Mon,? 09:14$/)
  assert.match(dated(speaker, at(10, 2)), /^Tuesday,? 24 Nov.* 10:02$/)
  assert.deepEqual([41 * MINUTE, 3 * HOUR, 50 * HOUR].map(each => span({locale: 'en'}, each)), ['41 min', '3 hr', '2 days'])
})

test('plurals are those of the language, values are only put in', () => {
  const polish = {locale: 'pl', strings: {new: {one: '{n} nowy', few: '{n} nowe', other: '{n} nowych'}}}
  assert.deepEqual([1, 2, 5].map(n => say(polish, 'new', {n})), ['1 nowy', '2 nowe', '5 nowych'])
  assert.equal(say({locale: 'ar-EG'}, 'unread', {n: 12}), '١٢ unread')
  fc.assert(fc.property(fc.string(), what => {
    assert.ok(say(speaker, 'task.completed', {who: 'Jonas', what}).endsWith(`completed ${what}`))
  }))
})

test('who, what, and how many; unknown types as they are named', () => {
  const people = {jonas: {name: 'Jonas Weber'}}
  const told = (...rows: Row[]) => plainSentence({...teller, people}, {rows} as Pick<Group, 'rows'>)
  const titled = (title: string) => ({details: {title}})
  assert.equal(told(row(1, titled('Audit log'))), 'Jonas Weber completed Audit log')
  assert.equal(told(row(2, titled('A')), row(1, titled('B'))), 'Jonas Weber completed 2 tasks')
  assert.equal(told(row(1, titled('Audit log'), {own: true})), 'You completed Audit log')
  assert.equal(told(row(1, {type: 'phase', action: 'changed', details: {title: 'X', from: 'Set up', to: 'Prove'}})), 'Jonas Weber moved X from Set up → Prove')
  assert.equal(told(row(1, {type: 'report', action: 'exported'})), 'Jonas Weber: report exported')
  assert.equal(told(row(1, {userId: 'u-9', type: 'report', action: 'exported'})), 'u-9: report exported')
  assert.equal(told(row(1, {type: 'comment', action: 'added', retracted: true})), 'Jonas Weber: comment added, withdrawn')
  assert.equal(told(row(2, {retracted: true}), row(1, {retracted: true})), 'Jonas Weber: task completed, 2 times, withdrawn')
  assert.equal(quoteOf(speaker, row(1, {details: {text: 'Yes'}}).activity), '“Yes”')
})

test('only addresses of pages are links', () => {
  globalThis.document ??= {baseURI: 'https://app.example/board'} as Document
  URL.parse ??= (url, base) => { try { return new URL(url, base) } catch { return null } }
  const link = (href: unknown) => linkOf(teller, row(1, {details: {href}}).activity)
  for (const good of ['/tasks/1', '#x', 'https://x.example/']) assert.equal(link(good), good)
  for (const bad of ['javascript:alert(1)', 'data:text/html,x', ' \tjavascript:x', 'blob:https://x/1', {}, null]) assert.equal(link(bad), undefined)
})

test('people are asked for once, many at a time', async () => {
  const asked: string[][] = []
  let updates = 0
  const answers: Record<string, Person> = {a: {name: 'Ana Ruiz'}, b: {name: 'Bo Li'}}
  const element = {resolvePeople: (ids: string[]) => (asked.push(ids), Promise.resolve(answers)), requestUpdate: () => void updates++}
  assert.deepEqual(['a', 'b', 'a'].map(id => nameOf(element, id)), ['a', 'b', 'a'])
  assert.ok(isAwaited(element, 'a'))
  await new Promise(resolve => setImmediate(resolve))
  assert.deepEqual(asked, [['a', 'b']])
  assert.equal(updates, 1)
  assert.deepEqual(['a', 'b'].map(id => nameOf(element, id)), ['Ana Ruiz', 'Bo Li'])
  assert.ok(!isAwaited(element, 'a'))
})

test('initials and colours', () => {
  assert.deepEqual(['Jonas Weber', 'mei', 'Ana Maria Ruiz', ''].map(initialsOf), ['JW', 'ME', 'AR', ''])
  fc.assert(fc.property(fc.string(), id => {
    const hue = hueOf(id)
    assert.ok(Number.isInteger(hue) && hue >= 1 && hue <= 6)
  }))
})

test('whoever wrote a row is not one of those who have to see it', () => {
  const present = ['jonas', 'mei', 'ife'].map(userId => ({userId, devices: [], since: '', state: 'active' as const}))
  const receipts = new Map([['mei', 9], ['ana', 10], ['jonas', 99]])
  assert.deepEqual(seenBy(row(10), {receipts, present}), [1, 3])
})
