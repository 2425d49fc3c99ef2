#!lua flags=allow-oom
-- KEYS: 1 processes   ARGV: 1 the caller, 2.. names that it has given up   -> {now, name, last beat, name, last beat...}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], ARGV[1], now)
for n = 2, #ARGV do
  if redis.call('HEXISTS', KEYS[1], ARGV[n]) == 1 then redis.call('HSET', KEYS[1], ARGV[n], 0) end
end
local reply = redis.call('HGETALL', KEYS[1])
table.insert(reply, 1, now)
return reply
