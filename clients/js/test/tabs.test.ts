import assert from 'node:assert/strict'
import {describe, test} from 'node:test'
import type {Line, Outgoing, Status} from '../src/api.js'
import {Browser, type Tab} from './browser.js'
import {connectTo, Server} from './server.js'

type Message = {type: string; [field: string]: unknown}

/** A page in a tab: a line, and all that it was told. */
function visit(server: Server, {hidden = false, tab = server.browser.open(hidden), scope = 'pov-rt:a'} = {}) {
  const got: Message[] = []
  const states: Status[] = []
  let ids = 0
  const line: Line = tab.sdk.makeTabLine({scope, connect: () => connectTo(server, tab)})
  line.start({
    opened: welcome => void got.push({...welcome, type: 'opened'}),
    // Made in the realm of the tab, which `deepEqual` would not take for the same.
    message: message => void got.push(JSON.parse(JSON.stringify(message)) as Message),
    status: status => void states.push(status),
  })
  // As the client does.
  tab.window.addEventListener('pagehide', line.suspend)
  tab.window.addEventListener('pageshow', line.resume)
  tab.document.addEventListener('freeze', line.suspend)
  tab.document.addEventListener('resume', line.resume)
  return {
    tab, line, states,
    get state() {
      const {state, reason} = states.at(-1)!
      return reason ? `${state} ${reason}` : state
    },
    /** What came since this was last asked for, as types, or those of one type. */
    take(type?: string): Message[] {
      return got.splice(0).filter(each => !type || each.type === type)
    },
    ask(message: Outgoing): string {
      const id = `r${++ids}`
      line.send({...message, id})
      return id
    },
  }
}

type Page = ReturnType<typeof visit>

async function visits(count: number, hidden = false): Promise<[Browser, Server, Page, Page, Page]> {
  const browser = new Browser()
  const server = new Server(browser)
  const pages: Page[] = []
  for (let at = 0; at < count; at++) {
    pages.push(visit(server, {hidden: hidden && at > 0}))
    await browser.pass(200)
  }
  for (const each of pages) each.take()
  server.take()
  return [browser, server, ...pages] as [Browser, Server, Page, Page, Page] // as many as asked for
}

/** When `is` became true, ms; fails if it did not within `limit`. */
async function until(browser: Browser, is: () => boolean, limit = 10_000): Promise<number> {
  const start = browser.now
  while (!is()) {
    assert.ok(browser.now - start < limit, 'it did not come about')
    await browser.pass(5)
  }
  return browser.now - start
}

const leaderOf = (browser: Browser, scope = 'pov-rt:a'): Tab | undefined => browser.held.get(scope)?.tab

