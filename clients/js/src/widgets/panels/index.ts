/** The panels of `<pov-team-activity>`, its filter, and its digests: loaded when one is first there; see `Panels`. */
import '../icons-more.js'
import './words.js'
import {sheetOf} from '../element.js'
import text from './panels.css'

export {digest} from './digest.js'
export {filterChips, filterEmpty, filterPanel} from './filter.js'
export {fits, fromHash, toHash} from './fits.js'
export {menuPanel} from './menu.js'
export {notificationsPanel} from './notifications.js'
export {presencePanel} from './presence.js'
export const sheet = sheetOf(text)
