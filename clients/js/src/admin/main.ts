/** The page at the admin port: the node in numbers, and what is on it, what is worst first. */
import '../widgets/icons-more.js'
import {Admin} from './admin.js'

customElements.define('pov-admin', Admin)
