-- The lists of entries, and what mends one.
--
-- s:<topic>  list of entries, the newest last: "at offset \0 origin \0 place \0 body"
--
-- An entry says its own offset, so that a list can be compared with the state of its log. They differ
-- after a loss of power: of a transaction that its file has a part of, Redis 7.0 leaves that part
-- there, and does it at the start after the next. Then an entry that was lost is in the list again,
-- and one that was rewritten since may stand in the place of another one.

local STRAY, LOOKED = '', 100

local function offset_of(value)
  return tonumber(string.match(value, '^%d+ (%d+)%z'))
end

local function is_whole(key, length, last)
  return offset_of(redis.call('LINDEX', key, -1)) == last
    and offset_of(redis.call('LINDEX', key, 0)) == last - length + 1
end

-- Leaves the entries that end with an offset and miss none: no other one stays among them, and none
-- that is behind a hole.
local function mend_list(key, last)
  local length = redis.call('LLEN', key)
  if length == 0 or is_whole(key, length, last) then
    return
  end
  local wanted, seen = last, 0 -- seen from the end on
  local is_hole = false
  while seen < length and not is_hole do
    local values = redis.call('LRANGE', key, -seen - LOOKED, -seen - 1)
    for at = #values, 1, -1 do
      local offset = offset_of(values[at])
      is_hole = offset and offset < wanted
      if is_hole then
        break
      elseif offset == wanted then
        wanted = wanted - 1
      else
        redis.call('LSET', key, -seen - 1, STRAY)
      end
      seen = seen + 1
    end
  end
  redis.call('LTRIM', key, length - seen, -1)
  redis.call('LREM', key, 0, STRAY)
end
