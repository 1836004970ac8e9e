/** How buttons, avatars and sentences look: a sheet for whatever draws them. */
import {sheetOf} from './element.js'
import text from './parts.css'

export const parts = sheetOf(text)
