/** What a press does: of a button what it says, of a row that it opens. */
import type {PanelName} from './api.js'
import type {Later} from './later.js'
import {povName} from './sentences.js'
import {keyOf} from './team-activity.js'
import {say} from './text.js'

/** Do what a button says; `element` is where it stands. */
function act(view: Later, name: string, element: Element): void {
  const {source, snapshot} = view
  const found = view.itemOf(element)
  const does: Record<string, () => void> = {
    retry: () => source?.client?.retry(),
    resume: () => source?.client?.resume(),
    'sign-in': () => view.element.tell('pov-sign-in'),
    reload: () => location.reload(),
    'read-all': () => view.markRead(),
    pill: () => view.release(),
    earlier: () => view.earlier(),
    'clear-filter': () => view.setFilter({}),
    'copy-request': () => view.attempt(navigator.clipboard.writeText(say(view, 'request', {
      who: source?.client?.user, povs: [...snapshot.povs.keys()].map(each => povName(view, each)).join(', '), url: location.href,
    }))),
    undo: () => void view.mute(view.undone!),
    read: () => found && view.markRead(found.row),
    fold: () => found && view.fold(found.group),
    menu: () => view.menuOf ? view.closePanel() : found && view.openPanel('menu', found.group),
    load: () => {
      const gap = view.gaps.get(keyOf(element)!)
      if (gap) view.attempt(source?.feed.load(gap), 'gap.failed')
    },
  }
  if (does[name]) does[name]()
  else if (view.panel === name) view.closePanel()
  else view.openPanel(name as PanelName)
}

/** Do what a click on `target` means; who chooses text, and what the page took upon itself, is left alone. */
export function click(view: Later, event: MouseEvent, target: Element): void {
  const button = target.closest<HTMLElement>('[data-do]')
  if (button) return act(view, button.dataset.do!, button)
  const found = view.itemOf(target)
  if (!found || event.defaultPrevented || target.closest('button')) return
  if (target.closest('a')) return view.open(found.row, event)
  if (getSelection()?.toString()) return
  if (found.group.rows.length > 1 && !found.isSub) view.fold(found.group)
  else view.open(found.row)
}
