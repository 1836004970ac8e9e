/** For whom and of which server something is kept or shared in this browser. */

/** Raised when what tabs say to each other, or how rows are stored, changes: the two do not mix. */
export const FORMAT = 1

/** What the token says, unverified: it only names things here; the server verifies it. */
export function claimsOf(token: string): {userId?: string; teamId?: string; exp?: number} {
  try {
    const part = token.split('.')[1]!.replace(/-/g, '+').replace(/_/g, '/')
    const bytes = Uint8Array.from(atob(part), each => each.charCodeAt(0))
    return JSON.parse(new TextDecoder().decode(bytes)) as {userId?: string}
  } catch {
    return {}
  }
}

/**
 * The name of the lock, the channel and the database of a user of a server.
 *
 * Twice FNV-1a of 32 bits (http://www.isthe.com/chongo/tech/comp/fnv/) with different beginnings: it
 * keeps apart the few users of one browser, and pages by plain http have no better hash.
 */
export function scopeOf(server: string, user: string): string {
  const bytes = new TextEncoder().encode(JSON.stringify([server, user, FORMAT]))
  return 'pov-rt:' + [0x811c9dc5, 0x1000193]
    .map(start => bytes.reduce((hash, each) => Math.imul(hash ^ each, 0x1000193) >>> 0, start))
    .map(each => each.toString(16).padStart(8, '0'))
    .join('')
}

/** Delete everything that is stored of a user; resolves when it is gone, or cannot be there. */
export function wipe(scope: string): Promise<void> {
  return new Promise(resolve => {
    if (!globalThis.indexedDB) return resolve()
    const request = indexedDB.deleteDatabase(scope)
    request.onsuccess = request.onerror = () => resolve()
  })
}
