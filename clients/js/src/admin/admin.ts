/** `<pov-admin>`: sign in; then numbers, why somebody did not see something, one list, who is behind or blocked. */
import {html, LitElement, nothing, type TemplateResult} from 'lit'
import {repeat} from 'lit/directives/repeat.js'
import {glyph, icon} from '../widgets/icons.js'
import {drawAsk, type Deed} from './deeds.js'
import {drawHappening} from './happening.js'
import {Picker} from './picker.js'
import {ROWS, Source, wordsOf, type Explained, type Happened, type List, type Row, type View} from './source.js'
import {deviceOf, LISTS, NODE, TABLES, who} from './tables.js'
import {asText} from './text.js'
import {drawTiles} from './tiles.js'
import {drawWhy} from './why.js'
import {clock, count, number, sinceWhen, size, until} from './words.js'

/** How long to wait for what else is typed, ms. */
const TYPING = 250

/** The lists whose rows are about a user. */
const OF_USERS: readonly List[] = ['connections', 'users']

const MARK = html`<svg class="logo" viewBox="0 0 20 20"
aria-hidden="true"><path d="M10 8.5V18M6.5 18h7"></path><circle cx="10" cy="4.5" r="3.25"></circle></svg>`

/** What the address says that is looked at, so that it can be sent to somebody and found again. */
function readView(): View {
  const said = new URLSearchParams(location.hash.slice(1))
  const list = LISTS.find(each => each === said.get('list')) ?? 'connections'
  const sort = TABLES[list].sorts.find(([each]) => each === said.get('sort')) ?? TABLES[list].sorts[0]!
  const user = OF_USERS.includes(list) ? said.get('user') ?? '' : ''
  return {list, sort: sort[0], reverse: said.has('reverse'), search: said.get('q') ?? '', user, pages: []}
}

export class Admin extends LitElement {
  static override properties = {view: {state: true}, deed: {state: true}, told: {state: true}, text: {state: true}, held: {state: true}}
  declare view: View
  /** What is about to be done, once it is said to be meant. */
  declare deed: Deed | undefined
  /** What was just done; said aloud. */
  declare told: string
  /** What the reader has to copy, where the browser does not let us. */
  declare text: string
  /** What was happening when it was held. */
  declare held: readonly Happened[] | undefined

  readonly picker: Picker
  readonly source: Source
  private typing: ReturnType<typeof setTimeout> | undefined

  constructor() {
    super()
    this.view = readView()
    this.told = this.text = ''
    this.source = new Source(() => this.view, () => this.requestUpdate())
    this.picker = new Picker(text => this.source.find(text), () => this.requestUpdate())
  }

  override connectedCallback(): void {
    super.connectedCallback()
    addEventListener('hashchange', () => {
      this.look(readView())
      this.querySelector('.list')?.scrollIntoView({block: 'nearest'})
    })
    this.source.start()
  }

  protected override createRenderRoot(): HTMLElement {
    return this // the page's style sheet is for all of it
  }

  protected override updated(): void {
    const dialog = this.querySelector('dialog')
    if (dialog && !dialog.open) dialog.showModal()
  }

  /** Look at something else. */
  look(view: View): void {
    this.view = view
    const said = new URLSearchParams({list: view.list, sort: view.sort})
    if (view.reverse) said.set('reverse', '')
    if (view.search) said.set('q', view.search)
    if (view.user) said.set('user', view.user)
    history.replaceState(null, '', `#${said}`)
    this.source.now()
  }

  private change(change: Partial<View>): void {
    this.look({...this.view, pages: [], ...change})
  }

  private choose(list: List): void {
    const user = OF_USERS.includes(list) ? this.view.user : ''
    this.change({list, sort: TABLES[list].sorts[0]![0], reverse: false, user})
  }

  private search(text: string): void {
    clearTimeout(this.typing)
    this.typing = setTimeout(() => this.change({search: text.trim()}), TYPING)
  }

  /** Hold what is happening still, or go on. */
  hold(shown: readonly Happened[] | undefined): void {
    this.held = shown
  }

  /** Take an answer along as plain text; the reader has to, where browsers let no page do that. */
  async copy(answer: Explained): Promise<void> {
    const text = asText(answer)
    this.text = this.told = ''
    try {
      await navigator.clipboard.writeText(text)
      this.told = 'The answer is copied'
    } catch { // no secure context, or the reader has forbidden it
      this.text = text
      await this.updateComplete
      this.querySelector<HTMLTextAreaElement>('.to-copy textarea')?.select()
    }
  }

  private signOut(): void {
    this.picker.choose('')
    this.text = ''
    this.held = undefined
    this.source.signOut()
  }

  /** Do what was asked for; what the server says to it stands in the dialog if it refuses. */
  async carryOut(deed: Deed): Promise<void> {
    try {
      await this.source.act(deed.method, deed.path, deed.body)
      this.deed = undefined
      this.told = deed.done
    } catch (error) {
      this.deed = {...deed, failed: wordsOf(error)}
    }
  }

