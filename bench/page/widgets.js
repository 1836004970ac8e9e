// Both tags, as the scenario `page` has them: ?server=URL&user=NAME&povs=a b
// Nothing here touches what is measured but an observer, until the first row is there.
const given = new URLSearchParams(location.search)
const SCRIPT = `${given.get('server')}/client/pov-rt-widgets.mjs`

const made = name => {
  const element = document.createElement(name)
  element.setAttribute('pov', given.get('povs'))
  element.setAttribute('token-url', `/token?user=${given.get('user')}`)
  document.body.append(element)
  return element
}
const feed = made('pov-team-activity')
made('pov-activity-notification')
const script = document.createElement('script')
script.type = 'module'
script.src = SCRIPT
document.head.append(script)

/** When the script had come, and when the first row had been painted, ms since the page began. */
const first = (async () => {
  await customElements.whenDefined('pov-team-activity')
  await feed.updateComplete
  const root = feed.shadowRoot
  await new Promise(resolve => {
    const look = () => root.querySelector('[part~=row]') && (observer.disconnect(), resolve())
    const observer = new MutationObserver(look)
    observer.observe(root, {childList: true, subtree: true})
    look()
  })
  await new Promise(resolve => requestAnimationFrame(() => setTimeout(resolve)))
  const [{responseEnd}] = performance.getEntriesByName(SCRIPT)
  return performance.now() - responseEnd
})()

// From the beginning: what is observed later has no long frames of before.
const frames = []
new PerformanceObserver(list => frames.push(...list.getEntries())).observe({type: 'long-animation-frame'})
const presses = []
new PerformanceObserver(list => presses.push(...list.getEntries().filter(each => each.interactionId)))
  .observe({type: 'event', durationThreshold: 16})

Object.assign(globalThis, {
  first: () => first,
  /** Forget what was observed. */
  begin() { frames.length = presses.length = 0 },
  found: () => ({
    frames: frames.map(({duration}) => duration),
    presses: presses.map(({duration, name}) => [duration, name]),
  }),
  /** Resolves when the store has so many of a PoV, and they were painted. */
  async has(pov, offset) {
    while (!(feed.snapshot?.povs.get(pov)?.position?.offset >= offset)) {
      await new Promise(resolve => setTimeout(resolve, 20))
    }
    await new Promise(resolve => requestAnimationFrame(() => setTimeout(resolve)))
    return feed.shadowRoot.querySelectorAll('*').length
  },
})
