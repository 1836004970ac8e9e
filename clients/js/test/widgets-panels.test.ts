/** What a filter leaves, how it stands in an address, and what panels and digests say. */
import assert from 'node:assert/strict'
import {test} from 'node:test'
import fc from 'fast-check'
import type {PovState, Row} from '../src/api.js'
import type {Digest, User} from '../src/wire.js'
import type {Filter, PanelHost} from '../src/widgets/api.js'
import {sumsOf} from '../src/widgets/panels/digest.js'
import {noneOf} from '../src/widgets/panels/filter.js'
import {fits, fold, fromHash, isFiltering, toHash} from '../src/widgets/panels/fits.js'
import {shortNames} from '../src/widgets/panels/names.js'
import {presentOn} from '../src/widgets/panels/presence.js'
import '../src/widgets/panels/words.js'

const RUNS = Number(process.env.RUNS ?? 500)
const PEOPLE = {jonas: {name: 'Jonas Weber'}, mei: {name: 'Mei Tanaka'}, zoe: {name: 'Zoë Ångström'}}

function row(fields: Partial<Row['activity']> = {}, povId = 'bank'): Row {
  const activity = {
    id: 'a', povId, type: 'comment', action: 'added', userId: 'jonas', timestamp: '2026-11-28T12:00:00Z',
    details: {title: 'Audit log export', text: 'Their DBA wants it'}, ...fields,
  } as Row['activity']
  return {key: 'k', povId, epoch: 'e', offset: 1, activity, at: 0, state: 'new', own: false}
}

function host(fields: Partial<PanelHost> = {}, rows: Row[] = [row()]): PanelHost {
  return {
    locale: 'en', people: PEOPLE, povs: {bank: 'Mossgate Bank'}, filter: {}, requestUpdate() {},
    snapshot: {rows}, ...fields,
  } as PanelHost
}

test('each list has to have it, and all words have to be said', () => {
  const here = host()
  const cases: [Filter, boolean][] = [
    [{}, true],
    [{types: [], actions: [], users: [], povs: [], text: ' '}, true],
    [{types: ['file', 'comment']}, true],
    [{types: ['file']}, false],
    [{actions: ['added'], users: ['mei']}, false],
    [{actions: ['added'], users: ['mei', 'jonas'], povs: ['bank'], types: ['comment']}, true],
    [{povs: ['freight']}, false],
    [{text: 'AUDIT weber'}, true],
    [{text: 'commented mossgate dba'}, true],
    [{text: 'audit mei'}, false],
    [{text: 'xport au'}, true],
  ]
  for (const [filter, expected] of cases) assert.equal(fits(here, filter, row()), expected, JSON.stringify(filter))
})

test('who has no user fits nobody', () => {
  const system = row({userId: undefined})
  assert.equal(fits(host(), {users: ['jonas']}, system), false)
  assert.equal(fits(host(), {}, system), true)
})

test('a name that comes in later is found', () => {
  const one = row()
  assert.equal(fits(host({people: {}}), {text: 'weber'}, one), false)
  assert.equal(fits(host(), {text: 'weber'}, one), true)
})

test('case and accents are none, as far as the language says so', () => {
  assert.equal(fits(host(), {text: 'zoe angstrom'}, row({userId: 'zoe'})), true)
  assert.equal(fits(host({locale: 'sv'}), {text: 'zoe angstrom'}, row({userId: 'zoe'})), false)
  assert.equal(fits(host({locale: 'sv'}), {text: 'zoe ångström'}, row({userId: 'zoe'})), true)
  const same: [string, string, string][] = [
    ['de', 'Straße', 'STRASSE'], ['de', 'STRAẞE', 'straße'], ['tr', 'DIŞ', 'dış'], ['tr', 'İYİ', 'iyi'], ['el', 'Ὀδυσσεύς', 'οδυσσευσ'],
    ['en', 'e\u0301te\u0301', 'ÉTÉ'], ['ar', 'مُحَمَّد', 'محمد'], ['en', 'ﬁle', 'File'],
  ]
  for (const [locale, one, other] of same) assert.equal(fold(locale, one), fold(locale, other), `${locale} ${one}`)
  assert.notEqual(fold('hi', 'कि'), fold('hi', 'क'), 'a vowel is no accent')
  assert.notEqual(fold('tr', 'ı'), fold('tr', 'i'))
})

