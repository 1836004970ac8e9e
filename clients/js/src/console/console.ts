/** `<pov-console>`: types, the form of one, messages; on a narrow page two tabs. */
import {html, LitElement, nothing, type TemplateResult} from 'lit'
import {icon} from '../widgets/icons.js'
import {build, fill, valueIn, Wrong, type Filled, type Known, type Value} from './forms.js'
import {drawFields, type FormHost} from './form-view.js'
import {drawAnswer, drawLog, type LogHost} from './log-view.js'
import {findField, fieldsOf, isAnswered, leaves, typesOf, type Field} from './schema.js'
import {sayMessage} from './says.js'
import {DEMO, Session} from './session.js'
import type {Entry, Shown} from './log.js'
import {asCurl, asJavaScript, asMessage, drawJson, pretty} from './snippets.js'
import {GROUPS, TEXTS, type Text} from './texts.js'
import {drawBar, drawFirst, drawStrips, drawTop, FILTERS} from './page-view.js'

const TRY = 'check-a-token'
/** The last messages that were sent from forms, for Alt+Up. */
const REMEMBERED = 50

export class Console extends LitElement implements FormHost, LogHost {
  static override properties = {
    type: {state: true}, tab: {state: true}, view: {state: true}, shown: {state: true}, find: {state: true},
    told: {state: true},
  }
  /** The type whose form is shown; or the token try-it. */
  declare type: string
  /** On a narrow page: which half is shown. */
  declare tab: 'send' | 'messages'
  /** What is on the right: messages, or the feed that people see. */
  declare view: 'messages' | 'feed'
  declare shown: Shown
  declare find: string
  /** What was just done: said aloud, and shown on the button for a moment. */
  declare told: string

  readonly session = new Session(() => this.requestUpdate())
  readonly open = new Set<string>()
  readonly wrong = new Map<string, string>()
  /** Whether the three steps are shown: until they were all taken. */
  first: 'open' | 'closed' | undefined
  private readonly forms = new Map<string, Filled>()
  private readonly sent: Entry['sent'][] = []
  private back = 0
  private lastId: number | undefined
  private fresh = ''
  private feed: HTMLElement | undefined
  private isFeedThere = false

  constructor() {
    super()
    this.type = location.hash.slice(1) || 'publish'
    this.tab = 'send'
    this.view = 'messages'
    this.shown = 'all'
    this.find = ''
    this.told = ''
  }

  override connectedCallback(): void {
    super.connectedCallback()
    addEventListener('hashchange', () => this.choose(location.hash.slice(1) || 'publish'))
    addEventListener('keydown', event => this.pressed(event))
    setInterval(() => this.requestUpdate(), 10_000) // how long the token is good
    setInterval(() => { // when the next try is
      if (this.session.status.state === 'offline') this.requestUpdate()
    }, 1000)
    this.session.start()
  }

  protected override createRenderRoot(): HTMLElement {
    return this // the page's style sheet is for all of it
  }

  /** Draw once a frame at most: a burst of messages is one change. A hidden page needs none. */
  protected override async scheduleUpdate(): Promise<void> {
    await new Promise(resolve => requestAnimationFrame(resolve))
    super.scheduleUpdate()
  }

  // ---- what forms ask

  get text(): Text {
    return this.textOf(this.type)
  }

  get filled(): Filled {
    return this.forms.get(this.type) ?? new Map()
  }

  get known(): Known {
    const {session} = this
    return {
      pov: session.pov,
      place: pov => session.place(pov),
      token: this.fresh,
      user: session.welcome?.userId ?? 'dev',
      offers: this.text.offers ?? {},
    }
  }

  suggests({name, path}: Field): readonly string[] {
    const {povs, people} = this.session
    if (name === 'povId') return [...new Set([...povs.keys(), DEMO])]
    if (name === 'userId') return [...new Set([...people.values()].flatMap(each => [...each.keys()]))]
    return this.text.suggests?.[path] ?? []
  }

  says(field: Field): string | undefined {
    const {session, text} = this
    if (field.name !== 'povId' || !(this.type === 'publish' || text.follows)) return text.fields?.[field.path]
    const pov = String(valueIn(field, this.filled, this.known))
    const isFollowed = session.povs.has(pov)
    if (this.type === 'publish') {
      return isFollowed ? `You follow ${pov}, so you get it back.` : 'You don’t follow it, so you don’t get it back.'
    }
    if (!pov || isFollowed || !session.welcome) return undefined
    return `You don’t follow ${pov}: the server wants you to subscribe first.`
  }

  change(field: Field, value: Value): void {
    this.wrong.delete(field.path)
    this.forms.set(this.type, new Map(this.filled).set(field.path, value))
    this.requestUpdate()
  }

