/** What only sign-out needs. */

/**
 * Delete everything that is stored of a user; resolves when it is gone, or cannot be there.
 *
 * It is emptied first: the database itself stays for as long as a frozen tab has it open, maybe hours.
 */
export async function wipe(scope: string): Promise<void> {
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
    await new Promise(resolve => {
      request.onsuccess = request.onerror = resolve
      setTimeout(resolve, 1000) // not every browser says that it is blocked
    })
  } catch {} // there is none, or storage is denied
}
