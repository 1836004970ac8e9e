-- Answers who one talks to: the process and its clock.
define('probe', {'no-writes'}, function(prefix, args, now)
  return {this_run(), text(now)}
end)

-- What all functions do, each on a key that is gone at the end. A test compares the list with them.
local TRIED = {
  'SET ?s 1', 'GET ?s', 'MGET ?s', 'INCR ?s', 'INCRBY ?s 1', 'DECR ?s', 'EXPIRE ?s 9',
  'PEXPIRE ?s 9', 'EXISTS ?s',
  'HSET ?h a 1', 'HSETNX ?h a 1', 'HGET ?h a', 'HMGET ?h a', 'HEXISTS ?h a', 'HKEYS ?h',
  'HLEN ?h', 'HINCRBY ?h a 1', 'HSCAN ?h 0', 'HDEL ?h a',
  'RPUSH ?l 1', 'LSET ?l 0 1', 'LINDEX ?l 0', 'LLEN ?l', 'LRANGE ?l 0 0', 'LTRIM ?l 0 0',
  'LPOP ?l',
  'SADD ?m a', 'SCARD ?m', 'SREM ?m a', 'SPOP ?m 1',
  'ZADD ?z 1 a', 'ZCARD ?z', 'ZSCORE ?z a', 'ZCOUNT ?z 0 1', 'ZRANGE ?z 0 0',
  'ZRANGEBYLEX ?z - +', 'ZRANGEBYSCORE ?z 0 1', 'ZSCAN ?z 0', 'ZREM ?z a',
  'ZREMRANGEBYSCORE ?z 0 1',
  'PUBLISH ?c 1', 'PUBSUB CHANNELS ?c', 'PUBSUB NUMSUB ?c', 'INFO server', 'TIME',
  'UNLINK ?s', 'DEL ?s ?h ?l ?m ?z',
}

-- Returns the commands that the user may not give, or not with our keys and channels.
define('rights', {'allow-oom'}, function(prefix, args, now)
  local denied = {}
  for _, line in ipairs(TRIED) do
    local words = {}
    for word in string.gmatch(line, '%S+') do
      words[#words + 1] = (string.gsub(word, '^%?', prefix .. '?'))
    end
    local reply = redis.pcall(unpack(words))
    if type(reply) == 'table' and reply.err and string.find(reply.err, 'user executing', 1, true) then
      denied[#denied + 1] = words[1]
    end
  end
  return denied
end)
