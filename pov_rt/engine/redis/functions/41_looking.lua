-- Looking through what is there, some of it in a step.

-- args: cursor. Returns the next cursor and some topics that have a log.
define('topics', {'no-writes'}, function(prefix, args, now)
  local page = redis.call('HSCAN', prefix .. 'm', args[1], 'COUNT', 500)
  local found = {page[1]}
  for number = 1, #page[2], 2 do
    -- One that is only watched may have a state as well, and nothing in it.
    if string.sub(page[2][number + 1], 1, 2) ~= '0 ' then
      found[#found + 1] = page[2][number]
    end
  end
  return found
end)

-- args: topic, after which offset, how many, how many bytes of them at most, but for the last one
-- Returns the newest offset, the one that was looked at last, and offset, at, origin and body of
-- each entry that was appended to this topic, or that only this feed has; nothing where `rotate` is to
-- be called.
define('look', {'no-writes'}, function(prefix, args, now)
  local topic, after, room = args[1], tonumber(args[2]), tonumber(args[4])
  local state, has_log = peek_state(prefix, topic)
  if not state then
    return false
  end
  if not has_log then
    return {0, 0}
  end
  local key = prefix .. 's:' .. topic
  local oldest = state.offset - redis.call('LLEN', key) + 1
  local offset = math.max(after + 1, oldest)
  local values = redis.call(
    'LRANGE', key, offset - oldest, offset - oldest + tonumber(args[3]) - 1)
  local found, last = {state.offset, 0}, offset - 1
  for _, value in ipairs(values) do
    local at, origin, place, body = read_entry(value)
    local entry = {prefix = prefix, topic = topic, offset = offset, place = place}
    if place == '' or read_place(place) == '>' or not twin_of(entry) then
      for _, each in ipairs({offset, at, origin, body}) do
        found[#found + 1] = each
      end
    end
    last, offset, room = offset, offset + 1, room - #body
    if room <= 0 then
      break
    end
  end
  found[2] = last
  return found
end)