  protected override render(): TemplateResult {
    return html`${this.drawTop()}${this.source.look ? this.drawAll() : this.drawSignIn()}
<p class="sr" role="status">${this.told}</p>${drawAsk(this, this.deed)}`
  }

  private drawTop(): TemplateResult {
    const {look, trouble} = this.source
    const state = look?.state
    const [name, words] = !state ? ['signedout', 'Signed out'] as const
      : trouble ? ['offline', `These numbers are from ${clock(look.at)}`] as const
        : state.notReady ? ['refused', 'Not ready'] as const : ['live', `Ready since ${sinceWhen(state.since)}`] as const
    return html`<header class="top">${MARK}<b>pov-rt</b><span class="ver">${state?.version ?? ''} admin</span>
<span class="grow"></span>
<span class="status boxed s-${name}" role="status">${glyph(name)}${words}</span>
${state ? html`<span class="dim node">node <span class="mono">${state.node}</span></span>
<span class="dim as">signed in as <b><bdi>${state.operator}</bdi></b></span>
${state.actions ? nothing : html`<span class="dim only">read only</span>`}
<button type="button" class="btn" @click=${() => this.signOut()}>${icon('out')}<span>Sign out</span></button>` : nothing}</header>`
  }

  private drawSignIn(): TemplateResult {
    const {token, refused, trouble} = this.source
    const submit = (event: SubmitEvent) => {
      event.preventDefault()
      const input = (event.target as HTMLFormElement).querySelector('input')!
      this.source.signIn(input.value)
      input.value = ''
    }
    if (token) {
      return html`<main class="sign-in"><p role="status">${trouble || 'Loading what is on the node'}</p></main>`
    }
    return html`<main class="sign-in"><h1>Sign in</h1>
<p>With a service token that grants <span class="mono">operate</span>. On the server’s machine, this makes one for a working day:</p>
<pre class="code" tabindex="0">pov-rt token --kind service --user you --can operate --ttl 8h</pre>
<form @submit=${submit}><label class="label" for="token">Token</label>
<div class="both"><input class="input mono" id="token" type="password" required autocomplete="off"
spellcheck="false"><button class="btn btn-main">Sign in</button></div></form>
${refused ? html`<p class="status s-refused" role="alert">${glyph('refused')}${refused}</p>` : nothing}
<p class="dim">It stays in this tab until you close it or sign out.</p></main>`
  }

  private drawAll(): TemplateResult {
    const {state, missing, behind, blocked, blockedTotal} = this.source.look!
    const worst = Math.max(1, ...behind.map(({lag}) => lag))
    const off = Object.entries(state.off)
    return html`<main>
${state.notReady ? html`<div class="strip bad" role="alert"><span
class="status s-refused">${glyph('refused')}Not ready</span><span>${state.notReady}</span></div>` : nothing}
${off.map(([name, why]) => html`<div class="strip bad"><span
class="status s-refused">${glyph('refused')}The plugin ${name} is off</span><span>${why}</span></div>`)}
${missing.map(({node, host, why}) => html`<div class="strip"><span
class="status s-offline">${glyph('offline')}The list is without the node ${node}</span><span>on ${host}, which ${why}</span></div>`)}
${this.source.trouble ? html`<div class="strip"><span
class="status s-offline">${glyph('offline')}${this.source.trouble}</span><button type="button"
class="btn btn-text" @click=${() => this.source.now()}>Try now</button></div>` : nothing}
${drawTiles(this.source)}
<div class="cols"><div class="main">${drawWhy(this)}<section class="list">${this.drawList()}</section></div>
<aside><section class="slow"><h2>Behind</h2>${behind.length ? html`<ul>${behind.map(each => html`<li>
<div class="pair">${who(each.userId)}<span class="num">${number(each.lag)}</span></div>
<progress class="bar" max=${worst} value=${each.lag} aria-hidden="true"></progress>
<p>${deviceOf(each)} ${size(each.unsentBytes)} unsent, ${each.bytesPerS === null ? 'rate not known yet'
  : `${size(each.bytesPerS)} a second`}</p></li>`)}</ul>`
  : html`<p class="calm">${icon('check')}Nobody is behind.</p>`}</section>
<section class="slow"><h2>Blocked</h2>${blocked.length ? html`<ul>${blocked.map(each => html`<li>
<div class="pair">${who(each.userId)}<span class="num">for ${until(each.blockedUntil!)}</span></div></li>`)}</ul>
${blockedTotal > blocked.length ? html`<p class="calm">and ${count(blockedTotal - blocked.length, 'other')}</p>` : nothing}`
  : html`<p class="calm">${icon('check')}Nobody is blocked.</p>`}</section>${drawHappening(this)}</aside></div></main>`
  }

