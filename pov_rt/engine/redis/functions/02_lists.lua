-- The lists of entries, and what mends one.
--
-- s:<topic>  list of entries, the newest last: "at offset \0 origin \0 place \0 body"
--
-- An entry says its own offset, so that a list can be compared with the state of its log. They differ
-- after a loss of power: of a transaction that its file has a part of, Redis 7.0 leaves that part
-- there, and does it at the start after the next. Then an entry that was lost is in the list again,
-- and one that was rewritten since may stand in the place of another one.

local LOOKED = 100

local function offset_of(value)
  return tonumber(string.match(value, '^%d+ (%d+)%z'))
end

local function is_whole(key, length, last)
  return offset_of(redis.call('LINDEX', key, -1)) == last
    and offset_of(redis.call('LINDEX', key, 0)) == last - length + 1
end

-- Leaves one entry at each offset up to the last one. Of two that say the same one the one nearer the
-- end stays: what is in another one's place is behind where it belongs. That other one is lost, and its
-- place has no body, as of one that was erased. Only what is before more holes than entries goes.
local function mend_list(key, last)
  local length = redis.call('LLEN', key)
  if length == 0 or is_whole(key, length, last) then
    return
  end
  local found, first = {}, last + 1
  for seen = 0, length - 1, LOOKED do
    local values = redis.call('LRANGE', key, -seen - LOOKED, -seen - 1)
    for at = #values, 1, -1 do
      local offset = offset_of(values[at])
      if offset and offset <= last and offset > last - 2 * length and not found[offset] then
        found[offset] = values[at]
        first = math.min(first, offset)
      end
    end
  end
  local at
  for offset = first, last do
    local value = found[offset]
    if value then
      at = string.match(value, '^%d+')
    else
      value = at .. ' ' .. text(offset) .. '\0\0\0'
      redis.log(redis.LOG_WARNING, 'pov-rt: ' .. key .. ' has lost its entry ' .. text(offset))
    end
    redis.call('RPUSH', key, value)
  end
  redis.call('LTRIM', key, length, -1)
end
