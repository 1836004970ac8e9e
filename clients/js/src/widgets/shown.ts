/** What the feeds on a page show: a toast says nothing that is in view. */
import type {Row} from '../api.js'

/** One for each feed on the page: whether its rows are where a person sees them. */
export const showing = new Set<(row: Row) => boolean>()

/** Whether a feed on this page shows it, and the page is visible. */
export function isInView(row: Row): boolean {
  return !document.hidden && [...showing].some(shows => shows(row))
}

/** What is followed that it came by: its PoV or, first in its key, the team feed. */
export const topicOf = ({key, povId}: Row): string => key.startsWith('["*"') ? '*' : povId

/** What toasts have told a screen reader of: the ids of activities, the last some hundred. */
const said = new Set<string>()

/** A toast has said it: the feed does not say it again. */
export function toldByToast(row: Row): void {
  said.add(row.activity.id!)
  if (said.size > 500) said.delete(said.values().next().value!)
}

/** Whether a toast has said it. */
export function wasSaid(row: Row): boolean {
  return said.has(row.activity.id!)
}