  renewToken(): void {
    this.session.load().then(({token}) => {
      this.fresh = token
      this.requestUpdate()
    }).catch((error: unknown) => this.session.log.note('no token', String(error)))
  }

  // ---- what messages ask

  fieldsOf(type: string): readonly Field[] {
    const document = this.session.data?.schema
    return document ? fieldsOf(document, type) : []
  }

  toggle(key: string): void {
    if (!this.open.delete(key)) this.open.add(key)
    this.requestUpdate()
  }

  copy(text: string, what: string): void {
    navigator.clipboard.writeText(text)
      .then(() => this.tell(`${what} is copied`), () => this.tell('The browser does not allow to copy'))
  }

  again({sent, got}: Entry): void {
    if (!sent) return
    this.fillFrom(sent.message)
    if (got?.message.type !== 'error') return
    const field = findField(this.fieldsOf(sent.message.type), String(got.message.field ?? ''))
    if (!field) return
    const {text} = sayMessage(got.message, false, this.fieldsOf(sent.message.type), sent.message)
    this.wrong.set(field.path, `The server refused this: ${text.replace(/^is /, 'it is ')}.`)
    void this.focusField(field.path)
  }

  // ---- what the page's other parts ask

  choose(type: string): void {
    if (this.type !== type) this.wrong.clear()
    this.type = type
    this.find = ''
    if (location.hash.slice(1) !== type) history.replaceState(null, '', `#${type}`)
    if (type === 'refresh') this.renewToken()
    this.tab = 'send'
  }

  tell(words: string): void {
    this.told = words
    setTimeout(() => { if (this.told === words) this.told = '' }, 3000)
  }

  /** Show the form of publish, ready to be sent. */
  publishHere(): void {
    this.choose('publish')
    void this.updateComplete.then(() => this.querySelector<HTMLElement>('.send')?.focus())
  }

  show(view: 'messages' | 'feed'): void {
    this.view = view
    if (view === 'feed') void this.loadFeed()
  }

  leave(povId: string): void {
    this.session.send('unsubscribe', {povId})
  }

  /** Send what the form says. */
  send(): void {
    const made = this.make()
    if (made instanceof Wrong) {
      this.wrong.set(made.path, made.message)
      void this.focusField(made.path)
      return
    }
    this.wrong.clear()
    this.lastId = this.session.send(this.type, made)
    const {sent} = this.session.log.entries[0] ?? {}
    if (sent && this.lastId !== undefined) this.sent.unshift(sent)
    this.sent.length = Math.min(this.sent.length, REMEMBERED)
    this.back = 0
    if (this.type === 'refresh') this.renewToken() // the next one has to be newer
    this.requestUpdate()
  }

  // ---- inside

  private textOf(type: string): Text {
    return TEXTS[type] ?? {says: this.session.data?.types[type]?.summary ?? ''}
  }

  private make(): Record<string, unknown> | Wrong {
    try {
      return build(this.fieldsOf(this.type), this.filled, this.known)
    } catch (error) {
      if (error instanceof Wrong) return error
      throw error
    }
  }

  private fillFrom(message: {readonly type: string; readonly [field: string]: unknown}): void {
    this.choose(message.type)
    this.wrong.clear()
    this.forms.set(message.type, fill(this.fieldsOf(message.type), message))
    this.requestUpdate()
  }

  private async focusField(path: string): Promise<void> {
    this.tab = 'send'
    this.requestUpdate()
    await this.updateComplete
    const field = this.querySelector(`[data-path="${CSS.escape(path)}"]`)
    const folded = field?.closest('details')
    if (folded) folded.open = true
    field?.querySelector<HTMLElement>('input:checked, input, textarea, select')?.focus()
  }

  private pressed(event: KeyboardEvent): void {
    const {target, key, ctrlKey, metaKey, altKey} = event
    const isTyping = target instanceof Element && target.matches('input:not([type=radio]), textarea, select')
    if (key === 'Enter' && (ctrlKey || metaKey)) {
      if (this.type === TRY) return
      // What is typed but not yet a chip is one, too.
      if (target instanceof HTMLInputElement) target.dispatchEvent(new Event('change'))
      this.send()
    } else if (altKey && (key === 'ArrowUp' || key === 'ArrowDown')) this.recall(key === 'ArrowUp' ? 1 : -1)
    else if (key === '/' && !isTyping) {
      this.tab = 'send'
      this.querySelector<HTMLElement>('.find input')?.focus()
    } else return
    event.preventDefault()
  }

  private recall(by: number): void {
    const at = Math.min(this.sent.length, Math.max(0, this.back + by))
    const frame = this.sent[at - 1]
    this.back = at
    if (frame) this.fillFrom(frame.message)
  }

