#!lua flags=allow-oom
-- Makes deliveries that the caller still holds fall due at once.
-- KEYS: 1 due   ARGV: per delivery: member, fence   -> how many
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local count = 0
for at = 1, #ARGV, 2 do
  local score = redis.call('ZSCORE', KEYS[1], ARGV[at])
  if score and tonumber(score) == ARGV[at + 1] / 2048 then
    redis.call('ZADD', KEYS[1], now, ARGV[at])
    count = count + 1
  end
end
return count
