import assert from 'node:assert/strict'
import {test} from 'node:test'
import fc from 'fast-check'
import type {Line} from '../src/api.js'
import {Browser, type Tab} from './browser.js'
import {connectTo, Server} from './server.js'

type Message = {type: string; [field: string]: unknown}

const POVS = ['p', 'q']

/** A page as a client is one: it subscribes anew when opened, and drops what it has. */
class Page {
  readonly line: Line
  readonly positions = new Map<string, number>()
  /** From where on its stream of a PoV is known. */
  readonly begins = new Map<string, number>()
  readonly wants = new Set<string>()
  readonly pending = new Map<string, Message>()
  private readonly joined = new Set<string>()
  private connection = ''
  private ids = 0
  isClosed = false

  constructor(readonly server: Server, readonly tab: Tab) {
    const line = (this.line = tab.sdk.makeTabLine({scope: 's', connect: () => connectTo(server, tab)}))
    tab.window.addEventListener('pagehide', line.suspend)
    tab.window.addEventListener('pageshow', line.resume)
    tab.document.addEventListener('freeze', line.suspend)
    tab.document.addEventListener('resume', line.resume)
    line.start({
      opened: welcome => {
        assert.ok(line.isOpen)
        assert.equal(this.connection, '', 'opened while it is open')
        this.connection = welcome.connectionId
        assert.equal(this.pending.size, 0)
        for (const each of this.wants) this.join(each)
      },
      message: message => this.message(message as Message),
      status: ({state}) => {
        if (state === 'closed') this.isClosed = true
        if (state === 'live') return
        assert.ok(!line.isOpen)
        this.pending.clear() // the page is told that they may have been lost
        this.joined.clear()
        this.connection = ''
      },
    })
  }

  ask(message: Message): void {
    if (!this.line.isOpen) return
    const id = `${++this.ids}`
    this.pending.set(id, message)
    this.line.send({...message, id})
  }

  join(povId: string): void {
    this.wants.add(povId)
    const offset = this.positions.get(povId)
    this.ask({type: 'subscribe', povId, ...(offset === undefined ? {} : {since: {epoch: 'e', offset}})})
  }

  leave(povId: string): void {
    for (const each of [this.wants, this.joined, this.positions, this.begins]) each.delete(povId)
    this.ask({type: 'unsubscribe', povId})
  }

  message({id, type, povId, connection, ...rest}: Message): void {
    assert.ok(this.line.isOpen)
    // The hub's own answer has none.
    if (connection !== undefined) assert.equal(connection, this.connection, `${type} of another connection`)
    const pov = povId as string
    if (id !== undefined) {
      const request = this.pending.get(id as string)
      assert.ok(request, `an answer to nothing that was asked: ${type}`)
      this.pending.delete(id as string)
      if (request.type === 'custom') assert.equal(rest.echo, request.echo)
      if (request.type === 'unsubscribe') assert.deepEqual([type, pov], ['unsubscribed', request.povId])
      if (request.type === 'subscribe') {
        assert.deepEqual([type, pov], ['subscribed', request.povId])
        if (!this.wants.has(pov)) return
        this.joined.add(pov)
        if (this.positions.has(pov)) return
        this.positions.set(pov, rest.offset as number)
        this.begins.set(pov, rest.offset as number)
      }
    } else if (type === 'activity') {
      const {povId: of} = rest.data as {povId: string}
      const offset = rest.offset as number
      if (!this.joined.has(of) || offset <= this.positions.get(of)!) return
      assert.equal(offset, this.positions.get(of)! + 1, `a hole in ${of}`)
      this.positions.set(of, offset)
    }
  }
}