describe('one socket', () => {
  test('all tabs are opened by the one connection of the first', async () => {
    const browser = new Browser()
    const server = new Server(browser)
    const [a, b] = [visit(server), visit(server)]
    await browser.pass(300)
    const c = visit(server)
    await browser.pass(300)
    assert.equal(server.connections, 1)
    for (const each of [a, b, c]) {
      assert.deepEqual(each.take().map(({type, connectionId}) => [type, connectionId]), [['opened', 'c1']])
      assert.ok(each.line.isOpen)
      assert.deepEqual([...new Set(each.states.map(({state}) => state))], ['connecting', 'live'])
    }
  })

  test('nothing is told before `start` returns', () => {
    const browser = new Browser()
    const page = visit(new Server(browser))
    assert.deepEqual(page.states, [])
  })

  test('an answer goes to who asked, what nobody asked for to all', async () => {
    const [browser, server, a, b] = await visits(2)
    const id = b.ask({type: 'custom', echo: 7})
    a.ask({type: 'custom', echo: 8})
    await browser.pass(50)
    assert.deepEqual(b.take().map(each => [each.id, each.echo]), [[id, 7]])
    assert.deepEqual(a.take().map(each => [each.id, each.echo]), [['r1', 8]])
    server.push({type: 'news'})
    await browser.pass(50)
    assert.equal(a.take('news').length, 1)
    assert.equal(b.take('news').length, 1)
  })

  test('messages of a tab keep their order, and ids on the wire are unique strings', async () => {
    const [browser, server, a, b] = await visits(2)
    for (let at = 0; at < 20; at++) for (const each of [a, b]) each.ask({type: 'custom', echo: at})
    await browser.pass(50)
    const came = server.take('custom')
    const ids = came.map(({id}) => id)
    assert.equal(new Set(ids).size, 40)
    assert.ok(ids.every(id => typeof id === 'string' && id.length <= 64))
    for (const each of [a, b]) assert.deepEqual(each.take().map(({echo}) => echo), [...Array(20).keys()])
  })

  test('what changes something for all tabs of a user comes to all, with the id to who asked', async () => {
    const [browser, , a, b] = await visits(2)
    for (const [message, type] of [
      [{type: 'read', povId: 'p', offset: 3}, 'receipts'], [{type: 'read', inbox: true, offset: 3}, 'inbox_read'],
    ] as const) {
      const id = b.ask(message)
      await browser.pass(50)
      assert.deepEqual(b.take().map(each => [each.type, each.id]), [[type, id]])
      assert.deepEqual(a.take().map(each => [each.type, each.id]), [[type, undefined]])
    }
  })

  test('equal requests share one answer while it is on its way, and no longer', async () => {
    const [browser, server, a, b] = await visits(2)
    for (const message of [
      {type: 'history', povId: 'p', limit: 9}, {type: 'subscribe', povId: 'p'}, {type: 'presence', povId: 'p'},
    ]) {
      const ids = [a, b, a].map(each => each.ask(message))
      await browser.pass(50)
      assert.equal(server.take(message.type).length, 1)
      assert.deepEqual(a.take().map(({id}) => id), [ids[0], ids[2]])
      assert.deepEqual(b.take().map(({id}) => id), [ids[1]])
      b.ask(message)
      await browser.pass(50)
      assert.equal(server.take(message.type).length, 1)
      b.take()
    }
    for (const each of [a, b]) each.ask({type: 'custom', echo: 1})
    await browser.pass(50)
    assert.equal(server.take('custom').length, 2, 'only what is the same for all is shared')
  })

  test('another program on the channel is not listened to', async () => {
    const [browser, server, a, b] = await visits(2)
    const other = [...browser.channels][0]!
    for (const junk of [null, 1, 'state', {}, [], {term: 'x', kind: 'state'}, {term: 1}, {kind: 'frame'}, {term: 9e15, kind: 'x'}]) {
      other.postMessage(junk)
    }
    await browser.pass(5_000)
    assert.equal(server.connections, 1)
    assert.deepEqual([a.take(), b.take()], [[], []])
  })

  test('bundles of another format have a socket of their own', async () => {
    const browser = new Browser()
    const server = new Server(browser)
    const [a, b] = [visit(server, {scope: 'pov-rt:1'}), visit(server, {scope: 'pov-rt:2'})]
    await browser.pass(500)
    assert.equal(server.sockets.length, 2)
    assert.notEqual(a.take()[0]!.connectionId, b.take()[0]!.connectionId)
  })

  test('where locks are denied a tab has a socket of its own', async () => {
    const browser = new Browser()
    const server = new Server(browser)
    const tabs = [browser.open(), browser.open()]
    for (const each of tabs) each.isDenied = true
    const pages = tabs.map(tab => visit(server, {tab}))
    await browser.pass(10_000)
    assert.equal(server.connections, 2)
    for (const each of pages) {
      assert.equal(each.state, 'live')
      const id = each.ask({type: 'custom', echo: 1})
      await browser.pass(50)
      assert.deepEqual(each.take('custom_done').map(answer => answer.id), [id])
    }
    pages[0]!.line.close('closed')
    await browser.pass(50)
    assert.equal(server.sockets.length, 1)
  })
})

