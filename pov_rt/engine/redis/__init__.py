"""The engine on a Redis or Valkey server that many nodes share.

**How things lie there.** Names of keys begin with `pr:` (`engine.redis.prefix`) and the number of
a partition in braces, `pr:{017}:`; a topic, a set, a space or a user is always in the same one.
The files of `functions/` say at their heads what each key is and holds:

    m, base, s:TOPIC             where a topic's log is; its entries            02_state, 02_lists
    i:BUCKET, p:TOPIC, pz, pp    ids that were used, producers' last numbers    04_ids
    b:PUBLISHER, c:TOPIC         topics that one may begin; the channel         05_appending
    w:, u:, us, wn               marks                                          50_marks
    l:, n:, v, pr:nodes          members under leases                           51_leases
    x:, xs                       sets                                           52_sets
    k:, ko:, o:, kb, kn          what plugins keep                              53_store
    pr:meta, pr:all              schema and partitions; what all nodes hear     server, reader
    pr:node                      which nodes there are, and whom they hear      health/canary

**Each step is one function inside Redis** (client/library): an entry, its id, its number, its feed
and the publication to those who watch are there together or not at all.

**Three connections** (client/link), each of which comes back by itself: one asks, one appends and
signals (`writer`), one listens (`reader`). What is lost with a connection is sent again if that
does no harm, or its caller is told `Unavailable`, within `engine.redis.deadline_s`.

**What an acknowledged append survives** is asked of the server (`server.survives`), at each
connect and every ten seconds: `primary` without an append-only file (the end of this node, not of
Redis), `second` with `appendfsync everysec`, `disk` with `always`, `replicated` where
`engine.redis.replicas` must have it, and as many are connected: then nobody who could be the next
primary lacks it (client/replicas). `disk` and `second` are about a
loss of power: what Redis has written outlives a crash of Redis.

**Which server** (client/sentinels): the one of the URL, or the one that a majority of the sentinels
calls the primary. No two connections may talk to different ones, so what moves one moves all.

**No hole in silence.** A server process may have lost the end of what the one before it, or
another one, had acknowledged. So each log carries the name of the process that wrote it last;
another process moves it to an epoch that was never there before, in the step that touches it next,
and notes at which offset it left the old one (`02_state`). `Log.holds` answers by that which
places of older epochs are still good. In that step the log is compared with what its entries say of
themselves, for Redis may do half of what was lost later on (`02_lists`).

What listens may miss a publication: positions are compared whenever it has come back, and every ten
seconds (`reader`), and the follower is told `uncertain` of those that have moved. It may see an
entry a moment before its `append` returns.

**What is not promised.** A Redis that throws keys away (`maxmemory-policy`) would break all of
this, and is refused. Its clock says what is too old: one that goes far ahead forgets too early,
and what is forgotten stays so. Ids do not outlive their window, so a retry later than that is
another entry.
"""
