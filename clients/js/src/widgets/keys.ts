/** What keys do while the focus is in the element. */
import type {Later} from './later.js'

const HOUR = 3_600_000

/** Do what a key says; says whether it did something. */
export function press(host: Later, event: KeyboardEvent, target: HTMLElement): boolean {
  const isField = target.matches('input, textarea, select, [contenteditable]')
  const {key, ctrlKey, altKey, metaKey} = event
  if (key === 'Escape') {
    if (host.panel) host.closePanel()
    else if (Object.values(host.filter).some(each => each?.length)) host.setFilter({})
    else return false
    return true
  }
  if (isField || altKey || metaKey) return false
  const article = target.closest<HTMLElement>('article')
  if (ctrlKey) {
    if (key !== 'End' || !article) return false
    leave(host)
    return true
  }
  const isOn = host.shortcuts !== 'off'
  if (isOn && (key === 'f' || key === 'F' || key === '/')) {
    host.openPanel('filter')
    return true
  }
  if (target.closest('[role=menu], [role=group], [role=dialog]')) return false
  const step = (by: number) => {
    const all = [...host.articles.list.querySelectorAll<HTMLElement>('article:is(.row, .sub, .gap)')]
    const at = article ? all.indexOf(article) : -1
    if (at + by >= all.length) host.earlier()
    focus(all[Math.max(0, Math.min(all.length - 1, at + by))])
    return !!all.length
  }
  const lower = key.toLowerCase()
  if (key === 'PageDown' || isOn && lower === 'j') return step(1)
  if (key === 'PageUp' || isOn && lower === 'k') return step(-1)
  if (key === 'Home') {
    host.release()
    void host.element.updateComplete.then(() => focus(host.articles.list.querySelector<HTMLElement>('article')))
    return true
  }
  if (key === 'End') {
    focus([...host.articles.list.querySelectorAll<HTMLElement>('article')].at(-1))
    return true
  }
  const found = host.itemOf(article)
  if (!found || !article) return false
  const {group, row, isSub} = found
  if (key === 'Enter' && target === article) {
    if (group.rows.length > 1 && !isSub) host.fold(group)
    else host.open(row)
    return true
  }
  const isRtl = host.element.matches(':dir(rtl)')
  if ((key === 'ArrowRight' || key === 'ArrowLeft') && group.rows.length > 1) {
    const isOpening = key === (isRtl ? 'ArrowLeft' : 'ArrowRight')
    host.fold(group, isOpening)
    if (!isOpening) host.articles.of(group.key)?.focus()
    return true
  }
  if (!isOn) return false
  if (lower === 'e') host.markRead(row)
  else if (lower === 'u') host.markUnread(isSub ? row : group.rows.at(-1)!)
  else if (lower === 'm') void host.mute(row.povId, new Date(Date.now() + HOUR))
  else if (key === '.') host.menuOf ? host.closePanel() : host.openPanel('menu', group)
  else return false
  return true
}

/** Tab comes to it from now on: said once it has the focus, it would have the page laid out at once. */
function focus(article: HTMLElement | null | undefined): void {
  if (!article) return
  article.tabIndex = 0
  article.focus()
}

/** The focus goes to what comes after the rows. */
function leave(host: Later): void {
  const root = host.shadowRoot
  const foot = root.querySelector<HTMLElement>('.foot button')
  if (foot) return foot.focus()
  const end = root.querySelector<HTMLElement>('.foot')!
  end.tabIndex = -1
  end.focus()
}
