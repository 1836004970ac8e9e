/** The drawings: 16 px icons and 12 px status glyphs, each with an outline of its own. */
import {html, nothing, type TemplateResult} from 'lit'

/** What the components need at once; parts that load later add theirs with `addIcons`. */
const icons: Record<string, string> = {
  filter: 'M2.5 4.5h11M4.75 8h6.5M7 11.5h2',
  notifications: 'M3.25 11.75c.8-.7 1.1-1.6 1.1-2.7V7a3.65 3.65 0 0 1 7.3 0v2.05c0 1.1.3 2 1.1 2.7zM6.75 13.9h2.5',
  clock: 'M2.6 8a5.4 5.4 0 1 0 10.8 0a5.4 5.4 0 1 0-10.8 0M8 5v3.2l2.1 1.4',
}

/** What is drawn as a line, and what is filled. */
type Drawn = readonly [line: string, fill?: string]

/** By state; each reads without its colour. */
const glyphs: {[name in Glyph]?: Drawn} = {
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
