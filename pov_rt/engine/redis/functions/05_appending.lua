-- To append an entry: to its topic's list and its feed's, with what is remembered of it.
--
-- b:<publisher>  when the topics that a publisher began would have been begun one by one, at the
--                rate that it may; in the publisher's partition
-- c:<topic>      channel: what was appended, "e" .. epoch .. " " .. entry

local HOUR_US = 3600 * 1000000
local TRIM_EACH, TRIM_MOST = 16, 64
local SPARE_S, RENEWED_US = 60, 30 * 1000000
local NODES = 1000

local parsed, number_parsed = {}, 0

-- What is kept of the topic and of the feed, and the bounds: the same text most of the time.
local function parse_rules(rules)
  local found = parsed[rules]
  if not found then
    local names = {
      'entries', 'age', 'feed_entries', 'feed_age', 'window', 'topics', 'per_hour', 'producers',
      'producers_each', 'producer_age', 'partitions',
    }
    found = {}
    for value in string.gmatch(rules, '%S+') do
      found[names[1]] = tonumber(value)
      table.remove(names, 1)
    end
    if number_parsed == NODES then
      parsed, number_parsed = {}, 0
    end
    parsed[rules], number_parsed = found, number_parsed + 1
  end
  return found
end

-- Takes some topics from what a publisher may begin in an hour; returns for how long it has to wait
-- if that is too many, else 0.
local function begin_topics(publishers, publisher, number, per_hour, now)
  local key, each = publishers .. 'b:' .. publisher, HOUR_US / per_hour
  local full = math.max(tonumber(redis.call('GET', key) or 0), now) + number * each
  local wait = full - now - HOUR_US
  if wait > 0 then
    return wait
  end
  redis.call('SET', key, text(full), 'PX', math.ceil((full - now) / 1000) + 1000)
  return 0
end

-- Adds an entry to a list, and takes from it what is too much or too old. `last` is when the one
-- before came. How long the list lives is said anew with the first entry of each `RENEWED_US`, which
-- is less than what it outlives its entries by.
local function push(prefix, topic, state, value, entries, age, last)
  local now = state.at
  local key = prefix .. 's:' .. topic
  if state.offset == 1 then
    redis.call('DEL', key) -- half a transaction may have made one without a state (02_lists)
  end
  local number = redis.call('RPUSH', key, value)
  if number > entries then
    redis.call('LTRIM', key, text(-entries), '-1')
  end
  if state.offset % TRIM_EACH == 0 then
    for _ = 1, TRIM_MOST do
      local oldest = redis.call('LINDEX', key, 0)
      if not oldest or tonumber(string.match(oldest, '^%d+')) >= now - age then
        break
      end
      redis.call('LPOP', key)
    end
  end
  if number == 1 or math.floor(now / RENEWED_US) ~= math.floor(last / RENEWED_US) then
    redis.call('EXPIRE', key, text(math.ceil(age / 1000000) + SPARE_S))
  end
  write_state(prefix, topic, state)
end

-- Tells who watches. All is written by then: without the right to a channel the reply says so.
local function tell(prefix, topic, state, value)
  local message = 'e' .. state.epoch .. ' ' .. value
  return type(redis.pcall('PUBLISH', prefix .. 'c:' .. topic, message)) == 'number'
end

-- Why a producer that is not known may not be one more, else nothing.
local function refuse_producer(prefix, new, rules)
  local mine = tonumber(redis.call('HGET', new.publishers .. 'pp', new.publisher) or 0)
  if mine >= rules.producers_each then
    return {'o', mine}
  end
  local number = sum_of('ZCARD', prefix, rules.partitions, 'pz')
  return number >= rules.producers and {'p', number} or nil
end

-- The entry that eleven arguments speak of: topic, id, digest, publisher, publisher's prefix, feed,
-- feed's prefix, origin, producer, its number, body.
local function new_entry(args, start)
  local new = {
    topic = args[start], id = args[start + 1], digest = args[start + 2],
    publisher = args[start + 3], publishers = args[start + 4], feed = args[start + 5],
    feeds = args[start + 6], origin = args[start + 7], producer = args[start + 8],
    seq = tonumber(args[start + 9]), body = args[start + 10],
  }
  if new.producer ~= '' then
    new.name = pair(new.publisher, new.producer)
  end
  return new
