/** Behind a modal dialog everything is inert, whatever layer it is in: so toasts go into the dialog. */

/** Move an element into the modal dialog that is open, and back when none is; `moved` after each.
 * `look` is for when a dialog has gone with it: false if it is no longer on the page. */
export function followDialogs(element: HTMLElement, moved: () => void): {look(): boolean; end(): void} {
  /** In the order in which they opened. */
  let open: HTMLDialogElement[] = []
  /** Where the element stands in the page while it is away. */
  const home = document.createComment('')
  let isAway = false

  const isOpen = (each: HTMLDialogElement) => each.isConnected && each.matches(':modal')

  function look(found: Iterable<EventTarget> = []): void {
    for (const each of [...document.querySelectorAll<HTMLDialogElement>('dialog:modal'), ...found]) {
      if (!(each instanceof HTMLDialogElement) || !isOpen(each) || open.includes(each)) continue
      open.push(each)
      // One in a shadow root tells nobody else.
      each.addEventListener('close', again)
    }
    open = open.filter(isOpen)
    const dialog = open.at(-1)
    if (isAway && !home.isConnected) {
      // What it stood in was taken from the page.
      isAway = false
      pages.disconnect()
      element.remove()
    } else if (dialog && (isAway || element.isConnected)) {
      if (element.parentNode === dialog) return
      if (!isAway) element.before(home)
      isAway = true
      pages.observe(document, {subtree: true, childList: true})
      put(dialog, null)
    } else if (isAway) {
      isAway = false
      pages.disconnect()
      put(home.parentNode!, home)
      home.remove()
    }
  }

  function put(parent: ParentNode & Node, before: Node | null): void {
    parent.insertBefore(element, before)
    moved()
  }

  const again = () => look()
  const seen = (event: Event) => look(event.composedPath())
  const observer = new MutationObserver(again)
  observer.observe(document, {subtree: true, attributes: true, attributeFilter: ['open']})
  /** While it is away, its place may go. */
  const pages = new MutationObserver(() => { if (!home.isConnected) look() })
  // Those in shadow roots are seen by the focus that they take.
  const events = ['focusin', 'toggle', 'close'] as const
  for (const each of events) document.addEventListener(each, seen, true)
  look()
  return {
    look() {
      // Taken away by itself, it is meant to be gone; with a dialog around it, it is not.
      if (isAway && element.parentNode) look()
      return element.isConnected
    },
    end() {
      observer.disconnect()
      pages.disconnect()
      for (const each of events) document.removeEventListener(each, seen, true)
      for (const each of open) each.removeEventListener('close', again)
      home.remove()
    },
  }
}
