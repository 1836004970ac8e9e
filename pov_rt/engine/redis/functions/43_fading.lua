-- What is too old where it was appended to becomes a stub in its feed.

-- args: feed, after which offset, how many
-- Returns now, the offset that was looked at last, or nothing behind the end, then offset, instant
-- and topic of each entry that has come from one; nothing at all where `rotate` is to be called.
define('fed', {'no-writes'}, function(prefix, args, now)
  local feed, found = args[1], {text(now), false}
  local state, has_log = peek_state(prefix, feed)
  local key = prefix .. 's:' .. feed
  if not state then
    return false
  end
  if not has_log then
    return found
  end
  local oldest = state.offset - redis.call('LLEN', key) + 1
  local offset = math.max(tonumber(args[2]) + 1, oldest)
  local last = offset - oldest + tonumber(args[3]) - 1
  for _, value in ipairs(redis.call('LRANGE', key, offset - oldest, last)) do
    local at, _, place = read_entry(value)
    local side, _, _, source = read_place(place)
    if side == '<' then
      for _, each in ipairs({offset, at, source}) do
        found[#found + 1] = each
      end
    end
    found[2], offset = offset, offset + 1
  end
  return found
end)

-- args: feed, offsets. Returns the epoch, and the body of each, nothing of one that has left.
define('fed_bodies', {'no-writes'}, function(prefix, args, now)
  local state = read_state(prefix, args[1])
  local found = {state and state.epoch or ''}
  for number = 2, #args do
    local entry = find_entry(prefix, args[1], tonumber(args[number]))
    found[#found + 1] = entry and entry.body or false
  end
  return found
end)

-- args: feed, epoch, then offset, body and stub of each
-- Leaves stubs of entries whose body still is that one: they are the feed's own then.
define('fade', {'allow-oom'}, function(prefix, args, now)
  local state = read_state(prefix, args[1])
  if not state or state.epoch ~= args[2] then
    return 0
  end
  for at = 3, #args, 3 do
    local entry = find_entry(prefix, args[1], tonumber(args[at]))
    if entry and entry.body == args[at + 1] then
      set_entry(entry, args[at + 2], '', '')
    end
  end
  return 1
end)
