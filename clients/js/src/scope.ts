/** For whom and of which server something is kept or shared in this browser. */

/** Raised when what tabs say to each other, or how rows are stored, changes: the two do not mix. */
export const FORMAT = 1

export interface Claims {
  userId?: string
  teamId?: string
  exp?: number
  povs?: unknown
  can?: unknown
  role?: unknown
}

/** What the token says, unverified: it only names things here; the server verifies it. */
export function claimsOf(token: string): Claims {
  try {
    const part = token.split('.')[1]!.replace(/-/g, '+').replace(/_/g, '/')
    const bytes = Uint8Array.from(atob(part), each => each.charCodeAt(0))
    return JSON.parse(new TextDecoder().decode(bytes)) as Claims
  } catch {
    return {}
  }
}

/**
 * A name for these parts and this format: of a user of a server the database, of those with equal grants the
 * lock and the channel.
 *
 * By FNV-1a of 64 bits (http://www.isthe.com/chongo/tech/comp/fnv/): it keeps apart the few users of one
 * browser, and pages by plain http have no better hash.
 */
export function scopeOf(...parts: unknown[]): string {
  let hash = 0xcbf29ce484222325n
  for (const byte of new TextEncoder().encode(JSON.stringify([FORMAT, ...parts]))) {
    hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n)
  }
  return 'pov-rt:' + hash.toString(16)
}
