/** All of `<pov-activity-notification>` that is there once something may have to be shown. */
import {sheetOf} from '../element.js'
import '../icons-more.js'
import '../words-more.js'
import './words.js'
import text from './toasts.css'

export {allowDesktop, desktopState} from './desktop.js'
export {hear} from './sound.js'
// Needed with the feed, all that the two share stays in one file of the first load: two compress 1 KB worse.
export {TeamActivity} from '../team-activity.js'
export {ToastView} from './view.js'

/** Of what toasts add to the parts that all have. */
export const sheet = sheetOf(text)
