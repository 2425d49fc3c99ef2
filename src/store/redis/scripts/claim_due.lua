#!lua flags=allow-oom
-- Claims what is due: moves its score to the end of a lease, which is the fence of its settlement.
-- KEYS: 1 due   ARGV: 1 limit, 2 lease ms, its fraction says who claims   -> {now, fence, score of the next one or -1, members...}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local fence = now + ARGV[2] -- a fraction: claimed, and by whom
local reply = {now, fence * 2048, -1} -- answers have whole numbers only
if tonumber(ARGV[1]) > 0 then
  local members = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
  for n, member in ipairs(members) do
    redis.call('ZADD', KEYS[1], 'XX', fence, member)
    reply[3 + n] = member
  end
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if first[2] then reply[3] = tonumber(first[2]) end
return reply