describe('subscriptions of several tabs', () => {
  const subscribe = (page: Page, only?: object) => page.ask({type: 'subscribe', povId: 'p', ...(only ? {only} : {})})

  test('unsubscribe goes out when the last tab leaves the PoV', async () => {
    const [browser, server, a, b] = await visits(2)
    subscribe(a)
    subscribe(b)
    await browser.pass(50)
    a.take()
    b.take()
    const id = a.ask({type: 'unsubscribe', povId: 'p'})
    await browser.pass(50)
    assert.deepEqual(server.take('unsubscribe'), [])
    assert.deepEqual(a.take(), [{type: 'unsubscribed', povId: 'p', id}])
    assert.deepEqual(b.take(), [], 'it is no end for the others')
    server.publish('p')
    await browser.pass(50)
    assert.equal(b.take('activity').length, 1)
    const last = b.ask({type: 'unsubscribe', povId: 'p'})
    await browser.pass(50)
    assert.equal(server.take('unsubscribe').length, 1)
    assert.deepEqual(b.take('unsubscribed').map(each => each.id), [last])
    assert.deepEqual(a.take('unsubscribed'), [])
  })

  test('who subscribes behind an unsubscribe does not share what was asked before it', async () => {
    const [browser, server, a, b] = await visits(2)
    subscribe(a)
    a.ask({type: 'unsubscribe', povId: 'p'})
    await browser.pass(4.5)
    subscribe(b)
    await browser.pass(50)
    assert.deepEqual(server.log.map(({type}) => type), ['subscribe', 'unsubscribe', 'subscribe'])
    server.publish('p')
    await browser.pass(50)
    assert.equal(b.take('activity').length, 1)
  })

  test('a refused subscription is none', async () => {
    const [browser, server, a, b] = await visits(2)
    for (const each of [a, b]) each.ask({type: 'subscribe', povId: 'forbidden'})
    await browser.pass(50)
    assert.equal(a.take('error').length, 1)
    a.ask({type: 'unsubscribe', povId: 'forbidden'})
    await browser.pass(50)
    assert.equal(server.take('unsubscribe').length, 1, 'b is not in the way')
  })

  test('of several PoVs those that are refused are none', async () => {
    const [browser, server, a, b] = await visits(2)
    for (const each of [a, b]) each.ask({type: 'subscribe', povIds: ['p', 'forbidden']})
    await browser.pass(50)
    for (const povId of ['p', 'forbidden']) a.ask({type: 'unsubscribe', povId})
    await browser.pass(50)
    assert.deepEqual(server.take('unsubscribe').map(({povId}) => povId), ['forbidden'])
  })

  test('what was resumed is subscribed, and ends with a token that does not cover it', async () => {
    const [browser, server, a, b] = await visits(2)
    b.ask({type: 'resume'})
    a.ask({type: 'subscribe', povId: 'p'})
    await browser.pass(50)
    a.ask({type: 'unsubscribe', povId: 'p'})
    await browser.pass(50)
    assert.deepEqual(server.take('unsubscribe'), [])
    server.push({type: 'refreshed', expiresAt: '', lost: ['p']})
    await browser.pass(50)
    a.ask({type: 'unsubscribe', povId: 'p'})
    await browser.pass(50)
    assert.equal(server.take('unsubscribe').length, 1)
  })

  test('the end of a durable subscription goes out though another tab is subscribed', async () => {
    const [browser, server, a, b] = await visits(2)
    for (const each of [a, b]) subscribe(each)
    await browser.pass(50)
    const id = a.ask({type: 'unsubscribe', povId: 'p', durable: true})
    await browser.pass(50)
    assert.deepEqual(server.take('unsubscribe').map(({durable}) => durable), [true])
    assert.deepEqual(a.take('unsubscribed').map(each => each.id), [id])
  })

  test('the next connection knows of no subscription of the one before', async () => {
    const [browser, server, a, b] = await visits(2)
    for (const each of [a, b]) subscribe(each)
    await browser.pass(50)
    server.drop()
    await browser.pass(1_000)
    subscribe(a)
    a.ask({type: 'unsubscribe', povId: 'p'})
    await browser.pass(50)
    assert.equal(server.take('unsubscribe').length, 1)
  })

  test('an answer that does not come is not waited for by others', async () => {
    const [browser, server, a, b] = await visits(2)
    a.ask({type: 'history', povId: 'lost'})
    await browser.pass(6_000)
    b.ask({type: 'history', povId: 'lost'})
    await browser.pass(50)
    assert.equal(server.take('history').length, 2)
  })

  test('when the server ends a subscription, it is over for all', async () => {
    const [browser, server, a, b] = await visits(2)
    subscribe(a)
    subscribe(b)
    await browser.pass(50)
    server.push({type: 'unsubscribed', povId: 'p', code: 'forbidden', message: 'no'})
    await browser.pass(50)
    for (const each of [a, b]) assert.equal(each.take('unsubscribed')[0]!.code, 'forbidden')
    subscribe(a)
    await browser.pass(50)
    a.ask({type: 'unsubscribe', povId: 'p'})
    await browser.pass(50)
    assert.equal(server.take('unsubscribe').length, 1)
  })

  test('equal filters go out, of different ones none', async () => {
    const [browser, server, a, b, c] = await visits(3)
    subscribe(a, {types: ['x']})
    await browser.pass(50)
    subscribe(b, {types: ['x']})
    await browser.pass(50)
    subscribe(c, {types: ['y']})
    await browser.pass(50)
    subscribe(a, {types: ['x']})
    await browser.pass(50)
    const [one, two, three, four] = server.take('subscribe').map(({only}) => only)
    assert.deepEqual([one, two, three, four], [{types: ['x']}, {types: ['x']}, undefined, undefined])
    await c.tab.close()
    await browser.pass(50)
    subscribe(b, {types: ['x']})
    await browser.pass(50)
    assert.deepEqual(server.take('subscribe').map(({only}) => only), [{types: ['x']}], 'whoever is gone counts no more')
  })

  test('a user is away when no tab is active', async () => {
    const [browser, server, a, b] = await visits(2)
    const states = async () => {
      await browser.pass(50)
      return server.take('presence').map(({state}) => state)
    }
    for (const each of [a, b]) subscribe(each)
    a.ask({type: 'presence', povId: 'p', state: 'active'})
    b.ask({type: 'presence', povId: 'p', state: 'away'})
    assert.deepEqual(await states(), ['active'])
    a.ask({type: 'presence', povId: 'p', state: 'away'})
    assert.deepEqual(await states(), ['away'])
    b.ask({type: 'presence', povId: 'p', state: 'active'})
    assert.deepEqual(await states(), ['active'])
    for (const each of [a, b]) each.take()
    b.tab.crash()
    assert.deepEqual(await states(), ['away'])
    assert.deepEqual(a.take(), [], 'nobody asked for this answer')
  })

  for (const how of ['crash', 'close', 'hide'] as const) {
    test(`what only a tab wanted that is gone is unsubscribed (${how})`, async () => {
      const [browser, server, a, b] = await visits(2)
      b.ask({type: 'subscribe', povId: 'p'})
      b.ask({type: 'subscribe', povIds: ['q', 'r']})
      b.ask({type: 'presence', povId: 's', state: 'active'})
      a.ask({type: 'subscribe', povId: 'q'})
      await browser.pass(50)
      server.take()
      a.take()
      await b.tab[how]()
      await browser.pass(50)
      assert.deepEqual(server.take('unsubscribe').map(({povId}) => povId).sort(), ['p', 'r', 's'])
      assert.deepEqual(a.take(), [])
    })
  }

  test('a tab that joins later gets the notifications that are not read', async () => {
    const [browser, server, a] = await visits(1)
    for (const offset of [1, 2, 3]) server.push({type: 'notification', offset, data: {id: `n${offset}`}})
    await browser.pass(50)
    a.ask({type: 'read', inbox: true, offset: 1})
    await browser.pass(50)
    const b = visit(server, {tab: browser.open()})
    await browser.pass(50)
    assert.deepEqual(b.take().map(({type, offset}) => offset ?? type), ['opened', 2, 3])
    server.drop()
    await browser.pass(1000)
    const c = visit(server, {tab: browser.open()})
    await browser.pass(50)
    assert.deepEqual(c.take().map(({type}) => type), ['opened'], 'those of another connection come anew')
  })

  test('no more than 1,000 notifications are kept', async () => {
    const [browser, server] = await visits(1)
    for (let offset = 1; offset <= 1003; offset++) server.push({type: 'notification', offset})
    await browser.pass(50)
    const b = visit(server)
    await browser.pass(50)
    const offsets = b.take('notification').map(({offset}) => offset)
    assert.deepEqual([offsets.length, offsets[0], offsets.at(-1)], [1000, 4, 1003])
  })
})

