/** What is loaded when it is used; see `Panels`. */
import {html} from 'lit'
import type {Panels} from '../api.js'

export const sheet: Panels['sheet'] = new CSSStyleSheet()
const none = () => html``
export const filterPanel: Panels['filterPanel'] = none
export const filterChips: Panels['filterChips'] = none
export const filterEmpty: Panels['filterEmpty'] = none
export const notificationsPanel: Panels['notificationsPanel'] = none
export const presencePanel: Panels['presencePanel'] = none
export const menuPanel: Panels['menuPanel'] = none
export const digest: Panels['digest'] = none
export const fits: Panels['fits'] = () => true
export const toHash: Panels['toHash'] = (_filter, hash) => hash
export const fromHash: Panels['fromHash'] = () => ({})
