/** What the feeds on a page show: a toast says nothing that is in view. */
import type {Row} from '../api.js'

/** One for each feed on the page: whether its rows are where a person sees them. */
export const showing = new Set<(row: Row) => boolean>()

/** Whether a feed on this page shows it, and the page is visible. */
export function isInView(row: Row): boolean {
  return !document.hidden && [...showing].some(shows => shows(row))
}
