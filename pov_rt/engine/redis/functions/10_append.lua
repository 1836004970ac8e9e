-- To append: one entry a call, and a batch is so many calls, sent at once.

local NODES = 1000

local batches, places, nodes = {}, {}, 0 -- of each node: what of which batch was done last

-- Whether what stands before an entry in its batch was done. Replies are not waited for, so that
-- else one that was refused would be overtaken by those behind it.
local function follows(node, batch, place)
  if place == 0 then
    return true
  end
  return batches[node] == batch and places[node] == place - 1
end

local function note(node, batch, place)
  if not batches[node] then
    if nodes == NODES then
      batches, places, nodes = {}, {}, 0
    end
    nodes = nodes + 1
  end
  batches[node], places[node] = batch, place
end

-- args: node, batch, place in it, rules, then those of `new_entry`
-- Returns what `append_entry` does, or s: skipped, for what stands before it was not done.
define('append', {}, function(prefix, args, now)
  local node, batch, place = args[1], args[2], tonumber(args[3])
  if not follows(node, batch, place) then
    return {'s'}
  end
  local reply = append_entry(prefix, new_entry(args, 5), parse_rules(args[4]), now)
  if reply[1] == 'a' or reply[1] == 'd' or reply[1] == 'c' then
    note(node, batch, place)
  end
  return reply
end)
