/** A token tried: what it grants, or why it is refused, by the server's own verification. */
import {html, LitElement, nothing, type TemplateResult} from 'lit'
import {glyph, type Glyph} from '../widgets/icons.js'
import {dayTime, lasts} from './says.js'

/** `POST /dev/token`. Times are seconds since 1970. */
interface Explanation {
  verdict: 'good' | 'expired' | 'revoked' | 'refused'
  isSigned: boolean
  reason?: string
  kinds?: readonly string[]
  userId?: string
  teamId?: string
  povs?: readonly string[] | '*'
  can?: readonly string[]
  expiresAt?: number
  algorithm?: string
  key?: number
  keys?: number
  says?: Readonly<Record<string, unknown>>
}

/** What a kind of token opens. */
const KINDS: Readonly<Record<string, string>> = {
  access: 'an app’s own (gets socket tokens, reads over HTTP)',
  socket: 'a socket token',
  service: 'a service token (publishes over HTTP)',
}

/** `<pov-console-token>`: its `token` is that which is sent along, the console's own. */
export class TokenCheck extends LitElement {
  static override properties = {token: {}, said: {state: true}, failed: {state: true}}
  declare token: string
  declare said: Explanation | undefined
  declare failed: string

  constructor() {
    super()
    this.failed = ''
  }

  protected override createRenderRoot(): HTMLElement {
    return this // the page's style sheet is for all of it
  }

  protected override render(): TemplateResult {
    return html`<div class="form-head"><h1>Check a token</h1>
<p>Says what a token grants, or why the server refuses it. It is sent to this server alone and written nowhere.</p></div>
<div class="field"><label class="label" for="try-token">A token</label>
<input class="input mono" id="try-token" spellcheck="false" autocomplete="off" placeholder="eyJhbGciOi…"
@input=${(event: Event) => void this.check((event.target as HTMLInputElement).value)}></div>
<div role="status">${this.failed ? html`<p
class="verdict s-refused">${glyph('refused')}<b>${this.failed}</b></p>` : nothing}
${this.said ? this.drawSaid(this.said) : nothing}</div>`
  }

  private asked = 0

  private async check(text: string): Promise<void> {
    const number = ++this.asked
    const token = text.trim().replace(/^bearer\s+/i, '')
    this.failed = ''
    if (!token) {
      this.said = undefined
      return
    }
    try {
      const answer = await fetch('/dev/token', {
        method: 'POST',
        headers: {Authorization: `Bearer ${this.token}`, 'Content-Type': 'application/json'},
        body: JSON.stringify({token}),
      })
      const body = await answer.json() as Explanation & {error?: {message: string}}
      if (number !== this.asked) return // another was pasted meanwhile
      if (answer.ok) this.said = body
      else this.fail(body.error?.message ?? `HTTP ${answer.status}`)
    } catch {
      if (number === this.asked) this.fail('The server does not answer')
    }
  }

  private fail(words: string): void {
    this.said = undefined
    this.failed = words
  }

  private drawSaid(said: Explanation): TemplateResult {
    const [name, verdict, more] = judge(said)
    return html`<p class="verdict s-${name}">${glyph(name)}<span><b>${verdict}</b> ${more}</span></p>
<dl class="said">${facts(said).map(([term, words]) => html`<dt>${term}</dt><dd>${words}</dd>`)}</dl>
${said.says ? html`<details
class="more"><summary>${said.isSigned ? 'What it says' : 'What it says of itself; nobody signed that'}</summary>
<pre class="code" tabindex="0">${JSON.stringify(said.says, null, 2)}</pre></details>` : nothing}`
  }
}

function judge({verdict, isSigned, reason, expiresAt = 0}: Explanation): readonly [Glyph, string, string] {
  const ms = expiresAt * 1000 - Date.now()
  if (verdict === 'good') return ['live', `Good for ${lasts(ms)}.`, '']
  if (verdict === 'expired') return ['expired', `Expired ${lasts(-ms)} ago.`, 'Everything else is right.']
  if (verdict === 'revoked') return ['signedout', 'Revoked.', 'It was good, and somebody ended it.']
  const why = (reason ?? '').replace(/^./, first => first.toUpperCase())
  return ['refused', 'Refused.', `${why}.${isSigned ? ' The signature is right.' : ''}`]
}

function facts({says = {}, ...said}: Explanation): (readonly [string, unknown])[] {
  const found: (readonly [string, unknown])[] = []
  const claim = (name: string) => html`<span class="mono">${name}</span>`
  if (said.userId !== undefined) {
    found.push(['Who', `${said.userId}, team ${said.teamId}`])
    found.push(['What', said.kinds?.map(kind => KINDS[kind] ?? kind).join('; ') ?? ''])
    const usual = says.can === undefined ? ' (by default)' : ''
    found.push(['May', said.can?.length ? `${said.can.join(', ')}${usual}` : 'nothing'])
    const all = says.povs === undefined ? html`every PoV: it has no claim ${claim('povs')}`
      : html`every PoV: its claim ${claim('povs')} is *`
    const none = says.povs === undefined ? html`none: it has no claim ${claim('povs')}` : 'none'
    found.push(['PoVs', said.povs === '*' ? all : said.povs?.length ? said.povs.join(', ') : none])
    found.push(['Until', dayTime((said.expiresAt ?? 0) * 1000)])
  }
  if (said.isSigned) found.push(['Signed with', `${said.algorithm}, key ${said.key} of ${said.keys}`])
  return found
}
