/** The page of a development server: every message with a form of its own, and what went over the line. */
import '../widgets/icons-more.js'
import {Console} from './console.js'
import {TokenCheck} from './token-view.js'

customElements.define('pov-console-token', TokenCheck)
customElements.define('pov-console', Console)
