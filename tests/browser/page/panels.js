// The feed with names: ?user=ana&povs=bank,freight and, where wanted, &dir=rtl, &theme=dark, &quiet=19:00-08:00
import '/client/pov-rt-widgets.mjs'

// What the policy forbids is an error of the page.
addEventListener('securitypolicyviolation', ({violatedDirective, sample}) => {
  reportError(new Error(`forbidden by ${violatedDirective}: ${sample}`))
})

const given = new URLSearchParams(location.search)
document.documentElement.dir = given.get('dir') ?? 'ltr'

const NAMES = {ana: 'Ana Ruiz', jonas: 'Jonas Weber', mei: 'Mei Tanaka', ife: 'Ife Okafor', priya: 'Priya Raman'}
window.feed = Object.assign(document.createElement('pov-team-activity'), {
  tokenUrl: `/token?user=${given.get('user')}`,
  pov: given.get('povs').replaceAll(',', ' '),
  theme: given.get('theme') ?? 'light',
  filterInUrl: true,
  povs: {bank: 'Mossgate Bank', freight: 'Brindle Freight', air: 'Quillon Air'},
  people: Object.fromEntries(Object.entries(NAMES).map(([id, name]) => [id, {name}])),
})
document.querySelector('main').append(feed)
