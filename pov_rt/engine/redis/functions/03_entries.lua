-- Entries, and the other list that has them.
--
-- An entry is in its topic's list and in its feed's. Each says where the other one is (`place`), and
-- is believed when the other one says so, too: either may have gone, and its topic begun anew.

-- A place is empty, or ">partition offset feed" in a topic's list, "<partition offset topic" in a
-- feed's. No topic and no origin has a zero byte.

local function read_entry(value)
  return string.match(value, '^(%d+) %d+%z([^%z]*)%z([^%z]*)%z(.*)$')
end

local function write_entry(at, offset, origin, place, body)
  return at .. ' ' .. text(offset) .. '\0' .. origin .. '\0' .. place .. '\0' .. body
end

-- Which side an entry is on, and the partition, offset and topic of the other one.
local function read_place(place)
  local side, partition, offset, topic = string.match(place, '^([<>])(%d+) (%d+) (.*)$')
  return side, partition, tonumber(offset), topic
end

local function write_place(side, prefix, offset, topic)
  return side .. partition_of(prefix) .. ' ' .. text(offset) .. ' ' .. topic
end

-- Where an entry is: its list's key and place in that, and what it consists of. `now` is given where
-- one may write: else nothing may be found in a list that is still to be mended.
local function find_entry(prefix, topic, offset, now)
  local state = now and open_state(prefix, topic, now) or read_state(prefix, topic)
  if not state or offset < 1 or offset > state.offset then
    return nil
  end
  local key, index = prefix .. 's:' .. topic, offset - state.offset - 1
  local value = redis.call('LINDEX', key, index)
  if not value or offset_of(value) ~= offset then
    return nil
  end
  local at, origin, place, body = read_entry(value)
  return {
    key = key, index = index, prefix = prefix, topic = topic, offset = offset,
    at = at, origin = origin, place = place, body = body,
  }
end

-- Where else an entry is; `now` as above.
local function twin_of(entry, now)
  if entry.place == '' then
    return nil
  end
  local side, partition, offset, topic = read_place(entry.place)
  local other = find_entry(sibling(entry.prefix, partition), topic, offset, now)
  if not other or other.place == '' then
    return nil
  end
  local its_side, its_partition, its_offset, its_topic = read_place(other.place)
  local agrees = its_side ~= side and its_offset == entry.offset and its_topic == entry.topic
    and its_partition == partition_of(entry.prefix)
  return agrees and other or nil
end

-- The entry of a feed that is this one, of a topic, if it is there.
local function fed_of(entry, now)
  return entry.place ~= '' and read_place(entry.place) == '>' and twin_of(entry, now)
end

-- Another body for an entry that was found, and what else is said of it.
local function set_entry(entry, body, place, origin)
  redis.call('LSET', entry.key, entry.index, write_entry(entry.at, entry.offset, origin, place, body))
end
