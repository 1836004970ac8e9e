/** The drawings: 16 px icons and 12 px status glyphs, each with an outline of its own. */
import {html, nothing, type TemplateResult} from 'lit-html'

/** What the components need at once; parts that load later add theirs with `addIcons`. */
const icons: Record<string, string> = {
  filter: 'M2.5 4.5h11M4.75 8h6.5M7 11.5h2',
  notifications: 'M3.25 11.75c.8-.7 1.1-1.6 1.1-2.7V7a3.65 3.65 0 0 1 7.3 0v2.05c0 1.1.3 2 1.1 2.7zM6.75 13.9h2.5',
  task: 'M5.75 2.75h4.5a3 3 0 0 1 3 3v4.5a3 3 0 0 1-3 3h-4.5a3 3 0 0 1-3-3v-4.5a3 3 0 0 1 3-3zM5.5 8.2l1.8 1.8 3.3-3.9',
  phase: 'M4 13.75V2.75M4 3.25h7.75L10 6l1.75 2.75H4',
  comment: 'M4.75 2.75h6.5a2 2 0 0 1 2 2v4a2 2 0 0 1-2 2H7.9l-3.15 2.6v-2.6a2 2 0 0 1-2-2v-4a2 2 0 0 1 2-2z',
  file: 'M4 2.75h4.9l3.1 3.2v7.3H4zM8.75 3v3.2h3',
  person: 'M5.4 5.4a2.6 2.6 0 1 0 5.2 0a2.6 2.6 0 1 0-5.2 0M3 13.25c.5-2.5 2.4-3.9 5-3.9s4.5 1.4 5 3.9',
  target: 'M2.6 8a5.4 5.4 0 1 0 10.8 0a5.4 5.4 0 1 0-10.8 0M6.1 8a1.9 1.9 0 1 0 3.8 0a1.9 1.9 0 1 0-3.8 0',
  arrow: 'M3 8h9.5M9 4.25 12.75 8 9 11.75',
  check: 'M3.5 8.5l3 3 6-7',
  clock: 'M2.6 8a5.4 5.4 0 1 0 10.8 0a5.4 5.4 0 1 0-10.8 0M8 5v3.2l2.1 1.4',
}

/** What is drawn as a line, and what is filled. */
type Drawn = readonly [line: string, fill?: string]

/** By state; each reads without its colour. */
const glyphs: {[name in Glyph]?: Drawn} = {
  live: ['', 'M2.25 6a3.75 3.75 0 1 0 7.5 0a3.75 3.75 0 1 0-7.5 0'],
  catching: ['M1.75 6a4.25 4.25 0 1 0 8.5 0a4.25 4.25 0 1 0-8.5 0', 'M1.75 6a4.25 4.25 0 0 0 8.5 0z'],
  offline: ['M3.2 9.2A4.25 4.25 0 0 1 8.5 2.6M9.8 4.1a4.25 4.25 0 0 1-5.1 5.95M10.5 1.5l-9 9'],
  connecting: ['M1.75 6a4.25 4.25 0 1 0 8.5 0a4.25 4.25 0 1 0-8.5 0'],
}

/** A state of the connection as it is drawn; with it goes the class `s-` and its name. */
export type Glyph =
  | 'live' | 'connecting' | 'catching' | 'offline' | 'paused' | 'busy' | 'expired' | 'signedout' | 'refused'

/** Draw an icon. It has no name of its own: what it stands in has. `classes`: icon-s, icon-l, flip, ... */
export function icon(name: string, classes = ''): TemplateResult {
  return html`<svg class="icon ${name} ${classes}" viewBox="0 0 16 16" aria-hidden="true"><path d=${icons[name]!}></path></svg>`
}

/** Draw the glyph of a state. */
export function glyph(name: Glyph): TemplateResult {
  const [line, fill] = glyphs[name] ?? ['']
  return html`<svg class="glyph ${name}" viewBox="0 0 12 12" aria-hidden="true">
<path d=${line}></path>${fill ? html`<svg><path class="full" d=${fill}></path></svg>` : nothing}</svg>`
}

/** Have more icons: what a part draws that is loaded later. */
export function addIcons(more: Record<string, string>, moreGlyphs?: typeof glyphs): void {
  Object.assign(icons, more)
  Object.assign(glyphs, moreGlyphs)
}