test('whatever the text, folding it again changes nothing, and no case or form of it is another', () => {
  fc.assert(fc.property(fc.string({unit: 'binary'}), fc.constantFrom('en', 'de', 'tr', 'sv', 'el'), (text, locale) => {
    const once = fold(locale, text)
    assert.equal(fold(locale, text.normalize('NFD')), once)
    assert.equal(fold(locale, once), once)
  }), {numRuns: RUNS})
})

const names = fc.uniqueArray(fc.string({unit: 'binary', minLength: 1, maxLength: 60}), {maxLength: 5})
const filters: fc.Arbitrary<Filter> = fc.record({
  text: fc.string({unit: 'binary', maxLength: 90}), types: names, actions: names, users: names, povs: names,
}, {requiredKeys: []})
const others = fc.oneof(
  fc.string({unit: 'binary'}), fc.webFragments(),
  fc.constantFrom('/route?x=1&y=2', 'a=b&c=d', '&', '&&', 'x&', '%', '%E0%A4%A', 'pov-filters=1', '#'),
).filter(each => !/(^|&)pov-filter=/.test(each)).map(each => each && `#${each}`)

/** Without what leaves nothing out. */
const meant = (filter: Filter): Filter => Object.fromEntries(
  Object.entries(filter).filter(([, value]) => typeof value === 'string' ? value.trim() : value.length))

test('a filter comes back from an address, and what else is there stays to the letter', () => {
  fc.assert(fc.property(filters, filters, others, (filter, later, hash) => {
    const full = toHash(filter, hash)
    assert.deepEqual(fromHash(full), meant(filter))
    assert.equal(isFiltering(fromHash(full)), isFiltering(filter))
    assert.deepEqual(fromHash(toHash(later, full)), meant(later))
    assert.equal(toHash({}, toHash(later, full)), hash === '#' ? '' : hash)
    // As a browser gives it back: nothing in it is written another way.
    const url = new URL('https://app.example/')
    url.hash = toHash(filter, '')
    assert.equal(url.hash, toHash(filter, ''))
  }), {numRuns: RUNS})
})

test('a half character in a filter does not throw, and is none in the address', () => {
  assert.deepEqual(fromHash(toHash({text: 'a\ud800'}, '')), {text: 'a\ufffd'})
})

test('an address that somebody wrote does no harm', () => {
  const wrong = [
    '#pov-filter=', '#pov-filter=%', '#pov-filter=type:%E0%A4%A,file', '#pov-filter=__proto__:x;constructor:y',
    '#pov-filter=toString:1', '#pov-filter=type', '#pov-filter=type:,,,', '#pov-filter=text:%20',
    `#pov-filter=text:${'a'.repeat(201)}`, `#pov-filter=by:${'a'.repeat(129)}`,
  ]
  assert.deepEqual(wrong.map(fromHash), [{}, {}, {types: ['file']}, {}, {}, {}, {}, {}, {}, {}])
  const many = fromHash(`#pov-filter=by:${Array.from({length: 100_000}, (_, i) => i).join(',')}`)
  assert.equal(many.users!.length, 100)
  assert.equal(Object.getPrototypeOf(many), Object.prototype)
  const words = fc.string({unit: fc.constantFrom('pov-filter=', 'type', 'by', ':', ';', ',', '&', '%', '%2', '=', 'a', '__proto__')})
  fc.assert(fc.property(words, hash => {
    const filter = fromHash(`#${hash}`)
    fits(host(), filter, row())
    noneOf(host({filter}))
    assert.deepEqual(fromHash(toHash(filter, '')), filter)
  }), {numRuns: RUNS})
})

