/** The rows of an open group. */
import {html} from 'lit-html'
import type {Row} from '../api.js'
import type {Item} from './list.js'
import type {Later} from './later.js'
import {time, unreadOf} from './rows.js'
import {edited} from './around.js'
import {linkOf, quoteOf, sentence, titleOf} from './sentences.js'
import {ask, quoted} from './text.js'

/** One of them. */
export function subItem(host: Later, row: Row): Item {
  return {
    key: `${row.key} `,
    part: 'subrow',
    classes: `sub${unreadOf(row)}`,
    of: [row, host.element.stamp],
    draw() {
      const link = linkOf(host, row.activity)
      const words = titleOf(row.activity) ?? quoteOf(host, row.activity)
      const what = words === undefined ? sentence(host, {rows: [row]}) : quoted(words)
      return html`<span></span><p class="line">${ask(() => host.element.renderItem?.(row)) ?? (link && words !== undefined ? html`<a href=${link} part="link">${what}</a>` : what)} ${edited(host, row)}</p>${time(host, row.at)}`
    },
  }
}
