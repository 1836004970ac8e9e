/** What panels remember of a feed that is no matter of the feed's: it goes with the element. */
import type {Level} from '../../wire.js'
import type {Filter, PanelHost} from '../api.js'

export interface State {
  /** Of the filter panel: people in the order of when it opened, so that no chip moves under a finger. */
  people: string[]
  /** All of them are shown, not only the first ones. */
  isAll: boolean
  /** The filter that `told` is of. */
  filter?: Filter
  /** How many fit, as it is read out: after each change of the filter, not after each activity. */
  told: string
  /** How loud PoVs are meant to be, until the server has said so. */
  levels: Map<string, Level>
  /** What a PoV was before it was muted for a while, on this page. */
  before: Map<string, Level>
  /** Hours that were switched off, for when they are switched on again. */
  hours?: string
  /** What was typed in the menu, and when last. */
  typed: string
  typedAt: number
  /** What is called when a panel is there, and when it is gone. */
  refs: Map<string, (element?: Element) => void>
}

const states = new WeakMap<object, State>()

/** That of an element. */
export function stateOf(host: PanelHost): State {
  let state = states.get(host)
  if (!state) {
    state = {people: [], isAll: false, told: '', levels: new Map(), before: new Map(), typed: '', typedAt: 0, refs: new Map()}
    states.set(host, state)
  }
  return state
}
