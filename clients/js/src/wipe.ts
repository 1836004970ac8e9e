/** What only sign-out needs. */

/** How long the deletion is waited for, ms: a frozen tab may hold the database for hours; it is then emptied. */
const PATIENCE = 2_000

/**
 * Delete everything that is stored of a user, or of all where none is named: who signs out before the page
 * could learn who it is means whoever it was. Resolves when it is gone, cannot be there, or is held.
 */
export async function wipe(scope: string): Promise<void> {
  const late = new Promise(resolve => { setTimeout(resolve, PATIENCE) })
  const all = scope ? [] : await globalThis.indexedDB?.databases().catch(() => []) ?? []
  const ours = scope ? [scope] : all.map(({name = ''}) => name).filter(name => name.startsWith('pov-rt:'))
  await Promise.race([Promise.all(ours.map(wipeOne)), late])
}

/** It is emptied first: the database itself stays for as long as a frozen tab has it open. */
async function wipeOne(scope: string): Promise<void> {
  try {
    const opening = indexedDB.open(scope)
    opening.onupgradeneeded = () => opening.transaction!.abort() // there was none
    await new Promise(resolve => { opening.onsuccess = opening.onerror = resolve })
    const {result} = opening
    const names = [...result.objectStoreNames]
    const emptying = result.transaction(names, 'readwrite')
    for (const each of names) emptying.objectStore(each).clear()
    result.close()
    await new Promise(resolve => { emptying.oncomplete = emptying.onabort = resolve })
    const request = indexedDB.deleteDatabase(scope)
    await new Promise(resolve => { request.onsuccess = request.onerror = resolve })
  } catch {} // there is none, or storage is denied
}
