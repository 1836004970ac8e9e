/** The rules of the tracker for Node; tests/tracker has it under Express, with a table that all trackers pass. */
import assert from 'node:assert/strict'
import {readFileSync} from 'node:fs'
import {test} from 'node:test'
import {makeChooser, nameOf, type Choice, type Facts} from '../src/node/rules.js'
import {activityTracker} from '../src/node/index.js'
import {readTraceparent, withTrace} from '../src/node/trace.js'

const RULE = {method: 'POST', path: '/povs/{pov_id}/tasks/{task_id}/done', type: 'task', action: 'done'}

function choose(path: string, choice: Choice = {rules: [RULE]}, status = 200): unknown {
  const chooser = makeChooser(choice, false)
  const candidate = chooser.pick('POST', path, status)
  return candidate && chooser.make(candidate, {path, user: 'ana'} as Facts)
}

test('a rule is for the whole path, and its parts are decoded one by one', () => {
  const made = (povId: string, task_id: string) => ({type: 'task', action: 'done', povId, userId: 'ana', details: {task_id}})
  assert.deepEqual(choose('/povs/acme/tasks/7/done'), made('acme', '7'))
  assert.deepEqual(choose('/povs/a%2Fb/tasks/%C3%BC/done'), made('a/b', 'ü'))
  assert.deepEqual(choose('/povs/a/tasks/%FF/done'), made('a', '%FF'))
  for (const path of ['/povs/acme/tasks/7/done/', '/api/povs/acme/tasks/7/done', '/povs//tasks/7/done', '/povs/a/b/tasks/7/done']) {
    assert.equal(choose(path), undefined)
  }
})

test('what is no part stands for itself', () => {
  const rules = [{...RULE, path: '/a.b/(x)/{pov_id}'}]
  assert.ok(choose('/a.b/(x)/p', {rules}))
  assert.equal(choose('/aXb/(x)/p', {rules}), undefined)
})

test('of a sample some are chosen', () => {
  const times = Array.from({length: 1000}, () => choose('/povs/acme/tasks/7/done', {rules: [RULE], sampleRate: 0.5}))
  const some = times.filter(Boolean).length
  assert.ok(some > 0 && some < 1000)
})

test('patterns that remember where they were still find', () => {
  const chooser = makeChooser({exclude: [/private/g, '^/x']}, false)
  for (let time = 0; time < 3; time++) assert.equal(chooser.watches('POST', '/private'), false)
  assert.equal(chooser.watches('POST', '/x/y'), false)
})

test('options that could never make an activity are refused', () => {
  const given = {url: 'http://127.0.0.1:9', token: 'token'}
  const refused = (choice: Choice, words: RegExp) => assert.throws(() => activityTracker({...given, ...choice}), words)
  refused({rules: [{...RULE, path: '/tasks'}]}, /where the \{pov_id\} is/)
  refused({rules: [{...RULE, method: 'GET'}]}, /add it to methods/)
  refused({sampleRate: 5}, /between 0 and 1/)
})

test("a user's id is found where apps have it", () => {
  const found = [null, '', 'ana', 7, {id: 7}, {userId: 'ana', id: 7}, {username: 'ana'}, {}].map(nameOf)
  assert.deepEqual(found, [undefined, undefined, 'ana', '7', '7', 'ana', 'ana', undefined])
})

test('a trace context is read as the trackers for Python read it', () => {
  const table = new URL('../../../tests/tracker/conformance.json', import.meta.url)
  const {traceparents} = JSON.parse(readFileSync(table, 'utf8')) as {traceparents: [string, string | null][]}
  for (const [text, found] of traceparents) assert.equal(readTraceparent(text), found ?? undefined, text)
  assert.equal(readTraceparent(7), undefined)
})

test('what an activity says itself of its trace stays', () => {
  const activity = {type: 't', action: 'a', povId: 'p'}
  assert.deepEqual(withTrace(activity, 'one'), {...activity, details: {traceparent: 'one'}})
  const traced = {...activity, details: {traceparent: 'own', n: 1}}
  assert.equal(withTrace(traced, 'one'), traced)
  assert.equal(withTrace(activity, undefined), activity)
})
