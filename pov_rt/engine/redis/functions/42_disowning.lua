-- Ids and producers' numbers that are forgotten before their time, or looked for everywhere.

local STEP = 200

-- The key of this window's ids, or of the one before it.
local function ids_key(prefix, number, window, now)
  return bucket_key(prefix, now - tonumber(number) * window, window)
end

-- args: cursor, window, how many windows ago, the end of an id: what its key makes of it
-- Returns the next cursor, then some of the ids that end so.
define('ids_ending', {'no-writes'}, function(prefix, args, now)
  local key = ids_key(prefix, args[3], tonumber(args[2]), now)
  local pattern = '*' .. literal(args[4])
  local page = redis.call('HSCAN', key, args[1], 'MATCH', pattern, 'COUNT', STEP)
  local found = {page[1]}
  for number = 1, #page[2], 2 do
    found[#found + 1] = page[2][number]
  end
  return found
end)

-- args: cursor, window, how many windows ago, publisher, the instant behind which ids stay
-- Forgets some of a publisher's ids. Returns the next cursor, and how many went.
define('ids_disown', {'allow-oom'}, function(prefix, args, now)
  local window, publisher, last = tonumber(args[2]), args[4], tonumber(args[5])
  local key, gone = ids_key(prefix, args[3], window, now), 0
  local page = redis.call('HSCAN', key, args[1], 'COUNT', STEP)
  for number = 1, #page[2], 2 do
    local value, left = page[2][number + 1], ''
    if string.find(value, publisher, 1, true) then
      for _, id in ipairs(parse_ids(value)) do
        if id.publisher ~= publisher or id.at > last then
          left = left .. id_text(id)
        elseif id.at + window >= now then
          gone = gone + 1
        end
      end
      if left == '' then
        redis.call('HDEL', key, page[2][number])
      elseif left ~= value then
        redis.call('HSET', key, page[2][number], left)
      end
    end
  end
  return {page[1], gone}
end)

-- args: cursor, publisher. Forgets some of a publisher's numbers. Returns the next cursor.
define('producers_disown', {'allow-oom'}, function(prefix, args, now)
  local page = redis.call('ZSCAN', prefix .. 'pz', args[1], 'COUNT', STEP)
  for number = 1, #page[2], 2 do
    local topic, name = unpair(page[2][number])
    if unpair(name) == args[2] then
      forget_number(prefix, topic, name)
    end
  end
  return {page[1]}
end)
