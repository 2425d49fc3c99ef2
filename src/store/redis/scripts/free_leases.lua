#!lua flags=allow-oom
-- Looks at a part of the schedule and makes what one holder has claimed fall due now: its process is gone.
-- KEYS: 1 due   ARGV: 1 holder, 2 rank to go on from or -1, 3 how many to look at, 4 the longest lease ms
-- -> {freed, rank to go on from or -1}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local first, look, holder = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[1])
if first < 0 then first = redis.call('ZCOUNT', KEYS[1], '-inf', now) end -- what is due needs no help
local range = redis.call('ZRANGE', KEYS[1], first, first + look - 1, 'WITHSCORES')
local freed, seen = 0, 0
for at = 1, #range, 2 do
  local score = tonumber(range[at + 1])
  if score > now + ARGV[4] + 1 then return {freed, -1} end
  seen = seen + 1
  if score % 1 * 2048 == holder then
    redis.call('ZADD', KEYS[1], 'XX', now, range[at])
    freed = freed + 1
  end
end
-- What was freed went to ranks before this range, so the rank of the next one is unchanged.
if seen < look then return {freed, -1} end
return {freed, first + seen}