  private drawList(): TemplateResult {
    const {view, source} = this
    const table = TABLES[view.list]
    const look = source.look!.view.list === view.list ? source.look : undefined
    const rows = look?.rows ?? []
    const columns = look?.areSeveral ? [table.columns[0]!, NODE, ...table.columns.slice(1)] : table.columns
    const first = view.pages.length * ROWS
    const hasActions = source.look!.state.actions && OF_USERS.includes(view.list)
    return html`<header><h1>${table.title}</h1><span class="dim num">${look ? number(look.total) : ''}</span>
<nav aria-label="Lists">${LISTS.map(each => html`<button type="button" class="chip"
aria-pressed=${each === view.list} @click=${() => this.choose(each)}>${TABLES[each].title}</button>`)}</nav>
${view.user ? html`<button type="button" class="chip" aria-pressed="true" aria-label=${`Only ${view.user}: show everybody`}
@click=${() => this.change({user: ''})}><bdi>${view.user}</bdi>${icon('close')}</button>` : nothing}
<span class="grow"></span>
<label class="input find">${icon('search')}<span class="sr">Find</span><input type="search"
placeholder=${table.finds} .value=${view.search} maxlength="200"
@input=${(event: Event) => this.search((event.target as HTMLInputElement).value)}></label>
<label class="order"><span class="sr">Order</span><select class="input"
@change=${(event: Event) => this.change({sort: (event.target as HTMLSelectElement).value})}>${
  table.sorts.map(([sort, words]) => html`<option value=${sort} ?selected=${sort === view.sort}>${words}</option>`)}</select></label>
<button type="button" class="btn-icon" aria-pressed=${view.reverse} aria-label="The other way round"
@click=${() => this.change({reverse: !view.reverse})}>${icon(view.reverse ? 'arrow-up' : 'arrow-down')}</button></header>
<div class="scroll" tabindex="0" role="region" aria-label=${table.title}><table><thead><tr>${columns.map(({title, isNumber}) => html`<th scope="col"
class=${isNumber ? 'r' : ''}>${title}</th>`)}${hasActions ? html`<th scope="col" class="do"><span class="sr">Do</span></th>` : nothing}</tr></thead>
<tbody>${repeat(rows, table.key, row => html`<tr>${columns.map(({title, cell, isNumber}) => html`<td
class=${isNumber ? 'r' : ''} data-title=${title}>${cell(row)}</td>`)}${hasActions ? html`<td class="r do">${this.drawDeeds(row)}</td>` : nothing}</tr>`)}</tbody></table></div>
${look && !rows.length ? html`<p class="calm">${view.user && !view.search ? `${view.user} has none here.` : view.search ? `Nothing has ${view.search} in it.` : 'Nothing is here.'}</p>` : nothing}
<footer><span>${rows.length ? `${number(first + 1)} to ${number(first + rows.length)} of ${number(look!.total)}` : ''}</span>
<span class="grow"></span>
<button type="button" class="btn btn-text" ?disabled=${!view.pages.length}
@click=${() => this.look({...view, pages: view.pages.slice(0, -1)})}>Back</button>
<button type="button" class="btn btn-text" ?disabled=${!look?.next}
@click=${() => this.look({...view, pages: [...view.pages, look!.next!]})}>Next ${ROWS}</button></footer>`
  }

  private drawDeeds(row: Row): TemplateResult | typeof nothing {
    if (!('userId' in row)) return nothing
    const {userId} = row
    const path = `/api/users/${encodeURIComponent(userId)}`
    const ask = (deed: Deed) => () => { this.deed = deed }
    if ('blockedUntil' in row && row.blockedUntil) {
      return html`<button type="button" class="btn btn-text" @click=${ask({
        title: `Let ${userId} in again?`, words: 'The tokens that this user has are good again, at once.',
        verb: 'Unblock', method: 'DELETE', path: `${path}/block`, done: `${userId} is not blocked any more`,
      })}>Unblock</button>`
    }
    const others = 'connections' in row ? count(row.connections, 'connection') : 'all connections of this user'
    return html`<button type="button" class="btn btn-text" @click=${ask({
      title: `Disconnect ${userId}?`, words: `Closes ${others}, on all nodes. They don’t come back by themselves: the page says “Disconnected by an administrator” and has to be reloaded.`,
      verb: 'Disconnect', method: 'POST', path: `${path}/disconnect`, done: `${userId} is disconnected`,
    })}>Disconnect</button><button type="button" class="btn btn-text" @click=${ask({
      title: `Block ${userId}?`, words: 'Closes all connections of this user on all nodes, and no token is good until then. It ends by itself.',
      verb: 'Block', method: 'POST', path: `${path}/block`, body: {seconds: 3600}, done: `${userId} is blocked`,
    })}>Block</button>`
  }
}