const which = fc.nat(5)
const step = fc.oneof(
  {weight: 3, arbitrary: fc.record({do: fc.constant('open' as const), hidden: fc.boolean()})},
  {weight: 12, arbitrary: fc.record({
    do: fc.constantFrom('close', 'crash', 'freeze', 'stop', 'thaw', 'hide', 'show', 'cover', 'suspend', 'resume', 'end'),
    which,
  })},
  {weight: 12, arbitrary: fc.record({do: fc.constantFrom('join', 'leave', 'ask', 'retry'), which, povId: fc.constantFrom(...POVS)})},
  {weight: 6, arbitrary: fc.record({do: fc.constant('publish' as const), povId: fc.constantFrom(...POVS)})},
  {weight: 2, arbitrary: fc.record({do: fc.constant('drop' as const), isUp: fc.boolean()})},
  {weight: 1, arbitrary: fc.record({do: fc.constant('clock' as const), ms: fc.integer({min: -1e7, max: 1e7})})},
  {weight: 8, arbitrary: fc.record({do: fc.constant('pass' as const), ms: fc.oneof(fc.nat(20), fc.nat(800), fc.nat(5_000))})},
)

type Step = typeof step extends fc.Arbitrary<infer Of> ? Of : never

async function play(seed: number, steps: Step[]): Promise<void> {
  const browser = new Browser(seed)
  const server = new Server(browser)
  const pages: Page[] = []
  const stopped = new Map<Tab, 'freeze' | 'stop' | 'hide'>()
  let echo = 0

  const open = (hidden: boolean) => {
    if (pages.length < 6) pages.push(new Page(server, browser.open(hidden)))
  }
  const wake = (tab: Tab) => {
    const how = stopped.get(tab)
    stopped.delete(tab)
    if (how === 'hide') tab.comeBack()
    else if (how) tab.thaw(how === 'freeze')
  }

  open(false)
  open(false)
  for (const each of steps) {
    switch (each.do) {
      case 'open':
        open(each.hidden)
        break
      case 'publish':
        server.publish(each.povId)
        break
      case 'drop':
        server.isUp = each.isUp
        server.drop()
        break
      case 'clock':
        browser.wall += each.ms
        break
      case 'pass':
        await browser.pass(each.ms)
        break
      default: {
        const page = pages[each.which % pages.length]!
        const {tab, line} = page
        if (tab.isGone || (stopped.has(tab) && each.do !== 'crash' && each.do !== 'thaw')) break
        switch (each.do) {
          case 'close': await tab.close(); break
          case 'crash': tab.crash(); break
          case 'freeze': tab.freeze(); stopped.set(tab, each.do); break
          case 'stop': tab.freeze(false); stopped.set(tab, each.do); break
          case 'hide': tab.hide(); stopped.set(tab, each.do); break
          case 'thaw': wake(tab); break
          case 'show': tab.show(); break
          case 'cover': tab.show(false); break
          case 'suspend': line.suspend(); break
          case 'resume': line.resume(); break
          case 'end': line.close('closed'); break
          case 'join': page.join(each.povId); break
          case 'leave': page.leave(each.povId); break
          case 'ask': page.ask({type: 'custom', echo: ++echo}); break
          case 'retry': line.retry()
        }
      }
    }
  }

  // All that lives wakes up, and one is looked at.
  server.isUp = true
  for (const {tab, line} of pages) {
    if (tab.isGone) continue
    wake(tab)
    line.resume()
  }
  const live = pages.filter(({tab, isClosed}) => !tab.isGone && !isClosed)
  live[0]?.tab.show()
  await browser.pass(10_000)
  for (const each of POVS) server.publish(each)
  await browser.pass(500)

  assert.equal(server.sockets.length, live.length ? 1 : 0, 'one socket')
  const wanted = new Set<string>()
  for (const page of live) {
    assert.ok(page.line.isOpen)
    assert.equal(page.pending.size, 0, 'each request is answered')
    for (const each of page.wants) {
      wanted.add(each)
      assert.equal(page.positions.get(each), server.povs.get(each)!.length, 'each has the whole stream')
    }
  }
  if (live.length) assert.deepEqual([...server.sockets[0]!.povs.keys()].sort(), [...wanted].sort())
  const connections = server.connections
  await browser.pass(10_000)
  assert.equal(server.connections, connections, 'it stays so')
}

test('whatever happens to tabs, they come to share one socket, and each has the whole stream', async () => {
  const runs = Number(process.env.RUNS ?? 200)
  await fc.assert(fc.asyncProperty(fc.nat(), fc.array(step, {maxLength: 60}), play), {numRuns: runs})
})