  private async loadFeed(): Promise<void> {
    if (this.feed) return
    this.feed = Object.assign(document.createElement('pov-team-activity'), {
      getToken: async () => (await this.session.load()).token,
    })
    this.feed.setAttribute('pov', this.session.pov)
    const module = '/client/pov-rt-widgets.mjs'
    try {
      await import(module)
      this.isFeedThere = true
    } catch (error) {
      this.feed = undefined // the next time it is tried again
      this.tell(`The feed could not be loaded: ${String(error)}`)
    }
    this.requestUpdate()
  }

  /** Types in groups, less those that a search leaves out. */
  private groups(): readonly (readonly [name: string, types: readonly string[]])[] {
    const {data} = this.session
    if (!data) return []
    const all = new Set(typesOf(data.schema))
    const groups = GROUPS.map(([name, types]) => [name, types.filter(each => all.delete(each))] as const)
    const others = new Map<string, string[]>()
    for (const each of all) {
      const from = data.types[each]?.from ?? ''
      others.set(from, [...others.get(from) ?? [], each])
    }
    const find = this.find.toLowerCase()
    const isFound = (type: string) => !find || `${type} ${this.textOf(type).says}`.toLowerCase().includes(find)
    return [...groups, ...others]
      .map(([from, types]) => [from === 'built-in' ? 'Others' : from, types.filter(isFound)] as const)
      .filter(([, types]) => types.length)
  }

  protected override willUpdate(): void {
    const {session} = this
    const place = session.povs.get(DEMO)
    if (!this.first && place) this.first = place.offset ? 'closed' : 'open'
    if (this.type === 'refresh' && !this.fresh && session.data) this.fresh = session.data.token
  }

  protected override render(): TemplateResult {
    const isTry = this.type === TRY
    return html`<a class="skip" href="#form">To the form</a>${drawTop(this)}
<nav class="tabs" aria-label="Parts of the page">${(['send', 'messages'] as const).map(each => html`
<button type="button" aria-current=${this.tab === each ? 'true' : nothing}
@click=${() => { this.tab = each }}>${
    each === 'send' ? 'Send' : 'Messages'}</button>`)}</nav>
<nav class="types ${this.tab === 'send' ? '' : 'is-away'}"
aria-label="Message types">${this.drawTypes()}</nav>
<main class="form ${this.tab === 'send' ? '' : 'is-away'}" id="form" tabindex="-1">${isTry
    ? html`<pov-console-token .token=${this.session.data?.token}></pov-console-token>` : this.drawForm()}</main>
<section class="log ${this.tab === 'messages' ? '' : 'is-away'}" id="log"
aria-label="Messages">${this.drawMessages()}</section>
<p class="sr" role="status">${this.told}</p>`
  }

  private drawTypes(): TemplateResult {
    const groups = this.groups()
    const found = groups.flatMap(([, types]) => types)
    const pressed = (event: KeyboardEvent) => {
      if (event.key === 'Enter' && found[0] && !event.ctrlKey) this.choose(found[0])
      else if (event.key === 'Escape') this.find = ''
      else return
      const first = '.fields input, .fields textarea, .send'
      void this.updateComplete.then(() => this.querySelector<HTMLElement>(first)?.focus())
    }
    return html`<div class="input find">${icon('search')}<input type="search" aria-label="Find a message"
placeholder="Find a message" .value=${this.find}
@input=${(event: Event) => { this.find = (event.target as HTMLInputElement).value }} @keydown=${pressed}><kbd>/</kbd></div>
<select class="input mono pick" aria-label="Message" .value=${this.type}
@change=${(event: Event) => this.choose((event.target as HTMLSelectElement).value)}>
${groups.map(([name, types]) => html`<optgroup label=${name}>${types.map(each => html`<option
?selected=${each === this.type}>${each}</option>`)}</optgroup>`)}
<optgroup label="Tokens"><option value=${TRY}
?selected=${this.type === TRY}>Check a token</option></optgroup></select>
<div class="groups">${groups.map(([name, types]) => html`<h3>${name}</h3><ul>${types.map(each => html`<li>
<a href="#${each}" class="mono"
aria-current=${each === this.type ? 'true' : nothing}>${each}</a></li>`)}</ul>`)}
${found.length ? nothing : html`<p class="dim">${this.session.data ? 'No message is called that.' : ''}</p>`}
<h3>Tokens</h3><ul><li><a href="#${TRY}"
aria-current=${this.type === TRY ? 'true' : nothing}>Check a token</a></li></ul></div>`
  }