describe('the connection', () => {
  test('its states reach all tabs, and all are opened anew', async () => {
    const [browser, server, a, b] = await visits(2)
    server.drop()
    await browser.pass(50)
    for (const each of [a, b]) {
      assert.equal(each.state, 'offline network')
      assert.ok(each.states.at(-1)!.retryAt)
      assert.ok(!each.line.isOpen)
      each.ask({type: 'custom'})
    }
    await browser.pass(1000)
    for (const each of [a, b]) assert.deepEqual(each.take().map(({connectionId}) => connectionId), ['c2'])
    assert.deepEqual(server.take('custom'), [], 'what is sent while it is not open is dropped')
  })

  test('what was sent for a connection that is gone does not go out on the next', async () => {
    const [browser, server, a, b] = await visits(2)
    b.tab.freeze(false)
    server.drop()
    b.ask({type: 'custom', echo: 1}) // it does not know yet
    a.tab.freeze(false)
    await browser.pass(10)
    a.tab.thaw(false)
    await browser.pass(1000)
    b.tab.thaw(false)
    b.ask({type: 'custom', echo: 2})
    await browser.pass(100)
    assert.deepEqual(server.take('custom'), [])
    assert.deepEqual(b.take().map(({type}) => type), ['opened'])
  })

  test('`retry` of any tab reaches the leader', async () => {
    const [browser, server, , b] = await visits(2)
    server.isUp = false
    server.drop()
    await browser.pass(20)
    server.isUp = true
    b.line.retry()
    assert.ok((await until(browser, () => b.state === 'live')) < 100)
  })

  for (const code of [4500]) {
    test(`a close for good (${code}) ends all lines, and nobody tries again`, async () => {
      const [browser, server, a, b, c] = await visits(3)
      const attempts = server.attempts
      server.drop(code)
      await browser.pass(10_000)
      assert.deepEqual([a, b, c].map(each => each.state), ['closed ended', 'closed ended', 'closed ended'])
      assert.equal(server.attempts, attempts)
      assert.deepEqual([browser.held.size, browser.queue.length, browser.channels.size], [0, 0, 0])
      const again = visit(server)
      await browser.pass(500)
      assert.equal(again.state, 'live', 'another line may')
    })
  }

  test('refused for good at the first attempt: each tab is told once', async () => {
    const browser = new Browser()
    const server = new Server(browser)
    server.refuses = 'session_ended' as never
    const pages = [visit(server), visit(server, {hidden: true}), visit(server)]
    await browser.pass(10_000)
    assert.equal(server.attempts, 1)
    for (const each of pages) assert.equal(each.states.filter(({state}) => state === 'closed').length, 1)
  })

  test('`signed_out` in one tab closes all lines and the socket', async () => {
    for (const who of [0, 1]) {
      const [browser, server, a, b, c] = await visits(3)
      ;[a, b, c][who]!.line.close('signed_out')
      await browser.pass(10_000)
      for (const each of [a, b, c]) assert.equal(each.state, 'closed signed_out')
      assert.equal(server.sockets.length, 0)
      assert.equal(server.attempts, 1)
    }
  })
})

