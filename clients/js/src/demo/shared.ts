/** What the demo's two pages are to each other. */
import type {Position} from '../api.js'

/** Where logs are, by PoV. */
export type Positions = ReadonlyMap<string, Position>

/** What a page shows of what was published after some positions. */
export interface Count {
  /** Those that it shows, each once. */
  readonly shown: number
  /** Those that it knows to be missing, or that are on their way. */
  readonly toCome: number
  /** Those that it lacks, and says that it doesn't. */
  readonly lost: number
  /** By how many rows it shows more than it should. */
  readonly twice: number
}

/** What the page with both boards asks of each; `window.board` of a board. */
export interface BoardPage {
  /** False while its network is cut. */
  readonly isPlugged: boolean
  /** Cut its network, or mend it. */
  plug(isPlugged: boolean): void
  /** Count what it shows of what lies in the logs after `base`, up to `log`. */
  count(base: Positions, log: Positions): Count
  /** Fetch the board anew. */
  reload(): Promise<void>
}

declare global {
  interface Window {
    board?: BoardPage
  }
}

/** What the demo's app answers at `/board`. */
export interface BoardState {
  /** When it began, ms since 1970: comments before that are of an earlier one. */
  since: number
  /** Names, by user id. */
  people: Record<string, string>
  phases: string[]
  povs: Pov[]
}

/** A proof of value: day `day` of `days`, in the phase of that index. */
export interface Pov {
  id: string
  name: string
  day: number
  days: number
  phase: number
  tasks: Task[]
}

/** Something to be done; `who` is to do it. */
export interface Task {
  id: string
  title: string
  who: string
  done: boolean
}

/** In which header a request says whose page it is. */
export const USER = 'Demo-User'
/** Where the demo's app is. */
export const API = '/demo/api'