test('what was not found is said in one sentence', () => {
  const rows = [row(), row({type: 'report', action: 'exported'}), row({type: 'task', action: 'completed'})]
  const cases: [Filter, string][] = [
    [{types: ['file'], users: ['jonas']}, 'No file by Jonas Weber so far'],
    [{types: ['file', 'task']}, 'No file or task so far'],
    [{users: ['jonas', 'mei']}, 'No activity by Jonas Weber or Mei Tanaka so far'],
    [{types: ['task'], actions: ['completed'], povs: ['bank']}, 'No completed task on Mossgate Bank so far'],
    [{types: ['report'], actions: ['exported'], text: ' q3 '}, 'No report exported with “q3” so far'],
    [{types: ['report'], actions: ['signed']}, 'No report signed so far'],
    [{types: ['comment', 'task'], actions: ['completed', 'added']}, 'No comment or completed task so far'],
    [{actions: ['completed'], users: ['me']}, 'No “Completed” by you so far'],
    [{types: ['phase'], users: ['mei'], povs: ['x'], text: 'y'}, 'No phase change by Mei Tanaka on x with “y” so far'],
    [{users: ['a', 'b', 'c', 'd']}, 'Nothing fits this filter so far'],
  ]
  const source = {client: {user: 'me'}} as PanelHost['source']
  for (const [filter, expected] of cases) assert.equal(noneOf(host({filter, source}, rows)), expected)
})

test('any language says it its own way', () => {
  const strings = {'none.by': '{who}: bisher keine {what}', 'one.file': 'Datei', 'one.task': 'Aufgabe'}
  const here = host({locale: 'de', strings, filter: {types: ['file', 'task'], users: ['jonas']}})
  assert.equal(noneOf(here), 'Jonas Weber: bisher keine Datei oder Aufgabe')
})

test('given names are enough where they are unambiguous', () => {
  const people = {a: {name: 'Mei Tanaka'}, b: {name: 'Mei Chen'}, c: {name: 'Ife Okafor'}}
  assert.deepEqual([...shortNames(host({people}), ['a', 'b', 'c', 'u-17']).values()], ['Mei Tanaka', 'Mei Chen', 'Ife', 'u-17'])
})

const user = (userId: string, state: User['state'], since: string, ...devices: string[]): User => ({userId, state, since, devices})

test('somebody on several PoVs is there once, as active as on any', () => {
  const povs = [
    {present: [user('mei', 'away', '2026-11-28T13:22:00Z', 'laptop'), user('ife', 'active', '2026-11-28T12:00:00Z')], typing: []},
    {present: [user('mei', 'active', '2026-11-28T12:30:00Z', 'phone', 'laptop'), user('sam', 'away', '2026-11-28T09:00:00Z')],
      typing: [{userId: 'mei', where: 'Audit log export'}]},
  ] satisfies Pick<PovState, 'present' | 'typing'>[]
  assert.deepEqual(presentOn(povs), [
    {...user('ife', 'active', '2026-11-28T12:00:00Z'), where: undefined},
    {...user('mei', 'active', '2026-11-28T12:30:00Z', 'laptop', 'phone'), where: 'Audit log export'},
    {...user('sam', 'away', '2026-11-28T09:00:00Z'), where: undefined},
  ])
  assert.deepEqual(presentOn(povs, 'ife').map(({userId}) => userId), ['mei', 'sam', 'ife'])
})

const sort = (type: string, action: string, count: number) => ({type, action, count})

test('a digest names the most frequent and counts all', () => {
  const activities = [
    sort('phase', 'changed', 8), sort('task', 'completed', 96), sort('comment', 'added', 61), sort('file', 'added', 31),
    sort('report', 'exported', 10), sort('person', 'joined', 8),
  ]
  assert.deepEqual(sumsOf(host(), {counted: 214, people: 6, activities, users: []}), [
    ['Tasks completed', 96], ['Comments', 61], ['Files', 31], ['report exported', 10], ['Other', 16],
  ])
  assert.deepEqual(sumsOf(host(), {counted: 9, people: 1, activities: [sort('deal', 'won', 9)], users: []}), [['deal won', 9]])
})

test('whatever a digest has, its bars add up to what it counted', () => {
  const digests: fc.Arbitrary<Digest> = fc.record({
    activities: fc.array(fc.record({type: fc.string(), action: fc.string(), count: fc.integer({min: 1, max: 999})}), {maxLength: 9}),
    unnamed: fc.nat(99),
  }).map(({activities, unnamed}) => ({
    activities, users: [], people: 1, counted: activities.reduce((sum, {count}) => sum + count, unnamed),
  }))
  fc.assert(fc.property(digests, digest => {
    const sums = sumsOf(host(), digest)
    assert.equal(sums.reduce((sum, [, count]) => sum + count, 0), digest.counted)
    assert.ok(sums.length <= 6)
  }), {numRuns: RUNS})
})