end

-- What becomes of an entry that was appended before, else nothing:
--   d, epoch, offset: it was           c, epoch, offset: something else was, with its id
--   o, number, and p, number: see `append_entry`
-- Behind that nothing: when its producer was used last, and what `keep_id` wants.
local function known_entry(prefix, new, rules, state, now)
  local last, used = 0, 0
  if new.name then
    last, used = number_of(prefix, new.topic, new.name, state)
    if used + rules.producer_age <= now then
      last = 0
    end
  end
  local ids, before = find_ids(prefix, new.id, rules.window, state, now)
  for _, id in ipairs(ids) do
    if id.publisher == new.publisher then
      local is_same = id.digest == new.digest
      if is_same and new.name then
        local refused = used == 0 and refuse_producer(prefix, new, rules)
        if refused then
          return refused
        end
        local seq = math.max(new.seq, last)
        keep_number(
          prefix, new.topic, new.name, seq, new.publisher, new.publishers, now, state.epoch,
          state.offset)
      end
      return {is_same and 'd' or 'c', state.epoch, id.offset}
    end
  end
  if new.name and new.seq <= last then
    return {'d', state.epoch, state.offset}
  end
  return nil, used, before
end

-- Appends an entry unless it was before. Returns what became of it: as `known_entry`, or
--   a, epoch, offset, feed's epoch and offset, whether all were told, number of topics or -1
--   t, number: too many topics        h, microseconds to wait: too many of one publisher's
--   p, number: too many producers     o, number: too many of one publisher's
local function append_entry(prefix, new, rules, now)
  local state, has_log = open_state(prefix, new.topic, now)
  local known, used, before = known_entry(prefix, new, rules, state, now)
  if known then
    return known
  end
  local feed_state, has_feed
  if new.feed ~= '' then
    feed_state, has_feed = open_state(new.feeds, new.feed, now)
  end
  local refused = new.name and used == 0 and refuse_producer(prefix, new, rules)
  if refused then
    return refused
  end
  local begun = (has_log and 0 or 1) + (feed_state and not has_feed and 1 or 0)
  local number = -1
  if begun > 0 then
    number = sum_of('HLEN', prefix, rules.partitions, 'm') + begun
    if number > rules.topics then
      return {'t', number - begun}
    end
    local wait = begin_topics(new.publishers, new.publisher, begun, rules.per_hour, now)
    if wait > 0 then
      return {'h', wait}
    end
  end

  -- In a topic time never goes back, whatever the clock does.
  local last, feed_last = state.at, feed_state and feed_state.at or 0
  local at = math.max(now, last, feed_last)
  state.offset, state.at = state.offset + 1, at
  local place, value, feed_value = '', nil, nil
  if feed_state then
    feed_state.offset, feed_state.at = feed_state.offset + 1, at
    place = write_place('>', new.feeds, feed_state.offset, new.feed)
    local source = write_place('<', prefix, state.offset, new.topic)
    feed_value = write_entry(text(at), feed_state.offset, new.origin, source, new.body)
  end
  value = write_entry(text(at), state.offset, new.origin, place, new.body)
  keep_id(prefix, new.id, rules.window, {
    digest = new.digest, offset = state.offset, at = now, epoch = state.epoch,
    publisher = new.publisher,
  }, before)
  push(prefix, new.topic, state, value, rules.entries, rules.age, last)
  if feed_state then
    local entries, age = rules.feed_entries, rules.feed_age
    push(new.feeds, new.feed, feed_state, feed_value, entries, age, feed_last)
  end
  if new.name then
    -- Behind the entry: half a transaction (02_lists) is not to have the number without it.
    keep_number(
      prefix, new.topic, new.name, new.seq, new.publisher, new.publishers, now, state.epoch,
      state.offset)
  end
  local is_told = tell(prefix, new.topic, state, value)
  if feed_state then
    is_told = tell(new.feeds, new.feed, feed_state, feed_value) and is_told
  end
  return {
    'a', state.epoch, state.offset, feed_state and feed_state.epoch or '',
    feed_state and feed_state.offset or 0, is_told and 1 or 0, number,
  }
end
