/** Who is meant: a field that names users while somebody types, those who are here first. */
import {html, nothing, type TemplateResult} from 'lit'
import {icon} from '../widgets/icons.js'
import {avatar} from '../widgets/people.js'

const nobody = {requestUpdate() {}}
/** How long to wait for what else is typed, ms. */
const TYPING = 150

/** A combobox (WAI-ARIA) over a list of users. Owner: the page, which it tells of each change. */
export class Picker {
  text = ''
  /** Those who are offered; none while the list is closed. */
  found: readonly string[] = []
  /** Which of them is marked; -1: none is. */
  at = -1
  private turn = 0
  private typing: ReturnType<typeof setTimeout> | undefined

  constructor(
    private readonly find: (text: string) => Promise<readonly string[]>,
    private readonly changed: () => void,
  ) {}

  /** Have somebody chosen, as if they were typed. */
  choose(userId: string): void {
    this.text = userId
    this.close()
  }

  close(): void {
    clearTimeout(this.typing)
    this.turn++
    this.found = []
    this.at = -1
    this.changed()
  }

  /** Offer those whose name has in it what is typed, all of them where nothing is. */
  async open(text = this.text): Promise<void> {
    const turn = ++this.turn
    let found: readonly string[] = []
    try {
      found = await this.find(text.trim())
    } catch {
      // It helps to type; what is wrong with the server stands on top of the page.
    }
    if (turn !== this.turn) return // something else was typed, or it was closed
    this.found = found
    this.at = -1
    this.changed()
  }

  private type(text: string): void {
    this.text = text
    this.changed()
    clearTimeout(this.typing)
    this.typing = setTimeout(() => void this.open(), TYPING)
  }

  private press(event: KeyboardEvent): void {
    const {found, at} = this
    const step = {ArrowDown: 1, ArrowUp: -1}[event.key]
    if (step) {
      event.preventDefault()
      if (!found.length) void this.open('')
      // From the field to the first or the last, and from there back to the field.
      else this.at = (at + 1 + step + found.length + 1) % (found.length + 1) - 1
    } else if (event.key === 'Enter' && at >= 0) {
      event.preventDefault()
      this.choose(found[at]!)
    } else if (event.key === 'Escape' && found.length) {
      event.preventDefault()
      this.close()
    } else return
    this.changed()
  }

  draw(): TemplateResult {
    const {text, found, at} = this
    const isOpen = found.length > 0
    return html`<span class="pick"><span class="input">${avatar(nobody, text.trim() || '?', 'av-s')}<input class="user" name="user"
role="combobox" aria-autocomplete="list" aria-expanded=${isOpen} aria-controls="users"
aria-activedescendant=${at >= 0 ? `user-${at}` : nothing} placeholder="user" required maxlength="128"
autocomplete="off" autocapitalize="off" spellcheck="false" .value=${text}
@input=${(event: Event) => this.type((event.target as HTMLInputElement).value)}
@keydown=${(event: KeyboardEvent) => this.press(event)} @blur=${() => this.close()}><button type="button"
class="open" tabindex="-1" aria-label="Users who are here" @mousedown=${(event: Event) => {
    event.preventDefault() // the field keeps the focus
    if (isOpen) this.close()
    else {
      (event.currentTarget as HTMLElement).parentElement!.querySelector('input')!.focus()
      void this.open('')
    }
  }}>${icon('down')}</button></span><ul id="users" role="listbox" aria-label="Users" ?hidden=${!isOpen}>${found.map((each, n) => html`<li
id=${`user-${n}`} role="option" aria-selected=${n === at} @mousedown=${(event: Event) => {
    event.preventDefault()
    this.choose(each)
  }}>${avatar(nobody, each, 'av-s')}<bdi>${each}</bdi></li>`)}</ul></span>`
  }
}
