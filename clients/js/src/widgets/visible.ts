/** Whether anybody can see a page of this browser: each visible one holds a lock as long as it is. */
const SEEN = 'pov-rt:visible'
const page = globalThis.document as Document | undefined

let release: (() => void) | undefined

function claim(): void {
  release?.()
  release = undefined
  if (!page!.hidden) {
    navigator.locks?.request(SEEN, {mode: 'shared'}, () => page!.hidden ? undefined
      : new Promise<void>(resolve => { release = resolve })).catch(() => {
      // A page that has no origin has no locks.
    })
  }
}
if (page) {
  page.addEventListener('visibilitychange', claim)
  claim()
}

/** Whether this page is visible, or another tab of the browser that has such an element. */
export async function isAnyVisible(): Promise<boolean> {
  const {held = []} = await navigator.locks?.query() ?? {}
  return !document.hidden || held.some(each => each.name === SEEN)
}
