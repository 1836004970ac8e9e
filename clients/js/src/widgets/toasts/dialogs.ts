/** Behind a modal dialog everything is inert, whatever layer it is in: so toasts go into the dialog. */

/** Move an element into the modal dialog that is open, and back when none is; `moved` after each.
 * `look` is for when a dialog may have gone without a word. */
export function followDialogs(element: HTMLElement, moved: () => void): {look(): void; end(): void} {
  /** In the order in which they opened. */
  let open: HTMLDialogElement[] = []
  /** Where the element stands in the page while it is away. */
  const home = document.createComment('')

  const isOpen = (each: HTMLDialogElement) => each.isConnected && each.matches(':modal')

  function look(found: Iterable<EventTarget> = []): void {
    for (const each of [...document.querySelectorAll<HTMLDialogElement>('dialog:modal'), ...found]) {
      if (each instanceof HTMLDialogElement && isOpen(each) && !open.includes(each)) open.push(each)
    }
    open = open.filter(isOpen)
    const dialog = open.at(-1)
    if (dialog) {
      if (element.parentElement === dialog) return
      if (!home.isConnected) element.before(home)
      put(dialog, null)
    } else if (home.isConnected) {
      put(home.parentNode!, home)
      home.remove()
    }
  }

  function put(parent: ParentNode & Node, before: Node | null): void {
    parent.insertBefore(element, before)
    moved()
  }

  const seen = (event: Event) => look(event.composedPath())
  const observer = new MutationObserver(() => look())
  observer.observe(document, {subtree: true, attributes: true, attributeFilter: ['open']})
  // Those in shadow roots are seen by the focus that they take.
  const events = ['focusin', 'toggle', 'close'] as const
  for (const each of events) document.addEventListener(each, seen, true)
  look()
  return {
    look: () => look(),
    end() {
      observer.disconnect()
      for (const each of events) document.removeEventListener(each, seen, true)
      home.remove()
    },
  }
}
