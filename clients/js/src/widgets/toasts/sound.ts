/** Two short sounds, made here: no file to load. Off until somebody pressed for them. */
import {prefer, preferences} from '../preferences.js'

/** Frequency in Hz, start in s, decay in s, peak gain. */
type Note = readonly [hertz: number, start: number, decay: number, peak: number]

const NOTES: Readonly<Record<SoundName, readonly Note[]>> = {
  arrive: [[659.3, 0, 0.16, 0.05], [987.8, 0.07, 0.16, 0.04]],
  attend: [[392, 0, 0.12, 0.06], [392, 0.11, 0.12, 0.06], [587.3, 0.22, 0.2, 0.07]],
}
const ATTACK = 0.006
const SILENT = 0.0001
const CUTOFF = 4_000
/** One sound in a browser in this time, ms: a tab that played keeps the others from it. */
const REST = 10_000

/** `arrive`: something came. `attend`: it asks for you. */
export type SoundName = 'arrive' | 'attend'

let context: AudioContext | undefined
let playedAt = -REST

/** Make ready within a press, which is all that browsers allow it in. */
function wake(): void {
  context ??= new AudioContext()
  if (context.state === 'suspended') void context.resume()
}

// Turned on before: the first press on the page is what it waits for.
for (const event of ['pointerdown', 'keydown'] as const) {
  addEventListener(event, () => { if (preferences().sound) wake() }, {capture: true, passive: true})
}

function sound(notes: readonly Note[]): void {
  const to = context!
  const filter = new BiquadFilterNode(to, {type: 'lowpass', frequency: CUTOFF})
  filter.connect(to.destination)
  for (const [frequency, start, decay, peak] of notes) {
    const at = to.currentTime + start
    const tone = new OscillatorNode(to, {type: 'sine', frequency})
    const gain = new GainNode(to, {gain: 0})
    gain.gain.setValueAtTime(0, at)
    gain.gain.linearRampToValueAtTime(peak, at + ATTACK)
    gain.gain.exponentialRampToValueAtTime(SILENT, at + ATTACK + decay)
    tone.connect(gain).connect(filter)
    tone.start(at)
    tone.stop(at + ATTACK + decay)
  }
}

/** "Hear it": call in a press; it sounds, and sounds are on from then on, in this browser. */
export function hear(name: SoundName = 'arrive'): void {
  wake()
  prefer({sound: true})
  sound(NOTES[name])
}

/**
 * Play, if sounds are on and the page was pressed: once in 10 s in all tabs of a browser. Where there are no locks
 * (plain http), once in 10 s in each tab.
 */
export async function play(name: SoundName): Promise<void> {
  const now = performance.now()
  if (!preferences().sound || context?.state !== 'running' || now - playedAt < REST) return
  playedAt = now
  if (await isFirst('sound', REST)) sound(NOTES[name])
}

/** Whether this tab is the first of the browser's to claim something; for so many ms it stays the only one. */
export async function isFirst(name: string, ms: number): Promise<boolean> {
  if (!navigator.locks) return true
  return new Promise(resolve => {
    navigator.locks.request(`pov-rt:${name}`, {ifAvailable: true}, lock => {
      resolve(!!lock)
      if (lock) return new Promise<void>(done => setTimeout(done, ms))
    }).catch(() => resolve(true)) // a page that has no origin has no other tabs
  })
}
