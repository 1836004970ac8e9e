-- Other bodies for entries that are there, wherever they are; and topics that go.
--
-- rewritten  sorted set: topics with other bodies by when that was; a key of no partition

-- Replaces a body wherever it is; names the topics that have it as the keys of `touched`.
local function rewrite(entry, body, touched, now)
  for _, each in ipairs({entry, twin_of(entry, now)}) do
    set_entry(each, body, each.place, each.origin)
    touched[each.topic] = true
  end
end

-- How long it is known which topics were rewritten, for a node that does not hear it just then.
local KNOWN_US = 3600 * 1000000

-- Tells all nodes of topics, watched or not.
local function tell_rewritten(prefix, touched, now)
  local known, names = shared(prefix, 'rewritten'), {}
  for topic in pairs(touched) do
    names[#names + 1] = topic
  end
  if #names == 0 then
    return
  end
  table.sort(names)
  redis.call('ZREMRANGEBYSCORE', known, '-inf', text(now - KNOWN_US))
  for _, topic in ipairs(names) do
    redis.call('ZADD', known, text(now), topic)
    redis.pcall('PUBLISH', shared(prefix, 'all'), 'r' .. topic)
  end
end

-- args: of each rewrite prefix, topic, offset, old body, body
-- Returns for each whether it was done.
define('edit', {}, function(prefix, args, now)
  local done, touched = {}, {}
  for at = 1, #args, 5 do
    local its, topic, offset, old, body = unpack(args, at, at + 4)
    local entry = find_entry(its, topic, tonumber(offset), now)
    local is_meant = entry and entry.body == old
    if is_meant then
      rewrite(entry, body, touched, now)
    end
    done[#done + 1] = is_meant and 1 or 0
  end
  tell_rewritten(prefix, touched, now)
  return done
end)

-- args: rules, the new entry's eleven, and of each rewrite prefix, topic, offset, old body, body; the
--       first one is in the topic that the new entry goes to
-- Returns what became of the new entry, as `append` does, and the feed that it went to; n where an
-- entry is not there, or has another body.
define('amend', {}, function(prefix, args, now)
  local rules, new, rewrites = parse_rules(args[1]), new_entry(args, 2), {}
  local state = open_state(prefix, new.topic, now)
  local known, used = known_entry(prefix, new, rules, state, now)
  if known then
    return known
  end
  for at = 13, #args, 5 do
    local entry = find_entry(args[at], args[at + 1], tonumber(args[at + 2]), now)
    if not entry or entry.body ~= args[at + 3] then
      return {'n'}
    end
    rewrites[#rewrites + 1] = {entry = entry, body = args[at + 4]}
  end
  local side, partition, _, feed = read_place(rewrites[1].entry.place)
  local feeds = side == '>' and sibling(prefix, partition)
  if feeds and (read_state(feeds, feed) or {offset = 0}).offset > 0 then
    new.feed, new.feeds = feed, feeds
  end
  local refused = new.name and used == 0 and refuse_producer(prefix, new, rules)
  if refused then
    return refused
  end
  local touched = {}
  for _, each in ipairs(rewrites) do
    rewrite(each.entry, each.body, touched, now)
  end
  tell_rewritten(prefix, touched, now)
  local done = append_entry(prefix, new, rules, now)
  done[#done + 1] = new.feed
  return done
end)

-- args: microseconds since 1970. Returns the topics that were rewritten since, of the last hour.
define('rewritten_since', {'no-writes'}, function(prefix, args, now)
  return redis.call('ZRANGEBYSCORE', shared(prefix, 'rewritten'), args[1], '+inf')
end)

-- args: topic, how many
-- Returns the epoch, the first offset that is still there, and for each of the oldest entries its
-- body if a feed has it, too, else nothing. An empty list of a topic without a log; nothing where
-- `rotate` is to be called.
define('drop_page', {'no-writes'}, function(prefix, args, now)
  local topic = args[1]
  local state, has_log = peek_state(prefix, topic)
  if not state then
    return false
  end
  if not has_log or state.offset == 0 then
    return {}
  end
  local first = state.offset - redis.call('LLEN', prefix .. 's:' .. topic) + 1
  local found = {state.epoch, first}
  for offset = first, math.min(state.offset, first + tonumber(args[2]) - 1) do
    local entry = find_entry(prefix, topic, offset)
    local is_fed = fed_of(entry)
    found[#found + 1] = is_fed and entry.body or false
  end
  return found
end)

-- args: topic, epoch, first offset, how many, what the topic's ids begin with, their window; then a
--       feed's new body of each that a feed has
-- Removes the oldest entries of a topic, and the topic itself with the last one. Returns whether it
-- was, or nothing where the topic is not any more what it was.
define('drop_some', {'allow-oom'}, function(prefix, args, now)
  local topic, first, number = args[1], tonumber(args[3]), tonumber(args[4])
  local key, state = prefix .. 's:' .. topic, read_state(prefix, topic)
  if not state or state.epoch ~= args[2] then
    return false
  end
  if state.offset - redis.call('LLEN', key) + 1 ~= first then
    return false
  end
  local twins, touched = {}, {}
  for offset = first, first + number - 1 do
    twins[#twins + 1] = fed_of(find_entry(prefix, topic, offset, now), now) or nil
  end
  if #twins ~= #args - 6 then
    return false -- some have left the feed meanwhile
  end
  for at, twin in ipairs(twins) do
    set_entry(twin, args[6 + at], '', '')
    touched[twin.topic] = true
  end
  redis.call('LTRIM', key, number, -1)
  tell_rewritten(prefix, touched, now)
  if redis.call('EXISTS', key) == 1 then
    return 0
  end
  forget_topic(prefix, topic, args[5], tonumber(args[6]), now)
  redis.pcall('PUBLISH', prefix .. 'c:' .. topic, 'u')
  return 1
end)
