/**
 * A virtual screen reader on a component. The one from guidepup does not know of shadow trees, so it is given
 * what is in the component's own: one reader for each element at the top of it. What a page puts into slots is
 * not read; the tests ask the browser's own accessibility tree for what is between the two.
 */
import {Virtual} from '@guidepup/virtual-screen-reader'
import {pass} from './clock.ts'

/** A live region's phrase, and when it was spoken, ms after the reader began. */
export interface Spoken {
  at: number
  /** `polite` or `assertive`. */
  how: string
  phrase: string
}

export class Reader {
  readonly #readers: readonly Virtual[]
  readonly #began = Date.now()
  readonly #heard = new Map<Virtual, number>()
  readonly #spoken: Spoken[] = []

  private constructor(readers: readonly Virtual[]) {
    this.#readers = readers
  }

  static async start(widget: Element): Promise<Reader> {
    const tops = [...widget.shadowRoot!.children].filter(each => !/^(style|slot|link)$/i.test(each.tagName))
    const readers = await Promise.all(tops.map(async container => {
      const reader = new Virtual()
      await reader.start({container: container as HTMLElement, window})
      return reader
    }))
    return new Reader(readers)
  }

  /** Listen for `ms` of the page's time; all that live regions have said since the beginning. */
  async listen(ms: number): Promise<Spoken[]> {
    await this.#hear()
    await pass(ms, () => this.#hear())
    return this.#spoken
  }

  async #hear(): Promise<void> {
    const at = Date.now() - this.#began
    for (const reader of this.#readers) {
      const log = await reader.spokenPhraseLog()
      for (const each of log.slice(this.#heard.get(reader) ?? 0)) {
        const [, how, phrase] = /^(polite|assertive): (.*)$/s.exec(each) ?? []
        // A region that is emptied says nothing.
        if (how && phrase?.trim()) this.#spoken.push({at, how, phrase: phrase.trim()})
      }
      this.#heard.set(reader, log.length)
    }
  }

  /** All that is read from the top to the end; what is longer than `most` phrases is cut. */
  async readAll(most = 400): Promise<string[]> {
    const all: string[] = []
    for (const reader of this.#readers) {
      const first = reader.activeNode
      for (let i = 0; i < most; i++) {
        await reader.next()
        // After the last one it begins again.
        if (reader.activeNode === first) break
        all.push(await reader.lastSpokenPhrase())
      }
    }
    return all
  }

  async stop(): Promise<void> {
    await Promise.all(this.#readers.map(each => each.stop()))
  }
}