describe('the lead', () => {
  for (const how of ['crash', 'close', 'hide'] as const) {
    test(`goes over in under 1 s when the tab is gone (${how}), to a hidden one, too`, async () => {
      const [browser, server, a, b, c] = await visits(3, true)
      await a.tab[how]()
      const took = await until(browser, () => server.sockets.length === 1 && b.line.isOpen && c.line.isOpen && b.take('opened').length > 0)
      assert.ok(took < 200, `${took} ms`)
      assert.deepEqual(c.take().map(({type, connectionId}) => [type, connectionId]), [['opened', 'c2']])
      assert.deepEqual(c.states.slice(-3).map(({state}) => state), ['offline', 'offline', 'live'])
    })
  }

  test('goes over at once when the leader closes or is suspended, and comes back with `resume`', async () => {
    const [browser, server, a, b] = await visits(2)
    a.line.suspend()
    assert.equal(a.state, 'suspended')
    assert.ok((await until(browser, () => b.take('opened').length > 0)) < 100)
    a.line.resume()
    await browser.pass(100)
    assert.deepEqual(a.take('opened').map(({connectionId}) => connectionId), ['c2'])
    b.line.close('closed')
    assert.equal(b.state, 'closed closed')
    await browser.pass(100)
    assert.deepEqual(a.take('opened').map(({connectionId}) => connectionId), ['c3'])
    assert.equal(server.sockets.length, 1)
  })

  test('stays where it is when another tab sleeps and wakes', async () => {
    const [browser, server, , b] = await visits(2)
    b.tab.freeze()
    await browser.pass(1000)
    b.tab.thaw()
    await browser.pass(100)
    assert.deepEqual(b.take().map(({type, connectionId}) => [type, connectionId]), [['opened', 'c1']])
    assert.equal(server.connections, 1)
  })

  test('goes over in under 3 s when the leader is frozen without a word; it wakes to follow', async () => {
    const [browser, server, a, b, c] = await visits(3)
    a.tab.freeze(false)
    const took = await until(browser, () => b.line.isOpen && b.take('opened').length > 0, 3_000)
    assert.ok(took < 2_500, `${took} ms`)
    await browser.pass(60_000)
    assert.equal(server.sockets.length, 2, 'it cannot close while it is frozen')
    const leader = leaderOf(browser)
    c.take()
    server.push({type: 'news'})
    a.tab.thaw(false)
    await browser.pass(100)
    assert.equal(server.sockets.length, 1)
    assert.equal(leaderOf(browser), leader, 'nobody was confused')
    assert.ok(a.line.isOpen)
    assert.equal(c.take('news').length, 1)
    await browser.pass(10_000)
    assert.equal(server.connections, 2)
  })

  test('is given up on `freeze` at once', async () => {
    const [browser, server, a, b] = await visits(2)
    a.tab.freeze()
    assert.equal(a.state, 'suspended')
    assert.ok((await until(browser, () => b.take('opened').length > 0)) < 100)
    assert.equal(server.sockets.length, 1)
    a.tab.thaw()
    await browser.pass(100)
    assert.equal(a.state, 'live')
    assert.equal(server.connections, 2)
  })

  test('nothing is held in the back/forward cache, and all begins again on the way back', async () => {
    const [browser, server, a] = await visits(1)
    a.tab.hide()
    await browser.pass(0)
    assert.deepEqual([browser.held.size, browser.queue.length, browser.channels.size], [0, 0, 0])
    assert.equal(server.sockets.length, 0)
    await browser.pass(60_000)
    a.tab.comeBack()
    await browser.pass(100)
    assert.equal(a.state, 'live')
  })

  test('is not taken by hidden tabs, but by one that becomes visible', async () => {
    const [browser, server, a, b, c] = await visits(3, true)
    a.tab.freeze(false)
    for (const each of [b, c]) each.tab.throttle = 1 // what holds them back is not that
    await browser.pass(60_000)
    assert.equal(server.connections, 1)
    b.tab.show()
    assert.ok((await until(browser, () => c.take('opened').length > 0, 3_000)) < 3_000)
  })

  test('is not taken by one that was asleep while the leader spoke', async () => {
    for (let asleep = 1_000; asleep < 4_000; asleep += 50) {
      const [browser, server, a, b] = await visits(2)
      b.tab.freeze(false)
      await browser.pass(asleep)
      b.tab.thaw(false)
      await browser.pass(5_000)
      assert.equal(leaderOf(browser), a.tab)
      assert.equal(server.connections, 1)
    }
  })

  test('is not taken when the machine was asleep, and the leader wakes a moment later', async () => {
    const [browser, server, a, b] = await visits(2)
    for (const each of [a, b]) each.tab.freeze(false)
    await browser.pass(60_000)
    b.tab.thaw(false)
    await browser.pass(1_000)
    a.tab.thaw(false)
    await browser.pass(5_000)
    assert.equal(server.connections, 1)
  })

  test('is kept by a hidden leader whose timers come once a second, and by one with much to say', async () => {
    const [browser, server, a] = await visits(2)
    a.tab.show(false)
    await browser.pass(30_000)
    assert.equal(server.connections, 1)
    a.tab.throttle = 60_000
    for (let at = 0; at < 120; at++) {
      server.push({type: 'news'})
      await browser.pass(1_000)
    }
    assert.equal(server.connections, 1)
    await browser.pass(5_000)
    assert.equal(server.connections, 2, 'a throttled, silent one is robbed')
    assert.equal(server.sockets.length, 1)
  })

  test('what a robbed leader says when it wakes is nothing to anybody', async () => {
    const [browser, server, a, b, c] = await visits(3)
    a.tab.freeze(false)
    server.push({type: 'news', old: true}) // lies in its queue
    await until(browser, () => c.take('opened').length > 0)
    a.tab.thaw(false)
    await browser.pass(5_000)
    assert.deepEqual([b.take('news'), c.take('news')], [[], []])
    assert.equal(server.sockets.length, 1)
  })

  test('whoever leads without knowing of the others learns it from them', async () => {
    const [browser, server, a, b] = await visits(2, true)
    browser.wall -= 3_600_000
    a.tab.freeze(false)
    const c = visit(server) // nobody tells it the term
    await browser.pass(4_000)
    assert.notEqual(leaderOf(browser), a.tab)
    assert.ok(b.line.isOpen && c.line.isOpen)
    assert.equal(b.take('opened')[0]!.connectionId, c.take('opened').at(-1)!.connectionId)
  })

  test('a clock that is set back does not leave anybody behind', async () => {
    const [browser, server, a, b] = await visits(2)
    browser.wall -= 3_600_000
    a.tab.freeze(false)
    await browser.pass(5_000)
    a.tab.thaw(false)
    await browser.pass(5_000)
    assert.equal(server.sockets.length, 1)
    const c = visit(server)
    await b.tab.close()
    await browser.pass(5_000)
    for (const each of [a, c]) assert.ok(each.line.isOpen)
    assert.equal(server.sockets.length, 1)
  })
})
