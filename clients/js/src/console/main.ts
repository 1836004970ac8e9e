/** The page of a development server: every message with a form of its own, and what went over the line. */
import tokens from '../widgets/tokens.css'
import '../widgets/icons-more.js'
import {Console} from './console.js'
import {TokenCheck} from './token-view.js'

const sheet = new CSSStyleSheet()
sheet.replaceSync(tokens)
// Before the page's own, which builds on it.
document.adoptedStyleSheets = [sheet]
customElements.define('pov-console-token', TokenCheck)
customElements.define('pov-console', Console)