  private drawForm(): TemplateResult {
    const {session, type} = this
    const {data} = session
    if (!data) return html`<p
class="dim">${session.problem ? 'The forms are there when the server runs.' : 'Loading the message types'}</p>`
    const fields = this.fieldsOf(type)
    if (!data.types[type]) return html`<div
class="form-head"><h1>${type}</h1><p>The server has no message of this type${session.problem ? ' now' : ''}.</p></div>`
    const grant = data.types[type].grant
    const made = this.make()
    const where = {origin: location.origin, token: data.token, serviceToken: data.serviceToken}
    const curl = made instanceof Wrong ? undefined : asCurl(type, made, where)
    const isMade = !(made instanceof Wrong)
    return html`<div class="form-head"><h1>${type}</h1><p>${says(this.text.says)}</p></div>
${grant ? html`<p class="ok ${data.can.includes(grant) ? '' : 'is-not'}">${icon(data.can.includes(grant) ? 'check' : 'close', 'icon-s')}<span>Your token ${
    data.can.includes(grant) ? 'grants' : 'does not grant'} <span
class="mono">${grant}</span></span></p>` : nothing}
<div class="fields">${[...leaves(fields)].length ? drawFields(this, fields) : html`<p
class="dim">Nothing to fill in.</p>`}</div>
<div class="sends"><h2>This is sent</h2><pre class="code" tabindex="0" aria-label="This is sent">${isMade
    ? drawJson(pretty(asMessage(type, session.nextId, made))) : made.message}</pre></div>
<div class="foot"><div class="sendbar"><button type="button" class="btn btn-main send"
@click=${() => this.send()}>Send <kbd>Ctrl ↵</kbd></button>
${isMade ? html`<button type="button" class="btn"
@click=${() => this.copy(asJavaScript({type, fields: made}, where, isAnswered(data.schema, type)), 'The code')}>${icon('copy')}JavaScript</button>
${curl ? html`<button type="button" class="btn"
@click=${() => this.copy(curl, 'The command')}>${icon('copy')}curl</button>` : nothing}` : nothing}
${this.told ? html`<span class="told">${icon('check', 'icon-s')}${this.told}</span>` : nothing}</div>
${this.drawLast()}</div>`
  }

  /** Where messages are on another tab: what became of the one just sent. */
  private drawLast(): TemplateResult | typeof nothing {
    const {lastId} = this
    const entry = lastId !== undefined && this.session.log.entries.find(({sent}) => sent?.message.id === lastId)
    const document = this.session.data?.schema
    if (!entry || !document) return nothing
    if (!entry.got && !isAnswered(document, entry.sent!.message.type)) return html`<p class="last dim"
role="status">Sent; this has no answer.</p>`
    return html`<div class="last" role="status"><ol class="msgs">${drawAnswer(this, entry)}</ol></div>`
  }

  private drawMessages(): TemplateResult {
    const {log} = this.session
    const {shown} = log
    const isFeed = this.view === 'feed'
    return html`<header class="log-head"><h2
class="views">${(['messages', 'feed'] as const).map(each => html`<button type="button" class="view"
aria-pressed=${this.view === each} @click=${() => this.show(each)}>${each === 'messages' ? 'Messages' : 'Feed'}</button>`)}</h2>
${isFeed ? html`<span class="grow"></span><span class="dim">What people see of ${this.session.pov}: <span
class="mono">&lt;pov-team-activity&gt;</span></span>` : html`
<div class="filters" role="group" aria-label="Which messages">${FILTERS.map(([each, name]) => html`<button
type="button" class="chip" aria-pressed=${this.shown === each}
@click=${() => { this.shown = each }}>${name}</button>`)}</div><span class="grow"></span>
<span class="dim">${log.isPaused && log.waiting ? `${log.waiting} new, ` : ''}${log.pings === 1 ? '1 ping' : `${log.pings} pings`} hidden</span>
<button type="button" class="btn-icon" aria-label=${log.isPaused ? 'Go on' : 'Pause'}
title=${log.isPaused ? 'Go on' : 'Pause'} @click=${() => log.pause()}>${icon(log.isPaused ? 'play' : 'pause')}</button>
<button type="button" class="btn btn-text" @click=${() => log.clear()}>Clear</button>`}</header>
${drawBar(this)}<div class="under">${drawStrips(this)}<div class="scroll" tabindex="0" role="region"
aria-label=${isFeed ? 'Feed' : 'The log'}>${isFeed
    ? html`<div class="feed-box">${this.isFeedThere ? this.feed : html`<p
class="dim">Loading the feed</p>`}</div>`
    : html`${this.first === 'open' ? drawFirst(this) : nothing}${drawLog(this, shown, this.shown)}
${log.gone ? html`<p class="dim end">${log.gone} older ones are gone: the last ${shown.length} are kept.</p>` : nothing}`}</div></div>`
  }
}

/** A sentence; what is between backticks is code. */
function says(text: string): unknown[] {
  return text.split('`').map((part, i) => i % 2 ? html`<span class="mono">${part}</span>` : part)
}
